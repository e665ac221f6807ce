"""A clip's caption as a storyboard: a TOML file to edit, of which `yozora storyboard` makes a clip again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from yozora.captions.caption import Caption
from yozora.clip import Clip
from yozora.errors import ConfigError

APART = 0.1  # seconds: events that begin no later than so after one another are one card


def board_of(caption: Caption, clip: Clip, name: str = "it") -> str:
    """The text of a storyboard of the clip's size and length (see `yozora.create.board`): a card for each event, or one
    with the short caption where nothing changes. What else is seen stands in a comment."""
    cards = [(0.0, caption.short)]
    later = [event for event in caption.events if event.start > APART]
    if later:
        first = [event.what for event in caption.events if event.start <= APART]
        cards = [(0.0, _sentence(first[0]) if first else caption.short)]
        cards += [(event.start, _sentence(event.what)) for event in later if event.start < clip.seconds]
    height, width = clip.frames.shape[1:3]
    lines = [f"# What {' '.join(name.split())} shows: {' '.join(caption.dense.split())}"]
    lines += [f"seconds = {round(clip.seconds, 3)}", f'size = "{width}x{height}"']
    for at, prompt in cards:
        lines += ["[[card]]", f"at = {round(at, 2)}", f"prompt = {json.dumps(prompt, ensure_ascii=False)}"]
    return "\n".join(lines) + "\n"


def write_board(text: str, path: Path) -> None:
    """Writes it, whole or not at all. Raises ConfigError."""
    if path.suffix.lower() != ".toml":
        raise ConfigError(f"a storyboard is a .toml file, not {path.name[:80]!r}: name one with --board")
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror or error}); name another file with --board") from None
    finally:
        part.unlink(missing_ok=True)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
