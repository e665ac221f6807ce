"""Numbers of things, and of seconds."""

import pytest

from yozora.prompts.numbers import seconds_told, things_counted
from yozora.prompts.writer import load_writer


@pytest.mark.parametrize(
    ("text", "language", "count"),
    [
        ("2 crimson balls", "en", 2),
        ("Two balls, then three", "en", 3),
        ("5 cubes, 6 seconds", "en", 5),
        ("zwei Bälle, 4 Sekunden", "de", 2),
        ("a 5-second clip", "en", 0),
        ("two minutes of a ball", "en", 0),
        ("deux minutes d'une balle", "fr", 0),
        ("at 3 o'clock, at 5 pm", "en", 0),
        ("um 3 Uhr", "de", 0),
        ("2.5 seconds at 3:30 in 16:9", "en", 0),
        ("25 balls", "en", 25),
        ("a dozen balls", "en", 12),
        ("sieben Bälle", "de", 7),
        ("un cube neuf, huit balles", "fr", 8),
        ("once pelotas", "es", 11),
        ("a ball rolls ten meters, bounces 12 times and is 10 inches tall", "en", 0),
        ("ball number 8 of size 12, on route 66, is ten-sided", "en", 0),
        ("gib acht, ein Ball rollt 20 Meter", "de", 0),
        ("una pelota rebota diez veces", "es", 0),
        ("a two-tone ball", "en", 0),
        ("a ball on 35 mm film turns 90 degrees in 100 frames, filmed in the 70s", "en", 0),
    ],
)
def test_things_are_counted_and_time_is_not(text: str, language: str, count: int) -> None:
    assert things_counted(text, language) == count


def test_seconds_are_read_and_minutes() -> None:
    told = {
        "a 5-second clip": 5,
        "2,5 Sekunden": 2.5,
        "two minutes of a ball": 120,
        "trois secondes": 3,
        "ten seconds of a ball": 10,
        "dozens of balls, tens of cubes": None,
        "1.5 min": 90,
        "0 seconds": None,
        "100 minutes": None,
        "two balls": None,
    }
    assert {text: seconds_told(text) for text in told} == told


@pytest.mark.parametrize(
    "prompt",
    ["two minutes of a crimson ball", "a crimson ball at 3 o'clock", "ein 5 Minuten langer Film von einem roten Ball"],
)
def test_time_is_still_seen_once_unknown_words_are_left_out(prompt: str) -> None:
    read = load_writer().understand(prompt)
    assert read is not None and read.caption == "A red ball."


@pytest.mark.parametrize("prompt", ["12 crimson balls", "a dozen crimson balls", "twelve crimson balls"])
def test_of_many_things_two_are_told_and_that_is_said(prompt: str) -> None:
    read = load_writer().understand(prompt)
    assert read is not None and read.caption == "A red ball and another red ball."
    assert any(note.startswith("12 things are asked for and 2 shown") for note in read.notes)
