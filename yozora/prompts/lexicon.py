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
from collections.abc import Sequence
from typing import NamedTuple

from yozora.prompts.filming import CAMERA, filmed
from yozora.prompts.nearest import guess_language
from yozora.prompts.numbers import things_counted
from yozora.prompts.stems import all_words, known_stem, known_stems, motions, phrases, stem, stems_in
from yozora.prompts.tokens import Found, Tokens, is_idle, positions
from yozora.world.words import load_asked
from yozora.world.words.partial import GOING, SECOND

WHO = "you|i|we|it|they|he|she|there"
MAY = re.compile(
    rf"\b(?:{WHO}|that|which|who) (?:can|could)\b|\b(?:can|could) (?:{WHO}|an?|the|my|your|one)\b", re.IGNORECASE
)
OWN = ("shape", "colour", "size", "material", "motion", "direction")  # a thing's
LOOKED = ("shape", "colour", "size", "material")
AFTER = ("fr", "es")  # languages whose adjectives follow their noun
MEETING = ("collide", "stack")  # told with more than one thing
HEAVY = (*MEETING, "hide")
BECOMES = {  # verbs with the colour that something turns behind them
    "en": "turns turning becomes becoming changes changing goes gets",
    "de": "wird wechselt ändert färbt verfärbt",
    "fr": "devient devenant change changeant passe passant vire virant",
    "es": "vuelve volviéndose cambia cambiando pasa pasando torna pone",
}
ANOTHER = {"a", "an", "ein"}  # behind which another thing is told of
SKY = {"en": "sky skies", "de": "himmel", "fr": "ciel", "es": "cielo"}  # whose colour is no thing's
BECOMES_REACH = 10  # words from such a verb to the colour
TURNS = {"en": "turns turning", "de": "dreht", "fr": "tourne tournant", "es": ""}  # alone: round itself
BEHIND = {"en": "behind", "de": "hinter", "fr": "derrière", "es": "detrás tras"}
HIDES = {  # verbs that with a wall behind them tell of hiding, besides those of going
    "en": "hides hiding disappears disappearing vanishes vanishing passes passing ducks ducking",
    "de": "versteckt verschwindet verbirgt taucht",
    "fr": "cache cachant disparaît disparaissant passe passant dissimule",
    "es": "esconde escondiéndose desaparece desapareciendo oculta ocultándose pasa pasando mete",
}
APPEARS = {  # and that it comes out again
    "en": "comes coming out emerges emerging reappears reappearing other side",
    "de": "kommt taucht hervor auf wieder heraus andere anderen seite",
    "fr": "ressort ressortant réapparaît réapparaissant sort sortant côté",
    "es": "reaparece reapareciendo vuelve volviendo sale salir saliendo lado",
}
HIDES_REACH = 6  # words from the verb to "behind", and from there to the wall
OF = {"en": "of", "de": "von vom neben", "fr": "de du des", "es": "de del"}  # behind "left": of a thing
OF_REACH = 5  # words from there to the thing
CLAUSES = {  # words between two sentences, of which the second begins with a thing
    "en": r"\b(?:while|as|whereas|and)(?= (?:an?|the|one|another)\b)",
    "de": r"\b(?:während|und)(?= (?:eine?|der|die|das)\b)",
    "fr": r"\b(?:(?:pendant|tandis|alors) (?:que |qu['’])|et )(?=(?:une?|le|la)\b|l['’])",
    "es": r"\b(?:mientras(?: que)?|y)(?= (?:una?|el|la)\b)",
}


class Reading(NamedTuple):
    """The facts that a text states, by name, and those of its words that say something and by which none was read."""

    facts: dict[str, str]
    unread: tuple[str, ...]


class Doing(NamedTuple):
    """What is done, where its first word stands, and all of its words."""

    kind: str
    at: int
    places: frozenset[int]


