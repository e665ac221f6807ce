"""The prompts of the benchmark and how answers to them are counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from yozora.evaluate import Finding, Prompt, Score, following_prompts, psnr, score, shuffled
from yozora.train.data import HELD_OUT_SEEDS
from yozora.world import is_held_out
from yozora.world.scene import COLOURS, DIRECTIONS, SHAPES


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    return following_prompts(64)


def test_prompts_are_balanced_and_held_out(prompts: list[Prompt]) -> None:
    shapes, colours = Counter(p.shape for p in prompts), Counter(p.colour for p in prompts)
    directions = Counter(p.direction for p in prompts if p.direction)
    assert len(prompts) == 64
    assert set(shapes) == set(SHAPES) and min(shapes.values()) >= 9
    assert set(colours) == set(COLOURS) and min(colours.values()) >= 4
    assert set(directions) == set(DIRECTIONS) and min(directions.values()) >= 5
    assert sum(directions.values()) == 32
    assert len({p.seed for p in prompts}) == 64
    for prompt in prompts:
        (body,) = prompt.scene.bodies
        assert (body.shape, body.colour) == (prompt.shape, prompt.colour)
        assert prompt.scene.seed >= HELD_OUT_SEEDS
        assert prompt.scene.style == "realistic" and not is_held_out(prompt.scene)
        assert prompt.scene.camera.kind == "still" or not prompt.direction
        assert prompt.scene.place.weather == "clear" and prompt.scene.place.time != "night"
        assert prompt.text and "\n" not in prompt.text


def test_prompts_are_the_same_every_time(prompts: list[Prompt]) -> None:
    assert following_prompts(64) == prompts


def test_new_combinations_are_new() -> None:
    prompts = following_prompts(16, held_out=True)
    assert all(is_held_out(prompt.scene) for prompt in prompts)
    assert len({prompt.shape for prompt in prompts}) == 6


def test_score_counts_what_was_asked(prompts: list[Prompt]) -> None:
    right = [Finding(p.colour, p.shape, p.direction, 1.0) for p in prompts]
    assert score(prompts, right) == {"colour": Score(64, 64), "shape": Score(64, 64), "direction": Score(32, 32)}
    assert score(prompts, [Finding()] * 64) == {
        "colour": Score(0, 64),
        "shape": Score(0, 64),
        "direction": Score(0, 32),
    }
    assert str(Score(3, 4)) == "75.0 % (3/4)"


def test_shuffled_gives_every_clip_to_another_prompt(prompts: list[Prompt]) -> None:
    findings = [Finding(str(i)) for i in range(64)]
    moved = shuffled(findings, prompts)
    assert sorted(f.colour for f in moved) == sorted(f.colour for f in findings)
    assert all(a != b for a, b in zip(moved, findings, strict=True))
    perfect = [Finding(p.colour, p.shape, p.direction, 1.0) for p in prompts]
    assert score(prompts, shuffled(perfect, prompts))["colour"].percent < 40


def test_psnr_of_a_known_error() -> None:
    one = np.full((2, 4, 4, 3), 100, np.uint8)
    assert psnr(one, one) == float("inf")
    assert psnr(one, one + np.uint8(5)) == pytest.approx(10 * np.log10(255**2 / 25))
