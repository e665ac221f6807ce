"""Reading prompts by the world's own tables of words: which facts does a text state, in whatever order?

The words of captions and those that people ask with stand in tables for four languages (`yozora.world.words`). What a
prompt says is looked up in them, the longest phrases first, by stems, so that endings do not matter; looks belong to
the nearest thing. No network, a few milliseconds, and every reading can be explained. `yozora train rewriter` trains a
network that reads the same facts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from yozora.prompts.nearest import STOP, guess_language
from yozora.prompts.numbers import things_counted
from yozora.world.scene import DIRECTIONS
from yozora.world.words import LANGUAGES, load_asked, words_of
from yozora.world.words.asker import plain
from yozora.world.words.partial import GOING, SECOND

SLOT = re.compile(r"\{[^}]*\}")
ENDINGS = {  # longest first; what is left has at least three letters, in German four
    "en": ("ingly", "ling", "ing", "ed", "es", "s", "e", "y"),
    "de": ("end", "test", "ten", "en", "em", "er", "es", "et", "te", "e", "t"),
    "fr": ("issant", "ante", "ant", "ées", "ée", "és", "é", "ent", "es", "e", "s", "x"),
    "es": ("ándose", "iéndose", "ando", "iendo", "endo", "ada", "ado", "as", "os", "es", "a", "o", "e", "s"),
}
UMLAUT = re.compile(r"(?<![aeq])(?:ae|oe|ue)")
RED = re.compile(r"(.*rot)(?:e[mnrs]?)?")
EXACT = {"en": ("tiny",), "de": (), "fr": (), "es": ()}  # words whose stems are those of others, as of a tin
PASSES = 2  # endings upon endings: leucht-end-er
COMMON = {  # words in phrases of several motions, in one table or not, which tell none
    "en": "keep does make come go get become lose run drive above out again like balloon size top own",
    "de": "kommt macht wird nimmt bleibt läuft fährt geht immer wieder oben unten ohne größe um an ab zu wie",
    "fr": "fait faire devient plus sans étant être haut bas taille va court comme sol terre loin ciel",
    "es": "hace haciendo da dando más sin está estando arriba abajo tamaño suelo cielo como corre va queda",
}
CAMERA = {"en": "camera", "de": "kamera", "fr": "camera", "es": "camara"}
WHO = "you|i|we|it|they|he|she|there"
MAY = re.compile(
    rf"\b(?:{WHO}|that|which|who) (?:can|could)\b|\b(?:can|could) (?:{WHO}|an?|the|my|your|one)\b", re.IGNORECASE
)
CAMERA_REACH = 7  # words behind "camera" that say what it does
AROUND = (("ground", "grounds"), ("ground", "onto"), ("time", "times"), ("weather", "weathers"), ("style", "styles"))
LOOKS = (("size", "sizes"), ("material", "materials"), ("colour", "colours"))
AFTER = ("fr", "es")  # languages whose adjectives follow their noun
HEAVY = ("collide", "stack", "hide")  # told with more than one thing


@dataclass(frozen=True)
class Found:
    """A fact and where it stands: the numbers of its first word and of the one after its last."""

    name: str
    value: str
    start: int
    end: int


class LexiconReader:
    """See `yozora.prompts.writer.Reader`."""

    @property
    def words(self) -> frozenset[str]:
        """Every word of the tables, in all languages."""
        return _all_words()

    def knows(self, word: str, language: str) -> bool:
        """Whether a word, or each part of it, has its stem in the tables."""
        parts = [part for part in word.split("-") if part not in STOP[language].split() and part not in _all_words()]
        stems = [known_stem(part, language) for part in parts]
        return all(one in _stems(language) or (one,) in _phrases(language, "looks") for one in stems)

    def read(self, text: str) -> dict[str, str]:
        """The facts that a text states, by name."""
        language = guess_language(text)
        tokens = [known_stem(word, language) for word in _split(_without_may(text) if language == "en" else text)]
        free = [True] * len(tokens)
        eye, directions = stem(CAMERA[language], language), _phrases(language, "direction")
        found = [*_take(tokens, free, {stems: said for stems, said in directions.items() if eye in stems})]
        camera = _camera(tokens, free, language)
        found += _take(tokens, free, directions)
        found += _take(tokens, free, _phrases(language, "around"), 2)  # in "black and white" no colour is told
        told = [f for f in _take(tokens, list(free), _phrases(language, "looks")) if f.name == "shape"]
        motion = _motion(tokens, free, language, len(told), 2)  # before looks: in "gets smaller" no size is told
        found += _take(tokens, free, _phrases(language, "looks"))
        found += _take(tokens, free, _phrases(language, "around"))
        things = sorted((f for f in found if f.name == "shape"), key=lambda f: f.start)[:2]
        facts = {f.name: f.value for f in reversed(found) if f.name in ("ground", "time", "weather", "style")}
        if motion is None and not any(f.name == "direction" for f in found):
            motion = _motion(tokens, free, language, len(things), 1)
        motion = motion or _motion(tokens, free, language, len(things), 1, GOING)
        main, second = _order(things, motion)
        if main is None:
            return facts | camera
        for which, thing in (("", main), (SECOND, second)):
            if thing is not None:
                facts[f"{which}shape"] = thing.value
        for look in (f for f in found if f.name in ("size", "material", "colour")):
            which = SECOND if second is not None and _nearer(look, second, main, language) else ""
            facts.setdefault(which + look.name, look.value)
        facts |= _counted(text, language, facts, second)
        facts |= _acts(motion, [f.value for f in found if f.name == "direction"])
        return facts | camera


def stem(word: str, language: str) -> str:
    """A word without accents and without its ending."""
    word = re.sub(r"^[dlsn]['’]", "", word) if language == "fr" else word.removesuffix("'s").removesuffix("’s")
    if language == "de" and (red := RED.fullmatch(word)):  # whose "t" looks like an ending
        return plain(red[1])
    if word in EXACT[language]:
        return word
    least = 4 if language == "de" else 3
    for _ in range(PASSES):
        fitting = (e for e in ENDINGS[language] if word.endswith(e) and len(word) - len(e) >= least)
        word = word.removesuffix(next(fitting, ""))
    if language == "de":  # Bälle is Ball, and gruen is grün
        word = UMLAUT.sub(lambda match: match[0][0], word.translate(str.maketrans("äöü", "aou")))
    if len(word) > 3:  # or else dé would be de
        word = plain(word)
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word  # hopp(ing) is hop


def known_stem(word: str, language: str) -> str:
    """The stem of a word; of a German compound that is not known the end that is: zitronengelb is gelb."""
    whole = stem(word, language)
    if language != "de" or whole in _stems(language) or (whole,) in _phrases(language, "looks"):
        return whole
    return next((whole[at:] for at in range(1, len(whole) - 2) if whole[at:] in _endings_known(language)), whole)


def _split(text: str) -> list[str]:
    """Its words, those with a hyphen in their parts."""
    return [part for word in words_of(text) for part in word.split("-") if part]


def _without_may(text: str) -> str:
    """An English text without "can" and "could", where these are no things: can you, that can, a ball can."""
    return _able().sub(r"\1", MAY.sub(" ", text))


@functools.cache
def _able() -> re.Pattern[str]:
    """A thing that can, which a tin can is not."""
    nouns = {noun for nouns in load_asked("en")["nouns"].values() for noun in nouns}
    able = nouns - {noun.removesuffix(" can") for noun in nouns if noun.endswith(" can")}
    return re.compile(rf"\b({'|'.join(sorted(able, key=len, reverse=True))}) (?:can|could)\b", re.IGNORECASE)


def _take(
    tokens: list[str], free: list[bool], phrases: dict[tuple[str, ...], tuple[str, str]], least: int = 1
) -> Iterator[Found]:
    """Each phrase that stands among the tokens that are still free, the longest first; its tokens are then taken."""
    for length in range(max(map(len, phrases), default=0), least - 1, -1):
        for start in range(len(tokens) - length + 1):
            here = phrases.get(tuple(tokens[start : start + length]))
            if here and all(free[start : start + length]):
                free[start : start + length] = [False] * length
                yield Found(*here, start, start + length)


def _camera(tokens: list[str], free: list[bool], language: str) -> dict[str, str]:
    """What is said of the camera: behind that word, or as the name of a shot."""
    found = [*_take(tokens, free, _phrases(language, "shots"), 2)]
    for at, word in enumerate(tokens):
        if word == stem(CAMERA[language], language) and free[at]:
            behind = slice(at, at + 1 + CAMERA_REACH)
            free[at] = False
            near, open_ = tokens[behind], free[behind]
            found += _take(near, open_, _phrases(language, "cameras"))
            free[behind] = open_
    if not found:
        return {}
    kind, _, direction = max(found, key=lambda f: f.end - f.start).value.partition(" ")
    return {"camera": kind} | ({"camera_direction": direction} if direction else {})


def _motion(
    tokens: list[str], free: list[bool], language: str, things: int, least: int, kinds: Sequence[str] = ()
) -> tuple[str, int] | None:
    """What is done, and where its first word stands: of all phrases whose words are there, in whatever order, the one
    with most words, and at `least` so many; of `kinds`, where some are given. Its words are then taken."""
    open_ = {word: at for at, word in reversed(list(enumerate(tokens))) if free[at]}
    best: tuple[int, int, str] | None = None
    taken: frozenset[str] = frozenset()
    for words, kind in _motions(language):
        if len(words) < least or (kind in HEAVY and things < 2) or (kinds and kind not in kinds):
            continue
        if all(word in open_ for word in words):
            candidate = (-len(words), min(open_[word] for word in words), kind)
            if best is None or candidate < best:
                best, taken = candidate, words
    if best is None:
        return None
    for word in taken:
        free[open_[word]] = False
    return best[2], best[1]


def _order(things: list[Found], motion: tuple[str, int] | None) -> tuple[Found | None, Found | None]:
    """The thing that does something, and the other one."""
    if len(things) < 2:
        return (things[0] if things else None), None
    first, second = things
    if motion and abs(motion[1] - second.start) < abs(motion[1] - first.start) and motion[1] > second.start:
        return second, first
    return first, second


def _nearer(look: Found, second: Found, main: Found, language: str) -> bool:
    """Whether a look belongs to the second thing: it stands before its noun, in French and Spanish behind it."""

    def distance(thing: Found) -> float:
        gap = thing.start - look.end if look.start < thing.start else look.start - thing.end
        usual = (look.start > thing.start) == (language in AFTER)
        return gap + (0 if usual else 1.5)

    return distance(second) < distance(main)


def _counted(text: str, language: str, facts: dict[str, str], second: Found | None) -> dict[str, str]:
    """Where several of one thing are asked for, one more like it: a caption tells of two at most."""
    if second is not None or not things_counted(text, language):
        return {}
    return {SECOND + name: facts[name] for name in ("shape", "colour", "size", "material") if name in facts}


def _acts(motion: tuple[str, int] | None, directions: list[str]) -> dict[str, str]:
    """Motion and direction, which together may be another motion: what goes left moves left."""
    kind, direction = motion[0] if motion else "", directions[0] if directions else ""
    if direction and kind in GOING:
        return {"motion": kind, "direction": direction}
    if direction and kind in ("", "travel", "still"):
        return {"motion": direction, "direction": direction}
    if kind in ("", "travel", "recolour"):
        return {}
    return {"motion": kind}


# ---- tables ----------------------------------------------------------------------------------------------------------


@functools.cache
def _phrases(language: str, which: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Stems of phrases → the fact that they state."""
    words, table = load_asked(language), dict[tuple[str, ...], tuple[str, str]]()

    def add(name: str, value: str, texts: Iterable[str], whole: bool = False) -> None:
        for text in texts:
            stems = tuple(stem(word, language) for word in _split(text) if whole or word not in _stop(language))
            if stems:
                table.setdefault(stems, (name, value))

    match which:
        case "direction":
            for value, texts in words["directions"].items():
                add("direction", value, texts, whole=True)
            for value, texts in words["implied"].items():
                add("direction", value, texts)
        case "shots":
            for value, texts in words["camera_labels"].items():
                add("camera", value, texts)
        case "cameras":
            for value, texts in words["cameras"].items():
                forms = [form for text in texts for form in _forms(text)]
                add("camera", value, forms, whole=True)  # "zooms in" needs its "in"
                add("camera", value, forms)
        case "around":
            for name, key in AROUND:
                for value, texts in words[key].items():
                    whole = name in ("weather", "time", "style")
                    add(name, value, texts, whole)
            for value, texts in words["places"].items():
                add("ground", value, texts)
        case "looks":
            for value, texts in words["nouns"].items():
                if value != "wall":
                    add("shape", value, (text if language == "en" else text.rpartition(" ")[0] for text in texts))
            for name, key in LOOKS:
                for value, texts in words[key].items():
                    add(name, value, (form for text in texts for form in _genders(text)))
            _add_likened(words, table, language)
    return table


