"""The time left of a run whose stages take turns."""

from __future__ import annotations

from yozora.cli.bars import Pace


def test_what_is_left_of_every_stage_counts() -> None:
    """Three windows, each of 4 steps of 1 s and 2 latent frames of 0.5 s: 15 s, of which one window takes 5."""
    now = 100.0
    pace = Pace(("sample", "decode"), now)
    for step in range(1, 5):
        now += 1
        pace.did("sample", step, 12, now)
    assert (pace.left, pace.all_begun, pace.line()) == (8, False, "over 0:00:08 left")
    for step in range(1, 3):
        now += 0.5
        pace.did("decode", step, 6, now)
    assert (pace.left, pace.all_begun, pace.line()) == (10, True, "0:00:10 left")
    assert pace.part == 5 / 15


def test_nothing_is_known_at_first_and_nothing_left_at_last() -> None:
    pace = Pace(("enhance",), 0.0)
    assert (pace.left, pace.part, pace.all_begun) == (0, 0, False)
    pace.did("enhance", 7, 7, 3.5)
    assert (pace.left, pace.part, pace.line()) == (0, 1, "0:00:00 left")
