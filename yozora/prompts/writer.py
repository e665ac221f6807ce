"""Understanding by the small language model that ships: the default for `mini`, and for models of the same world.

A prompt is put into known words, the model writes down what it says as labels, and a caption; and reads its own caption
again, which must say all of that. It can write about nothing but the world, whatever a prompt tells it to do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from yozora.errors import ModelError
from yozora.models.folder import load_module
from yozora.models.language import LanguageModel, Written
from yozora.prompts.nearest import guess_language, is_caption, put_known
from yozora.prompts.rewriting import Subject, Understood

WEIGHTS = Path(__file__).parents[1] / "models" / "weights" / "rewriter"
SUBJECTS = ("", "second_")
LOOK = ("size", "material", "colour")
SECONDS = re.compile(
    r"(\d{1,4}(?:[.,]\d+)?)\s*-?\s*(?:s|sec|secs|seconds?|sekunden?|secondes?|segundos?)\b", re.IGNORECASE
)


class WorldWriter:
    """See `yozora.prompts.rewriting.Engine`."""

    name = "mini"

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def understand(self, prompt: str, attempt: int) -> Understood | None:
        """First the caption that the model writes of the prompt; at the second try one of the labels alone. None for a
        prompt in a caption's words. Raises ModelError where it reads no thing, or says something else than it read."""
        if is_caption(prompt):
            return None
        language = guess_language(prompt)
        known = put_known(prompt, self.model.words, language)
        written = self.model.write(known.text)
        facts = read_labels(written.labels)
        if "shape" not in facts:
            raise ModelError("nothing in it is a thing that the model knows")
        if attempt:
            written = Written(written.labels, *self.model.caption(written.labels)[1:])
        said = read_labels(self.model.read(written.caption))
        if not written.finished or not written.caption or not facts.items() <= said.items():
            raise ModelError("the caption does not say all that the prompt does")
        return understood(facts, written.caption, prompt, known.notes)


@lru_cache(maxsize=2)
def load_writer(folder: str | Path = WEIGHTS) -> WorldWriter:
    """The shipped model, or another that `yozora train rewriter` made. Raises ModelError."""
    return WorldWriter(load_module(LanguageModel, folder).requires_grad_(False))


def read_labels(labels: tuple[str, ...]) -> dict[str, str]:
    """Facts by name; of one that is told twice the first."""
    facts: dict[str, str] = {}
    for label in labels:
        name, _, value = label.partition("=")
        facts.setdefault(name, value)
    return facts


def understood(facts: dict[str, str], caption: str, prompt: str, notes: tuple[str, ...]) -> Understood:
    """Facts in the form of the schema."""
    subjects = []
    for which in SUBJECTS:
        if shape := facts.get(f"{which}shape"):
            look = tuple(facts[which + name] for name in LOOK if which + name in facts)
            motion, direction = facts.get(f"{which}motion", ""), facts.get(f"{which}direction", "")
            becomes = facts.get("colour_to", "") if motion == "recolour" else ""
            words = [motion, "" if direction == motion else direction, becomes]
            subjects.append(Subject(what=shape, attributes=look, motion=" ".join(filter(None, words))))
    found = SECONDS.search(prompt)
    seconds = float(found[1].replace(",", ".")) if found else None
    return Understood(
        caption=sentence(caption),
        subjects=tuple(subjects),
        setting=", ".join(facts[name] for name in ("ground", "time", "weather") if name in facts),
        camera=" ".join(facts[name] for name in ("camera", "camera_direction") if name in facts),
        style=facts.get("style", ""),
        seconds=seconds if seconds and seconds <= 3600 else None,
        notes=tuple(note[:160] for note in notes[:16]),
    )


def sentence(caption: str) -> str:
    """With a capital letter and a full stop: the model writes in lower case."""
    return caption[:1].upper() + caption[1:].rstrip(".") + "."
