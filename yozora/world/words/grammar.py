"""Just enough grammar for captions in English, German, French and Spanish.

The tables (`en.toml`, …) hold words and phrases in a small notation:

- noun `Kugel f`: word and gender (English has none).
- adjective `vert/verte`: masculine and feminine; `rosa!`: never inflected (German); `petit/petite _`: before the noun
  and `_ aus Gummi`: after it, where that is not the language's habit; `glowing *`: ahead of the colour.
- verb phrase, English, French, Spanish: `rolls|rolling {dir} {at}`: finite and participle; `_` is a space inside them.
- verb phrase, German: `fällt {onto} +herunter`: verb first, separable particle last (`fällt … herunter`,
  `herunterfällt`); ` & ` joins two predicates.
"""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from yozora.errors import SceneError

LANGUAGES = ("en", "de", "fr", "es")
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")

_DE_ARTICLES = {  # determiner -> case -> gender
    "a": {
        "nom": {"m": "ein", "f": "eine", "n": "ein"},
        "acc": {"m": "einen", "f": "eine", "n": "ein"},
        "dat": {"m": "einem", "f": "einer", "n": "einem"},
    },
    "the": {
        "nom": {"m": "der", "f": "die", "n": "das"},
        "acc": {"m": "den", "f": "die", "n": "das"},
        "dat": {"m": "dem", "f": "der", "n": "dem"},
    },
}
_ROMANCE_ARTICLES = {
    "fr": {"a": "un/une", "the": "le/la", "another": "un autre/une autre"},
    "es": {"a": "un/una", "the": "el/la", "another": "otro/otra"},
}
_DE_ENDINGS = {
    "a": {
        "nom": {"m": "er", "f": "e", "n": "es"},
        "acc": {"m": "en", "f": "e", "n": "es"},
        "dat": {"m": "en", "f": "en", "n": "en"},
    },
    "the": {
        "nom": {"m": "e", "f": "e", "n": "e"},
        "acc": {"m": "en", "f": "e", "n": "e"},
        "dat": {"m": "en", "f": "en", "n": "en"},
    },
    "": {
        "nom": {"m": "er", "f": "e", "n": "es"},
        "acc": {"m": "en", "f": "e", "n": "es"},
        "dat": {"m": "em", "f": "er", "n": "em"},
    },
}


@dataclass(frozen=True)
class Noun:
    """A noun with its adjectives: `determiner` is "a", "the", "another" or "" (headline style).

    In phrase templates `{target}` is the plain form, `{target.acc}` and so on are its cases; `{target.de}` contracts
    with the French and Spanish preposition (du, del), `{target.von}` with the German one.
    """

    language: str
    word: str
    gender: str
    adjectives: tuple[str, ...] = ()
    determiner: str = "a"

    def __str__(self) -> str:
        return self._case("nom")

    @property
    def acc(self) -> str:
        return self._case("acc")

    @property
    def dat(self) -> str:
        return self._case("dat")

    @property
    def von(self) -> str:
        return re.sub(r"^von dem ", "vom ", f"von {self.dat}")

    @property
    def de(self) -> str:
        contracted = {"fr": ("le", "du"), "es": ("el", "del")}[self.language]
        phrase = str(self)
        article, _, rest = phrase.partition(" ")
        if article == contracted[0]:
            return f"{contracted[1]} {rest}"
        return f"d'{phrase}" if self.language == "fr" and _vowel(phrase) else f"de {phrase}"

    def _case(self, case: str) -> str:
        before, after = [], []
        for adjective in self.adjectives:
            left, word = _place(adjective, self.language)
            (before if left else after).append(self._inflect(word, case))
        return self._determine([*before, self.word, *after], case)

    def _inflect(self, word: str, case: str) -> str:
        if self.language == "de":
            if word.endswith("!") or word.startswith(("aus ", "mit ")):
                return word.rstrip("!")
            return word + _DE_ENDINGS["a" if self.determiner == "another" else self.determiner][case][self.gender]
        return agree(word, self.gender)

    def _determine(self, words: list[str], case: str) -> str:
        rest = " ".join(words)
        if not self.determiner:
            return rest
        if self.language == "de":
            if self.determiner == "another":
                return f"{_DE_ARTICLES['a'][case][self.gender]} weiter{_DE_ENDINGS['a'][case][self.gender]} {rest}"
            return f"{_DE_ARTICLES[self.determiner][case][self.gender]} {rest}"
        if self.language == "en":
            article = {"the": "the", "another": "another", "a": "an" if rest[0] in "aeiou" else "a"}[self.determiner]
            return f"{article} {rest}"
        if self.language == "fr" and self.determiner == "the" and _vowel(rest):
            return f"l'{rest}"
        return f"{agree(_ROMANCE_ARTICLES[self.language][self.determiner], self.gender)} {rest}"


