import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from model_zoo.generator import Generator, gradient, pyramid, structure_maps

SMALL = {"width": 8, "blocks": 2}


@pytest.fixture
def blurred() -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def small(**settings) -> Generator:
    torch.manual_seed(0)
    return Generator(**SMALL, **settings)


class TestPyramid:
    @pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
    def test_levels_match_pillow(self, blurred, resample):
        levels = pyramid(blurred, scales=3, resample=resample)
        assert [tuple(level.shape[-2:]) for level in levels] == [(4, 6), (8, 12), (16, 24)]
        plane = Image.fromarray(blurred[0, 0].numpy())
        for level in levels[:-1]:
            height, width = level.shape[-2:]
            expected = plane.resize((width, height), Image.Resampling[resample.upper()])
            np.testing.assert_allclose(level[0, 0].numpy(), np.asarray(expected), atol=1e-5)

    def test_finest_is_the_image_itself(self, blurred):
        assert pyramid(blurred, scales=2, resample="bicubic")[-1] is blurred
        assert len(pyramid(blurred, scales=1, resample="bicubic")) == 1

    def test_odd_size_is_refused(self):
        with pytest.raises(ValueError, match="multiples of 4, got 16x18"):
            pyramid(torch.zeros(1, 3, 16, 18), scales=3, resample="bicubic")


class TestStructureMaps:
    def test_gradient_matches_numpy(self, blurred):
        dx, dy = gradient(blurred)
        x = blurred.numpy()
        np.testing.assert_array_equal(dx[..., :-1].numpy(), np.diff(x, axis=-1))
        np.testing.assert_array_equal(dy[..., :-1, :].numpy(), np.diff(x, axis=-2))
        assert dx[..., -1].abs().max() == 0
        assert dy[..., -1, :].abs().max() == 0

    def test_ramp_has_constant_gradient(self):
        ramp = (torch.arange(8.0)[:, None] * 3 + torch.arange(6.0) * 2).expand(1, 1, 8, 6)
        (total,) = structure_maps([ramp], structure_input="sum")
        assert (total[..., :-1, :-1] == 5).all()

    def test_shapes(self, blurred):
        levels = pyramid(blurred, scales=2, resample="bicubic")
        choice = torch.tensor([True, False])
        for kind, batch in [("both", 4), ("sum", 2), ("shared", 2), ("random", 2)]:
            maps = structure_maps(levels, structure_input=kind, choice=choice)
            assert [tuple(m.shape) for m in maps] == [(batch, 3, 8, 12), (batch, 3, 16, 24)]

    def test_random_picks_per_image(self, blurred):
        dx, dy = gradient(blurred)
        (picked,) = structure_maps([blurred], structure_input="random", choice=torch.tensor([True, False]))
        assert torch.equal(picked[0], dx[0])
        assert torch.equal(picked[1], dy[1])

    def test_random_has_the_expectation_of_both(self, blurred):
        choices = [torch.tensor(c) for c in [(0, 0), (0, 1), (1, 0), (1, 1)]]
        draws = [
            structure_maps([blurred], structure_input="random", choice=choice.bool())[0].abs().mean()
            for choice in choices
        ]
        (both,) = structure_maps([blurred], structure_input="both")
        torch.testing.assert_close(torch.stack(draws).mean(), both.abs().mean())

    def test_exceptions(self, blurred):
        with pytest.raises(ValueError, match=r"structure_input must be one of 'both'.*got 'edges'"):
            structure_maps([blurred], structure_input="edges")
        with pytest.raises(ValueError, match="needs a choice"):
            structure_maps([blurred], structure_input="random")