class LexiconReader:
    """See `yozora.prompts.writer.Reader`."""

    @property
    def words(self) -> frozenset[str]:
        """Every word of the tables, in all languages."""
        return all_words()

    def knows(self, word: str, language: str) -> bool:
        """Whether a word, or each part of it, says nothing or has its stem in the tables."""
        parts = [part for part in word.split("-") if part not in all_words() and not is_idle(part, language)]
        stems = [known_stem(part, language) for part in parts]
        return all(one in known_stems(language) or (one,) in phrases(language, "looks") for one in stems)

    def read(self, text: str) -> dict[str, str]:
        """The facts that a text states, by name."""
        return dict(study(text).facts)

    def unread(self, text: str) -> tuple[str, ...]:
        """The words of a text that say something, but by which no fact is read."""
        return study(text).unread


@functools.lru_cache(256)
def study(text: str) -> Reading:
    """Reads a text, and says what of it was not read."""
    language = guess_language(text)
    whole = _read(text, language)
    if whole.facts.get("motion") in HEAVY:
        return whole
    for between in re.finditer(CLAUSES[language], text, re.IGNORECASE):
        first, second = (_read(part, language) for part in (text[: between.start()], text[between.end() :]))
        then = dict(second.facts)
        if _tells_one(first.facts) and _tells_one(then) and "colour_to" not in then:
            own = {SECOND + name: then.pop(name) for name in OWN if name in then}
            return Reading(then | first.facts | own, first.unread + second.unread)
    return whole


def _read(text: str, language: str) -> Reading:
    """The facts of a text in which one thing does something."""
    tokens = Tokens.of(_without_may(text) if language == "en" else text, language)
    motion = _hiding(tokens)
    eye, directions = stem(CAMERA[language], language), phrases(language, "direction")
    found = [*tokens.take({stems: said for stems, said in directions.items() if eye in stems})]
    camera = filmed(tokens)
    found += (f for f in tokens.take(directions) if not _apart(tokens, f))
    found += tokens.take(phrases(language, "around"), 2)  # in "black and white" no colour is told
    _leave_skies(tokens)
    told = [f for f in _shown(tokens, phrases(language, "looks")) if f.name == "shape"]
    motion = motion or _motion(tokens, len(told), 2)  # before looks: in "gets smaller" no size is told
    found += tokens.take(phrases(language, "looks"))
    found += tokens.take(phrases(language, "around"))
    things = sorted((f for f in found if f.name == "shape"), key=lambda f: f.start)[:2]
    facts = {f.name: f.value for f in reversed(found) if f.name in ("ground", "time", "weather", "style")}
    goes = any(f.name == "direction" for f in found)
    motion = motion or _motion(tokens, len(things), 1, MEETING if goes else ())
    motion = motion or _motion(tokens, len(things), 1, GOING)
    becomes, seen = _becoming(tokens, found, motion)
    if motion is None and becomes is None and not goes:
        motion = _turning(tokens)
    main, second = _order(things, motion or becomes)
    if main is None:
        tokens.read |= _told_by(found, facts, ())
        return Reading(facts | camera, tuple(tokens.unread()))
    for which, thing in (("", main), (SECOND, second)):
        if thing is not None:
            facts[f"{which}shape"] = thing.value
    for look in (f for f in seen if f.name in ("size", "material", "colour")):
        which = SECOND if second is not None and _nearer(look, second, main, language) else ""
        facts.setdefault(which + look.name, look.value)
    facts |= _counted(text, language, facts, second)
    if becomes and _turned_by(things, becomes) in (main, None) and becomes.kind != facts.get("colour"):
        facts["colour_to"] = becomes.kind
        tokens.read |= becomes.places
        if not goes and (motion is None or motion.kind in ("travel", "still")):
            motion = Doing("recolour", becomes.at, becomes.places)
    facts |= _acts(motion.kind if motion else "", [f.value for f in found if f.name == "direction"])
    tokens.read |= _told_by(found, facts, (main, second)) | _done_by(tokens, motion, facts)
    return Reading(facts | camera, tuple(tokens.unread()))


def _apart(tokens: Tokens, found: Found) -> bool:
    """Whether what may be a direction says where one thing is from another: "to the left of a cube"."""
    behind = tokens.words[found.end : found.end + OF_REACH]
    of = bool(behind) and (behind[0] in OF[tokens.language].split() or behind[0].startswith(("d'", "d’")))
    return of and any(word in _things(tokens.language) for word in tokens.stems[found.end : found.end + OF_REACH])


