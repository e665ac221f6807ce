"""A prompt as stems, some of which are taken for facts: what `lexicon` and `filming` read in."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources

from yozora.prompts.nearest import STOP
from yozora.prompts.numbers import is_unit, number_names
from yozora.prompts.stems import known_stem, motions, split
from yozora.world.words import load_asked

ELISION = re.compile(r"^(?:[dlnsjmtc]|qu)['’]")


@dataclass(frozen=True)
class Found:
    """A fact and where it stands: the numbers of its first word and of the one after its last."""

    name: str
    value: str
    start: int
    end: int


@dataclass
class Tokens:
    """The words of a text, their stems, which of them are still free, and which have been read: those by which a fact
    was told that stayed."""

    language: str
    words: list[str]
    stems: list[str]
    free: list[bool]
    read: set[int] = field(default_factory=set[int])

    @staticmethod
    def of(text: str, language: str) -> Tokens:
        """All of them free, and none read."""
        words = split(text)
        return Tokens(language, words, [known_stem(word, language) for word in words], [True] * len(words))

    def take(
        self, phrases: Mapping[tuple[str, ...], tuple[str, str]], least: int = 1, within: slice = slice(None)
    ) -> Iterator[Found]:
        """Each phrase that stands among the words that are still free, the longest first; its words are then taken."""
        first, last, _ = within.indices(len(self.stems))
        for length in range(max(map(len, phrases), default=0), least - 1, -1):
            for start in range(first, last - length + 1):
                here = phrases.get(tuple(self.stems[start : start + length]))
                if here and all(self.free[start : start + length]):
                    self.free[start : start + length] = [False] * length
                    yield Found(*here, start, start + length)

    def unread(self) -> list[str]:
        """Those words that say something, and by which no fact was told."""
        lower, said = [word.lower() for word in self.words], set(self.read)
        for length, texts in idle_phrases(self.language).items():
            for start in range(len(lower) - length + 1):
                if tuple(lower[start : start + length]) in texts:
                    said |= set(range(start, start + length))
        return [word for at, word in enumerate(self.words) if at not in said and not is_idle(lower[at], self.language)]

    def alone(self, kind: str) -> set[int]:
        """Where words stand that tell a motion of this kind by themselves."""
        stems = {word for words, of in motions(self.language) if of == kind and len(words) == 1 for word in words}
        return {at for at, word in enumerate(self.stems) if word in stems}


def is_idle(word: str, language: str) -> bool:
    """Whether a word, in lower case, states no fact of a scene by itself: articles and the like, and numbers and times,
    which are read apart (`yozora.prompts.numbers`)."""
    return is_unit(word) or ELISION.sub("", word) in _idle_words(language)


@functools.cache
def idle_phrases(language: str) -> dict[int, frozenset[tuple[str, ...]]]:
    """What people say around the thing that they ask for, by its number of words: "a video of", "please"."""
    asked, phrases = load_asked(language), dict[int, set[tuple[str, ...]]]()
    for wish in (*asked["wishes"], *asked["praise"]):
        for part in wish.split("{what}"):
            if words := tuple(split(part)):
                phrases.setdefault(len(words), set()).add(words)
    return {length: frozenset(texts) for length, texts in phrases.items()}


@functools.cache
def _idle_words(language: str) -> frozenset[str]:
    text = resources.files("yozora.prompts").joinpath("idle.toml").read_text(encoding="utf-8")
    words = [*STOP[language].split(), *tomllib.loads(text)[language].split(), *number_names(language)]
    return frozenset(part for word in words for part in word.split("-"))


def positions(found: Iterable[Found]) -> set[int]:
    """Where the words of some facts stand."""
    return {at for one in found for at in range(one.start, one.end)}