@dataclass(frozen=True)
class Words:
    """One language's tables and the sentence patterns that use them."""

    language: str
    tables: dict[str, Any]

    def __getitem__(self, table: str) -> Any:
        return self.tables[table]

    def noun(self, entry: str, adjectives: tuple[str, ...] = (), determiner: str = "a") -> Noun:
        """The noun phrase for a table entry such as `Kugel f`."""
        word, _, gender = entry.partition(" ") if self.language != "en" else (entry, "", "n")
        return Noun(self.language, word, gender, adjectives, determiner)

    def clause(self, subject: Noun | str, predicate: str, front: str = "") -> str:
        """A main clause; `front` is an adverbial set before it (German then puts the verb ahead of the subject)."""
        if self.language == "de":
            parts = [_split(part) for part in predicate.split(" & ")]
            verb, rest, particle = parts[0]
            if front and re.match(r"sich\b", rest):
                verb, rest = f"{verb} sich", rest[4:]
            first = f"{front} {verb} {subject}" if front else f"{subject} {verb}"
            tails = [f"{v} {r} {p}" for v, r, p in parts[1:]]
            return tidy(" und ".join([f"{first} {rest} {particle}", *tails]))
        head = f"{front.rstrip(',')}, " if front else ""
        return tidy(f"{head}{subject} {_finite(predicate)}")

    def subordinate(self, subject: Noun | str, predicate: str) -> str:
        """The clause as it stands after "while" (German: verb last)."""
        if self.language == "de":
            return tidy(f"{subject} {_verb_last(predicate)}")
        return tidy(f"{subject} {_finite(predicate)}")

    def relative(self, subject: Noun, predicate: str) -> str:
        """The subject with a relative clause: "a ball that rolls left". German closes it with a comma."""
        if self.language == "de":
            return tidy(f"{subject}, {_DE_ARTICLES['the']['nom'][subject.gender]} {_verb_last(predicate)},")
        return tidy(f"{subject} {self['that']} {_finite(predicate)}")

    def participle(self, subject: Noun | str, predicate: str) -> str:
        """ "a ball rolling left"; German has no such form and answers with `relative`."""
        if self.language == "de":
            return self.relative(subject, predicate) if isinstance(subject, Noun) else self.clause(subject, predicate)
        return tidy(f"{subject} {re.sub(_VERB, lambda m: m[2].replace('_', ' '), predicate)}")

    def series(self, items: list[str]) -> str:
        """ "a, b and c"."""
        items = [str(item) for item in items]
        if len(items) < 2:
            return "".join(items)
        return tidy(f"{', '.join(items[:-1])} {self['and']} {items[-1]}")

    def seconds(self, value: float) -> str:
        """A time with one decimal, in the language's own notation."""
        return f"{value:.1f}" if self.language == "en" else f"{value:.1f}".replace(".", ",")


@functools.cache
def load_words(language: str) -> Words:
    """The words of `language` ("en", "de", "fr" or "es"); raises SceneError for any other."""
    if language not in LANGUAGES:
        raise SceneError(f"no captions in {language!r}; known languages: {', '.join(LANGUAGES)}")
    text = resources.files(__package__ or "yozora.world.words").joinpath(f"{language}.toml").read_text(encoding="utf-8")
    return Words(language, tomllib.loads(text))


@functools.cache
def load_asked(language: str) -> Words:
    """The words of `language` in captions, and behind them those that people ask with. Raises SceneError."""
    words = load_words(language)
    more = tomllib.loads(
        resources.files("yozora.world.words").joinpath("asked", f"{language}.toml").read_text(encoding="utf-8")
    )
    tables = dict(words.tables)
    for name, table in more.items():
        if name in tables and isinstance(table, dict):
            tables[name] = tables[name] | {key: [*tables[name].get(key, ()), *values] for key, values in table.items()}
        else:
            tables[name] = table
    return Words(language, tables)


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case; no numbers."""
    return [match[0].lower() for match in WORD.finditer(text)]


def agree(adjective: str, gender: str) -> str:
    """A French or Spanish adjective in the noun's gender; English and predicative German ones are unchanged."""
    masculine, _, feminine = adjective.removesuffix("!").partition("/")
    return feminine if feminine and gender == "f" else masculine


def tidy(text: str) -> str:
    """Takes out the traces of slots that stayed empty: double spaces, and stray commas."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.])(?!\d)", r"\1", text)
    return re.sub(r",+(?= ?[,.;:])", "", text)


_VERB = re.compile(r"(\S+)\|(\S+)")


def _finite(predicate: str) -> str:
    return re.sub(_VERB, lambda m: m[1].replace("_", " "), predicate)


def _split(predicate: str) -> tuple[str, str, str]:
    verb, _, rest = predicate.strip().partition(" ")
    rest, _, particle = rest.partition("+")
    return verb, tidy(rest), particle


def _verb_last(predicate: str) -> str:
    parts = [_split(part) for part in predicate.split(" & ")]
    return " und ".join(f"{rest} {particle}{verb}" for verb, rest, particle in parts)


def _place(adjective: str, language: str) -> tuple[bool, str]:
    adjective = adjective.removesuffix(" *")
    if adjective.endswith(" _"):
        return True, adjective[:-2]
    if adjective.startswith("_ "):
        return False, adjective[2:]
    return language in ("en", "de"), adjective


def _vowel(text: str) -> bool:
    return text[0].lower() in "aeiouéèêâîô"