def _leave_skies(tokens: Tokens) -> None:
    """Takes the colours of skies, of which no caption tells: blue sky, ciel bleu."""
    skies, looks = stems_in(SKY[tokens.language], tokens.language), phrases(tokens.language, "looks")
    beside = 1 if tokens.language in AFTER else -1
    for at in (at + beside for at, word in enumerate(tokens.stems) if word in skies):
        if 0 <= at < len(tokens.stems) and looks.get((tokens.stems[at],), ("", ""))[0] == "colour":
            tokens.free[at] = False


def _shown(tokens: Tokens, table: dict[tuple[str, ...], tuple[str, str]]) -> list[Found]:
    """What would be taken now, and is not."""
    free = list(tokens.free)
    found = [*tokens.take(table)]
    tokens.free[:] = free
    return found


def _told_by(found: Sequence[Found], facts: dict[str, str], things: Sequence[Found | None]) -> set[int]:
    """Where the words stand by which these facts were told: of things, those that count."""
    said = {(name.removeprefix(SECOND), value) for name, value in facts.items()}
    said |= {("direction", value) for name, value in said if name == "motion"}
    return positions(f for f in found if (f in things if f.name == "shape" else (f.name, f.value) in said))


def _done_by(tokens: Tokens, motion: Doing | None, facts: dict[str, str]) -> set[int]:
    """Where the words stand that tell what is done; what goes somewhere may be said to move besides."""
    done = facts.get("motion", "")
    places = tokens.alone(done) | (tokens.alone("travel") if "direction" in facts else set[int]())
    if motion and (motion.kind == done or (motion.kind == "travel" and "direction" in facts)):
        again = {tokens.stems[place] for place in motion.places}  # larger and larger
        places |= {at for at, word in enumerate(tokens.stems) if word in again}
    return places


def _without_may(text: str) -> str:
    """An English text without "can" and "could", where these are no things: can you, that can, a ball can."""
    return _able().sub(r"\1", MAY.sub(" ", text))


@functools.cache
def _able() -> re.Pattern[str]:
    """A thing that can, which a tin can is not."""
    nouns = {noun for nouns in load_asked("en")["nouns"].values() for noun in nouns}
    able = nouns - {noun.removesuffix(" can") for noun in nouns if noun.endswith(" can")}
    return re.compile(rf"\b({'|'.join(sorted(able, key=len, reverse=True))}) (?:can|could)\b", re.IGNORECASE)


def _motion(tokens: Tokens, things: int, least: int, kinds: Sequence[str] = ()) -> Doing | None:
    """What is done: of all phrases whose words are there, in whatever order, the one with most words, and at `least` so
    many; of `kinds`, where some are given. Its words are then taken."""
    open_ = {word: at for at, word in reversed(list(enumerate(tokens.stems))) if tokens.free[at]}
    best: tuple[int, bool, int, str] | None = None
    taken: frozenset[str] = frozenset()
    for words, kind in motions(tokens.language):
        if len(words) < least or (kind in MEETING and things < 2) or (kinds and kind not in kinds):
            continue
        if all(word in open_ for word in words):
            candidate = (-len(words), kind not in MEETING, min(open_[word] for word in words), kind)
            if best is None or candidate < best:
                best, taken = candidate, words
    if best is None:
        return None
    places = frozenset(open_[word] for word in taken)
    for place in places:
        tokens.free[place] = False
    return Doing(best[3], best[2], places)


def _hiding(tokens: Tokens) -> Doing | None:
    """That something goes behind a wall, by a verb before it or, in a German clause, behind it. Their words are then
    taken, and those of the wall's look."""
    language, stems = tokens.language, tokens.stems
    going = {
        word for words, kind in motions(language) if kind in ("travel", *GOING) and len(words) == 1 for word in words
    }
    verbs, behind = stems_in(HIDES[language], language) | going, stems_in(BEHIND[language], language)
    for at in (at for at, word in enumerate(stems) if word in behind):
        wall = next((n for n in range(at, min(len(stems), at + HIDES_REACH)) if stems[n] in _walls(language)), None)
        if wall is None or any(stems[n] in _things(language) for n in range(at, wall)):
            continue
        around = [*range(at - 1, max(-1, at - 1 - HIDES_REACH), -1), *range(wall + 1, min(len(stems), wall + 3))]
        verb = next((n for n in around if stems[n] in verbs), None)
        if verb is None:
            continue
        again = stems_in(APPEARS[language], language)
        out = {n for n in range(wall + 1, min(len(stems), wall + 1 + HIDES_REACH)) if stems[n] in again}
        others = {n for n in around if stems[n] in verbs}  # moves left and disappears
        last = wall + 1 + (language in AFTER and (*stems[wall + 1 : wall + 2],) in phrases(language, "looks"))
        for place in (*range(at, last), verb, *out, *others):
            tokens.free[place] = False
        return Doing("hide", verb, frozenset({at, wall, verb} | out | others))
    return None


