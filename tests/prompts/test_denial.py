"""What is denied is never told as if it were so."""

import pytest

from yozora.errors import ModelError
from yozora.prompts.denial import denial
from yozora.prompts.writer import load_writer


@pytest.mark.parametrize(
    "prompt",
    [
        "not a red ball but a crimson cube rolls to the left",
        "Kein roter Ball, sondern ein blauer",
        "no ball, just a crimson cube",
        "without snow, a crimson ball",
        "a crimson ball that never moves left",
        "pas une balle rouge, mais un cube écarlate",
        "una pelota escarlata sin nieve",
        "a crimson ball which cannot bounce",
        "a crimson ball that won’t bounce",
        "crimson cubes that aren't on the grass",
        "a crimson cube instead of a ball",
        "anything but a crimson ball",
        "a crimson ball that stops bouncing",
        "a crimson ball that dont bounce and mustn't roll",
        "a crimson ball refuses to bounce",
        "una pelota roja que deja de rebotar",
        "keinerlei rote Kugeln, ein Würfel",
        "ein roter Würfel statt einer Kugel",
        "weder ein roter Würfel noch eine Kugel",
        "une boule rouge qui ne rebondit plus",
        "ni une boule rouge ni un cube",
        "un cube rouge au lieu d'une boule",
        "un cubo rojo en vez de una pelota",
    ],
)
def test_a_prompt_that_denies_something_is_left_alone(prompt: str) -> None:
    with pytest.raises(ModelError, match="what is not to be"):
        load_writer().understand(prompt)


@pytest.mark.parametrize(
    "prompt",
    [
        "a crimson ball does not move",
        "eine Kugel ohne Bewegung",
        "une boule sans bouger",
        "una bola sin moverse",
    ],
)
def test_to_be_still_is_no_denial(prompt: str) -> None:
    assert denial(prompt) == ""
    understood = load_writer().understand(prompt)
    assert understood is not None and understood.subjects[0].motion == "still"


@pytest.mark.parametrize(
    "prompt",
    [
        "a crimson ball here and now, nothing else",
        "a crimson ball stops during the evening",
        "a crimson ball stops at the wall",
        "eine rote Kugel, die noch rollt, sonst nichts",
        "plus une boule rouge est grande, plus elle rebondit, rien d'autre",
        "una pelota roja que nada en el agua",
    ],
)
def test_words_that_only_look_like_it_deny_nothing(prompt: str) -> None:
    assert denial(prompt) == ""
