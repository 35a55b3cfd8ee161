"""Training and evaluation of one deblurring stage: losses of Section 3.3, metrics of Tables 1 and 2."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from datasets import assets
from datasets.blur import BlurredTestSet, draw_batch, shared_tensor
from datasets.faces import open_faces
from datasets.kernels import open_kernels
from model_zoo import fft_convolution, quality
from model_zoo.discriminator import Discriminator
from model_zoo.generator import Generator, pyramid, structure_maps
from model_zoo.losses import discriminator_loss, generator_adversarial_loss, l1_over_scales, perceptual_loss
from model_zoo.options import Backbone
from model_zoo.perceptual import VGGFeatures
from sweeps.deblurring.config import DeblurTest, GeneratorConfig, TrainingStage
from sweeps.deblurring.protocol import MAX_SHIFT, METRICS, VALIDATION_IMAGES
from sweeps.imports import importing
from sweeps.learner import Evaluation, Execution, Stateful, Test
from sweeps.record import COLUMN_CONDITION, COLUMN_IMAGE

N = TypeVar("N", bound=torch.nn.Module)
R = TypeVar("R")

EVALUATION_BATCH = 64
STRIPS = 6


class Draws:
    """A torch.Generator as part of a checkpoint."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, a byte tensor, and the kind of device that it is for."""
        return {"state": self.generator.get_state(), "device": self.generator.device.type}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where that generator stood; one of another kind of device is a seed for this one."""
        state = state_dict["state"].cpu()
        if state_dict["device"] == self.generator.device.type:
            self.generator.set_state(state)
        else:
            seed = hashlib.sha256(state.numpy().tobytes()).digest()[:7]
            self.generator.manual_seed(int.from_bytes(seed))


class BlurredLearner:
    """Evaluates the blurred input itself."""

    def __init__(self, *, device: str, cache: Path) -> None:
        self.state: Mapping[str, Stateful] = {}
        self.model = None
        self._device, self._cache = torch.device(device), cache

    def step(self) -> dict[str, Tensor]:
        """There is nothing to train."""
        raise AssertionError("the blurred input has no steps")

    def validate(self) -> dict[str, float]:
        """There is nothing to validate."""
        return {}

    def evaluate(self, test: Test) -> Evaluation:
        """Metrics of the blurred images."""
        assert isinstance(test, DeblurTest)
        return _evaluate(torch.nn.Identity(), test, self._device, self._cache)


class TrainingLearner:
    """A generator (and, with the adversarial loss, a discriminator) and its training data."""

    def __init__(self, config: TrainingStage, *, seed: int, execution: Execution, cache: Path) -> None:
        self._config, self._execution, self._cache = config, execution, cache
        self._device = torch.device(execution.device)
        self._weights = config.losses
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self._place(build_generator(config.generator))
        if execution.fft and not execution.compiled and fft_convolution.pays_here():
            fft_convolution.use_fft(self.model)
        if execution.compiled:
            torch.compiler.reset()  # compiles anew a limited number of times, and then no more without a word
        torch.backends.cudnn.benchmark = True  # shapes never change: a GPU's best algorithm is looked for once
        torch.backends.cudnn.allow_tf32 = False  # float32 is meant where it is said
        self._restore = self._fast(self.model.all_scales)
        self._optimiser = self._adam(self.model, config.optimiser.beta1)
        self._draws = Draws(seed, self._device)
        self.state: dict[str, Stateful] = {
            "generator": self.model,
            "optimiser": self._optimiser,
            "draws": self._draws,
        }
        self._load_data()
        if self._weights.perceptual:
            assert config.backbone
            features = _load_features(config.backbone, cache)
            if config.precision == "bfloat16":
                features.stages.bfloat16()  # once: autocast would convert frozen weights at each call
            self._features = self._fast(self._place(features))
        if self._weights.adversarial:
            self._add_discriminator(seed)

    def _load_data(self) -> None:
        data = self._config.data
        self._faces, self._kernels = self._open(data.faces, data.kernels)
        held_out = self._open(data.validation_faces, data.validation_kernels)
        fixed = torch.Generator(self._device).manual_seed(0)
        self._validation = draw_batch(*held_out, batch_size=VALIDATION_IMAGES, noise=data.noise, generator=fixed)

    def _open(self, faces: str, kernels: str) -> tuple[Tensor, Tensor]:
        images = open_faces(faces, cache=self._cache).images
        return shared_tensor(images).to(self._device), shared_tensor(
            open_kernels(kernels, cache=self._cache).kernels
        ).to(self._device)

    def _add_discriminator(self, seed: int) -> None:
        config = self._config
        assert config.discriminator_width
        size = self._faces.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._discriminator = self._place(Discriminator(image_size=size, width=config.discriminator_width))
        self._judge = self._fast(self._discriminator)
        self._discriminator_optimiser = self._adam(self._discriminator, config.optimiser.discriminator_beta1)
        self.state |= {"discriminator": self._discriminator, "discriminator_optimiser": self._discriminator_optimiser}

    def _place(self, network: N) -> N:
        """On the device, in the layout in which its convolutions are fastest (docs/performance.md).

        A fused optimiser takes its moments to be laid out as the weights, unchecked: with another layout here, old
        checkpoints must not be taken up (`stages.PROTOCOL_VERSION`).
        """
        return network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _adam(self, network: torch.nn.Module, beta1: float) -> torch.optim.Adam:
        optimiser = self._config.optimiser
        with importing("torch._dynamo"):  # by the first optimiser
            return torch.optim.Adam(
                network.parameters(),
                lr=optimiser.learning_rate,
                betas=(beta1, optimiser.beta2),
                fused=self._execution.fused or None,  # else what PyTorch takes by itself
            )

    def _fast(self, network: Callable[..., R]) -> Callable[..., R]:
        """The network's call, compiled or not, in the precision of the stage; what it returns is float32."""
        call = torch.compile(network, dynamic=False) if self._execution.compiled else network
        # Not by way of self: a learner in a cycle would hold a GPU's memory until the garbage is collected.
        device, low = self._device.type, self._config.precision == "bfloat16"

        def run(*inputs: Any) -> R:
            with torch.autocast(device, torch.bfloat16, enabled=low):
                outputs = call(*inputs)
            return _float32(outputs)  # type: ignore[no-any-return]

        return run

    def step(self) -> dict[str, Tensor]:
        """One step on a fresh batch: the generator's, then (Eq. 4) the discriminator's."""
        blurred, sharp = self.draw()
        losses, restored = self.losses(blurred, sharp)
        self._optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        self._optimiser.step()
        if self._weights.adversarial:
            losses["discriminator"] = self._step_discriminator(sharp, restored.detach())
        return {name: value.detach() for name, value in losses.items()}

    def draw(self) -> tuple[Tensor, Tensor]:
        """The next batch: blurred and sharp images, (B, 3, S, S) each, made on the device."""
        return draw_batch(
            self._faces,
            self._kernels,
            batch_size=self._config.batch_size,
            noise=self._config.data.noise,
            generator=self._draws.generator,
        )

    def losses(self, blurred: Tensor, sharp: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Unweighted terms of Eq. 5 that are on, their weighted sum as `total`; and the restored images, full size."""
        config = self._config.generator
        inputs = pyramid(blurred, scales=config.scales, resample=config.resample)
        targets = pyramid(sharp, scales=config.scales, resample=config.resample)
        structures = structure_targets = None
        if config.multi_task:
            choice = self._choice(len(blurred)) if config.structure_input == "random" else None
            mode = config.structure_input
            structure_targets = structure_maps(targets, structure_input=mode, choice=choice)
            structures = structure_maps(inputs, structure_input=mode, choice=choice)
        images, maps = self._restore(inputs, structures)
        terms = {"content": l1_over_scales(images, targets)}
        if structure_targets is not None:
            terms["structure"] = l1_over_scales(maps, structure_targets)
        if self._weights.perceptual:
            terms["perceptual"] = perceptual_loss(self._features, images, targets)
        if self._weights.adversarial:
            # Its gradient must reach the generator only.
            self._discriminator.requires_grad_(False)
            terms["adversarial"] = generator_adversarial_loss(self._judge(images[-1]))
            self._discriminator.requires_grad_(True)
        total = torch.stack([getattr(self._weights, name) * value for name, value in terms.items()]).sum()
        return {"total": total, **terms}, images[-1]

    def _choice(self, count: int) -> Tensor:
        draws = torch.randint(2, (count,), generator=self._draws.generator, device=self._device)
        return draws.bool()

    def _step_discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = discriminator_loss(self._judge(real), self._judge(fake))
        self._discriminator_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._discriminator_optimiser.step()
        return loss

    def validate(self) -> dict[str, float]:
        """Mean PSNR in dB on a fixed batch of held-out faces and kernels, and the gain over the blurred input."""
        blurred, sharp = self._validation
        with torch.inference_mode():
            restored = quality.psnr(self.model(blurred).clamp(0, 1), sharp).mean()
            before = quality.psnr(blurred.clamp(0, 1), sharp).mean()
        return {"psnr": float(restored), "gain": float(restored - before)}

    def evaluate(self, test: Test) -> Evaluation:
        """Metrics of the restored images."""
        assert isinstance(test, DeblurTest)
        return _evaluate(self.model, test, self._device, self._cache)


def _float32(outputs: Any) -> Any:
    """Tensors, or nested lists and tuples of them, in float32."""
    return outputs.float() if isinstance(outputs, Tensor) else type(outputs)(map(_float32, outputs))


def _load_features(backbone: Backbone, cache: Path) -> VGGFeatures:
    path = assets.fetch(backbone, cache)
    try:
        return VGGFeatures(backbone=backbone, weights=load_file(path))
    except (SafetensorError, ValueError, RuntimeError) as error:  # not such a file, other names, other shapes
        raise ValueError(
            f"{backbone}'s weights must be whole: remove {path}, and it is fetched again ({error})"
        ) from error


def build_generator(config: GeneratorConfig) -> Generator:
    """The network of a config, with weights from torch's global random state."""
    return Generator(
        scales=config.scales,
        multi_task=config.multi_task,
        structure_input=config.structure_input,
        width=config.width,
        blocks=config.blocks,
        initialisation=config.initialisation,
        resample=config.resample,
    )


def open_test(test: DeblurTest, cache: Path) -> BlurredTestSet:
    """The test set that a `DeblurTest` describes."""
    return BlurredTestSet(
        name=test.name,
        faces=open_faces(test.faces, cache=cache),
        kernels=open_kernels(test.kernels, cache=cache),
        noise=test.noise,
        seed=test.seed,
    )


@torch.inference_mode()
def _evaluate(restore: torch.nn.Module, test: DeblurTest, device: torch.device, cache: Path) -> Evaluation:
    images = open_test(test, cache)
    columns: dict[str, list[Tensor]] = {name: [] for name in (COLUMN_IMAGE, COLUMN_CONDITION, *METRICS)}
    shown = _shown(len(images.faces.images), len(images.kernels.kernels))
    strips: dict[tuple[int, int], Image.Image] = {}
    for batch in images.batches(EVALUATION_BATCH, device):
        restored = restore(batch.blurred).clamp(0, 1)
        values = {
            COLUMN_IMAGE: batch.face,
            COLUMN_CONDITION: batch.kernel,
            "psnr": quality.psnr(restored, batch.sharp),
            "ssim": quality.ssim3d(restored, batch.sharp),
            "ssim_2d": quality.ssim2d(restored, batch.sharp),
            "psnr_aligned": quality.aligned_psnr(restored, batch.sharp, max_shift=MAX_SHIFT),
        }
        for name, value in values.items():
            columns[name].append(value)
        for index, pair in enumerate(zip(batch.face.tolist(), batch.kernel.tolist(), strict=True)):
            if pair in shown:
                strips[pair] = _strip(batch.blurred[index], restored[index], batch.sharp[index])
    per_image = {name: torch.cat(parts).tolist() for name, parts in columns.items()}
    per_image["kernel_size"] = images.kernels.sizes[per_image[COLUMN_CONDITION]].tolist()
    return Evaluation(per_image=per_image, metrics=METRICS, strips=strips)


def _shown(faces: int, kernels: int) -> list[tuple[int, int]]:
    """A few faces, spread over the set, each with one kernel, spread over the sizes."""
    count = min(STRIPS, faces)
    return [(index * faces // count, (index * kernels // count) % kernels) for index in range(count)]


def _strip(*images: Tensor) -> Image.Image:
    row = torch.cat([image.clamp(0, 1) for image in images], dim=2)
    pixels = (row * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(pixels))
