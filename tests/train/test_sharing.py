"""How work is divided: stretches of a sequence, shares of a step, and what blocks keep for the backward pass. That the
processes which have the parts learn what one learns is in test_parallel."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yozora.errors import ConfigError
from yozora.models.packed import arrange, run_packed
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.config import LatentsStage, TransformerStage
from yozora.train.context import split_evenly, stretch
from yozora.train.latents import build_pool
from yozora.train.lessons import PackedBatches, PoolBatches
from yozora.train.log import joined
from yozora.train.parallel import with_checkpointing, with_float8

CONFIG = TransformerConfig(channels=4, width=24, depth=2, heads=2, ffn=2.0, text_width=16, patch=(1, 2, 2))


def transformer_of() -> Transformer:
    torch.manual_seed(0)
    made = Transformer(CONFIG)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def clips_of(
    sizes: list[tuple[int, int, int]],
) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    latents = [torch.randn(4, t, 2 * h, 2 * w, generator=random) for t, h, w in sizes]
    levels = [torch.rand(t, generator=random) for t, _, _ in sizes]
    return latents, levels, [torch.randn(1 + n % 3, 16, generator=random) for n in range(len(sizes))]


@given(st.integers(1, 500), st.integers(1, 9))
def test_stretches_are_even_and_leave_no_token_out(tokens: int, processes: int) -> None:
    if tokens < processes:
        with pytest.raises(ConfigError, match=r"smaller parallel\.context"):
            split_evenly(tokens, processes)
        return
    stretches = split_evenly(tokens, processes)
    assert [start for start, _ in stretches] == [0, *(end for _, end in stretches[:-1])]
    assert stretches[-1][1] == tokens and len(stretches) == processes
    sizes = [end - start for start, end in stretches]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


SIZES = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5)


@given(SIZES, st.integers(1, 4))
def test_a_stretch_takes_with_its_tokens_all_that_is_theirs(sizes: list[tuple[int, int, int]], processes: int) -> None:
    latents, levels, texts = clips_of(sizes)
    with torch.no_grad():
        whole = arrange(transformer_of(), latents, levels, texts)
    total = sum(whole.lengths)
    owner = [clip for clip, tokens in enumerate(whole.lengths) for _ in range(tokens)]
    ends = [0, *accumulate(whole.words)]
    for start, end in split_evenly(total, min(processes, total)):
        own, clips = stretch(whole, start, end)
        numbers = range(clips.start, clips.stop)
        assert sorted(set(owner[start:end])) == list(numbers)
        assert list(own.lengths) == [owner[start:end].count(clip) for clip in numbers]
        assert own.words == whole.words[clips]
        assert torch.equal(own.prompt, whole.prompt[:, ends[clips.start] : ends[clips.stop]])
        assert torch.equal(own.x, whole.x[:, :, start:end]) and torch.equal(own.table, whole.table[start:end])
        assert torch.equal(own.levels[own.where], whole.levels[whole.where[start:end]])


def test_checkpointing_changes_no_gradient_and_keeps_less() -> None:
    given = clips_of([(3, 2, 2), (1, 1, 3), (1, 1, 3), (2, 3, 3)])
    gradients: dict[str, list[torch.Tensor]] = {}
    kept: dict[str, int] = {}
    for kind in ("none", "selective", "full"):
        transformer, bytes_kept = with_checkpointing(transformer_of(), kind), {}

        def note(tensor: torch.Tensor, bytes_kept: dict[int, int] = bytes_kept) -> torch.Tensor:
            bytes_kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = torch.stack([said.square().sum() for said in run_packed(transformer, *given)]).sum()
        loss.backward()
        gradients[kind] = [parameter.grad for parameter in transformer.parameters() if parameter.grad is not None]
        kept[kind] = sum(bytes_kept.values())
    for kind in ("selective", "full"):
        assert len(gradients[kind]) == len(gradients["none"])
        for one, other in zip(gradients["none"], gradients[kind], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    assert kept["full"] < 0.5 * kept["none"] and kept["selective"] < kept["none"]


def test_eight_bits_need_a_gpu_that_has_them() -> None:
    with pytest.raises(ConfigError, match=r"float8 needs an NVIDIA GPU of compute capability 8\.9"):
        with_float8(transformer_of(), torch.device("cpu"))


@pytest.fixture(scope="module")
def stage(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("sharing")
    sizes = ((64, 64, 5), (32, 64, 1))
    pool = {
        "autoencoder": tiny_model / "autoencoder",
        "mix": "simple",
        "buckets": [{"width": w, "height": h, "frames": f, "clips": 4} for w, h, f in sizes],
        "run": {"out": folder / "pool", "device": "cpu", "precision": "fp32", "workers": 0},
    }
    return {
        "pool": build_pool(LatentsStage.model_validate(pool)),
        "start_from": tiny_model,
        "autoencoder": tiny_model / "autoencoder",
        "run": {"out": folder / "run", "steps": 3, "device": "cpu"},
        "optim": {"adamw": 0.01},
    }


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_the_shares_of_a_batch_are_the_batch(stage: dict[str, object], shards: int) -> None:
    bucket = {"width": 64, "height": 64, "frames": 5, "batch": 5}
    config = TransformerStage.model_validate(stage | {"buckets": [bucket], "things": 1.0})
    whole = PoolBatches(config).batch(7)
    shares = [PoolBatches(config, shard, shards).batch(7) for shard in range(shards)]
    assert torch.equal(torch.cat([share.latents for share in shares]), whole.latents)
    assert [caption for share in shares for caption in share.captions] == whole.captions
    assert whole.layout is not None
    assert torch.equal(torch.cat([share.layout for share in shares if share.layout is not None]), whole.layout)
    assert [(share.first, share.whole) for share in shares] == [(5 * n // shards, 5) for n in range(shards)]
    with pytest.raises(ConfigError, match="a batch of 5 clips cannot be shared by 6"):
        PoolBatches(config, 0, 6)


@pytest.mark.parametrize("shards", [1, 2, 3, 6])
def test_the_shares_of_a_steps_packs_are_its_packs(stage: dict[str, object], shards: int) -> None:
    config = TransformerStage.model_validate(stage | {"packed": 60, "packs": 6})
    whole = PackedBatches(config, packs=6).batch(2)
    shares = [PackedBatches(config, shard, shards, packs=6).batch(2) for shard in range(shards)]
    packs = [pack for share in shares for pack in share]
    assert [pack.number for pack in packs] == list(range(6))
    assert [pack.captions for pack in packs] == [pack.captions for pack in whole]
    for one, other in zip(packs, whole, strict=True):
        assert all(torch.equal(*clips) for clips in zip(one.latents, other.latents, strict=True))
    following = PackedBatches(config, packs=6).batch(3)
    assert [pack.captions for pack in following] != [pack.captions for pack in whole]
    with pytest.raises(ConfigError, match="packs = 6 cannot be shared by 4"):
        PackedBatches(config, 0, 4, packs=6)


def test_settings_that_do_not_go_together(stage: dict[str, object]) -> None:
    bucket = {"width": 64, "height": 64, "frames": 5, "batch": 4}
    with pytest.raises(ValueError, match="packs is for packed"):
        TransformerStage.model_validate(stage | {"buckets": [bucket], "packs": 2})
    for setting in ({"layout": 0.5}, {"compile": True}):
        with pytest.raises(ValueError, match=r"leave parallel\.context at 1"):
            TransformerStage.model_validate(stage | {"buckets": [bucket], "parallel": {"context": 2}} | setting)


def test_the_figures_of_a_steps_parts_are_told_as_one() -> None:
    parts = [{"loss": 1.0, "tokens": 10.0, "level/0.0-0.2": 3.0}, {"loss": 0.5, "tokens": 6.0, "shapes_right": 0.5}]
    assert joined(parts) == {"loss": 1.5, "tokens": 16.0, "level/0.0-0.2": 3.0, "shapes_right": 0.5}
