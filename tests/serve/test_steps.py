"""Steps of a video, one at a time."""

from __future__ import annotations

import json

import pytest

from yozora.create.canvas import Canvas, Cue
from yozora.serve import jobs
from yozora.serve.context import Service
from yozora.serve.orders import Order
from yozora.serve.pool import Models
from yozora.serve.runs import Run, begin
from yozora.serve.steps import NEXT, STEPS, _in_words

REWRITE = next(step for step in STEPS if step.name == "rewrite")
PLEASE = "show me a red ball bouncing on the grass, please"
BALL = "A red ball bounces on the grass."


def run_of(service: Service, prompt: str, rewrite: bool | None) -> Run:
    name = jobs.create(service, service.local, Order(prompt=prompt, seconds=1, rewrite=rewrite))[0].id
    run = begin(service, name, "worker")
    assert run is not None
    return run


@pytest.mark.parametrize(("asked", "words"), [(True, {PLEASE: BALL}), (None, {}), (False, {})])
def test_prompts_are_rewritten_where_that_is_wanted(service: Service, asked: bool | None, words: dict) -> None:
    """Of itself only for the shipped model: another may know other words."""
    run = run_of(service, PLEASE, asked)
    assert REWRITE.act(run, Models("cpu"), REWRITE) == NEXT
    assert json.loads((run.scratch / "words.json").read_text()) == words


def test_who_rewrites(service: Service) -> None:
    models = Models("cpu")
    assert models.rewriter("mini", "none", True) is None
    assert models.rewriter("other", "", None) is None
    assert models.rewriter("other", "mini", None) is models.rewriter("other", "", True) is not None
    assert models.rewriter("mini", "", None) is models.rewriter(None, "mini", True) is not None
    assert models.rewriter("mini", "", False) is None


def test_what_was_asked_stays_known() -> None:
    canvas = Canvas(64, 64, 9, 8.0, (Cue(0, PLEASE), Cue(0.5, "a blue cube")))
    cues = _in_words(canvas, {PLEASE: BALL, "a blue cube": "a blue cube"}).cues
    assert [(cue.prompt, cue.asked) for cue in cues] == [(BALL, PLEASE), ("a blue cube", "")]
