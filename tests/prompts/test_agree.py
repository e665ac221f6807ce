"""Which clips may stand for a prompt, and how what a prompt leaves open is filled in."""

import pytest

from yozora.prompts.agree import disagreement, likeness, with_count
from yozora.prompts.grounding import complete
from yozora.prompts.lexicon import LexiconReader
from yozora.prompts.rewriting import Similar


def _facts(text: str) -> dict[str, str]:
    return with_count(LexiconReader().read(text), text)


CLIP = "A red ball rolls to the left on the sand."


@pytest.mark.parametrize(
    ("prompt", "where"),
    [
        ("A red ball rolls to the left.", ""),
        ("A ball rolls on the grass.", ""),  # ground may differ
        ("A large metal ball rolls on the sand.", ""),  # and so may size and material
        ("A red ball moves to the left.", ""),
        ("ein roter Ball rollt nach links", ""),
        ("A blue ball rolls to the left.", "colour"),
        ("A red cube rolls to the left.", "shape"),
        ("A red ball rolls to the right.", "motion"),
        ("A red ball bounces.", "motion"),
        ("A red ball moves away from the camera.", "motion"),
        ("Two red balls roll to the left.", "count"),
        ("Three red balls.", "count"),
        ("A red ball and a blue cube.", "count"),
        ("A red ball rolls to the left at night.", "time"),
        ("A red ball rolls to the left while the camera orbits.", "camera"),
        ("A red ball rolls to the left, as a pencil sketch.", "style"),
    ],
)
def test_a_clip_is_vetoed_for_what_it_shows_otherwise(prompt: str, where: str) -> None:
    said = disagreement(_facts(prompt), _facts(CLIP))
    assert said.split(":")[0] == where


def test_what_a_clip_does_not_state_is_no_agreement() -> None:
    assert disagreement(_facts("A red ball."), _facts("A ball.")) == "colour: red, not said"
    assert disagreement(_facts("A ball rolls."), _facts("A ball.")).startswith("motion")


def test_the_second_thing_counts() -> None:
    asked = _facts("A red ball and a blue cube.")
    assert not disagreement(asked, _facts("A red ball and a blue cube on the snow."))
    assert disagreement(asked, _facts("A red ball and a green cube.")).startswith("second colour")


def test_things_are_counted() -> None:
    counts = {
        "a red ball": "1",
        "two red balls": "2",
        "5 cubes": "5",
        "two balls and a cube": "3",
        "drei rote Bälle": "3",
    }
    assert {text: _facts(text)["count"] for text in counts} == counts
    assert "count" not in _facts("a sunny day")


def test_of_clips_that_agree_the_one_that_is_more_alike_is_nearer() -> None:
    asked = _facts("A large red ball on the sand.")
    alike, unlike = _facts("A large red ball on the sand."), _facts("A tiny red ball on the grass.")
    assert likeness(asked, alike) > likeness(asked, _facts("A red ball.")) > likeness(asked, unlike)


def _similar(text: str) -> Similar:
    return Similar(caption=text, facts=_facts(text), source=text)


def test_what_a_prompt_leaves_open_is_as_in_a_clip_that_agrees() -> None:
    asked = LexiconReader().read("a red ball bounces")
    clips = [_similar("A blue ball bounces on the snow."), _similar("A large red ball bounces on the grass.")]
    facts, taken, source = complete(asked, clips)
    assert facts == asked | {"ground": "grass", "size": "large"}
    assert (taken, source) == ("grass, large", clips[1].source)


def test_what_a_prompt_states_stays() -> None:
    asked = LexiconReader().read("a small red ball bounces on the sand")
    for clip in (
        "A large red ball bounces on the sand.",
        "A small red ball bounces on the grass.",
        "A red ball falls.",
    ):
        assert complete(asked, [_similar(clip)]) == (asked, "", "")
    silent = LexiconReader().read("a red ball")
    filled = complete(silent, [_similar("A red ball rolls to the left.")])[0]
    assert (filled["motion"], filled["direction"]) == ("roll", "left")
