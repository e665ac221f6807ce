"""The world's tables of words as stems: what is looked up in a prompt by `yozora.prompts.lexicon`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from yozora.prompts.nearest import STOP
from yozora.world.scene import DIRECTIONS
from yozora.world.words import LANGUAGES, load_asked, words_of
from yozora.world.words.asker import plain

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
PLURAL = re.compile(r"(?<=\w{3}e[lr])n$")  # Kugeln is Kugel
PASSES = 2  # endings upon endings: leucht-end-er
COMMON = {  # words in phrases of several motions, in one table or not, which tell none
    "en": "keep does make come go get become lose run drive above out again like balloon size top own turns "
    "turning there along about never just stop stops stopping way "
    "sky ground",
    "de": "kommt macht wird nimmt bleibt läuft fährt geht immer wieder oben unten ohne größe um an ab zu wie gegen "
    "ist sein nichts luft wolken hinaus mit nach vom da nieder himmel boden",
    "fr": "fait faire devient plus sans étant être haut bas taille va court comme sol terre loin ciel entre "
    "tout soi train pied pieds joints nez libre",
    "es": "hace haciendo da dando más sin está estando arriba abajo tamaño suelo cielo como corre va queda contra "
    "encima ni sube alrededor",
}
AROUND = (("ground", "grounds"), ("ground", "onto"), ("time", "times"), ("weather", "weathers"), ("style", "styles"))
AROUND += (("time", "time_sentences"), ("weather", "weather_sentences"), ("style", "style_sentences"))
AROUND += (("style", "style_labels"),)
LOOKS = (("size", "sizes"), ("material", "materials"), ("colour", "colours"))


def stem(word: str, language: str) -> str:
    """A word without accents and without its ending."""
    word = re.sub(r"^[dlsn]['’]", "", word) if language == "fr" else word.removesuffix("'s").removesuffix("’s")
    if language == "de" and (red := RED.fullmatch(word)):  # whose "t" looks like an ending
        return plain(red[1])
    if word in EXACT[language]:
        return word
    if language == "de":
        word = PLURAL.sub("", word)
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
    if language != "de" or whole in known_stems(language) or (whole,) in phrases(language, "looks"):
        return whole
    return next((whole[at:] for at in range(1, len(whole) - 2) if whole[at:] in _endings_known(language)), whole)


def split(text: str) -> list[str]:
    """Its words, those with a hyphen in their parts."""
    return [part for word in words_of(text) for part in word.split("-") if part]


@functools.cache
def phrases(language: str, which: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Stems of phrases → the fact that they state."""
    words, table = load_asked(language), dict[tuple[str, ...], tuple[str, str]]()

    def add(name: str, value: str, texts: Iterable[str], whole: bool = False) -> None:
        for text in texts:
            stems = tuple(stem(word, language) for word in split(text) if whole or word not in _stop(language))
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
                add("camera", value, texts, whole=True)
                add("camera", value, texts)
        case "cameras":
            for value, texts in (*words["cameras"].items(), *words["filming"].items()):
                forms = [form for text in texts for form in _forms(text)]
                add("camera", value, forms, whole=True)  # "zooms in" needs its "in"
                add("camera", value, forms)
        case "around":
            for name, key in AROUND:
                for value, texts in words[key].items():
                    add(name, value, texts, whole=True)
                    if name == "ground":
                        add(name, value, texts)
            for value, texts in words["places"].items():
                add("ground", value, texts)
        case "looks":
            for value, texts in words["nouns"].items():
                if value != "wall":
                    add("shape", value, (text if language == "en" else text.rpartition(" ")[0] for text in texts))
            for name, key in LOOKS:
                for value, texts in words[key].items():
                    forms = [form for text in texts for form in _genders(text)]
                    add(name, value, forms, whole=True)
                    add(name, value, forms)
            _add_likened(words, table, language)
    return table


