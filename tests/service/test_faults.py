"""Workers are killed, told to end, and cut off from their database: every video is made, once, and nothing stays
behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import processes
import pytest
import sqlalchemy as sa

from yozora.serve import jobs
from yozora.serve.context import Service, open_service
from yozora.serve.housekeeping import orphans
from yozora.serve.orders import Order
from yozora.serve.settings import read_settings
from yozora.serve.tables import COMPLETED, RUNNING, Job, WorkerRow

LONG = Order(prompt="a red ball", seconds=6, steps=150)  # with the tiny model, some seconds
SHORT = Order(prompt="a red ball", seconds=1, steps=2)


@pytest.fixture
def service(database_url: str, tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """The tests' own hold on the service: it orders, and the workers are processes."""
    if not database_url.startswith("sqlite"):
        name = request.node.name.replace("[", "-").replace("]", "").lower()
        database_url = request.getfixturevalue("postgres_server").database(name)
    else:
        database_url = f"sqlite:///{tmp_path / 'own.db'}"
    settings = read_settings(data=tmp_path / "data", database_url=database_url, model=str(tiny_model))
    service = open_service(settings)
    yield service
    service.close()


@pytest.fixture
def worker(service: Service, tmp_path: Path) -> Iterator[Callable[[], processes.Process]]:
    """Starts workers, and ends those that are left."""
    started: list[processes.Process] = []

    def start() -> processes.Process:
        given = {"data": service.settings.data, "database-url": service.settings.database_url}
        given |= {"model": service.settings.model}
        arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        process = processes.Process(["worker", *arguments], tmp_path / f"worker-{len(started)}.txt", {})
        started.append(process)
        process.wait_for("yozora works")
        return process

    yield start
    for process in started:
        process.end()


def order(service: Service, what: Order) -> str:
    return jobs.create(service, service.local, what)[0].id


def seen(service: Service, name: str) -> Job:
    with service.database.reading() as session:
        return jobs.find(session, service.local, name)


def until(service: Service, name: str, reached: Callable[[Job], bool], seconds: float = 240) -> Job:
    """Waits for a job, and fails where its progress goes backwards."""
    end, progress = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        job = seen(service, name)
        assert job.progress >= progress, f"{progress} % were done, and then {job.progress} %"
        progress = job.progress
        if reached(job):
            return job
        assert job.status != "failed", job.error
        time.sleep(0.02)
    raise AssertionError(f"{job.status} at {job.stage} {job.progress} %")


def done(job: Job) -> bool:
    return job.status == COMPLETED


def under_way(job: Job) -> bool:
    return job.status == RUNNING and job.stage == "generate" and job.progress > 3


def nothing_stays_behind(service: Service) -> None:
    """Every file is some video's, and there is one of each; no scratch of a worker that is gone."""
    assert list(orphans(service, 0)) == []
    with service.database.reading() as session:
        files = [file["key"] for each in session.scalars(sa.select(Job.files)) for file in each.values()]
        alive = set(session.scalars(sa.select(WorkerRow.id)))
    assert sorted(service.storage.keys()) == sorted(files)
    assert {path.name for path in service.settings.scratch.iterdir()} <= alive


def test_a_killed_worker_is_replaced(service: Service, worker: Callable[[], processes.Process]) -> None:
    first = worker()
    long, short = order(service, LONG), order(service, SHORT)
    until(service, long, under_way)
    first.kill()
    worker()
    job = until(service, long, done)
    assert (job.attempt, job.lost) == (2, 1)
    assert until(service, short, done).attempt == 1
    nothing_stays_behind(service)


def test_a_worker_that_ends_hands_its_job_to_another(service: Service, worker: Callable[[], processes.Process]) -> None:
    first = worker()
    name = order(service, LONG)
    until(service, name, under_way)
    assert first.end() == 0
    assert seen(service, name).status == RUNNING  # nobody has it, and it has lost nobody
    second = worker()
    job = until(service, name, done)
    assert (job.attempt, job.lost) == (2, 0)
    assert second.end() == 0
    nothing_stays_behind(service)


def test_cancelling_frees_the_worker(service: Service, worker: Callable[[], processes.Process]) -> None:
    worker()
    long, short = order(service, LONG.model_copy(update={"steps": 1000})), order(service, SHORT)
    until(service, long, under_way)
    jobs.cancel(service, service.local, long)
    until(service, short, done, seconds=60)
    job = seen(service, long)
    assert (job.status, job.files) == ("cancelled", {})
    jobs.delete(service, service.local, short)
    assert list(service.storage.keys()) == []


def test_the_database_goes_away_and_comes_back(
    database_url: str, service: Service, worker: Callable[[], processes.Process], request: pytest.FixtureRequest
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("a file does not go away")
    server: postgres.Server = request.getfixturevalue("postgres_server")
    worker()
    name = order(service, LONG)
    until(service, name, under_way)
    server.restart()
    service.database.engine.dispose()
    until(service, name, done)
    nothing_stays_behind(service)
