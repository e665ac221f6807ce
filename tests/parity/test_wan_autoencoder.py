"""Wan's autoencoders: diffusers' numbers in both forms and both layouts, streams and one pass, whole key lists."""

from __future__ import annotations

import copy
import importlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from wan_models import TINY, tiny_autoencoder

from yozora.errors import CanvasError, ModelError
from yozora.models import wan, wan_autoencoder, wan_layers
from yozora.models.wan import autoencoder_keys, load_wan_autoencoder
from yozora.models.wan_autoencoder import (
    WAN21_AUTOENCODER,
    WAN22_AUTOENCODER,
    WanAutoencoder,
    WanAutoencoderConfig,
)
from yozora.models.wan_layers import CausalConv, Up, fold, give_back, lay, remember, unfold

STATM = Path("/proc/self/statm")


@pytest.fixture(scope="module", params=["2.1", "2.2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, WanAutoencoder]:
    theirs = tiny_autoencoder(request.param)
    folder = tmp_path_factory.mktemp("autoencoder")
    theirs.save_pretrained(folder)
    return theirs, load_wan_autoencoder(folder)


def shaped(values: list[float]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1, 1)


@pytest.mark.parametrize("frames", [1, 5, 13])
@torch.no_grad()
def test_same_numbers(pair: tuple[Any, WanAutoencoder], frames: int) -> None:
    theirs, ours = pair
    generator = torch.Generator().manual_seed(frames)
    pixels = torch.rand(2, 3, frames, 32, 48, generator=generator) * 2 - 1
    mean, std = shaped(theirs.config.latents_mean), shaped(theirs.config.latents_std)
    expected = (theirs.encode(pixels).latent_dist.mode() - mean) / std
    latents = ours.encode(pixels)
    assert expected.std() > 0.01
    assert (latents - expected).abs().max() <= 1e-4
    latents = torch.randn(expected.shape, generator=generator)
    shown = theirs.decode(latents * std + mean).sample
    got = ours.decode(latents)
    assert 0.05 < shown.abs().mean() < 0.9  # not all clamped
    assert (got.clamp(-1, 1) - shown).abs().max() <= 1e-4


@torch.no_grad()
def test_a_stream_gives_the_numbers_of_one_pass(pair: tuple[Any, WanAutoencoder]) -> None:
    _, ours = pair
    pixels = torch.rand(1, 3, 13, 32, 32) * 2 - 1
    whole = ours.encode(pixels)
    chunks = list(ours.encode_stream([pixels[:, :, :5], pixels[:, :, 5:9], pixels[:, :, 9:]]))
    assert torch.equal(torch.cat(chunks, dim=2), whole)
    frames = ours.decode(whole)
    chunks = list(ours.decode_stream([whole[:, :, :1], whole[:, :, 1:]]))
    assert torch.equal(torch.cat(chunks, dim=2), frames)
    assert frames.shape == pixels.shape
    folded, config = fold(pixels, ours.config.patch), ours.config
    mean, std = shaped(list(config.mean)), shaped(list(config.std))
    in_one_go, _ = ours.encoder(folded, None)  # and not, as above, latent frame by latent frame
    assert ((in_one_go - mean) / std - whole).abs().max() <= 1e-5
    in_one_go, _ = ours.decoder(whole * std + mean, None)
    assert (unfold(in_one_go, config.patch) - frames).abs().max() <= 1e-5


@torch.no_grad()
def test_bfloat16_is_within_a_hundredth_and_nearer_than_diffusers(
    pair: tuple[Any, WanAutoencoder], tmp_path: Path
) -> None:
    theirs, ours = pair
    theirs.save_pretrained(tmp_path)
    half, theirs = load_wan_autoencoder(tmp_path, dtype=torch.bfloat16), copy.deepcopy(theirs)
    mean, std = shaped(theirs.config.latents_mean), shaped(theirs.config.latents_std)
    latents = torch.randn(1, ours.config.channels, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    exact, got = ours.decode(latents), half.decode(latents).float()
    other = theirs.bfloat16().decode((latents * std + mean).bfloat16()).sample.float()
    far, theirs_far = (float((each - exact.clamp(-1, 1)).norm() / exact.norm()) for each in (got.clamp(-1, 1), other))
    assert far < 0.01 and far < 0.75 * theirs_far
    pixels = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    assert (half.encode(pixels) - ours.encode(pixels)).norm() < 0.01 * ours.encode(pixels).norm()


@pytest.mark.parametrize("strip", [1, 40, 2**13])
@torch.no_grad()
def test_a_flat_convolution_is_that_of_volumes(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wan_layers, "STRIP", strip)
    torch.manual_seed(0)
    convolution = CausalConv(8, 5).bfloat16()
    x, memory = torch.randn(2, 8, 3, 6, 7).bfloat16(), torch.randn(2, 8, 2, 8, 7).bfloat16()
    memory[:, :, :, 0] = memory[:, :, :, -1] = 0
    seen, missing = remember(x, memory)
    assert convolution.bias is not None
    volumes = F.conv3d(seen.float(), convolution.weight.float(), convolution.bias.float(), padding=(0, 0, 1))
    assert volumes.shape == (2, 5, 3, 6, 7)
    for _ in range(2):  # as torch lays weights, and as they are laid to be run
        made, after = convolution(seen, missing)
        assert made.dtype == torch.bfloat16 and torch.equal(after, seen[:, :, -2:])
        assert (made.float() - volumes).abs().max() <= 2**-8 * volumes.abs().max()
        lay(convolution, torch.device("cpu"))


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_what_a_video_begins_with_misses_what_is_zeros(dtype: torch.dtype, frames: int) -> None:
    torch.manual_seed(0)
    convolution = CausalConv(8, 5).to(dtype)
    x = torch.randn(2, 8, frames, 6, 7).to(dtype)
    seen, missing = remember(x, None)
    zeros = torch.zeros(2, 8, 2, 8, 7, dtype=dtype)
    whole, none = remember(x, zeros)
    assert (missing, none, seen.shape[2], whole.shape[2]) == (2, 0, frames, frames + 2)
    for _ in range(2):
        torch.testing.assert_close(convolution(seen, 2)[0], convolution(whole, 0)[0], rtol=2**-7, atol=1e-5)
        lay(convolution, torch.device("cpu"))
    first, memory = convolution(*remember(x[:, :, :1], None))
    if frames > 1:
        rest, after = convolution(*remember(x[:, :, 1:], memory))
        together, same = convolution(seen, 2)
        torch.testing.assert_close(torch.cat((first, rest), dim=2), together, rtol=2**-7, atol=1e-5)
        assert torch.equal(after, same)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_cells_that_are_doubled_are_convolved_once(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    up = Up(8, 5, doubles=False).to(dtype)
    images = torch.randn(3, 8, 6, 7).to(dtype)
    weight, bias = up.space.weight.float(), up.space.bias
    assert bias is not None
    doubled = F.interpolate(images.float(), scale_factor=2.0, mode="nearest-exact")
    exact = F.conv2d(doubled, weight, bias.float(), padding=1)
    made = up.spread(images)
    assert made.dtype == torch.float32 and made.shape == exact.shape
    assert (made - exact).abs().max() <= (2**-7 if dtype == torch.bfloat16 else 1e-6) * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_halves_on_the_disk_give_the_same_to_the_bit(
    dtype: torch.dtype, pair: tuple[Any, WanAutoencoder], tmp_path: Path
) -> None:
    theirs, _ = pair
    theirs.save_pretrained(tmp_path)
    here, away = (load_wan_autoencoder(tmp_path, dtype=dtype, offload=place) for place in (None, "disk"))
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    for _ in range(2):
        assert all(parameter.is_meta for parameter in away.parameters())
        latents = away.encode(pixels)
        assert torch.equal(latents, here.encode(pixels))
        assert torch.equal(away.decode(latents), here.decode(latents))


@torch.no_grad()
def test_large_frames_go_on_one_by_one(pair: tuple[Any, WanAutoencoder], monkeypatch: pytest.MonkeyPatch) -> None:
    _, ours = pair
    latents = torch.randn(2, ours.config.channels, 3, 2, 3)
    together = ours.decode(latents)
    monkeypatch.setattr(wan_autoencoder, "TOGETHER", 1)
    assert (ours.decode(latents) - together).abs().max() <= 1e-5


def original_state(theirs: Any, keys: dict[str, tuple[str, ...]], original: dict[str, tuple[str, ...]]) -> dict:
    """diffusers' tensors by the original names, through ours, with shapes as they were released."""
    state = theirs.state_dict()
    return {original[name][0]: state[keys[name][0]].clone() for name in keys}


@pytest.mark.parametrize("version", ["2.1", "2.2"])
@torch.no_grad()
def test_the_original_layout(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tiny_autoencoder(version)
    theirs.save_pretrained(tmp_path / "diffusers")
    ours = load_wan_autoencoder(tmp_path / "diffusers")
    keys, original = (dict(autoencoder_keys(ours.config, layout)) for layout in ("diffusers", "original"))
    torch.save(original_state(theirs, keys, original), tmp_path / "Wan_VAE.pth")
    monkeypatch.setattr(wan, f"WAN{version.replace('.', '')}_AUTOENCODER", ours.config)  # the released are not tiny
    again = load_wan_autoencoder(tmp_path / "Wan_VAE.pth")
    latents = torch.randn(1, ours.config.channels, 2, 2, 2)
    assert torch.equal(again.decode(latents), ours.decode(latents))


def test_the_original_names_of_2_1_are_those_that_diffusers_converts() -> None:
    library: Any = importlib.import_module("diffusers.loaders.single_file_utils")
    keys, original = (dict(autoencoder_keys(WAN21_AUTOENCODER, layout)) for layout in ("diffusers", "original"))
    names = {original[name][0]: torch.zeros(1) for name in keys}
    assert set(library.convert_wan_vae_to_diffusers(names)) == {each for names in keys.values() for each in names}


@pytest.mark.parametrize(
    ("config", "count", "settings"),
    [
        (WAN21_AUTOENCODER, 194, {}),
        (WAN22_AUTOENCODER, 196, TINY["2.2"] | {"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48,
                                                "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48}),
    ],
)  # fmt: skip
def test_every_tensor_of_the_real_checkpoints_has_its_place(
    config: WanAutoencoderConfig, count: int, settings: dict[str, Any]
) -> None:
    library: Any = importlib.import_module("diffusers.models.autoencoders.autoencoder_kl_wan")
    with torch.device("meta"):
        theirs = library.AutoencoderKLWan(**settings).state_dict()
        ours = WanAutoencoder(config).state_dict()
    keys = autoencoder_keys(config)
    assert len(theirs) == count == len(ours)
    assert keys.keys() == ours.keys()
    assert {each for names in keys.values() for each in names} == set(theirs)
    for name, (there,) in keys.items():
        assert [n for n in theirs[there].shape if n > 1] == [n for n in ours[name].shape if n > 1]
    assert (config.spatial, config.temporal) == ((16, 4) if config.residual else (8, 4))


def test_bad_input(pair: tuple[Any, WanAutoencoder], tmp_path: Path) -> None:
    theirs, ours = pair
    with pytest.raises(CanvasError, match=r"1 \+ 4k frames, not 4"):
        ours.encode(torch.zeros(1, 3, 4, 32, 32))
    with pytest.raises(CanvasError, match="multiples of"):
        ours.encode(torch.zeros(1, 3, 1, 33, 32))
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, said in (
        ({"_class_name": "AutoencoderKL"}, "not an autoencoder of Wan"),
        ({"base_dim": 16}, "configuration and weights"),
        ({"latents_std": [0.0] * ours.config.channels}, "std positive"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=said):
            load_wan_autoencoder(tmp_path)
    (tmp_path / "other.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match="is broken"):
        load_wan_autoencoder(tmp_path / "other.pth")
    torch.save({"a": object}, tmp_path / "code.pth")
    with pytest.raises(ModelError, match="not only tensors"):
        load_wan_autoencoder(tmp_path / "code.pth")


def test_the_decoder_gives_back_before_each_of_large_frames(
    pair: tuple[Any, WanAutoencoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    latents = torch.randn(1, pair[1].config.channels, 2, 2, 2)
    monkeypatch.setattr(wan_autoencoder, "give_back", lambda: calls.append(1))
    whole = pair[1].decode(latents)
    assert not calls
    monkeypatch.setattr(wan_autoencoder, "TOGETHER", 8 * 8)  # cells, as the third of four levels has
    assert torch.allclose(pair[1].decode(latents), whole, atol=1e-5)
    frames = 1 + pair[1].config.temporal
    assert len(calls) == frames


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc" or not STATM.exists(), reason="of Linux with glibc")
def test_what_was_freed_is_given_back() -> None:
    """Small tensors lie on the heap, whose end stays in use."""

    def held() -> int:
        return int(STATM.read_text().split()[1])

    tensors = [torch.ones(2**14) for _ in range(2000)]  # 64 KiB each, 125 MiB
    last = tensors[-1]
    del tensors[:-1]
    kept = held()
    give_back()
    assert (kept - held()) * os.sysconf("SC_PAGE_SIZE") > 2000 * 2**14 * 4 // 2
    assert last.sum() == 2**14
