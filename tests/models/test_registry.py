"""Models by name and by folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from yozora.errors import ModelError
from yozora.models import registry
from yozora.models.autoencoder import Autoencoder, AutoencoderConfig
from yozora.models.folder import save_module
from yozora.models.registry import ModelInfo, list_models, load_bundle
from yozora.models.text import TextEncoder, TextEncoderConfig, train_tokenizer
from yozora.models.transformer import Transformer, TransformerConfig

CARD = {
    "name": "tiny",
    "description": "random weights",
    "fps": 12,
    "sizes": [[64, 64], [96, 64]],
    "frames_min": 1,
    "frames_max": 17,
    "steps": 4,
    "guidance": 3.0,
    "shift": 1.5,
    "solver": "multistep",
}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shipped model named tiny, and no other."""
    folder = tmp_path / "weights" / "tiny"
    autoencoder = AutoencoderConfig(4, (8, 8, 8), (1, 1, 1), (8, 8, 8), (1, 1, 1))
    text = TextEncoderConfig(300, width=16, depth=1, heads=2)
    save_module(Transformer(TransformerConfig(4, 24, 1, 2, text_width=16, freq_dim=8)), folder / "transformer")
    save_module(Autoencoder(autoencoder), folder / "autoencoder")
    save_module(TextEncoder(text, train_tokenizer(["a red ball"], 300)), folder / "text_encoder")
    (folder / "model.json").write_text(json.dumps(CARD))
    monkeypatch.setattr(registry, "SHIPPED", tmp_path / "weights")
    return folder


def test_by_name_and_by_folder(tiny: Path) -> None:
    for which in ("tiny", str(tiny), tiny):
        bundle = load_bundle(which, dtype=torch.float32)
        assert bundle.name == "tiny" and bundle.card.sizes == ((64, 64), (96, 64))
        assert bundle.device == torch.device("cpu") and bundle.dtype == torch.float32
        assert not bundle.transformer.training
    assert [card.name for card in list_models()] == ["tiny"]
    assert load_bundle(tiny).dtype in (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("name", ["other", "", "../tiny", "a" * 5000, "nul\0", "owner/name"])
def test_unknown_names_list_what_there_is(tiny: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"model") as caught:
        load_bundle(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_folder_without_its_parts(tiny: Path) -> None:
    (tiny / "autoencoder" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="autoencoder"):
        load_bundle(tiny)
    (tiny / "model.json").unlink()
    with pytest.raises(ModelError, match=r"model\.json is missing"):
        load_bundle(tiny)
    assert list_models() == []


def test_parts_of_different_models(tiny: Path) -> None:
    save_module(Transformer(TransformerConfig(8, 24, 1, 2, text_width=16, freq_dim=8)), tiny / "transformer")
    with pytest.raises(ModelError, match="do not fit"):
        load_bundle(tiny)


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 0},
        {"sizes": []},
        {"sizes": [[0, 64]]},
        {"sizes": [[64]]},
        {"frames_max": 0},
        {"steps": "many"},
        {"shift": -1},
        {"shift": float("nan")},
        {"fps": float("inf")},
        {"guidance": float("inf")},
    ],
)
def test_cards_that_cannot_be(tiny: Path, change: dict[str, object]) -> None:
    (tiny / "model.json").write_text(json.dumps({**CARD, **change}))
    with pytest.raises(ModelError, match=r"model\.json"):
        load_bundle("tiny")
    assert list_models() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sizes": [[64, 64], [72, 64]]}, "size 72x64 is no multiple of 32"),
        ({"frames_max": 16}, r"16 frames is not 1 \+ 4k"),
        ({"frames_min": 2}, r"2 frames is not 1 \+ 4k"),
    ],
)
def test_cards_off_the_grid_of_their_model(tiny: Path, change: dict[str, object], said: str) -> None:
    (tiny / "model.json").write_text(json.dumps({**CARD, **change}))
    with pytest.raises(ModelError, match=rf"model\.json: {said}"):
        load_bundle("tiny")


def test_a_card_says_what_it_lacks(tiny: Path) -> None:
    (tiny / "model.json").write_text("{}")
    with pytest.raises(ModelError, match="name"):
        load_bundle("tiny")


def test_shipped_models_load() -> None:
    for card in list_models():
        assert isinstance(card, ModelInfo)
        load_bundle(card.name)