class TestArchitecture:
    @pytest.mark.parametrize(
        ("settings", "parameters"),
        [
            ({"scales": 1, "multi_task": False}, 1_690_755),
            ({"scales": 2, "multi_task": False}, 1_690_902),
            ({"scales": 2, "multi_task": True}, 1_900_780),
            ({"scales": 3, "multi_task": True}, 1_900_780),
            # "shared" does not upsample its structure map
            ({"scales": 2, "structure_input": "shared"}, 1_900_780 - 147),
        ],
    )
    def test_parameter_counts(self, settings, parameters):
        with torch.device("meta"):
            network = Generator(**settings)
        assert sum(p.numel() for p in network.parameters()) == parameters

    @pytest.mark.parametrize(
        ("settings", "gmacs"),
        [
            ({"scales": 1, "multi_task": False}, 27.68),
            ({"scales": 2, "multi_task": False}, 34.60),
            ({"scales": 2, "multi_task": True}, 34.60),
        ],
    )
    def test_inference_cost_at_128(self, settings, gmacs):
        with torch.device("meta"):
            network, image = Generator(**settings), torch.empty(1, 3, 128, 128)
        with FlopCounterMode(display=False) as counter:
            network(image)
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)

    @pytest.mark.parametrize(("kind", "passes"), [("both", 3), ("sum", 2), ("random", 2)])
    def test_training_cost_is_one_pass_per_structure_input(self, kind, passes):
        with torch.device("meta"):
            network = Generator(structure_input=kind)
            levels = [torch.empty(1, 3, 64, 64), torch.empty(1, 3, 128, 128)]
            choice = torch.empty(1, dtype=torch.bool)
            structures = structure_maps(levels, structure_input=kind, choice=choice)
        with FlopCounterMode(display=False) as counter:
            network.all_scales(levels, structures)
        assert counter.get_total_flops() / 2e9 == pytest.approx(passes * 34.60, rel=0.01)

    def test_receptive_field_of_one_pass(self):
        network = small(scales=1, multi_task=False).double()
        image = torch.rand(1, 3, 71, 71, dtype=torch.double, requires_grad=True)
        network(image)[..., 35, 35].sum().backward()
        reached = image.grad.abs().sum(dim=(0, 1)) > 0
        # 11x11 and, with two blocks, 2 + 4 + 3 convolutions of 5x5: radius 5 + 9 * 2
        assert reached.any(dim=0).nonzero().flatten().tolist() == list(range(35 - 23, 35 + 24))


class TestForward:
    @pytest.mark.parametrize("scales", [1, 2, 3])
    @pytest.mark.parametrize("resample", ["bicubic", "bilinear"])
    @pytest.mark.parametrize("multi_task", [True, False])
    def test_is_the_finest_of_all_scales(self, blurred, scales, resample, multi_task):
        network = small(scales=scales, resample=resample, multi_task=multi_task)
        levels = pyramid(blurred, scales=scales, resample=resample)
        structures = structure_maps(levels, structure_input="both") if multi_task else None
        restored, maps = network.all_scales(levels, structures)
        assert [r.shape for r in restored] == [level.shape for level in levels]
        assert [m.shape for m in maps] == [s.shape for s in structures or []]
        torch.testing.assert_close(network(blurred), restored[-1])

    @pytest.mark.parametrize("kind", ["both", "sum"])
    def test_joint_pass_equals_a_pass_per_task(self, blurred, kind):
        network = small(structure_input=kind)
        levels = pyramid(blurred, scales=2, resample="bicubic")
        structures = structure_maps(levels, structure_input=kind)
        for task, inputs, outputs in zip(
            ["image", "structure"], [levels, structures], network.all_scales(levels, structures), strict=True
        ):
            tail, upsample = network.tails[task], network.upsamplers[task]
            coarse = tail(network.trunk(torch.cat([inputs[0], inputs[0]], dim=1)))
            fine = tail(network.trunk(torch.cat([upsample(coarse), inputs[1]], dim=1)))
            torch.testing.assert_close(outputs, [coarse, fine])

    @pytest.mark.parametrize("kind", ["both", "shared"])
    def test_trunk_runs_once_per_scale(self, blurred, kind):
        network = small(scales=3, structure_input=kind)
        batches = []
        network.trunk.register_forward_hook(lambda _, inputs, __: batches.append(len(inputs[0])))
        levels = pyramid(blurred, scales=3, resample="bicubic")
        network.all_scales(levels, structure_maps(levels, structure_input=kind))
        assert batches == [6 if kind == "both" else 2] * 3

    def test_shared_structure_tail_reads_image_features(self, blurred):
        network = small(scales=1, structure_input="shared")
        restored, maps = network.all_scales([blurred], None)
        features = network.trunk(torch.cat([blurred, blurred], dim=1))
        torch.testing.assert_close(restored, [network.tails["image"](features)])
        torch.testing.assert_close(maps, [network.tails["structure"](features)])

    def test_images_do_not_mix_in_the_batch(self, blurred):
        network = small()
        alone = torch.cat([network(blurred[:1]), network(blurred[1:])])
        torch.testing.assert_close(network(blurred), alone)

    def test_interior_shifts_with_the_image(self):
        network = small(multi_task=False)
        canvas = torch.rand(1, 3, 32, 184)
        # Two crops of the same pixels, 4 apart. An output reaches 23 pixels, and twice that and a few more
        # through the coarse scale: columns at least 80 from either side see no side border.
        left, right = network(canvas[..., :180]), network(canvas[..., 4:])
        torch.testing.assert_close(left[..., 84:96], right[..., 80:92])

    def test_channels_last_gives_the_same(self, blurred):
        network = small()
        expected = network(blurred)
        network.to(memory_format=torch.channels_last)
        output = network(blurred.to(memory_format=torch.channels_last))
        torch.testing.assert_close(output, expected)
        assert output.is_contiguous(memory_format=torch.channels_last)

    def test_every_parameter_gets_a_gradient(self, blurred):
        for kind in ["both", "sum", "shared"]:
            network = small(scales=2, structure_input=kind)
            levels = pyramid(blurred, scales=2, resample="bicubic")
            restored, maps = network.all_scales(levels, structure_maps(levels, structure_input=kind))
            sum(output.square().sum() for output in restored + maps).backward()
            assert [name for name, p in network.named_parameters() if p.grad is None] == []


