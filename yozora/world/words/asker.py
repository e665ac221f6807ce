"""A scene in the words of somebody who asks for it: synonyms, odd order, half sentences, things left out.

The captions that a video model learns from are orderly; what people type is not. `Asker` tells the same scenes with the
tables of `asked/` behind the captions' own, so that a model can learn to put what is asked into a caption's words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from yozora.world.words.grammar import Noun, load_asked, tidy
from yozora.world.words.seen import Seen
from yozora.world.words.teller import Teller

LIKENED = 0.35  # share of colours that are told by what has them: cherry red
_FORMS: dict[str, float] = {"sentence": 0.4, "list": 0.28, "inverted": 0.16, "keywords": 0.16}


class Asker(Teller):
    """Asks for one scene once; `stated` then says which facts the prompt states."""

    def __init__(self, seen: Seen, language: str, seed: int) -> None:
        super().__init__(seen, load_asked(language), seed, "asked")

    def ask(self, at_length: bool = False) -> str:
        """A prompt: in one of several forms, at times with a wish around it, praise behind it, or small mistakes;
        `at_length`: several sentences about all that there is."""
        form = self.random.choices(list(_FORMS), list(_FORMS.values()))[0]
        if at_length:
            text = self.dense()
        elif form == "sentence" or not self.seen.visible:
            text = self.short()
        else:
            text = getattr(self, f"_{form}_asked")()
        if self.chance(0.2):
            text = self.pick(self.words["wishes"]).format(what=text.rstrip("."))
        if self.chance(0.12):
            text = f"{text.rstrip('.')}, {self.pick(self.words['praise'])}"
        if self.chance(0.03):
            order = self.pick(self.words["orders"])
            text = f"{order}. {text}" if self.chance(0.5) else f"{text.rstrip('.')}. {order}"
        return self._as_typed(text)

    def _colour(self, index: int) -> str:
        """A colour's name, or what has it: cherry red."""
        if index in self._colours or not self.chance(LIKENED):
            return super()._colour(index)
        colour = self.seen.scene.bodies[index].colour
        like, pattern = self.pick(self.words["likes"][colour]), self.pick(self.words["likened"])
        plain = self.words["colours"][colour][0]
        forms = plain.split("/") if "{colour}" in pattern else [plain]
        told = "/".join(pattern.format(like=like, colour=form.rstrip("!")) for form in forms)
        return self._colours.setdefault(index, told)

    # forms

    def _list_asked(self) -> str:
        """ "Meadow, camera orbits, a red ball that bounces": what there is, in any order."""
        parts = [f"{noun}{self._apart(doing)}" for noun, doing in self._acts_apart()]
        parts += self._around()
        self.random.shuffle(parts)
        return self.pick([", ", ", ", ". ", " - ", "; ", ": "]).join(parts)

    def _inverted_asked(self) -> str:
        """ "On a meadow, bouncing: a red ball": what is done ahead of who does it."""
        parts = []
        for noun, doing in self._acts_apart():
            noun_first = self.chance(0.25) or not doing
            parts.append(f"{noun} {doing}" if noun_first else f"{doing}{self.pick([': ', ', ', ' '])}{noun}")
        around = self._around()
        where = self.pick(["{around}, {parts}", "{parts}, {around}", "{around} {parts}", "{parts} {around}"])
        joined = f" {self.words['and']} ".join(parts)
        return where.format(around=", ".join(around), parts=joined) if around else joined

    def _keywords_asked(self) -> str:
        """ "ball red big bouncing meadow": bare words."""
        parts = []
        for noun, doing in self._acts_apart():
            pieces = [str(noun.word), *(self._bare(each, noun.gender) for each in noun.adjectives), doing]
            self.random.shuffle(pieces)
            parts.append(self.pick([" ", ", "]).join(piece for piece in pieces if piece))
        parts += self._around()
        return self.pick([" ", ", ", ", "]).join(parts)

    # pieces

    def _acts_apart(self) -> list[tuple[Noun, str]]:
        """Whoever is told of, and what it does, by itself."""
        acting, named = self._tellable()
        out: list[tuple[Noun, str]] = []
        for index in acting:
            subject = self.body(index, "some")
            still = self.seen.motion(index) == "still" and self.chance(0.5)
            out.append((self._maybe_bare(subject), "" if still else self._doing(index, subject)))
        return [*out, *((self._maybe_bare(self.body(index, "some")), "") for index in named)]

    def _doing(self, index: int, subject: Noun) -> str:
        """What a body does, without the body: "rolling to the left", in German "rollt nach links"."""
        predicate = self.predicate(index, subject)
        if self.words.language == "de":
            told = self.words.clause("_", predicate).removeprefix("_ ")
        else:
            tell: Callable[[Noun | str, str], str] = (
                self.words.participle if self.chance(0.75) else self.words.subordinate
            )
            told = tell("_", predicate).removeprefix("_ ")
        return tidy(told)

    def _maybe_bare(self, noun: Noun) -> Noun:
        """With an article or, as in a headline, without."""
        return noun if self.chance(0.5) else Noun(noun.language, noun.word, noun.gender, noun.adjectives, "")

    def _apart(self, doing: str) -> str:
        return f"{self.pick([' ', ' ', ', ', ' ... '])}{doing}" if doing else ""

    def _around(self) -> list[str]:
        """Where, when, how filmed and drawn: some of it."""
        place, parts = self.seen.scene.place, []
        if self.chance(0.8):
            parts.append(self.place())
        if self.seen.outdoors and self.chance(0.1 if place.time == "day" else 0.6):
            parts.append(self._time())
        if self._has_weather() and self.chance(0.05 if place.weather == "clear" else 0.7):
            parts.append(self._weather())
        if self.chance(0.05 if self.seen.scene.camera.kind == "still" else 0.7):
            parts.append(self.camera_clause() if self.chance(0.5) else self._camera_key("camera_labels"))
        if self.chance(0.05 if self.seen.scene.style == "realistic" else 0.8):
            self.state("style")
            parts.append(self.pick(self.words["styles" if self.chance(0.6) else "style_labels"][self.seen.scene.style]))
        return parts

    def _bare(self, adjective: str, gender: str) -> str:
        """An adjective as a keyword, without its notation."""
        word = adjective.removesuffix(" *").removeprefix("_ ").removesuffix(" _").rstrip("!")
        masculine, _, feminine = word.partition("/")
        return feminine if feminine and gender == "f" else masculine

    def _as_typed(self, text: str) -> str:
        """Lower case, lost accents, a slip of the finger: as typing goes."""
        text = tidy(text)
        if self.chance(0.5):
            text = text.lower()
        if self.chance(0.08):
            text = plain(text)
        if self.chance(0.12):
            words = text.split(" ")
            where = self.random.randrange(len(words))
            words[where] = self._slip(words[where])
            text = " ".join(words)
        return text

    def _slip(self, word: str) -> str:
        """A long word with two letters exchanged, one doubled or one left out."""
        if len(word) < 6:
            return word
        at = self.random.randrange(1, len(word) - 2)
        return self.pick(
            [
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + word[at:][:1] + word[at:],
                word[:at] + word[at + 1 :],
            ]
        )


def plain(text: str) -> str:
    """Without accents: "cône" → "cone", "grün" → "gruen", "weiß" → "weiss"."""
    text = re.sub("[äöüÄÖÜß]", lambda m: {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"}.get(m[0].lower(), m[0]), text)
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
