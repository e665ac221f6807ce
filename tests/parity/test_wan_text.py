"""Wan's text encoder: diffusers' states, whichever name the embeddings have; cleaning, cutting, bad folders."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from wan_models import tiny_autoencoder, tiny_text_encoder, tiny_transformer

from yozora.errors import ModelError
from yozora.models import wan_text
from yozora.models.mapped import key_map
from yozora.models.wan_text import clean, load_wan_text, text_rows

PROMPTS = ["a red ball", "", "  schön &amp;amp; gut\n\tâ€œquotedâ€\x9d  ", "b c d e f g h " * 10]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    encoder, tokenizer = tiny_text_encoder()
    folder = tmp_path_factory.mktemp("text")
    encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder


def load(folder: Path) -> wan_text.WanTextEncoder:
    return load_wan_text(folder / "text_encoder", folder / "tokenizer")


@torch.no_grad()
def test_same_states_as_diffusers(folder: Path) -> None:
    library: Any = importlib.import_module("diffusers")
    encoder, tokenizer = tiny_text_encoder()
    pipeline = library.WanPipeline(tokenizer, encoder, tiny_autoencoder("2.1"), None, tiny_transformer())
    expected, null = pipeline.encode_prompt(PROMPTS, PROMPTS[::-1], max_sequence_length=512)
    ours = load(folder)
    states, mask = ours(PROMPTS)
    assert mask is None and states.shape == (4, 512, 24)
    assert expected.std() > 0.05
    assert (states - expected).abs().max() <= 1e-4
    assert (ours(PROMPTS[::-1])[0] - null).abs().max() <= 1e-4
    assert (ours(PROMPTS[:1])[0] - expected[:1]).abs().max() <= 1e-4
    length = len(tokenizer(PROMPTS[0])["input_ids"])
    assert states[0, :length].abs().amax(-1).min() > 0 and states[0, length:].abs().max() == 0


@torch.no_grad()
def test_embeddings_are_read_by_either_name(folder: Path, tmp_path: Path) -> None:
    """Some versions of transformers leave them zero where only `shared.weight` is stored."""
    expected = load(folder)(["a red ball"])[0]
    stored = load_file(folder / "text_encoder" / "model.safetensors")
    table = stored.pop("shared.weight", None)
    table = stored.pop("encoder.embed_tokens.weight", table)
    assert table is not None
    (tmp_path / "config.json").write_bytes((folder / "text_encoder" / "config.json").read_bytes())
    for names in (["shared.weight"], ["encoder.embed_tokens.weight"], ["shared.weight", "encoder.embed_tokens.weight"]):
        save_file(stored | {name: table.clone() for name in names}, tmp_path / "model.safetensors")
        encoder = load_wan_text(tmp_path, folder / "tokenizer")
        assert encoder.encoder.get_input_embeddings().weight.abs().sum() > 0  # type: ignore[operator]
        assert torch.equal(encoder(["a red ball"])[0], expected)
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks shared\.weight"):
        load_wan_text(tmp_path, folder / "tokenizer")


@torch.no_grad()
def test_the_original_layout(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, original = (dict(key_map(text_rows(2), layout)) for layout in ("diffusers", "original"))
    encoder, _ = tiny_text_encoder()
    state = encoder.state_dict()
    torch.save({original[name][0]: state[theirs[name][0]] for name in theirs}, tmp_path / "models_t5.pth")
    fields = json.loads((folder / "text_encoder" / "config.json").read_text())
    monkeypatch.setattr(wan_text, "UMT5_XXL", fields)  # the released one is not tiny
    again = load_wan_text(tmp_path / "models_t5.pth", folder / "tokenizer")
    assert torch.equal(again(PROMPTS)[0], load(folder)(PROMPTS)[0])


def test_umt5_xxl_is_mapped_whole() -> None:
    library: Any = importlib.import_module("transformers")
    with torch.device("meta"):
        names = set(library.UMT5EncoderModel(library.UMT5Config(**wan_text.UMT5_XXL)).state_dict())
    keys = key_map(text_rows(24), "original")
    assert keys.keys() == names - {"encoder.embed_tokens.weight"}
    assert len({each for theirs in keys.values() for each in theirs}) == 242


def test_prompts_are_cleaned_and_cut(folder: Path) -> None:
    assert clean(PROMPTS[2]) == 'schön & gut "quoted"'
    ours = load(folder)
    assert not ours.is_cut("a red ball") and ours.is_cut("x " * 600)
    with torch.no_grad():
        assert ours(["x " * 600])[0].shape == (1, 512, 24)


@pytest.mark.parametrize(
    ("fields", "said"), [({"model_type": "t5"}, "not the UMT5"), ({"num_layers": "many"}, "no UMT5 encoder")]
)
def test_bad_folders(fields: dict[str, Any], said: str, folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | fields))
    with pytest.raises(ModelError, match=said):
        load_wan_text(tmp_path, folder / "tokenizer")
    with pytest.raises(ModelError, match="needs its tokenizer"):
        load_wan_text(folder / "text_encoder", folder / "nothing")
