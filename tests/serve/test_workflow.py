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

    def __init__(self) -> None:
        self.slept: list[float] = []

    def run_step(self, options: dict[str, str], act: Callable[..., Any], *given: Any) -> Any:
        return act(*given)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.mark.parametrize("failures", [0, 2, 100])
def test_those_who_asked_are_told_again_and_not_for_ever(
    service: Service, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    told = 0

    def finish(run: Run, models: Models, step: Step) -> Verdict:
        assert run.finish({}, {})
        return NEXT

    def notify(run: Run, models: Models, step: Step) -> Verdict:
        nonlocal told
        told += 1
        if told <= failures:
            raise ValueError("the webhooks' table is locked")
        return NEXT

    recorded = Recorded()
    monkeypatch.setattr(workflow, "DBOS", recorded)
    monkeypatch.setattr(workflow, "STEPS", (Step("store", finish), Step("notify", notify)))
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    workflow.make_video(service, Models("cpu"), "worker", lambda: False, name)
    tries = min(failures, len(workflow.TELL_AGAIN))
    assert told == 1 + tries and recorded.slept == list(workflow.TELL_AGAIN[:tries])
    with service.database.reading() as session:
        job = session.get(Job, name)
    assert job is not None and job.status == "completed"
