"""The transformer: the same numbers as diffusers' Wan, per-token levels, masks, precision, bad input."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from yozora.models.positions import PLACE_WIDTH, place_table, rotary_table
from yozora.models.transformer import Transformer, TransformerConfig

TINY = TransformerConfig(channels=4, width=48, depth=2, heads=4, text_width=16, freq_dim=32)


def fresh(config: TransformerConfig = TINY, seed: int = 0) -> Transformer:
    """A model whose every weight is random, so that nothing hides behind a zero."""
    torch.manual_seed(seed)
    model = Transformer(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def inputs(
    config: TransformerConfig = TINY, size: tuple[int, int, int] = (3, 4, 6), batch: int = 2
) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(batch, config.channels, *size, generator=generator)
    return (
        latents,
        torch.rand(batch, size[0], generator=generator),
        torch.randn(batch, 5, config.text_width, generator=generator),
    )


# ---- parity with an independent implementation -----------------------------------------------------------------------

WAN_LINEARS = {  # ours: theirs, each with .weight and .bias
    "time.up": "condition_embedder.time_embedder.linear_1",
    "time.down": "condition_embedder.time_embedder.linear_2",
    "time.modulation": "condition_embedder.time_proj",
    "text.up": "condition_embedder.text_embedder.linear_1",
    "text.down": "condition_embedder.text_embedder.linear_2",
    "head.out": "proj_out",
}
WAN_BLOCK_LINEARS = {
    "attention.out": "attn1.to_out.0",
    "norm_cross": "norm2",
    "cross.q": "attn2.to_q",
    "cross.out": "attn2.to_out.0",
    "ffn.up": "ffn.net.0.proj",
    "ffn.down": "ffn.net.2",
}


def from_wan(theirs: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    ours = {"head.table": theirs["scale_shift_table"][0]}
    ours["patch.weight"] = theirs["patch_embedding.weight"].flatten(1)
    ours["patch.bias"] = theirs["patch_embedding.bias"]
    for suffix in ("weight", "bias"):
        for here, there in WAN_LINEARS.items():
            ours[f"{here}.{suffix}"] = theirs[f"{there}.{suffix}"]
        for n in range(depth):
            for here, there in WAN_BLOCK_LINEARS.items():
                ours[f"blocks.{n}.{here}.{suffix}"] = theirs[f"blocks.{n}.{there}.{suffix}"]
            qkv = [theirs[f"blocks.{n}.attn1.to_{name}.{suffix}"] for name in "qkv"]
            ours[f"blocks.{n}.attention.qkv.{suffix}"] = torch.cat(qkv)
            kv = [theirs[f"blocks.{n}.attn2.to_{name}.{suffix}"] for name in "kv"]
            ours[f"blocks.{n}.cross.kv.{suffix}"] = torch.cat(kv)
    for n in range(depth):
        for name in "qk":
            ours[f"blocks.{n}.attention.norm_{name}.weight"] = theirs[f"blocks.{n}.attn1.norm_{name}.weight"]
            ours[f"blocks.{n}.cross.norm_{name}.weight"] = theirs[f"blocks.{n}.attn2.norm_{name}.weight"]
        ours[f"blocks.{n}.table"] = theirs[f"blocks.{n}.scale_shift_table"][0]
    return ours


@pytest.mark.parametrize(("heads", "head_width", "ffn"), [(2, 128, 2.0), (3, 16, 35 / 6), (2, 12, 4.0)])
@pytest.mark.parametrize("per_token", [False, True])
def test_same_numbers_as_diffusers(heads: int, head_width: int, ffn: float, per_token: bool) -> None:
    wan: Any = importlib.import_module("diffusers.models.transformers.transformer_wan")

    width = heads * head_width
    config = TransformerConfig(channels=4, width=width, depth=2, heads=heads, ffn=ffn, text_width=24, freq_dim=64)
    torch.manual_seed(0)
    theirs = wan.WanTransformer3DModel(
        patch_size=config.patch,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        in_channels=4,
        out_channels=4,
        text_dim=24,
        freq_dim=64,
        ffn_dim=config.ffn_width,
        num_layers=2,
        cross_attn_norm=True,
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, mean=0.02, std=0.08)
    ours = Transformer(config).eval()
    ours.load_state_dict(from_wan(theirs.state_dict(), 2))

    latents, _, text = inputs(config, (3, 6, 8))
    levels = torch.rand(2, 3, 3, 4) if per_token else torch.rand(2, 1)
    timestep = levels.flatten(1) * 1000 if per_token else levels[:, 0] * 1000
    with torch.no_grad():
        expected = theirs(latents, timestep, text, return_dict=False)[0]
        got = ours(latents, levels, text)
    assert expected.abs().mean() > 0.05
    assert (got - expected).abs().max() <= 1e-4


def test_every_wan_parameter_has_a_place() -> None:
    wan: Any = importlib.import_module("diffusers.models.transformers.transformer_wan")

    with torch.device("meta"):  # the shape of Wan 2.1 T2V 1.3B
        theirs = wan.WanTransformer3DModel(
            num_attention_heads=12, ffn_dim=8960, num_layers=30, text_dim=4096, cross_attn_norm=True
        ).state_dict()
        config = TransformerConfig(channels=16, width=1536, depth=30, heads=12, ffn=8960 / 1536, text_width=4096)
        ours = Transformer(config).state_dict()
    assert len(theirs) == 825
    assert {k: v.shape for k, v in from_wan(theirs, 30).items()} == {k: v.shape for k, v in ours.items()}


# ---- behaviour -------------------------------------------------------------------------------------------------------


def test_a_fresh_model_answers_zero_and_learns_everywhere() -> None:
    torch.manual_seed(0)
    model = Transformer(TINY)
    latents, levels, text = inputs()
    assert model(latents, levels, text).abs().max() == 0
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        (model(latents, levels, text) - latents).square().mean().backward()
        optimiser.step()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_only_absolute_positions_tell_edges_from_the_middle_of_the_same_picture() -> None:
    """Where every token is alike, rotary positions alone cannot say which is where."""
    alike = torch.ones(1, TINY.channels, 1, 8, 8)
    _, _, text = inputs(batch=1)
    spread = []
    for absolute in (False, True):
        model = fresh(dataclasses.replace(TINY, absolute=absolute))
        velocity = model(alike, torch.ones(1, 1), text).unflatten(4, (4, 2)).unflatten(3, (4, 2))
        spread.append(velocity.amax((3, 5)).sub(velocity.amin((3, 5))).max().item())
    assert spread[0] < 1e-4 and spread[1] > 0.1


def test_places_are_those_of_the_picture_at_any_size() -> None:
    small, large = (place_table((2, n, n), torch.device("cpu")) for n in (3, 9))
    assert small.shape == (2, 9, PLACE_WIDTH) and torch.unique(large[0], dim=0).shape[0] == 81
    middle = [table.unflatten(1, (n, n))[:, n // 2, n // 2] for table, n in ((small, 3), (large, 9))]
    torch.testing.assert_close(middle[0], middle[1])


def test_levels_per_frame_equal_levels_per_token() -> None:
    model, (latents, levels, text) = fresh(), inputs()
    per_frame = model(latents, levels, text)
    per_token = model(latents, levels[:, :, None, None].expand(-1, -1, 2, 3), text)
    assert torch.allclose(per_frame, per_token, atol=1e-5)
    one = model(latents, torch.full((2, 1), 0.3), text)
    assert torch.allclose(one, model(latents, torch.full((2, 3), 0.3), text), atol=1e-5)
    assert not torch.allclose(one, per_frame, atol=1e-2)


def test_masked_text_does_not_matter_and_frames_can_have_their_own() -> None:
    model, (latents, levels, text) = fresh(), inputs()
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[:, 3:] = False
    other = text.clone()
    other[:, 3:] = 7.0
    assert torch.allclose(model(latents, levels, text, mask), model(latents, levels, other, mask), atol=1e-5)
    assert torch.allclose(model(latents, levels, text, mask), model(latents, levels, text[:, :3]), atol=1e-5)
    per_frame = mask[:, None].repeat(1, 3, 1)
    assert torch.allclose(model(latents, levels, text, mask), model(latents, levels, text, per_frame), atol=1e-5)
    per_frame[:, 1] = ~per_frame[:, 1]
    assert not torch.allclose(model(latents, levels, text, mask), model(latents, levels, text, per_frame), atol=1e-3)


def test_prepared_text_gives_the_same_numbers() -> None:
    model, (latents, levels, text) = fresh(), inputs()
    assert torch.equal(model(latents, levels, text), model(latents, levels, model.prepare_text(text)))


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    model, (latents, levels, text) = fresh(), inputs()
    alone = model(latents[1:], levels[1:], text[1:])
    assert torch.allclose(model(latents, levels, text)[1:], alone, atol=1e-5)


@pytest.mark.parametrize("how", ["parameters", "autocast"])
def test_bfloat16_stays_close(how: str) -> None:
    model, (latents, levels, text) = fresh(), inputs()
    exact = model(latents, levels, text)
    if how == "parameters":
        got = model.to(torch.bfloat16)(latents, levels, text)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            got = model(latents, levels, text)
    assert got.dtype == torch.float32
    assert (got - exact).norm() / exact.norm() < 0.02


def test_positions_are_shared_between_sampling_and_training() -> None:
    rotary_table.cache_clear()
    model, (latents, levels, text) = fresh(), inputs()
    with torch.inference_mode():
        model(latents, levels, text)
    model(latents, levels, text).sum().backward()


def test_temporal_patches_and_other_output_channels() -> None:
    config = dataclasses.replace(TINY, patch=(2, 2, 1), out_channels=3)
    latents = torch.randn(1, 4, 4, 4, 3)
    assert fresh(config)(latents, torch.rand(1, 2), torch.randn(1, 2, 16)).shape == (1, 3, 4, 4, 3)


def test_sizes_that_do_not_fit() -> None:
    model, (latents, levels, text) = fresh(), inputs()
    with pytest.raises(ValueError, match="multiple of the patch"):
        model(latents[..., :5], levels, text)
    with pytest.raises(ValueError, match="channels"):
        model(latents[:, :3], levels, text)
    for wrong in (levels[:, :2], levels[:, :, None], torch.rand(2, 3, 2, 2), torch.rand(3, 3)):
        with pytest.raises(ValueError, match="levels"):
            model(latents, wrong, text)
    with pytest.raises(ValueError, match="text mask"):
        model(latents, levels, text, torch.ones(2, 2, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    "change",
    [{"width": 50}, {"heads": 0}, {"width": 20}, {"patch": (1, 2)}, {"freq_dim": 7}, {"depth": 0}, {"ffn": 0.0}],
)
def test_configurations_that_cannot_be(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        dataclasses.replace(TINY, **change)
