"""Numbers in a prompt: how many things it asks for, and how many seconds. What is measured in time counts no things."""

from __future__ import annotations

import functools
import re

from yozora.world.words import LANGUAGES, load_asked

LONGEST = 3600  # seconds that a prompt may ask for
SECONDS = r"s|secs?|seconds?|sekunden?|secondes?|segundos?"
MINUTES = r"min|mins|minutes?|minuten?|minutos?"
OTHER = r"h|hours?|stunden?|heures?|horas?|o['’]?\s?clock|uhr|days?|tagen?|jours?|días?|am|pm|fps|frames?|percent|%"
LENGTHS = (
    r"mm|cm|m|km|k|px|ft|feet|foot|inch(?:es)?|miles?|mph|km/h|met(?:er|re|ro)s?|metern|mètres?|zentimetern?|kilometern?|"
    r"times|mal|fois|veces|degrees?|grad|degrés?|grados?|°|years?|jahren?|ans?|años?"
)
MANY = {  # more things than the world has; that in French 9 and new are one word is why it is missing
    "en": {"seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "dozen": 12},
    "de": {"sieben": 7, "acht": 8, "neun": 9, "zehn": 10, "elf": 11, "zwölf": 12, "dutzend": 12},
    "fr": {"sept": 7, "huit": 8, "dix": 10, "onze": 11, "douze": 12, "douzaine": 12},
    "es": {"siete": 7, "ocho": 8, "nueve": 9, "diez": 10, "once": 11, "doce": 12, "docena": 12},
}
AMOUNT = r"\d{1,4}(?:[.,]\d+)?"


def things_counted(text: str, language: str) -> int:
    """The greatest number of things, from 2 on, that a text counts; 0 where it counts none."""
    names = number_names(language)
    told = [names.get(match[0].lower()) or int(match[0]) for match in _counting(language).finditer(text)]
    return max(told, default=0)


def is_unit(word: str) -> bool:
    """Whether a word is what time is measured in: by it one sees that the number before it counts no things."""
    return re.fullmatch(rf"{SECONDS}|{MINUTES}|{OTHER}|clock", word, re.IGNORECASE) is not None


def seconds_told(text: str) -> float | None:
    """How long the video is to be, in seconds; None where that is not said, or where it is too long to be meant."""
    found = _lasting().search(text)
    if found is None:
        return None
    named = {name: number for language in LANGUAGES for name, number in number_names(language).items()}
    amount = named[found["name"].lower()] if found["name"] else float(found["digits"].replace(",", "."))
    seconds = amount * (60 if found["minutes"] else 1)
    return seconds if 0 < seconds <= LONGEST else None


@functools.cache
def number_names(language: str) -> dict[str, int]:
    """Words for numbers of a language, and what they say; but for 1, which are articles."""
    told = {word: int(number) for number, word in load_asked(language)["counts"].items() if number != "1"}
    return told | MANY[language]


@functools.cache
def _counting(language: str) -> re.Pattern[str]:
    """A number from 2 to 99, or a word for one, that is no part of another, counts no stretch of time and measures
    nothing."""
    few = "|".join(word for word in number_names(language) if word not in MANY[language])
    part = r"(?<![\d.,:'’#])(?<!\d-)(?<!number )(?<!nummer )(?<!numéro )(?<!número )(?<!gib )(?<!gebt )"
    time = rf"(?![\d'’]|-\w|[.,:]\d|\s*-?\s*(?:(?:{SECONDS}|{MINUTES}|{OTHER}|{LENGTHS})(?!\w)))"
    many = rf"(?:[1-9]\d|[7-9]|{'|'.join(MANY[language])})(?=\s+[^\W\d])"  # which may name a road or a size, too
    return re.compile(rf"{part}\b(?:[2-6]|{few}|{many})\b{time}", re.IGNORECASE)


@functools.cache
def _lasting() -> re.Pattern[str]:
    """A number, or a word for one, and seconds or minutes."""
    names = "|".join(name for language in LANGUAGES for name in number_names(language))
    number = rf"(?:(?P<digits>{AMOUNT})\s*-?\s*|(?P<name>{names})(?:\s+|-))"  # a dozen and an s are no twelve seconds
    return re.compile(rf"\b{number}(?:(?:{SECONDS})|(?P<minutes>{MINUTES}))\b", re.IGNORECASE)
