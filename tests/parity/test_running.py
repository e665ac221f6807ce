"""However blocks are run, they say what they say plainly: in pieces, packed, offloaded; in eight bits, nearly."""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path

import pytest
import torch
from wan_models import tiny_transformer

from yozora.errors import ConfigError, ModelError
from yozora.models import pieces
from yozora.models.offload import AwayBlock, OnDisk
from yozora.models.pieces import can_be_packed
from yozora.models.quantised import KINDS, EightBit, quantise_rows
from yozora.models.running import Blocks, Running
from yozora.models.transformer import Block, Transformer, TransformerConfig
from yozora.models.wan import load_wan_transformer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Wan of four blocks."""
    made = tmp_path_factory.mktemp("running") / "transformer"
    tiny_transformer(heads=4, head_width=16, ffn=96, depth=4).save_pretrained(made)
    return made


def say(model: Transformer, per_token: bool = False, side: int = 8) -> torch.Tensor:
    """The velocity of two clips, with levels of their own."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, side, side, generator=generator)
    shape = (2, 3, side // 2, side // 2) if per_token else (2, 3)
    levels = torch.rand(shape, generator=generator)
    text = torch.randn(2, 7, 24, generator=generator)
    mask = torch.ones(2, 3, 7, dtype=torch.bool)
    mask[0, 1, 4:] = False
    with torch.inference_mode():
        return model(latents, levels, model.prepare_text(text), mask if per_token else None).float()


def near(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("size", [1, 6, 16, 40, 256])
@pytest.mark.parametrize("per_token", [False, True])
def test_pieces_of_any_size_give_the_same(
    size: int, per_token: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", size)
    plain, cut = load_wan_transformer(folder), load_wan_transformer(folder, running=Running())
    assert torch.allclose(say(cut, per_token), say(plain, per_token), atol=1e-5)


@pytest.mark.skipif(not can_be_packed(CPU, torch.bfloat16), reason="this CPU, or torch, multiplies no bfloat16")
def test_packed_matrices_are_as_near_to_float32() -> None:
    """Not farther from float32 than the plain bfloat16 is, by more than a little."""
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(96, 160).requires_grad_(False), torch.randn(3, 5, 96)
    exact = torch.nn.functional.gelu(linear(x), approximate="tanh")
    half = linear.bfloat16()
    plain = torch.nn.functional.gelu(half(x.bfloat16()), approximate="tanh")
    packed = pieces.Packed(half, gelu=True)(x.bfloat16())
    assert packed.shape == exact.shape
    assert near(packed.float(), exact) < 1.1 * near(plain.float(), exact) < 0.02


@pytest.mark.parametrize("weights", [None, "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_offloaded_to_disk_is_the_same_to_the_bit(dtype: torch.dtype, weights: str | None, folder: Path) -> None:
    plain = load_wan_transformer(folder, dtype=dtype, running=Running(weights=weights))
    away = load_wan_transformer(folder, dtype=dtype, running=Running(weights=weights, offload="disk"))
    block = away.blocks[2]
    assert isinstance(block, AwayBlock)
    assert all(tensor.is_meta for tensor in block.state_dict().values())
    first = say(away)
    assert torch.equal(first, say(plain)) and torch.equal(first, say(away))
    assert all(tensor.is_meta for tensor in block.state_dict().values())


def test_a_block_that_is_away_lies_on_the_disk_once(folder: Path) -> None:
    """In pieces, too: what is known by two names is not kept twice."""
    plain, away = load_wan_transformer(folder), load_wan_transformer(folder, running=Running(offload="disk"))
    assert torch.equal(say(away), say(load_wan_transformer(folder, running=Running())))
    for block, where in zip(plain.blocks, away.blocks, strict=True):
        assert isinstance(where, AwayBlock)
        kept = where.shelf.states[where.number]
        assert isinstance(kept, OnDisk) and len(kept.tensors) == len(block.state_dict())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says how much of a process is in memory")
def test_of_all_blocks_two_are_in_memory() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    model = Transformer(TransformerConfig(channels=4, width=512, depth=8, heads=4, text_width=16)).eval()
    ready, size, seen = Blocks(Running(offload="disk"), CPU, torch.float32), 0, []
    for n, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        size = sum(parameter.nbytes for parameter in block.parameters())
        model.blocks[n] = away = ready.ready(block)
        assert isinstance(away, AwayBlock)
        away.part.register_forward_hook(lambda *_: seen.append(resident()))
    begun = resident()
    with torch.inference_mode():
        model(torch.randn(1, 4, 1, 4, 4), torch.ones(1, 1), torch.randn(1, 3, 16))
    assert len(seen) == 8
    assert 0.5 * size < max(seen) - begun < 3.5 * size


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says which files a process has mapped")
@pytest.mark.parametrize(("running", "dtype"), [(None, torch.bfloat16), (Running(), torch.float32)])
def test_what_was_read_does_not_stay_in_memory(running: Running | None, dtype: torch.dtype, folder: Path) -> None:
    model = load_wan_transformer(folder, dtype=dtype, running=running)
    assert str(folder) not in Path("/proc/self/maps").read_text()
    assert say(model).isfinite().all()


def test_a_full_disk(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="needs room for the weights there; TMPDIR names another"):
        load_wan_transformer(folder, running=Running(offload="disk"))


@pytest.mark.parametrize("kind", list(KINDS))
def test_eight_bits_are_near(kind: str, folder: Path) -> None:
    plain, stored = load_wan_transformer(folder), load_wan_transformer(folder, running=Running(weights=kind))
    layers = [module for module in stored.modules() if isinstance(module, EightBit)]
    assert len(layers) == 4 * 7 and all(layer.stored.itemsize == 1 for layer in layers)
    assert 0 < near(say(stored), say(plain)) < {"int8": 0.02, "fp8": 0.06}[kind]


@pytest.mark.parametrize(("kind", "step"), [("int8", 1 / 254), ("fp8", 1 / 16)])
def test_what_a_weight_loses(kind: str, step: float) -> None:
    matrix = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    matrix[2] = 0
    stored, scale = quantise_rows(matrix, KINDS[kind], torch.bfloat16)
    lost = (stored.float() * scale.float()[:, None] - matrix).abs()
    most = matrix.abs().amax(dim=1, keepdim=True)
    bound = most * step * 1.02 if kind == "int8" else (matrix.abs() * step).clamp(min=1e-3)
    assert (lost <= bound + most * 2**-8 * (matrix.abs() >= 0.99 * most)).all()  # the largest may be cut a little


def test_what_cannot_be_run() -> None:
    with pytest.raises(ModelError, match="weights 'int4' is none of int8, fp8"):
        Running(weights="int4")
    with pytest.raises(ModelError, match="offload 'tape' is none of cpu, disk"):
        Running(offload="tape")


def test_there_is_nothing_to_gain_from_a_cpu_beside_a_cpu(folder: Path) -> None:
    with pytest.raises(ModelError, match="offload to disk"):
        load_wan_transformer(folder, running=Running(offload="cpu"))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile needs a C\+\+ compiler .* leave --compile out"):
        Running(compiled=True)
