"""Understanding by the small language model that ships: the default for `mini`, and for models of the same world.

A prompt is put into known words, the model reads the facts in it, and these are told as the video model's captions are.
Whatever a prompt says, what comes of it is a caption of the world.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from yozora.errors import ModelError, SceneError
from yozora.models.folder import load_module
from yozora.models.prompt_reader import PromptReader
from yozora.prompts.nearest import guess_language, is_caption, put_known
from yozora.prompts.rewriting import Subject, Understood
from yozora.world.words.partial import SECOND, tell_facts

WEIGHTS = Path(__file__).parents[1] / "models" / "weights" / "rewriter"
LOOK = ("size", "material", "colour")
LONGEST = 3600  # seconds that a prompt may ask for
SECONDS = re.compile(
    r"(\d{1,4}(?:[.,]\d+)?)\s*-?\s*(?:s|sec|secs|seconds?|sekunden?|secondes?|segundos?)\b", re.IGNORECASE
)


class WorldWriter:
    """See `yozora.prompts.rewriting.Engine`."""

    name = "mini"

    def __init__(self, reader: PromptReader, detail: str = "short") -> None:
        """`detail` of the captions: "short", which `mini` follows at least as well, or "dense"."""
        self.reader, self.detail = reader, detail

    def understand(self, prompt: str, attempt: int) -> Understood | None:
        """None for a prompt in a caption's words. Raises ModelError where it reads no thing."""
        if is_caption(prompt):
            return None
        facts, notes = self.read(prompt)
        if "shape" not in facts:
            raise ModelError("nothing in it is a thing that the model knows")
        try:
            caption = tell_facts(facts, "en", self.detail)
        except SceneError as error:
            raise ModelError(f"what it says does not fit together ({error})") from None
        return understood(facts, caption, prompt, notes)

    def read(self, prompt: str) -> tuple[dict[str, str], tuple[str, ...]]:
        """The facts in a prompt, by name, and what is to be said about words that were not known."""
        known = put_known(prompt, self.reader.words, guess_language(prompt))
        return self.reader.read(known.text), known.notes


@lru_cache(maxsize=2)
def load_writer(folder: str | Path = WEIGHTS) -> WorldWriter:
    """The shipped model, or another that `yozora train rewriter` made. Raises ModelError."""
    return WorldWriter(load_module(PromptReader, folder).requires_grad_(False))


def understood(facts: dict[str, str], caption: str, prompt: str, notes: tuple[str, ...]) -> Understood:
    """Facts in the form of the schema."""
    subjects = []
    for which in ("", SECOND):
        if shape := facts.get(f"{which}shape"):
            look = tuple(facts[which + name] for name in LOOK if which + name in facts)
            motion, direction = facts.get(f"{which}motion", ""), facts.get(f"{which}direction", "")
            becomes = facts.get("colour_to", "") if motion == "recolour" else ""
            words = [motion, "" if direction == motion else direction, becomes]
            subjects.append(Subject(what=shape, attributes=look, motion=" ".join(filter(None, words))))
    found = SECONDS.search(prompt)
    seconds = float(found[1].replace(",", ".")) if found else 0.0
    return Understood(
        caption=caption,
        subjects=tuple(subjects),
        setting=", ".join(facts[name] for name in ("ground", "time", "weather") if name in facts),
        camera=" ".join(facts[name] for name in ("camera", "camera_direction") if name in facts),
        style=facts.get("style", ""),
        seconds=seconds if 0 < seconds <= LONGEST else None,
        notes=tuple(note[:160] for note in notes[:16]),
    )
