"""A language model from a local folder, with eyes or without, run by the transformers library: nothing is downloaded,
and no code in the folder is run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from yozora.errors import ModelError, first_line
from yozora.models.endpoint import Message

MOST_TOKENS = 600  # of an answer


class LocalChat:
    """A chat model in the transformers library's own form of folder, for texts alone."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """Raises ModelError for a folder that is none."""
        if not os.path.isfile(folder / "config.json"):
            raise ModelError(f"there is no language model in {folder}; give a folder with config.json and its weights")
        self.folder, self.device = folder, device

    @property
    def name(self) -> str:
        return str(self.folder)

    def answer(self, messages: Sequence[Message]) -> str:
        """Greedily. Raises ModelError."""
        tokenizer, model = self._loaded
        try:
            inputs = tokenizer.apply_chat_template(
                [dict(message) | {"content": self.content(message["content"])} for message in messages],
                add_generation_prompt=True,
                tokenize=True,
                return_tensors="pt",
                return_dict=True,
            ).to(self.device)
            made = model.generate(**inputs, max_new_tokens=MOST_TOKENS, do_sample=False)
        except Exception as error:  # whatever a template, or a model of another kind, does with it
            raise ModelError(f"{self.folder} cannot answer ({first_line(error)[:160]})") from None
        return tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def content(self, content: Any) -> Any:
        """A message's content as the folder's template takes it."""
        return content

    def load(self) -> tuple[Any, Any]:
        """What makes tokens of messages, and the model."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        return tokenizer, AutoModelForCausalLM.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        try:
            tokenizer, model = self.load()
        except ModuleNotFoundError as error:
            raise ModelError(f"a model of your own needs {error.name}: pip install {error.name}") from None
        except Exception as error:  # missing files, unknown kinds, broken weights: the library raises many
            raise ModelError(f"{self.folder} cannot be loaded ({first_line(error)[:160]})") from None
        return tokenizer, model.eval().to(self.device)


class LocalVision(LocalChat):
    """A chat model that is shown pictures, too, in the same form of folder: messages may hold pictures as data URLs, as
    OpenAI's do."""

    def content(self, content: Any) -> Any:
        """Pictures as the templates of the transformers library name them; a text is one part."""
        if isinstance(content, str):
            return [{"type": "text", "text": content}]
        return [
            {"type": "image", "url": part["image_url"]["url"]} if part["type"] == "image_url" else part
            for part in content
        ]

    def load(self) -> tuple[Any, Any]:
        """What makes tokens of messages with pictures, and the model."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        processor = AutoProcessor.from_pretrained(self.folder, local_files_only=True)
        return processor, AutoModelForImageTextToText.from_pretrained(
            self.folder, local_files_only=True, use_safetensors=True
        )
