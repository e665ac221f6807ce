"""What a video shows, in words: a short and a dense caption, and what happens when.

`load_captioner` gives the captioner of a name: the shipped networks, which know the simulated world, or a
vision-language model behind an endpoint or in a folder. `caption_files` captions a folder, a line of JSON a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from yozora.captions.caption import Caption, Captioner, Event
from yozora.captions.files import caption_files
from yozora.errors import ConfigError

__all__ = ["DEFAULT", "Caption", "Captioner", "Event", "caption_files", "load_captioner"]

DEFAULT = "world"


def load_captioner(name: str = DEFAULT, language: str = "en") -> Captioner:
    """The captioner of a name: "world" (the shipped networks), `openai:MODEL@URL`, a folder that `yozora train
    captioner` wrote, or one with a vision-language model of the transformers library. `language`: "en", "de", "fr" or
    "es". Raises ConfigError, ModelError."""
    from yozora.models.endpoint import PREFIX, Endpoint
    from yozora.world.words import LANGUAGES

    if language not in LANGUAGES:
        raise ConfigError(f"no captions in {language[:40]!r}: use {', '.join(LANGUAGES)}")
    if name == DEFAULT:
        from yozora.captions.world import WorldCaptioner

        return WorldCaptioner(language)
    if name.startswith(PREFIX):
        from yozora.captions.chat import ChatCaptioner

        return ChatCaptioner(Endpoint.parse(name), language)
    if os.path.isdir(name) and not os.path.isdir(os.path.join(name, "inspector")):
        from yozora.captions.chat import ChatCaptioner
        from yozora.models.local_chat import LocalVision

        return ChatCaptioner(LocalVision(Path(name)), language)
    if os.path.isdir(name):
        from yozora.captions.world import WorldCaptioner
        from yozora.evaluate.weighing import load_eyes

        return WorldCaptioner(language, load_eyes(name))
    raise ConfigError(f"there is no captioner {name[:80]!r}: use {DEFAULT}, {PREFIX}MODEL@URL or a folder")
