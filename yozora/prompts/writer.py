"""Understanding prompts for `mini`, and for other models of the simulated world: the default.

A prompt is put into known words, the facts in it are read, and these are told as the video model's captions are.
Whatever a prompt says, what comes of it is a caption of the world.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from yozora.errors import ModelError, SceneError, printable
from yozora.prompts.agree import with_count
from yozora.prompts.denial import denial
from yozora.prompts.grounding import complete
from yozora.prompts.guessing import Chances, guess, shipped
from yozora.prompts.lexicon import LexiconReader, study
from yozora.prompts.nearest import KINDS, Vocabulary, guess_language, is_caption, put_known
from yozora.prompts.numbers import seconds_told
from yozora.prompts.rewriting import Similar, Subject, Understood
from yozora.world.words import words_of
from yozora.world.words.partial import SECOND, tell_facts

TOLD = 2  # things, at most: of more, telling the facts anew would leave some out
LOOK = ("size", "material", "colour")


class Reader(Vocabulary, Protocol):
    """Reads the facts in a prompt: by the tables of words, or by a network that was trained to."""

    def read(self, text: str) -> dict[str, str]:
        """The facts that a text states, named as in `yozora.world.describe.FACTS`."""
        ...

    def unread(self, text: str) -> tuple[str, ...]:
        """Words of a text that say something, but by which no fact was read, as far as that can be told."""
        ...


class WorldWriter:
    """See `yozora.prompts.rewriting.Engine`."""

    def __init__(
        self,
        reader: Reader,
        name: str = "mini",
        detail: str = "short",
        network: Callable[[], Chances | None] = lambda: None,
    ) -> None:
        """`detail` of the captions: "short", which `mini` follows at least as well, or "dense". `network` gives what is
        asked about words that the reader leaves unread; it is loaded where there are any."""
        self.reader, self.name, self.detail, self.network = reader, name, detail, network

    def understand(self, prompt: str, similar: Sequence[Similar] = ()) -> Understood | None:
        """None for a prompt in a caption's words of which nothing is filled in. Raises ModelError where it reads no
        thing."""
        as_it_is = is_caption(prompt)
        if as_it_is and not similar:
            return None
        if denied := denial(prompt):
            raise ModelError(f'it says what is not to be ("{denied}"), which cannot be told: say what is to be instead')
        facts, notes = self.read(prompt)
        if "shape" not in facts:
            if as_it_is:
                return None
            raise ModelError("nothing in it is a thing that the model knows")
        count = int(with_count(facts, prompt)["count"])
        if count > TOLD:
            notes = (*notes, f"{count} things are asked for and {TOLD} shown: captions tell of no more")
        facts, taken, source = complete(facts, similar if count <= TOLD and not study(prompt).unread else ())
        if taken:
            notes = (*notes, f"from the library: {taken} (as in {printable(source)[-80:]})")
        elif as_it_is:
            return None
        try:
            caption = tell_facts(facts, "en", self.detail)
        except SceneError as error:
            raise ModelError(f"what it says does not fit together ({error})") from None
        return understood(facts, caption, prompt, notes)

    def read(self, prompt: str) -> tuple[dict[str, str], tuple[str, ...]]:
        """The facts in a prompt, by name, and what is to be said about words that were not known, which may stand for
        what it does not say in known ones, and about those that nothing was made of."""
        said = self.reader.read(prompt)
        known = put_known(prompt, self.reader, guess_language(prompt), [kind for kind in KINDS if kind not in said])
        lost = [*known.left, *self.reader.unread(known.text)]
        place = {word: at for at, word in reversed(list(enumerate(words_of(prompt.replace("-", " ")))))}
        left = sorted(dict.fromkeys(lost), key=lambda word: place.get(word.lower(), len(place)))
        facts, notes = self.reader.read(known.text), list(known.notes)
        if left and (network := self.network()):
            guessed = guess(network, prompt, left, facts)
            facts = facts | {name: each.value for name, each in guessed.items()}
            notes += [f"guessed: {each.value} (by {', '.join(each.words)})" for each in guessed.values()]
            left = [word for word in left if not any(word in each.words for each in guessed.values())]
        return facts, (*notes, *([f"left out: {', '.join(left)}"] if left else []))


def load_writer(folder: str | Path | None = None) -> WorldWriter:
    """Reads by the tables of words, and what these leave unread by the network that ships; or all by the network that
    `yozora train rewriter` wrote to a folder. Raises ModelError."""
    if folder is None:
        return WorldWriter(LexiconReader(), network=shipped)
    from yozora.models.folder import load_module
    from yozora.models.prompt_reader import PromptReader

    return WorldWriter(load_module(PromptReader, folder).requires_grad_(False), str(folder))


def understood(facts: dict[str, str], caption: str, prompt: str, notes: tuple[str, ...]) -> Understood:
    """Facts in the form of the schema."""
    subjects = []
    for which in ("", SECOND):
        if shape := facts.get(f"{which}shape"):
            look = tuple(facts[which + name] for name in LOOK if which + name in facts)
            motion, direction = facts.get(f"{which}motion", ""), facts.get(f"{which}direction", "")
            becomes = facts.get("colour_to", "") if not which else ""
            words = [motion, "" if direction == motion else direction, becomes if motion == "recolour" else ""]
            words += ["recolour", becomes] if becomes and motion != "recolour" else []
            subjects.append(Subject(what=shape, attributes=look, motion=" ".join(filter(None, words))))
    return Understood(
        caption=caption,
        subjects=tuple(subjects),
        setting=", ".join(facts[name] for name in ("ground", "time", "weather") if name in facts),
        camera=" ".join(facts[name] for name in ("camera", "camera_direction") if name in facts),
        style=facts.get("style", ""),
        seconds=seconds_told(prompt),
        notes=tuple(note[:160] for note in notes[:16]),
    )
