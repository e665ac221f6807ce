"""A worker with room for one model, asked for several by several at a time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import processes
import pytest

from yozora.serve import jobs
from yozora.serve.context import Service, open_service
from yozora.serve.jobs import Ticket
from yozora.serve.orders import Order
from yozora.serve.pool import size_on_disk
from yozora.serve.settings import read_settings
from yozora.serve.tables import COMPLETED, Job

QUICK = {"prompt": "a ball", "seconds": 0.1, "steps": 1}


@pytest.fixture
def models(tiny_model: Path, tmp_path: Path) -> list[str]:
    return [str(shutil.copytree(tiny_model, tmp_path / f"model-{number}")) for number in range(3)]


@pytest.fixture
def service(models: list[str], tmp_path: Path) -> Iterator[Service]:
    opened = open_service(read_settings(data=tmp_path / "data", model=models[0], models=",".join(models[1:])))
    yield opened
    opened.close()


@pytest.fixture
def worker(service: Service, models: list[str], tmp_path: Path) -> Iterator[Callable[[int], processes.Process]]:
    """Starts a worker that makes so many videos at a time, and ends it."""
    started: list[processes.Process] = []

    def start(slots: int) -> processes.Process:
        room = 1.5 * size_on_disk(models[0]) / 2**30
        arguments = ["--data", str(service.settings.data), "--model", models[0], "--models", ",".join(models[1:])]
        arguments += ["--memory-gb", f"{room:.9f}", "--slots", f"{slots}"]
        process = processes.Process(["worker", *arguments], tmp_path / "worker.txt", {})
        started.append(process)
        process.wait_for("yozora works")
        return process

    yield start
    for process in started:
        assert process.end() == 0


def order(service: Service, count: int = 1, **asked: object) -> list[str]:
    ordered = jobs.create(service, service.local, Order.model_validate(QUICK | asked), Ticket(count=count))
    return [job.id for job in ordered]


def until(service: Service, name: str, reached: Callable[[Job], bool], seconds: float = 120) -> Job:
    end = time.monotonic() + seconds
    while True:
        with service.database.reading() as session:
            job = jobs.find(session, service.local, name)
        if reached(job):
            return job
        assert time.monotonic() < end, f"{job.status} at {job.stage} {job.progress} %"
        time.sleep(0.02)


def done(job: Job) -> bool:
    return job.status == COMPLETED


def test_all_are_made_whatever_model_they_want(
    service: Service, models: list[str], worker: Callable[[int], processes.Process]
) -> None:
    """Variations, which gather, and others in between, so that whoever waits for a model could hold what is needed."""
    names = [name for turn in range(9) for name in order(service, count=1 + turn % 3, model=models[turn % 3])]
    process = worker(4)
    for name in names:
        assert until(service, name, done).attempt == 1
    assert process.text.count('"model let go"') >= 2
