"""Captions of a few known facts: they state these, in plain words, and no others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yozora.errors import SceneError
from yozora.train.text import VALUES
from yozora.world.scene import DIRECTIONS
from yozora.world.words import LANGUAGES
from yozora.world.words.partial import FactTeller, tell_facts

IGNORED = {"count", "camera_direction", "relation"}  # told by what else there is, or left to the camera


def test_plain_words_first() -> None:
    facts = {"shape": "sphere", "colour": "red", "motion": "bounce", "ground": "grass"}
    assert tell_facts(facts) == "A red ball bounces on the grass."
    assert tell_facts({"shape": "box", "direction": "left", "camera": "orbit"}) == (
        "A box moves to the left while the camera orbits."
    )
    assert tell_facts(facts, "de") == "Ein roter Ball hüpft auf der Wiese."
    assert tell_facts({"shape": "cone", "style": "cartoon"}) == "A cone, in cartoon style."


def test_what_falls_lands_only_where_that_is_known() -> None:
    assert "on the grass" in tell_facts({"shape": "sphere", "motion": "fall", "ground": "grass"})
    told = {language: tell_facts({"shape": "sphere", "motion": "fall"}, language) for language in LANGUAGES}
    assert not any(word in text.lower() for text in told.values() for word in ("studio", "estudio")), told


def test_two_things() -> None:
    facts = {"shape": "torus", "colour": "blue", "motion": "collide", "direction": "right"}
    facts |= {"second_shape": "sphere", "second_colour": "white"}
    assert tell_facts(facts) == "A blue torus moves to the right and hits a white ball."
    apart = {"shape": "torus", "motion": "still", "second_shape": "box", "second_colour": "red", "relation": "behind"}
    assert "A red box stands behind the torus." in tell_facts(apart, "en", "dense")


@pytest.mark.parametrize(
    ("language", "facts", "text"),
    [
        ("en", {}, "A red ball goes behind a wall and comes out again."),
        ("en", {"direction": "left"}, "A red ball goes behind a wall, moving to the left, and comes out again."),
        ("de", {}, "Ein roter Ball bewegt sich, verschwindet hinter einer Wand und kommt wieder hervor."),
        ("fr", {}, "Une balle rouge passe derrière un mur et ressort."),
        ("es", {}, "Una pelota roja pasa por detrás de una pared y vuelve a salir."),
    ],
)
def test_what_hides_does_so_behind_a_wall(language: str, facts: dict[str, str], text: str) -> None:
    assert tell_facts({"shape": "sphere", "colour": "red", "motion": "hide"} | facts, language) == text


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "A red ball bounces on the grass and changes colour from red to blue."),
        ("de", "Ein roter Ball hüpft auf der Wiese und wechselt die Farbe von Rot zu Blau."),
        ("fr", "Une balle rouge rebondit sur l'herbe et change de couleur, passant de rouge à bleu."),
        ("es", "Una pelota roja rebota sobre la hierba y cambia de color de rojo a azul."),
    ],
)
def test_what_moves_may_turn_another_colour_meanwhile(language: str, text: str) -> None:
    facts = {"shape": "sphere", "colour": "red", "motion": "bounce", "ground": "grass", "colour_to": "blue"}
    assert tell_facts(facts, language) == text


def _facts() -> st.SearchStrategy[dict[str, str]]:
    known = {name: st.sampled_from(values) for name, values in VALUES.items() if name not in IGNORED}
    shape = {"shape": known.pop("shape")}
    return st.fixed_dictionaries(shape, optional=known)


@given(_facts(), st.sampled_from(LANGUAGES), st.sampled_from(("short", "dense")), st.none() | st.integers(0, 99))
def test_any_facts_make_a_whole_sentence(facts: dict[str, str], language: str, detail: str, seed: int | None) -> None:
    text = tell_facts(facts, language, detail, seed)
    assert text[0].isupper() and text.endswith(".")
    assert not set("{}|_") & set(text) and "  " not in text and " ." not in text


@given(_facts())
def test_nothing_is_said_that_is_not_known(facts: dict[str, str]) -> None:
    teller = FactTeller(facts, "en")
    text = f" {teller.told_short().lower()} "
    if "ground" not in facts:
        assert not any(word in text for word in (" studio", " grass", " sand ", " city", " space", " water"))
    if "size" not in facts and facts.get("motion") not in ("grow", "shrink") and "second_size" not in facts:
        assert not any(word in text for word in (" large ", " small ", " tiny ", " huge "))
    if not {"direction", "second_direction"} & facts.keys() and not {
        facts.get(name) for name in ("motion", "second_motion")
    } & set(DIRECTIONS):
        assert "to the left" not in text and "to the right" not in text


def test_what_is_no_value_is_an_error() -> None:
    with pytest.raises(SceneError, match="gold"):
        tell_facts({"shape": "sphere", "colour": "gold"})