def _add_likened(words: Any, table: dict[tuple[str, ...], tuple[str, str]], language: str) -> None:
    """Colours by what has them, cherry red; alone only where that says nothing else: not snow, not sky."""
    else_ = {stems for stems in _phrases(language, "around") if len(stems) == 1}
    else_ |= {(word,) for stems, _ in _motions(language) for word in stems}
    for colour, likes in words["likes"].items():
        for base in {form for text in words["colours"][colour] for form in _genders(text)}:
            for pattern in ("{like}", *words["likened"]):
                for like in likes:
                    stems = tuple(stem(word, language) for word in _split(pattern.format(like=like, colour=base)))
                    if stems not in else_:
                        table.setdefault(stems, ("colour", colour))


@functools.cache
def _motions(language: str) -> list[tuple[frozenset[str], str]]:
    """The stems of the words of each motion, without those that say nothing, and the motion; last the words that stand
    in the phrases of a single one."""
    out = list[tuple[frozenset[str], str]]()
    for kind, texts in load_asked(language)["motions"].items():
        known = {"fall_ground": "fall", "collide_alone": "", "hide_alone": "", "lighter": "", "darker": ""}.get(
            kind, kind
        )
        if known and known not in DIRECTIONS:
            for form in (form for text in texts for form in _forms(text)):
                stems = frozenset(stem(w, language) for w in _split(form) if w not in _stop(language))
                if stems:
                    out.append((stems, known))
    kinds: dict[str, set[str]] = {}
    for stems, kind in out:
        for word in stems:
            kinds.setdefault(word, set()).add(kind)
    common = {stem(word, language) for word in COMMON[language].split()}
    alone = [(frozenset((word,)), min(of)) for word, of in kinds.items() if len(of) == 1 and word not in common]
    return [*out, *(each for each in alone if each[1] not in HEAVY)]


