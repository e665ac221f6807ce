"""Reading prompts by the world's own tables of words: which facts does a text state, in whatever order?

The words of captions and those that people ask with stand in tables for four languages (`yozora.world.words`). What a
prompt says is looked up in them, the longest phrases first, by stems, so that endings do not matter; looks belong to
the nearest thing. No network, a few milliseconds, and every reading can be explained. `yozora train rewriter` trains a
network that reads the same facts.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yozora.prompts.nearest import STOP, guess_language
from yozora.prompts.numbers import things_counted
from yozora.prompts.stems import all_words, known_stem, known_stems, motions, phrases, split, stem, stems_in
from yozora.world.words import load_asked
from yozora.world.words.partial import GOING, SECOND

CAMERA = {"en": "camera", "de": "kamera", "fr": "camera", "es": "camara"}
WHO = "you|i|we|it|they|he|she|there"
MAY = re.compile(
    rf"\b(?:{WHO}|that|which|who) (?:can|could)\b|\b(?:can|could) (?:{WHO}|an?|the|my|your|one)\b", re.IGNORECASE
)
CAMERA_REACH = 7  # words behind "camera" that say what it does
OWN = ("shape", "colour", "size", "material", "motion", "direction")  # a thing's
LOOKED = ("shape", "colour", "size", "material")
AFTER = ("fr", "es")  # languages whose adjectives follow their noun
HEAVY = ("collide", "stack", "hide")  # told with more than one thing
BECOMES = {  # verbs with the colour that something turns behind them
    "en": "turns turning becomes becoming changes changing goes gets",
    "de": "wird wechselt ändert färbt verfärbt",
    "fr": "devient devenant change changeant passe passant vire virant",
    "es": "vuelve volviéndose cambia cambiando pasa pasando torna pone",
}
ANOTHER = {"a", "an", "ein"}  # behind which another thing is told of
BECOMES_REACH = 6  # words from such a verb to the colour
TURNS = {"en": "turns turning", "de": "dreht", "fr": "tourne tournant", "es": ""}  # alone: round itself
CLAUSES = {  # words between two sentences, of which the second begins with a thing
    "en": r"\b(?:while|as|whereas|and)(?= (?:an?|the|one|another)\b)",
    "de": r"\b(?:während|und)(?= (?:eine?|der|die|das)\b)",
    "fr": r"\b(?:(?:pendant|tandis|alors) (?:que |qu['’])|et )(?=(?:une?|le|la)\b|l['’])",
    "es": r"\b(?:mientras(?: que)?|y)(?= (?:una?|el|la)\b)",
}


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
        return all_words()

    def knows(self, word: str, language: str) -> bool:
        """Whether a word, or each part of it, has its stem in the tables."""
        parts = [part for part in word.split("-") if part not in STOP[language].split() and part not in all_words()]
        stems = [known_stem(part, language) for part in parts]
        return all(one in known_stems(language) or (one,) in phrases(language, "looks") for one in stems)

    def read(self, text: str) -> dict[str, str]:
        """The facts that a text states, by name."""
        language = guess_language(text)
        whole = _read(text, language)
        if whole.get("motion") in HEAVY:
            return whole
        for between in re.finditer(CLAUSES[language], text, re.IGNORECASE):
            first, then = (_read(part, language) for part in (text[: between.start()], text[between.end() :]))
            if _tells_one(first) and _tells_one(then) and "colour_to" not in then:
                own = {name: then.pop(name) for name in OWN if name in then}
                return then | first | {SECOND + name: value for name, value in own.items()}
        return whole


def _read(text: str, language: str) -> dict[str, str]:
    """The facts of a text in which one thing does something."""
    tokens = [known_stem(word, language) for word in split(_without_may(text) if language == "en" else text)]
    free = [True] * len(tokens)
    eye, directions = stem(CAMERA[language], language), phrases(language, "direction")
    found = [*_take(tokens, free, {stems: said for stems, said in directions.items() if eye in stems})]
    camera = _camera(tokens, free, language)
    found += _take(tokens, free, directions)
    found += _take(tokens, free, phrases(language, "around"), 2)  # in "black and white" no colour is told
    told = [f for f in _take(tokens, list(free), phrases(language, "looks")) if f.name == "shape"]
    motion = _motion(tokens, free, language, len(told), 2)  # before looks: in "gets smaller" no size is told
    found += _take(tokens, free, phrases(language, "looks"))
    found += _take(tokens, free, phrases(language, "around"))
    things = sorted((f for f in found if f.name == "shape"), key=lambda f: f.start)[:2]
    facts = {f.name: f.value for f in reversed(found) if f.name in ("ground", "time", "weather", "style")}
    goes = any(f.name == "direction" for f in found)
    motion = motion or _motion(tokens, free, language, len(things), 1, HEAVY if goes else ())
    motion = motion or _motion(tokens, free, language, len(things), 1, GOING)
    becomes, found = _becoming(tokens, found, language)
    if motion is None and becomes is None and not goes and (turns := stems_in(TURNS[language], language) & {*tokens}):
        motion = ("spin", min(map(tokens.index, turns)))
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
    if becomes and becomes.value != facts.get("colour"):
        facts["colour_to"] = becomes.value
        if motion is None or motion[0] == "travel":
            motion = ("recolour", becomes.start)
    facts |= _acts(motion, [f.value for f in found if f.name == "direction"])
    return facts | camera


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
    found = [*_take(tokens, free, phrases(language, "shots"), 2)]
    for at, word in enumerate(tokens):
        if word == stem(CAMERA[language], language) and free[at]:
            behind = slice(at, at + 1 + CAMERA_REACH)
            free[at] = False
            near, open_ = tokens[behind], free[behind]
            found += _take(near, open_, phrases(language, "cameras"))
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
    best: tuple[int, bool, int, str] | None = None
    taken: frozenset[str] = frozenset()
    for words, kind in motions(language):
        if len(words) < least or (kind in HEAVY and things < 2) or (kinds and kind not in kinds):
            continue
        if all(word in open_ for word in words):
            candidate = (-len(words), kind not in HEAVY, min(open_[word] for word in words), kind)
            if best is None or candidate < best:
                best, taken = candidate, words
    if best is None:
        return None
    for word in taken:
        free[open_[word]] = False
    return best[3], best[2]


def _tells_one(facts: dict[str, str]) -> bool:
    """Whether a text tells of one thing, and what it does."""
    return "shape" in facts and f"{SECOND}shape" not in facts and "motion" in facts


def _becoming(tokens: list[str], found: list[Found], language: str) -> tuple[Found | None, list[Found]]:
    """The colour that something turns, and what is found without it, and without the colour that it turns from where
    that is told before. No thing stands between verb and colour; nor behind the colour, which would be that thing's."""
    verbs, ends = stems_in(BECOMES[language], language), {f.end for f in found if f.name == "colour"}
    for at in (at for at, word in enumerate(tokens) if word in verbs):
        behind = sorted((f for f in found if at < f.start <= at + BECOMES_REACH), key=lambda f: f.start)
        colours = list(itertools.takewhile(lambda f: f.name == "colour", behind))
        another = any(f.start in ends and f.name in LOOKED for f in behind[len(colours) :])
        another = another or bool(colours and ANOTHER & {*tokens[at : colours[-1].start]})
        if not colours or (another and language not in AFTER):
            continue
        told_before = any(f.name == "colour" and f.start < at for f in found)
        return colours[-1], [f for f in found if f not in (colours if told_before else colours[-1:])]
    return None, found


def _order(things: list[Found], motion: tuple[str, int] | None) -> tuple[Found | None, Found | None]:
    """The thing that does something, and the other one."""
    if len(things) < 2:
        return (things[0] if things else None), None
    first, second = things
    if (
        motion
        and motion[0] not in HEAVY
        and abs(motion[1] - second.start) < abs(motion[1] - first.start)
        and motion[1] > second.start
    ):
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
    if kind in ("", "travel"):
        return {}
    return {"motion": kind}
