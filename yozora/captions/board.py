"""A clip's caption as a storyboard: a TOML file to edit, of which `yozora storyboard` makes a clip again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from yozora.captions.caption import Caption
from yozora.clip import Clip
from yozora.create.board import MAX_CARDS
from yozora.create.canvas import MAX_PROMPT
from yozora.create.sizes import MAX_SECONDS, Grid, fit_size
from yozora.errors import ConfigError, printable

APART = 0.1  # seconds: events that begin no later than so after one another are one card


def board_of(caption: Caption, clip: Clip, name: str = "it") -> str:
    """The text of a storyboard (see `yozora.create.board`) of the clip's length and size, or the nearest that may be
    asked for: a card for each event, or one with the short caption where nothing changes. What else is seen stands in a
    comment."""
    seconds = min(clip.seconds, MAX_SECONDS)
    cards = {0.0: caption.short}
    later = [event for event in caption.events if APART < event.start < seconds - APART]
    if later:
        first = [event.what for event in caption.events if event.start <= APART]
        cards = {0.0: _sentence(first[0]) if first else caption.short}
        for event in sorted(later, key=lambda event: event.start)[: MAX_CARDS - 1]:
            at = round(event.start, 2)
            cards[at] = " ".join([*([cards[at]] if at in cards else []), _sentence(event.what)])
    height, width = clip.frames.shape[1:3]
    width, height = fit_size(width / height, width * height, Grid(patch=1))  # the finest that a model has
    lines = [f"# What {printable(name)} shows: {printable(caption.dense)}"]
    lines += [f"seconds = {round(seconds, 3)}", f'size = "{width}x{height}"']
    for at, prompt in cards.items():
        lines += [
            "[[card]]",
            f"at = {at}",
            f"prompt = {json.dumps(printable(prompt)[:MAX_PROMPT], ensure_ascii=False)}",
        ]
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
