"""The multi-scale, multi-task deblurring network of Shen et al. 2019, and the maps its two tasks work on."""

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_zoo.fft_convolution import Convolution
from model_zoo.options import IDENTITY_WIDTH, Initialisation, Resample, StructureInput

_CHANNELS = 3  # of an image, and of its gradient


def pyramid(images: Tensor, *, scales: int, resample: Resample) -> list[Tensor]:
    """Antialiased halvings of ``images``, coarse to fine; the last level is ``images`` itself.

    images: (B, C, H, W), any range. Level k from the end is (B, C, H / 2^k, W / 2^k), computed from the full
    resolution. Bicubic levels can leave the range of the input a little.
    Raises ValueError when H or W is not a multiple of 2^(scales - 1).
    Source: Shen et al. 2019, section 3.2.
    """
    height, width = images.shape[-2:]
    coarsest = 2 ** (scales - 1)
    if height % coarsest or width % coarsest:
        raise ValueError(
            f"{scales} scales need a height and width that are multiples of {coarsest}, got {height}x{width}"
        )
    factors = [2**k for k in range(scales - 1, 0, -1)]
    return [F.interpolate(images, size=(height // f, width // f), mode=resample, antialias=True) for f in factors] + [
        images
    ]


def gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences (dx, dy) of ``images``: (B, C, H, W) each, in [-1, 1] for images in [0, 1].

    The last column of dx and the last row of dy are zero.
    """
    return F.pad(images.diff(dim=-1), (0, 1)), F.pad(images.diff(dim=-2), (0, 0, 0, 1))


def structure_maps(
    levels: list[Tensor], *, structure_input: StructureInput, choice: Tensor | None = None
) -> list[Tensor]:
    """What the structure task sees (of blurred levels) or is compared to (of sharp ones), level by level.

    levels: (B, C, H, W) each, any order. Returned, each level at its own size:
    "both" dx then dy on the batch dimension (2B, C, H, W); "sum" and "shared" dx + dy (B, C, H, W);
    "random" dx where ``choice`` (B,) is True and dy elsewhere (B, C, H, W), so that its expectation over a
    fair ``choice`` is the mean over "both". ``choice`` is read by "random" only.
    Raises ValueError for an unknown structure_input, and for "random" without a choice.
    Source: Shen et al. 2019, the gradient of B and of I in Eq. 2.
    """
    _check_one_of("structure_input", structure_input, get_args(StructureInput))
    gradients = [gradient(level) for level in levels]
    if structure_input == "both":
        return [torch.cat(pair) for pair in gradients]
    if structure_input == "random":
        if choice is None:
            raise ValueError('structure_input "random" needs a choice, a boolean tensor (B,), got None')
        return [torch.where(choice[:, None, None, None], dx, dy) for dx, dy in gradients]
    return [dx + dy for dx, dy in gradients]


class Generator(nn.Module):
    """Coarse-to-fine restoration network whose weights are shared over the scales.

    Per scale, 18 convolutions: a head of one 11x11 (6 -> width) and two 5x5, each followed by ReLU; residual
    blocks x + conv(relu(conv(relu(x)))); a tail of three 5x5 (the last width -> 3), each *preceded* by ReLU,
    because the blocks leave their sum without one. The last convolution is linear; nothing is normalised,
    clipped or skipped. Six input channels: [upsampled coarser output, blurred], and [blurred, blurred] at the
    coarsest scale. A second task restores the image gradients through the same trunk (head and blocks), with
    its own tail and its own transposed convolution between scales.

    scales: 1 to 3. multi_task: whether there is a structure task; without it structure_input is not read.
    structure_input: see ``structure_maps``; with "shared" the structure tail reads the image's features and
    there is no pass, and no transposed convolution, for the structure itself.
    width: channels of the trunk; blocks: residual blocks; both at least 1.
    resample: of the pyramid in ``forward``.
    initialisation: "default" is PyTorch's; "identity" (width at least 6) makes the untrained network return
    its blurred input exactly, in both tasks. The structure tail of "shared" has no input of its own and keeps
    the default.
    Raises ValueError for values outside these.
    Source: Shen et al. 2019, section 4.1 and Fig. 2.
    """

    def __init__(
        self,
        *,
        scales: int = 2,
        multi_task: bool = True,
        structure_input: StructureInput = "both",
        width: int = 64,
        blocks: int = 6,
        initialisation: Initialisation = "default",
        resample: Resample = "bicubic",
    ) -> None:
        super().__init__()
        _check_one_of("scales", scales, (1, 2, 3))
        _check_one_of("structure_input", structure_input, get_args(StructureInput))
        _check_one_of("initialisation", initialisation, get_args(Initialisation))
        _check_one_of("resample", resample, get_args(Resample))
        least_width = IDENTITY_WIDTH if initialisation == "identity" else 1
        if width < least_width:
            raise ValueError(f"width must be at least {least_width} with {initialisation} initialisation, got {width}")
        if blocks < 1:
            raise ValueError(f"blocks must be at least 1, got {blocks}")

        tasks = ["image", "structure"] if multi_task else ["image"]
        own_pass = [task for task in tasks if task == "image" or structure_input != "shared"]
        # The task whose trunk features each tail reads.
        self._source = {task: task if task in own_pass else "image" for task in tasks}
        self._own_pass = own_pass
        self.scales = scales
        self.resample = resample
        self.trunk = nn.Sequential(
            Convolution(2 * _CHANNELS, width, 11),
            nn.ReLU(inplace=True),
            Convolution(width, width, 5),
            nn.ReLU(inplace=True),
            Convolution(width, width, 5),
            nn.ReLU(inplace=True),
            *(_ResidualBlock(width) for _ in range(blocks)),
        )
        self.tails = nn.ModuleDict({task: _tail(width) for task in tasks})
        self.upsamplers = nn.ModuleDict(
            {
                task: nn.ConvTranspose2d(_CHANNELS, _CHANNELS, 4, stride=2, padding=1)
                for task in (own_pass if scales > 1 else [])
            }
        )
        if initialisation == "identity":
            _identity_trunk_(self.trunk)
            for task in own_pass:
                _identity_tail_(self.tails[task])

    def forward(self, blurred: Tensor) -> Tensor:
        """Restore ``blurred`` at its own size: what inference uses; the structure task does not run.

        blurred: (B, 3, H, W) in [0, 1]. Returns (B, 3, H, W), not clipped.
        Raises ValueError when H or W is not a multiple of 2^(scales - 1).
        """
        levels = pyramid(blurred, scales=self.scales, resample=self.resample)
        restored = self._restore({"image": levels}, ["image"])
        return restored["image"][-1]

    def all_scales(self, levels: list[Tensor], structures: list[Tensor] | None) -> tuple[list[Tensor], list[Tensor]]:
        """Restored images and restored structure maps at every scale, coarse to fine: what training uses.

        levels: ``pyramid(blurred)``, (B, 3, H, W) each.
        structures: ``structure_maps(levels)``, (B or 2B, 3, H, W) each; a single-task network and "shared" do
        not read it (None will do).
        Each output has its input's shape, a structure map of "shared" its image's. A single-task network
        returns no structure map.
        Raises ValueError when the number of levels is not ``scales``.
        """
        inputs = {"image": levels, "structure": structures or []}
        inputs = {task: inputs[task] for task in self._own_pass}
        for task, maps in inputs.items():
            if len(maps) != self.scales:
                raise ValueError(f"the {task} task needs {self.scales} levels, one per scale, got {len(maps)}")
        outputs = self._restore(inputs, list(self._source))
        return outputs["image"], outputs.get("structure", [])

    def _restore(self, inputs: dict[str, list[Tensor]], tasks: list[str]) -> dict[str, list[Tensor]]:
        outputs: dict[str, list[Tensor]] = {task: [] for task in tasks}
        for scale in range(self.scales):
            pairs = [
                torch.cat([self.upsamplers[task](outputs[task][-1]) if scale else maps[0], maps[scale]], dim=1)
                for task, maps in inputs.items()
            ]
            # One trunk call for all tasks; only the batch dimension is joined and split.
            features = self.trunk(torch.cat(pairs)).split([len(pair) for pair in pairs])
            by_task = dict(zip(inputs, features, strict=True))
            for task in tasks:
                outputs[task].append(self.tails[task](by_task[self._source[task]]))
        return outputs


class _ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 5x5, (B, width, H, W) -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Convolution(width, width, 5)
        self.second = Convolution(width, width, 5)

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.second(F.relu(self.first(F.relu(x)), inplace=True))
        return x + residual


def _tail(width: int) -> nn.Sequential:
    # The first must leave the trunk's features as they are.
    return nn.Sequential(
        nn.ReLU(),
        Convolution(width, width, 5),
        nn.ReLU(inplace=True),
        Convolution(width, width, 5),
        nn.ReLU(inplace=True),
        Convolution(width, _CHANNELS, 5),
    )


# Identity initialisation. Gradients are signed and every layer has a ReLU, so the input travels as the pair
# relu(x), relu(-x) on the first six channels and leaves as their difference. The other channels keep their
# random start; only the last layer does not read them yet, and it learns to at the first step.


@torch.no_grad()
def _identity_trunk_(trunk: nn.Sequential) -> None:
    entry, *carriers = [layer for layer in trunk if isinstance(layer, Convolution)]
    c = _CHANNELS
    entry.weight[: 2 * c].zero_()
    nn.init.dirac_(entry.weight[:c, c:])  # of the pair [coarser, blurred], the blurred image
    nn.init.dirac_(entry.weight[c : 2 * c, c:]).neg_()
    _zero_bias_(entry, 2 * c)
    for conv in carriers:
        _carry_(conv)
    for block in trunk:
        if isinstance(block, _ResidualBlock):
            block.second.weight.zero_()
            _zero_bias_(block.second, len(block.second.weight))


@torch.no_grad()
def _identity_tail_(tail: nn.Module) -> None:
    *carriers, exit_ = [layer for layer in tail.children() if isinstance(layer, Convolution)]
    for conv in carriers:
        _carry_(conv)
    c = _CHANNELS
    nn.init.dirac_(exit_.weight)
    nn.init.dirac_(exit_.weight[:, c:]).neg_()
    _zero_bias_(exit_, c)


def _carry_(conv: Convolution) -> None:
    nn.init.dirac_(conv.weight[: 2 * _CHANNELS])
    _zero_bias_(conv, 2 * _CHANNELS)


def _zero_bias_(conv: Convolution, channels: int) -> None:
    assert conv.bias is not None
    conv.bias[:channels].zero_()


def _check_one_of(name: str, value: object, accepted: tuple[object, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")
