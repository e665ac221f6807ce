"""The reader of prompts: what it is saved as, and what it makes of a text."""

from pathlib import Path

import pytest
import torch

from yozora.errors import ModelError
from yozora.models.folder import load_module, save_module
from yozora.models.prompt_reader import PromptReader, PromptReaderConfig
from yozora.models.text import TextEncoderConfig, train_tokenizer

FACTS = {"colour": ("red", "blue"), "shape": ("sphere", "box", "cone")}


@pytest.fixture
def reader() -> PromptReader:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a red ball bounces", "ein blauer ball"] * 3, 300)
    text = TextEncoderConfig(tokenizer.get_vocab_size(), 16, 1, 2, 2.0, 32)
    return PromptReader(PromptReaderConfig(FACTS, text), tokenizer, frozenset({"red", "käse"})).eval()


def test_each_fact_has_its_values_and_not_said(reader: PromptReader) -> None:
    logits = reader(["a red ball", ""])
    assert {name: tuple(one.shape) for name, one in logits.items()} == {"colour": (2, 3), "shape": (2, 4)}


def test_names_are_those_of_the_largest_logits(reader: PromptReader) -> None:
    with torch.no_grad():
        for n, best in enumerate((2, 0)):  # blue; nothing said of the shape
            reader.classify[n].bias.zero_()  # type: ignore[union-attr, operator]
            reader.classify[n].bias[best] = 100.0  # type: ignore[union-attr, index]
    assert reader.read("whatever") == {"colour": "blue"}


def test_what_stands_beside_does_not_change_what_is_read(reader: PromptReader) -> None:
    with torch.no_grad():
        alone, together = reader(["a red ball"]), reader(["a red ball", "ein blauer ball bounces a red ball"])
    for name, one in alone.items():
        torch.testing.assert_close(one[0], together[name][0], atol=1e-5, rtol=1e-5)


def test_it_is_saved_and_loaded_the_same(reader: PromptReader, tmp_path: Path) -> None:
    save_module(reader, tmp_path / "r")
    again = load_module(PromptReader, tmp_path / "r")
    assert again.config == reader.config and again.words == reader.words
    with torch.no_grad():
        assert torch.equal(again(["a red ball"])["shape"], reader(["a red ball"])["shape"])
    (tmp_path / "r" / "words.txt").unlink()
    with pytest.raises(ModelError, match=r"words\.txt"):
        load_module(PromptReader, tmp_path / "r")
