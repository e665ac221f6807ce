"""A language model from a local folder: a tiny random one, saved by the transformers library itself."""

from pathlib import Path

import pytest

from yozora.errors import ModelError
from yozora.models.local_chat import LocalChat
from yozora.models.text import train_tokenizer
from yozora.prompts import load_rewriter

transformers = pytest.importorskip("transformers")
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(["a red ball bounces"], 300), pad_token="<pad>", eos_token="<bos>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=8192, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(path)
    return path


def test_it_answers_and_nonsense_leaves_the_prompt(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yozora.models.local_chat.MOST_TOKENS", 8)
    made = load_rewriter(str(folder)).rewrite("a crimson orb")
    assert made.text == "a crimson orb"
    assert "did not answer as it was asked" in made.warning


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no language model"):
        LocalChat(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="cannot be loaded"):
        LocalChat(tmp_path).answer([{"role": "user", "content": "a ball"}])


def test_an_error_that_says_nothing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError

    chat = LocalChat(folder)
    monkeypatch.setattr(chat._loaded[1], "generate", fail)
    with pytest.raises(ModelError, match=r"cannot answer \(NotImplementedError\)"):
        chat.answer([{"role": "user", "content": "a ball"}])
