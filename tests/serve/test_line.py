"""When clients are told to ask again, and how long videos are expected to take."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from yozora.serve import jobs
from yozora.serve.context import Service
from yozora.serve.jobs import Ticket
from yozora.serve.line import UNKNOWN, pace
from yozora.serve.orders import Order
from yozora.serve.runs import begin
from yozora.serve.tables import Job

BALL = Order(prompt="a red ball", seconds=1)


def make(service: Service, spent: float) -> None:
    """A video that took so many seconds."""
    name = jobs.create(service, service.local, BALL)[0].id
    run = begin(service, name, "worker")
    assert run is not None and run.finish({}, {})
    with service.database.writing() as session:
        job = session.get(Job, name)
        assert job is not None and job.finished_at is not None
        job.started_at = job.finished_at - spent


def after(client: TestClient, name: str) -> int | None:
    told = client.get(f"/v1/videos/{name}").headers.get("openai-poll-after-ms")
    return None if told is None else int(told)


def test_the_pace_is_what_making_took_and_not_how_long_nobody_asked(service: Service) -> None:
    with service.database.reading() as session:
        assert pace(session, service.database) == UNKNOWN
    for spent in (2.0, 4.0):
        make(service, spent)
    with service.database.reading() as session:
        assert pace(session, service.database) == pytest.approx(3.0)


def test_who_is_further_back_is_told_to_ask_later(service: Service, local: TestClient) -> None:
    make(service, 8.0)
    names = [job.id for job in jobs.create(service, service.local, BALL, Ticket(count=8))]
    told = [after(local, name) for name in names]
    assert told == [800, 1600, 2400, 3200, 4000, 4800, 5000, 5000]
    jobs.cancel(service, service.local, names[0])
    assert after(local, names[0]) is None


def test_who_is_nearly_finished_is_told_to_ask_soon(service: Service, local: TestClient) -> None:
    name = jobs.create(service, service.local, BALL)[0].id
    run = begin(service, name, "worker")
    assert run is not None
    with service.database.writing() as session:
        job = session.get(Job, name)
        assert job is not None and job.started_at is not None
        job.started_at, job.progress = job.started_at - 30, 50
    assert 2900 < (after(local, name) or 0) < 3600
    run.report("generate", 0.98, always=True)
    assert after(local, name) == 250
