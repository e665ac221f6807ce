"""What a video's workflow does where a step fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from yozora.serve import jobs, workflow
from yozora.serve.context import Service
from yozora.serve.orders import Order
from yozora.serve.pool import Models
from yozora.serve.runs import Run
from yozora.serve.steps import NEXT, Step, Verdict
from yozora.serve.tables import Job


class Recorded:
    """What DBOS does of a workflow that nothing interrupts."""

    def run_step(self, options: dict[str, str], act: Callable[..., Any], *given: Any) -> Any:
        return act(*given)


@pytest.mark.parametrize("fails", [False, True])
def test_who_cannot_be_told_is_left_to_a_sweep(service: Service, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """And not tried for ever, while others wait for the slot."""
    told = 0

    def finish(run: Run, models: Models, step: Step) -> Verdict:
        assert run.finish({}, {})
        return NEXT

    def notify(run: Run, models: Models, step: Step) -> Verdict:
        nonlocal told
        told += 1
        if fails:
            raise ValueError("the webhooks' table is locked")
        return NEXT

    monkeypatch.setattr(workflow, "DBOS", Recorded())
    monkeypatch.setattr(workflow, "STEPS", (Step("store", finish), Step("notify", notify)))
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    workflow.make_video(service, Models("cpu"), "worker", lambda: False, name)
    with service.database.reading() as session:
        job = session.get(Job, name)
    assert told == 1 and job is not None and job.status == "completed"
