"""A vision-language model from a local folder: a tiny random one, saved by the transformers library itself."""

from pathlib import Path

import numpy as np
import pytest

from yozora.captions import load_captioner
from yozora.captions.chat import FRAMES, ChatCaptioner
from yozora.clip import Clip
from yozora.errors import ModelError
from yozora.models.local_chat import LocalVision
from yozora.models.text import train_tokenizer

transformers = pytest.importorskip("transformers")
SIDE, PATCH = 8, 4
TEMPLATE = (
    "{% for m in messages %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vision")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(["a red ball bounces"], 300), pad_token="<pad>", eos_token="<bos>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    pictures = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    transformers.LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    ).save_pretrained(path)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**small, image_size=SIDE, patch_size=PATCH),
        text_config=transformers.LlamaConfig(**small, vocab_size=len(tokenizer), max_position_embeddings=8192),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(path)
    return path


def test_it_is_shown_frames_and_nonsense_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yozora.models.local_chat.MOST_TOKENS", 8)
    captioner = load_captioner(str(folder))
    assert isinstance(captioner, ChatCaptioner) and isinstance(captioner.chat, LocalVision)
    clip = Clip(np.random.default_rng(0).integers(0, 255, (9, 32, 32, 3), np.uint8), 8.0)
    with pytest.raises(ModelError, match="did not answer as it was asked"):  # so it did answer
        captioner.caption(clip)


def test_pictures_change_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yozora.models.local_chat.MOST_TOKENS", 24)
    captioner = load_captioner(str(folder))
    assert isinstance(captioner, ChatCaptioner)
    random = np.random.default_rng(1)
    clips = [Clip(random.integers(0, high, (FRAMES, 32, 32, 3), np.uint8), 8.0) for high in (255, 255, 40)]
    said = {captioner.chat.answer(captioner._messages(clip)) for clip in clips}
    assert len(said) > 1
