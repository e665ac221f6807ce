"""Workers are killed, told to end, and cut off from their database: every video is made, once, and nothing stays
behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import postgres
import processes
import pytest
import sqlalchemy as sa

from yozora.serve import jobs
from yozora.serve.accounts import User, create_account
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
def worker(service: Service, tmp_path: Path) -> Iterator[Callable[..., processes.Process]]:
    """Starts workers, and ends those that are left."""
    started: list[processes.Process] = []

    def start(slots: int = 1) -> processes.Process:
        given = {"data": service.settings.data, "database-url": service.settings.database_url}
        given |= {"model": service.settings.model}
        arguments = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        process = processes.Process(
            ["worker", *arguments], tmp_path / f"worker-{len(started)}.txt", {"YOZORA_SLOTS": f"{slots}"}
        )
        started.append(process)
        process.wait_for("yozora works")
        return process

    yield start
    for process in started:
        process.end()


def order(service: Service, what: Order, user: User | None = None) -> str:
    return jobs.create(service, user or service.local, what)[0].id


def seen(service: Service, name: str) -> Job:
    with service.database.reading() as session:
        job = session.get(Job, name)
        assert job is not None
        return job


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


def passes(log: str) -> list[set[str]]:
    """The videos of each pass of several that a worker's log tells of."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [set(line["jobs"]) for line in lines if line["message"] == "videos are sampled together"]


def test_a_shared_pass_is_cancelled_for_one_and_killed_for_all(
    service: Service, worker: Callable[..., processes.Process], tmp_path: Path
) -> None:
    """Of three videos of two accounts in one pass, one is cancelled, and then the worker dies: the others are made,
    each by itself, and what they are alone."""
    one, two = (create_account(service.database, f"{n}@example.org", None, 1990, plan="pro") for n in ("one", "two"))
    words = ("a red ball", "grass that bounces", "on the grass")
    wanted = [Order(prompt=prompt, seconds=3, steps=80, seed=5) for prompt in words]
    names = [order(service, what, user) for what, user in zip(wanted, (one, two, one), strict=True)]
    first = worker(slots=3)
    for name in names:
        until(service, name, under_way)
    assert passes(first.text) == [set(names)]
    jobs.cancel(service, one, names[2])
    further = seen(service, names[0]).progress + 3
    until(service, names[0], lambda job: job.progress > further)
    first.kill()
    second = worker(slots=3)
    for name in names[:2]:
        job = until(service, name, done)
        assert (job.attempt, job.lost) == (2, 1)
    assert passes(second.text) == [] and seen(service, names[2]).status == "cancelled"
    again = order(service, wanted[1], one)
    until(service, again, done)
    files = [tmp_path / f"{number}.mp4" for number in range(2)]
    for name, path in zip((names[1], again), files, strict=True):
        service.storage.fetch(str(seen(service, name).files["video"]["key"]), path)
    assert files[0].read_bytes() == files[1].read_bytes()
    nothing_stays_behind(service)


def test_who_shares_a_pass_has_their_turn_and_no_more(
    service: Service, worker: Callable[..., processes.Process], tmp_path: Path
) -> None:
    """Three videos of an account that may have one made at a time, and two of another's, all alike: the first pass is
    of one and two of them, and there is always one of the first account's at most."""
    small = create_account(service.database, "small@example.org", None, 1990, plan="free")
    large = create_account(service.database, "large@example.org", None, 1990, plan="pro")
    small_ones = [order(service, SHORT, small) for _ in range(3)]
    large_ones = [order(service, SHORT, large) for _ in range(2)]
    process = worker(slots=4)
    for name in (*small_ones, *large_ones):
        assert until(service, name, done).attempt == 1
    assert passes(process.text) == [{small_ones[0], *large_ones}]
    ends = [seen(service, name) for name in small_ones]
    for before, after in pairwise(ends):
        assert (before.finished_at or 0) <= (after.started_at or 0)


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
