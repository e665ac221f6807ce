"""What the user meant: a prompt in any words becomes a caption in those that the video model learned, and facts.

`load_rewriter` gives the `Rewriter` of a name: the one that ships, an endpoint, or a folder. A library of clips
(`library`, `stock`, `retrieval`) fills in what a prompt leaves open, and gives sampling something to begin from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from yozora.errors import ConfigError
from yozora.prompts.rewriting import Rewriter, Rewriting, Subject, Understood

if TYPE_CHECKING:
    from yozora.prompts.library import Library
    from yozora.prompts.rewriting import Engine

__all__ = ["DEFAULT", "Rewriter", "Rewriting", "Subject", "Understood", "load_rewriter"]

DEFAULT = "mini"


def load_rewriter(name: str = DEFAULT, world: bool = True, library: Library | None = None) -> Rewriter:
    """The rewriter of a name: "mini" (the one that ships, for models of the simulated world), `openai:MODEL@URL`, a
    folder that `yozora train rewriter` wrote, or one with a language model of the transformers library. `world`: the
    captions are for a model of that world. What a prompt leaves open is as in a like caption of `library`, where one is
    given. Raises ConfigError, ModelError."""
    if library is None:
        return Rewriter(_engine(name, world))
    from yozora.prompts.retrieval import Similars

    return Rewriter(_engine(name, world), Similars(library))


def _engine(name: str, world: bool) -> Engine:
    from yozora.models.endpoint import PREFIX, Endpoint

    if name == DEFAULT:
        from yozora.prompts.writer import load_writer

        return load_writer()
    if name.startswith(PREFIX):
        from yozora.prompts.chat import DETAILED, WORLD, ChatEngine

        return ChatEngine(Endpoint.parse(name), WORLD if world else DETAILED)
    if not os.path.isdir(name):
        raise ConfigError(f"there is no rewriter {name[:80]!r}: use {DEFAULT}, {PREFIX}MODEL@URL or a folder")
    return _from_folder(Path(name), world)


def _from_folder(folder: Path, world: bool) -> Engine:
    from yozora.models.folder import CONFIG, read_json

    if read_json(folder / CONFIG).get("class") == "PromptReader":
        from yozora.prompts.writer import load_writer

        return load_writer(folder)
    from yozora.models.local_chat import LocalChat
    from yozora.prompts.chat import DETAILED, WORLD, ChatEngine

    return ChatEngine(LocalChat(folder), WORLD if world else DETAILED)
