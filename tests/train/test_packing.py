"""Packs: nearly full, the same for the same step, and a training step over one is that over its clips."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yozora.errors import ConfigError
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module
from yozora.train.config import LatentsStage, TransformerStage
from yozora.train.flow import Asked
from yozora.train.latents import build_pool
from yozora.train.lessons import Pack
from yozora.train.packing import TOGETHER, Packer, useful
from yozora.train.transformer import TransformerTask, train_transformer


@pytest.fixture(scope="module")
def pool(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = ((64, 64, 9), (96, 64, 5), (32, 64, 1), (64, 32, 9))
    stage = {
        "autoencoder": tiny_model / "autoencoder",
        "mix": "simple",
        "buckets": [{"width": w, "height": h, "frames": f, "clips": 4} for w, h, f in sizes],
        "run": {"out": tmp_path_factory.mktemp("pool"), "device": "cpu", "precision": "fp32", "workers": 0},
    }
    return build_pool(LatentsStage.model_validate(stage))


def stage(pool: Path, model: Path, out: Path, **settings: object) -> TransformerStage:
    asked: dict[str, object] = {
        "run": {"out": out, "steps": 3, "device": "cpu", "precision": "fp32", "workers": 0, "log_every": 1},
        "optim": {"adamw": 0.01, "warmup": 0},
        "pool": pool,
        "start_from": model,
        "autoencoder": model / "autoencoder",
        "packed": 40,
    }
    return TransformerStage.model_validate(asked | settings)


def first_pack(task: TransformerTask) -> Pack:
    packs = next(iter(task.batches(0)))
    assert isinstance(packs, list) and len(packs) == 1
    return packs[0]


@given(st.integers(0, 2**31), st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_pack_never_overflows_and_is_the_same_again(seed: int, tokens: list[int]) -> None:
    packer = Packer(64, tuple(tokens), tuple(1.0 for _ in tokens))
    for step in (0, TOGETHER - 1, TOGETHER, 5000):
        kinds = packer.pack(seed, step)
        assert sum(tokens[kind] for kind in kinds) <= 64 and kinds == sorted(kinds)
        assert kinds == packer.pack(seed, step)
    packed = Counter(kind for step in range(TOGETHER) for kind in packer.pack(seed, step))
    assert set(packed) <= set(range(len(tokens))) and packed


def test_packs_are_nearly_full_and_hold_every_kind_as_often_as_asked() -> None:
    tokens, weights = (13, 52, 130, 208, 64), (1.0, 2.0, 4.0, 2.0, 1.0)
    packer = Packer(2048, tokens, weights)
    assert useful(packer, 3, 10 * TOGETHER) >= 0.97
    counts = Counter(kind for step in range(40 * TOGETHER) for kind in packer.pack(1, step))
    shares = np.array([counts[kind] for kind in range(5)]) / sum(counts.values())
    np.testing.assert_allclose(shares, np.array(weights) / 10, atol=0.02)


def test_a_clip_that_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="a clip of 90 tokens does not fit into 64"):
        Packer(64, (3, 90), (1.0, 1.0))


def test_a_step_over_a_pack_is_the_mean_over_its_clips(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    task = TransformerTask(stage(pool, tiny_model, tmp_path, things=2.0))
    pack = first_pack(task)
    assert pack.tokens <= 40
    assert len({tuple(clip.shape) for clip in pack.latents}) > 1

    def told(packs: list[Pack]) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and of how many numbers it is the mean."""
        generator = torch.Generator().manual_seed(0)
        parts = task.parts(packs, generator)
        losses = [task.loss(part, generator) for part in parts]
        assert [figures["tokens"] for _, figures in losses] == [pack.tokens for pack in packs]
        assert isinstance(parts[0], Asked)
        return torch.stack([loss for loss, _ in losses]).sum(), parts[0].count

    loss, count = told([pack])
    assert torch.isfinite(loss)
    twice = Pack(pack.latents * 2, pack.captions * 2, pack.layouts and pack.layouts * 2, 2 * pack.tokens)
    assert 0.5 * loss < told([twice])[0] < 2 * loss
    second = pack._replace(number=1)  # the same clips under noise of their own
    other, others = told([second])
    both, all_of_them = told([pack, second])
    assert other != loss and all_of_them == count + others
    torch.testing.assert_close(both, (loss * count + other * others) / all_of_them)
    loss.backward()
    assert all(parameter.grad is not None for parameter in task.transformer.parameters())


def test_training_on_packs_of_a_pools_own_sizes(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = train_transformer(stage(pool, tiny_model, tmp_path / "run"))
    assert (out / "transformer" / "config.json").exists()


def test_what_does_not_go_with_packing(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give buckets, or packed"):
        stage(pool, tiny_model, tmp_path, packed=0)
    with pytest.raises(ValueError, match="layout and compile are for batches of one size"):
        stage(pool, tiny_model, tmp_path, layout=0.5)
    task = TransformerTask(stage(pool, tiny_model, tmp_path, packed=10))
    with pytest.raises(ConfigError, match="does not fit into 10"):
        next(iter(task.batches(0)))


def test_the_tokens_are_counted_as_the_model_makes_them(pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    task = TransformerTask(stage(pool, tiny_model, tmp_path))
    autoencoder = load_module(Autoencoder, tiny_model / "autoencoder")
    assert autoencoder.config.spatial == 16 and task.transformer.config.patch == (1, 2, 2)
    pack = first_pack(task)
    grids = [task.transformer.token_grid(clip[None], torch.zeros(1, clip.shape[1])) for clip in pack.latents]
    assert pack.tokens == sum(t * h * w for t, h, w in grids)


def test_no_pack_is_empty_where_each_holds_one_clip() -> None:
    packer = Packer(100, (100,), (1.0,))
    assert all(packer.pack(0, step) == [0] for step in range(3 * TOGETHER))


def test_the_bench_counts_what_is_computed_and_the_room_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    bench = importlib.import_module("packing")
    made = [way(4096, 40) for way in (bench.packed, bench.bucketed, bench.padded)]
    shares, filled = [each.share for each in made], [each.filled(4096) for each in made]
    assert shares[0] == 1 and all(0 < part < whole for part, whole in zip(filled, shares, strict=True))
    padded = bench.Batches([[(1, 2, 2), (3, 2, 2)]], [16], 0.0, padded=True)
    assert padded.share == pytest.approx(16 / 24) and padded.filled(32) == 0.5
