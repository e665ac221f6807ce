"""Few-step weights: what an adapter makes of a transformer, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from yozora.errors import ModelError
from yozora.models.adapter import Adapter, AdapterConfig, matrices_of
from yozora.models.folder import load_module, save_module
from yozora.models.transformer import Transformer, TransformerConfig

TINY = TransformerConfig(channels=4, width=24, depth=2, heads=2, text_width=16, freq_dim=32, absolute=True)


def base_of(config: TransformerConfig = TINY) -> Transformer:
    torch.manual_seed(0)
    base = Transformer(config)
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return base.requires_grad_(False)


def adapter_of(rank: int = 3) -> Adapter:
    torch.manual_seed(1)
    adapter = Adapter(AdapterConfig(rank, TINY))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return adapter


GIVEN = torch.randn(1, 4, 2, 4, 4), torch.rand(1, 2), torch.randn(1, 3, 16)


def test_a_fresh_adapter_changes_nothing() -> None:
    base = base_of()
    made = Adapter(AdapterConfig(3, TINY)).onto(base)
    assert made.config.spans and not base.config.spans
    for spans in (None, torch.rand(1, 2)):
        torch.testing.assert_close(made(*GIVEN, None, spans), base(*GIVEN))


def test_it_adds_the_product_of_its_factors_to_each_matrix() -> None:
    base, adapter = base_of(), adapter_of()
    made = adapter.onto(base).state_dict()
    changed = matrices_of(base)
    assert {"blocks.1.ffn.up.weight", "patch.weight", "head.out.weight", "time.modulation.weight"} <= changed.keys()
    for name, tensor in base.state_dict().items():
        if name in changed:
            key = name.replace(".", "/")
            torch.testing.assert_close(made[name], tensor + adapter.up[key] @ adapter.down[key])
            assert torch.linalg.matrix_rank(made[name] - tensor, rtol=1e-4) <= 3
        else:
            assert torch.equal(made[name], tensor), name


def test_the_length_of_the_step_matters_token_by_token() -> None:
    made = adapter_of().onto(base_of())
    near, far = (made(*GIVEN, None, torch.tensor([[0.1, length]])) for length in (0.1, 0.5))
    assert not torch.allclose(near, far)
    by_token = made(*GIVEN, None, torch.tensor([[0.1, 0.5]])[:, :, None, None])
    torch.testing.assert_close(by_token, far)


def test_all_of_it_learns() -> None:
    base, adapter = base_of(), adapter_of()
    weights = adapter.changed(base)
    student = Transformer(adapter.onto(base).config)
    said = torch.func.functional_call(student, dict(base.state_dict()) | weights, (*GIVEN, None, torch.rand(1, 2)))
    said.square().mean().backward()
    for name, parameter in adapter.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_saved_and_loaded_again(tmp_path: Path, dtype: torch.dtype) -> None:
    base, adapter = base_of(), adapter_of()
    save_module(adapter, tmp_path, dtype)
    again = load_module(Adapter, tmp_path)
    assert again.config == adapter.config
    ours, theirs = adapter.onto(base)(*GIVEN), again.onto(base)(*GIVEN)
    assert (ours - theirs).norm() / ours.norm() < 0.05


def test_another_transformer_is_refused() -> None:
    with pytest.raises(ModelError, match="of another transformer"):
        adapter_of().onto(
            base_of(TransformerConfig(channels=4, width=24, depth=3, heads=2, text_width=16, freq_dim=32))
        )


@pytest.mark.parametrize("settings", [{"rank": 0}, {"base": TransformerConfig(spans=True)}])
def test_configurations_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"rank must be|no flow map"):
        AdapterConfig(**settings)  # type: ignore[arg-type]


def test_a_configuration_of_absurd_depth_is_refused_quickly(tmp_path: Path) -> None:
    save_module(adapter_of(), tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"depth": 2', '"depth": 900'))
    with pytest.raises(ModelError, match="nothing in the weights is larger"):
        load_module(Adapter, tmp_path)