def _add_likened(words: Any, table: dict[tuple[str, ...], tuple[str, str]], language: str) -> None:
    """Colours by what has them, cherry red; alone only where that says nothing else: not snow, not sky."""
    else_ = {stems for stems in phrases(language, "around") if len(stems) == 1}
    else_ |= {(word,) for stems, _ in motions(language) for word in stems}
    for colour, likes in words["likes"].items():
        for base in {form for text in words["colours"][colour] for form in _genders(text)}:
            for pattern in ("{like}", *words["likened"]):
                for like in likes:
                    stems = tuple(stem(word, language) for word in split(pattern.format(like=like, colour=base)))
                    if stems not in else_:
                        table.setdefault(stems, ("colour", colour))


@functools.cache
def apart(language: str) -> list[tuple[tuple[str, ...], tuple[str, str]]]:
    """German verbs that say what the camera does, with words that may stand apart from them, the longest first:
    "fährt auf … zu", and at the end of a clause "auf … zufährt" and "nach links schwenkt"."""
    if language != "de":
        return []
    told = list[tuple[tuple[str, ...], tuple[str, str]]]()
    words = load_asked(language)
    for value, texts in (*words["cameras"].items(), *words["filming"].items()):
        for text in texts:
            verb, _, rest = text.partition(" ")
            rest, _, particle = rest.partition("+")
            forms = [f"{rest} {particle}{verb}", f"{verb} {rest} {particle}" if particle else ""]
            told += [(tuple(stem(word, language) for word in split(form)), ("camera", value)) for form in forms if form]
    return sorted((one for one in told if len(one[0]) > 1), key=lambda one: -len(one[0]))


@functools.cache
def motions(language: str) -> list[tuple[frozenset[str], str]]:
    """The stems of the words of each motion, without those that say nothing, and the motion; last the words that stand
    in the phrases of a single one."""
    out = list[tuple[frozenset[str], str]]()
    for kind, texts in load_asked(language)["motions"].items():
        known = {
            "fall_ground": "fall",
            "collide_alone": "",
            "hide": "",  # a wall is told besides
            "hide_alone": "",
            "lighter": "",
            "darker": "",
            "recolour": "",
        }.get(kind, kind)
        if known and known not in DIRECTIONS:
            for form in (form for text in texts for form in _forms(text)):
                stems = frozenset(stem(w, language) for w in split(form) if w not in _stop(language))
                if stems:
                    out.append((stems, known))
    kinds: dict[str, set[str]] = {}
    for stems, kind in out:
        for word in stems:
            kinds.setdefault(word, set()).add(kind)
    common = {stem(word, language) for word in COMMON[language].split()}
    alone = [(frozenset((word,)), min(of)) for word, of in kinds.items() if len(of) == 1 and word not in common]
    return [*out, *alone]


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
def stems_in(words: str, language: str) -> frozenset[str]:
    """The stems of some words."""
    return frozenset(stem(word, language) for word in words.split())


@functools.cache
def known_stems(language: str) -> frozenset[str]:
    """Every stem of the tables; of German verbs with a particle, that with both in one word, too."""
    tables = load_asked(language).tables
    stems = {stem(part, language) for word in _texts(tables) for part in word.split("-")}
    joined = [text for name in ("motions", "cameras", "filming") for texts in tables[name].values() for text in texts]
    parts = (re.match(r"(\S+).*\+(\S+)", text) for text in joined if language == "de")
    return frozenset(stems | {stem(part[2] + part[1], language) for part in parts if part})


@functools.cache
def _endings_known(language: str) -> frozenset[str]:
    """Stems of things and colours, with which compounds end."""
    return frozenset(
        stems[0]
        for stems, (name, _) in phrases(language, "looks").items()
        if len(stems) == 1 and name in ("shape", "colour") and len(stems[0]) >= 3
    )


@functools.cache
def _stop(language: str) -> frozenset[str]:
    return frozenset(STOP[language].split())


@functools.cache
def all_words() -> frozenset[str]:
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
