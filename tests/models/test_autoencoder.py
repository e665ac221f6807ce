"""The autoencoder: shapes, causality, streaming, and one image as one frame."""

import copy

import pytest
import torch

from yozora.errors import CanvasError
from yozora.models.autoencoder import Autoencoder, AutoencoderConfig

TINY = AutoencoderConfig(
    channels=4, encoder_widths=(8, 8, 16), encoder_depths=(1, 1, 1), decoder_widths=(8, 8, 16), decoder_depths=(1, 1, 1)
)


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(TINY).eval()
    for parameter in model.parameters():  # fresh blocks end in zeros, which would hide their memory
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def clip(frames: int, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(2, 3, frames, height, width, generator=torch.Generator().manual_seed(frames)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 5, 9, 17])
@torch.no_grad()
def test_shapes(model: Autoencoder, frames: int) -> None:
    latents = model.encode(clip(frames))
    assert latents.shape == (2, 4, 1 + (frames - 1) // 4, 2, 3)
    assert model.decode(latents).shape == (2, 3, frames, 32, 48)


@torch.no_grad()
def test_streams_equal_one_pass(model: Autoencoder) -> None:
    frames = clip(21)
    latents = model.encode(frames)
    encoded = torch.cat(list(model.encode_stream([frames[:, :, :5], frames[:, :, 5:9], frames[:, :, 9:]])), dim=2)
    torch.testing.assert_close(encoded, latents, atol=1e-5, rtol=0)
    whole = model.decode(latents)
    for sizes in ([1] * 6, [1, 2, 3], [4, 2]):
        decoded = torch.cat(list(model.decode_stream(latents.split(sizes, dim=2))), dim=2)
        torch.testing.assert_close(decoded, whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_causal(model: Autoencoder) -> None:
    frames = clip(13)
    changed = frames.clone()
    changed[:, :, 9:] = 0
    before, after = model.encode(frames), model.encode(changed)
    torch.testing.assert_close(after[:, :, :3], before[:, :, :3])
    assert (after[:, :, 3] - before[:, :, 3]).abs().max() > 1e-3
    torch.testing.assert_close(model.decode(after)[:, :, :9], model.decode(before)[:, :, :9])


@torch.no_grad()
def test_memory_reaches_later_frames(model: Autoencoder) -> None:
    latents = model.encode(clip(13))
    changed = latents.clone()
    changed[:, :, 1] += 1
    difference = (model.decode(changed) - model.decode(latents)).abs().amax((0, 1, 3, 4))
    assert difference[0] == 0
    assert difference[5:9].min() > 0


@torch.no_grad()
def test_an_image_is_the_first_frame(model: Autoencoder) -> None:
    frames = clip(9)
    torch.testing.assert_close(model.encode(frames[:, :, :1]), model.encode(frames)[:, :, :1])


def noisy(model: Autoencoder, frames: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return model.noisy_forward(frames, torch.Generator().manual_seed(seed))[0]


@torch.no_grad()
def test_statistics_gathered_in_training_normalise_latents(model: Autoencoder) -> None:
    model = copy.deepcopy(model)
    before = model(clip(9))
    for _ in range(1500):
        model.norm.gather(torch.randn(2, 4, 3, 2, 3) * torch.tensor([1, 2, 3, 4]).view(-1, 1, 1, 1) + 5)
    torch.testing.assert_close(model.norm.mean, torch.full((4,), 5.0), atol=0.8, rtol=0)
    torch.testing.assert_close(model.norm.var.sqrt(), torch.tensor([1.0, 2, 3, 4]), atol=0, rtol=0.2)
    torch.testing.assert_close(model(clip(9)), before)  # what normalises is undone before decoding


@torch.no_grad()
def test_noise_is_added_for_training_only(model: Autoencoder) -> None:
    model = copy.deepcopy(model)
    frames = clip(5)
    assert torch.equal(noisy(model, frames, 1), noisy(model, frames, 1))
    assert not torch.equal(noisy(model, frames, 1), noisy(model, frames, 2))
    assert torch.equal(model(frames), model(frames))


@pytest.mark.parametrize("shape", [(1, 3, 4, 32, 32), (1, 3, 5, 40, 32), (1, 3, 5, 32, 8)])
def test_sizes_that_do_not_fit(model: Autoencoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(CanvasError):
        model.encode(torch.zeros(shape))


def test_everything_is_trained() -> None:
    torch.manual_seed(0)
    model = Autoencoder(TINY).train()
    optimiser = torch.optim.SGD(model.parameters(), 1e-2)
    for _ in range(2):  # the first step opens the zero-initialised convolutions
        optimiser.zero_grad()
        noisy(model, clip(5)).sub(clip(5)).square().mean().backward()
        optimiser.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