class TestIdentityInitialisation:
    @pytest.mark.parametrize("scales", [1, 2, 3])
    @pytest.mark.parametrize("width", [6, 8])
    def test_untrained_network_returns_its_input(self, blurred, scales, width):
        torch.manual_seed(0)
        network = Generator(scales=scales, width=width, blocks=2, initialisation="identity")
        levels = pyramid(blurred, scales=scales, resample="bicubic")
        structures = structure_maps(levels, structure_input="both")
        restored, maps = network.all_scales(levels, structures)
        assert torch.equal(network(blurred), blurred)
        for output, level in zip(restored + maps, levels + structures, strict=True):
            assert torch.equal(output, level)

    def test_shared_structure_tail_is_not_silent(self, blurred):
        network = small(scales=1, structure_input="shared", initialisation="identity")
        restored, maps = network.all_scales([blurred], None)
        assert torch.equal(restored[0], blurred)
        assert maps[0].std() > 0

    def test_everything_learns(self, blurred):
        network = small(scales=2, initialisation="identity")
        levels = pyramid(blurred, scales=2, resample="bicubic")
        structures = structure_maps(levels, structure_input="both")
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
        for step in range(3):
            optimiser.zero_grad()
            restored, maps = network.all_scales(levels, structures)
            targets = [level.flip(-1) for level in levels + structures]
            sum((out - target).square().mean() for out, target in zip(restored + maps, targets, strict=True)).backward()
            if step == 0:  # the channels that are not read yet get a gradient at once
                assert network.tails["image"][-1].weight.grad[:, 6:].abs().sum() > 0
            optimiser.step()
        assert [name for name, p in network.named_parameters() if p.grad.abs().sum() == 0] == []


class TestExceptions:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"scales": 4}, "scales must be one of 1, 2, 3, got 4"),
            ({"scales": 0}, "scales must be one of 1, 2, 3, got 0"),
            ({"structure_input": "dx"}, "structure_input must be one of .* got 'dx'"),
            ({"initialisation": "zero"}, "initialisation must be one of .* got 'zero'"),
            ({"resample": "nearest"}, "resample must be one of 'bicubic', 'bilinear', got 'nearest'"),
            ({"width": 0}, "width must be at least 1 .* got 0"),
            ({"width": 5, "initialisation": "identity"}, "width must be at least 6 .* got 5"),
            ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            Generator(**settings)

    def test_inputs(self, blurred):
        network = small(scales=2)
        with pytest.raises(ValueError, match="multiples of 2, got 15x24"):
            network(blurred[:, :, 1:])
        with pytest.raises(ValueError, match="image task needs 2 levels, one per scale, got 1"):
            network.all_scales([blurred], [blurred])
        with pytest.raises(ValueError, match="structure task needs 2 levels, one per scale, got 0"):
            network.all_scales(pyramid(blurred, scales=2, resample="bicubic"), None)
