from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets.blur import BlurredTestSet, blur, draw_batch, shared_tensor
from datasets.faces import face_set
from datasets.kernels import motion_kernels

KERNELS = motion_kernels(sizes=(5, 13), per_size=3, seed=0)
FACES = face_set(name="f", images=np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
TEST = BlurredTestSet(name="t", faces=FACES, kernels=KERNELS, noise=0.01, seed=7)


@pytest.mark.parametrize(("height", "width", "k"), [(64, 64, 13), (128, 128, 27), (17, 40, 9), (9, 8, 21), (6, 6, 1)])
def test_blur_is_the_convolution_of_scipy(height, width, k):
    rng = np.random.default_rng(k)
    images = rng.random((3, 3, height, width), dtype=np.float32)
    kernels = rng.random((3, k, k), dtype=np.float32)
    kernels /= kernels.sum(axis=(1, 2), keepdims=True)
    ours = blur(torch.from_numpy(images), torch.from_numpy(kernels))
    theirs = [
        [ndimage.convolve(channel, kernel, mode="nearest") for channel in image]
        for image, kernel in zip(images, kernels, strict=True)
    ]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)


def test_a_shifted_impulse_moves_the_image_towards_it():
    kernel = torch.zeros(1, 5, 5)
    kernel[0, 2, 4] = 1  # two to the right of the middle: B(x) = I(x - 2)
    image = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(blur(image, kernel)[..., 2:], image[..., :-2], atol=1e-6, rtol=0)


def test_even_kernels_have_no_middle():
    with pytest.raises(ValueError, match="odd side, not 4"):
        blur(torch.rand(1, 1, 8, 8), torch.rand(1, 4, 4))


def test_a_drawn_batch_is_blurred_faces_with_noise_of_the_asked_strength():
    faces, kernels = shared_tensor(FACES.images), shared_tensor(KERNELS.kernels)
    assert faces.data_ptr() == FACES.images.ctypes.data
    generator = torch.Generator().manual_seed(1)
    blurred, sharp = draw_batch(faces, kernels, batch_size=200, noise=0.05, generator=generator)
    assert blurred.shape == sharp.shape == (200, 3, 32, 32)
    assert blurred.dtype == torch.float32
    originals = torch.tensor(FACES.images).permute(0, 3, 1, 2) / 255
    candidates = torch.stack([blur(originals, torch.tensor(k).expand(4, -1, -1)) for k in KERNELS.kernels])
    drawn = {}
    for image, truth in zip(blurred, sharp, strict=True):
        face = int((originals - truth).abs().amax((1, 2, 3)).argmin())
        torch.testing.assert_close(originals[face], truth)
        rest = image - candidates[:, face]
        kernel = int(rest.pow(2).mean((1, 2, 3)).argmin())
        drawn.setdefault((face, kernel), []).append(rest[kernel])
    assert len(drawn) == 24  # every face with every kernel
    noise = torch.stack([rest for group in drawn.values() for rest in group])
    assert abs(float(noise.std()) - 0.05) < 0.001
    assert abs(float(noise.mean())) < 0.001
    assert float(blurred.max()) > 1 or float(blurred.min()) < 0 or float(candidates.max()) < 0.9  # not clipped


def test_the_generator_alone_decides_a_batch():
    faces, kernels = torch.tensor(FACES.images), torch.tensor(KERNELS.kernels)

    def draw(seed):
        torch.rand(seed)  # the global generator has no say
        generator = torch.Generator().manual_seed(seed)
        return draw_batch(faces, kernels, batch_size=8, noise=0.01, generator=generator)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_white_noise_is_not_clipped():
    white = torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    blurred, _ = draw_batch(white, torch.tensor(KERNELS.kernels), batch_size=4, noise=0.1, generator=generator)
    assert float(blurred.max()) > 1.2


def whole(test, batch_size):
    batches = list(test.batches(batch_size))
    assert max(len(batch.face) for batch in batches) <= batch_size
    return {name: torch.cat([getattr(b, name) for b in batches]) for name in ("face", "kernel", "blurred", "sharp")}


def test_a_test_set_is_every_face_with_every_kernel():
    images = whole(TEST, 7)
    assert len(TEST) == 24
    pairs = list(zip(images["kernel"].tolist(), images["face"].tolist(), strict=True))
    assert pairs == [(kernel, face) for kernel in range(6) for face in range(4)]
    quiet = whole(replace(TEST, noise=0.0), 7)
    for (kernel, face), blurred, sharp in zip(pairs, quiet["blurred"], quiet["sharp"], strict=True):
        truth = FACES.images[face].transpose(2, 0, 1) / np.float32(255)
        np.testing.assert_array_equal(sharp.numpy(), truth)
        expected = [ndimage.convolve(channel, KERNELS.kernels[kernel], mode="nearest") for channel in truth]
        np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-5)


def test_the_batch_size_changes_nothing():
    one, five, all_at_once = (whole(TEST, size)["blurred"] for size in (1, 5, 100))
    torch.testing.assert_close(one, five, atol=1e-6, rtol=0)
    torch.testing.assert_close(one, all_at_once, atol=1e-6, rtol=0)


def test_an_image_keeps_its_noise_in_a_larger_test_set():
    fewer = replace(TEST, faces=FACES.take([0, 1], name="two"))
    noise = whole(TEST, 8)["blurred"] - whole(replace(TEST, noise=0.0), 8)["blurred"]
    few = whole(fewer, 8)["blurred"] - whole(replace(fewer, noise=0.0), 8)["blurred"]
    torch.testing.assert_close(few.reshape(6, 2, 3, 32, 32), noise.reshape(6, 4, 3, 32, 32)[:, :2], atol=1e-6, rtol=0)
    assert abs(float(noise.std()) - 0.01) < 0.0005
    flat = noise.reshape(24, -1)
    correlation = torch.corrcoef(flat) - torch.eye(24)
    assert float(correlation.abs().max()) < 0.1  # 5 sigma for 3072 pixels


def test_the_digest_is_of_all_that_the_images_follow_from():
    others = [
        replace(TEST, noise=0.02),
        replace(TEST, seed=8),
        replace(TEST, faces=FACES.take([0, 1], name="f")),
        replace(TEST, kernels=motion_kernels(sizes=(5, 13), per_size=3, seed=1)),
    ]
    assert len({TEST.digest, *(other.digest for other in others)}) == 5
    assert replace(TEST, name="other").digest == TEST.digest


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_changes_nothing():
    on_gpu = torch.cat([batch.blurred.cpu() for batch in TEST.batches(8, "cuda")])
    torch.testing.assert_close(on_gpu, whole(TEST, 8)["blurred"], atol=1e-5, rtol=0)
    generator = torch.Generator("cuda").manual_seed(0)
    faces, kernels = torch.tensor(FACES.images, device="cuda"), torch.tensor(KERNELS.kernels, device="cuda")
    blurred, sharp = draw_batch(faces, kernels, batch_size=4, noise=0.01, generator=generator)
    assert blurred.device.type == sharp.device.type == "cuda"
