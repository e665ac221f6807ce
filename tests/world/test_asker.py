"""How people ask for scenes: the facts that a prompt states are the scene's, in every language and form."""

import pytest

from yozora.errors import SceneError
from yozora.world import MIXES, sample_scene
from yozora.world.words import LANGUAGES, load_asked, load_words
from yozora.world.words.asker import Asker, plain
from yozora.world.words.seen import labels, look_at


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_state_what_is_so(language: str) -> None:
    for seed in range(30):
        seen = look_at(sample_scene(seed, MIXES["full"]))
        for phrasing in range(4):
            asker = Asker(seen, language, phrasing)
            text = asker.ask(at_length=phrasing == 0)
            assert text.strip() and "{" not in text and "|" not in text and "_" not in text, text
            assert asker.stated.items() <= labels(seen).items()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_has_its_place_in_the_captions_tables(language: str) -> None:
    asked, words = load_asked(language), load_words(language)
    for table in ("nouns", "colours", "sizes", "materials", "directions", "motions", "grounds", "times", "styles"):
        assert asked[table].keys() == words[table].keys()
        for key, known in words[table].items():
            assert asked[table][key][: len(known)] == known
    assert asked["likes"].keys() == words["colours"].keys()


def test_the_same_seed_asks_the_same() -> None:
    seen = look_at(sample_scene(3))
    assert Asker(seen, "de", 5).ask() == Asker(seen, "de", 5).ask()
    assert len({Asker(seen, "de", seed).ask() for seed in range(20)}) > 10


def test_captions_do_not_change_by_it() -> None:
    load_asked("en")
    assert "globe" not in load_words("en")["nouns"]["sphere"]


def test_plain_letters() -> None:
    assert plain("Grüner Cône, weiß") == "Gruener Cone, weiss"


def test_an_unknown_language_is_an_error() -> None:
    with pytest.raises(SceneError, match="xx"):
        load_asked("xx")