def _forms(phrase: str) -> list[str]:
    """A verb phrase with its finite form and with its participle; German particles beside the verb and before it."""
    phrase = SLOT.sub(" ", phrase)
    finite = re.sub(r"(\S+)\|(\S+)", r"\1", phrase)
    forms = [finite, re.sub(r"(\S+)\|(\S+)", r"\2", phrase)]
    if joined := re.match(r"(\S+)(.*)\+(\S+)", phrase):
        forms = [f"{joined[1]} {joined[2]} {joined[3]}", f"{joined[3]}{joined[1]} {joined[2]}"]
    return [form.replace("_", " ").replace("/", " ").replace("&", " ") for form in forms]


def _genders(adjective: str) -> list[str]:
    """The forms of an adjective, without its notation."""
    word = adjective.removesuffix(" *").removesuffix(" _").removeprefix("_ ").rstrip("!")
    return word.split("/")


@functools.cache
def _stems(language: str) -> frozenset[str]:
    """Every stem of the tables."""
    return frozenset(stem(part, language) for word in _texts(load_asked(language).tables) for part in word.split("-"))


@functools.cache
def _endings_known(language: str) -> frozenset[str]:
    """Stems of things and colours, with which compounds end."""
    return frozenset(
        stems[0]
        for stems, (name, _) in _phrases(language, "looks").items()
        if len(stems) == 1 and name in ("shape", "colour") and len(stems[0]) >= 3
    )


@functools.cache
def _stop(language: str) -> frozenset[str]:
    return frozenset(STOP[language].split())


@functools.cache
def _all_words() -> frozenset[str]:
    """The words of all tables with their usual endings; what somebody types is known if its stem is."""
    return frozenset(word for language in LANGUAGES for word in _texts(load_asked(language).tables))


def _texts(table: Any) -> Iterator[str]:
    """The words in all texts of a nested table."""
    if isinstance(table, dict):
        table = list(table.values())
    if isinstance(table, (list, tuple)):
        for part in table:
            yield from _texts(part)
        return
    yield from words_of(re.sub(r"\{[^}]*\}|[_|]", " ", str(table)))