def _turning(tokens: Tokens) -> Doing | None:
    """That something turns round itself, by that word alone."""
    turns = stems_in(TURNS[tokens.language], tokens.language)
    free = (at for at, word in enumerate(tokens.stems) if word in turns and tokens.free[at])
    at = next((at for at in free if tokens.words[at + 1 : at + 2] != ["into"]), None)
    return None if at is None else Doing("spin", at, frozenset({at}))


@functools.cache
def _walls(language: str) -> frozenset[str]:
    """Stems of what things hide behind."""
    nouns = load_asked(language)["nouns"]["wall"]
    return frozenset(stem(noun if language == "en" else noun.rpartition(" ")[0].lower(), language) for noun in nouns)


@functools.cache
def _things(language: str) -> frozenset[str]:
    """Stems of things."""
    looks = phrases(language, "looks")
    return frozenset(stems[0] for stems, (name, _) in looks.items() if name == "shape" and len(stems) == 1)


def _tells_one(facts: dict[str, str]) -> bool:
    """Whether a text tells of one thing, and what it does."""
    return "shape" in facts and f"{SECOND}shape" not in facts and "motion" in facts


def _becoming(tokens: Tokens, found: list[Found], motion: Doing | None) -> tuple[Doing | None, list[Found]]:
    """The colour that something turns, as what is done besides `motion`, and what is found without it, and without the
    colour that it turns from where that is told before. No thing stands between verb and colour; nor behind the colour,
    which would be that thing's."""
    verbs = stems_in(BECOMES[tokens.language], tokens.language)
    ends = {f.end for f in found if f.name == "colour"}
    busy = motion.places if motion and motion.kind == "hide" else frozenset[int]()
    for at in (at for at, word in enumerate(tokens.stems) if word in verbs and at not in busy):
        near = (f for f in found if at < f.start <= at + BECOMES_REACH and f.name in LOOKED)
        behind = sorted(near, key=lambda f: f.start)
        colours = list(itertools.takewhile(lambda f: f.name == "colour", behind))
        another = any(f.start in ends for f in behind[len(colours) :])
        another = another or bool(colours and ANOTHER & {*tokens.stems[at : colours[-1].start]})
        if not colours or (another and tokens.language not in AFTER):
            continue
        told_before = any(f.name == "colour" and f.start < at for f in found)
        becomes = Doing(colours[-1].value, at, frozenset({at, *positions(colours[-1:])}))
        return becomes, [f for f in found if f not in (colours if told_before else colours[-1:])]
    return None, found


def _turned_by(things: Sequence[Found], becomes: Doing) -> Found | None:
    """What turns another colour: the last thing that was told of before that; None where there was none."""
    return max((thing for thing in things if thing.start < becomes.at), key=lambda thing: thing.start, default=None)


def _order(things: list[Found], motion: Doing | None) -> tuple[Found | None, Found | None]:
    """The thing that does something, and the other one."""
    if len(things) < 2:
        return (things[0] if things else None), None
    first, second = things
    if (
        motion
        and motion.kind not in MEETING
        and abs(motion.at - second.start) < abs(motion.at - first.start)
        and motion.at > second.start
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


def _acts(kind: str, directions: list[str]) -> dict[str, str]:
    """Motion and direction, which together may be another motion: what goes left moves left."""
    direction = directions[0] if directions else ""
    if direction and kind in GOING:
        return {"motion": kind, "direction": direction}
    if direction and kind in ("", "travel", "still"):
        return {"motion": direction, "direction": direction}
    return {} if kind in ("", "travel") else {"motion": kind}
