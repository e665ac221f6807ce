"""Locks on PostgreSQL: whoever ends a video takes them in the same order, so that nobody waits in a circle."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import postgres
import pytest
import sqlalchemy as sa

from yozora.serve import jobs
from yozora.serve.context import Service, open_service
from yozora.serve.errors import ApiError
from yozora.serve.orders import Order
from yozora.serve.runs import Run, begin
from yozora.serve.settings import read_settings
from yozora.serve.tables import Account, Job


@pytest.fixture
def service(postgres_server: postgres.Server, tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    url = postgres_server.database(f"locks-{secrets.token_hex(4)}")
    opened = open_service(read_settings(data=tmp_path, database_url=url, model=str(tiny_model)))
    yield opened
    opened.close()


ENDS: dict[str, Callable[[Service, Run], object]] = {
    "finish": lambda service, run: run.finish({}, {}),
    "fail": lambda service, run: run.fail("x", "x"),
    "measure": lambda service, run: run.measure((64, 64), 1.0),
    "cancel": lambda service, run: jobs.cancel(service, service.local, run.job_id),
    "delete": lambda service, run: jobs.delete(service, service.local, run.job_id),
    "begin": lambda service, run: begin(service, run.job_id, "another"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_account_comes_first(service: Service, name: str) -> None:
    """While somebody has the account, who waits for it has not the job yet; and others may refer to the account."""
    run = begin(service, jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id, "worker")
    assert run is not None
    waits = threading.Thread(target=ENDS[name], args=(service, run))
    with service.database.writing() as session:
        session.execute(sa.select(Account.id).with_for_update(key_share=True))
        waits.start()
        waits.join(0.5)
        assert waits.is_alive()
        locked = sa.select(Job.id).where(Job.id == run.job_id).with_for_update(nowait=True)
        assert session.scalar(locked) == run.job_id
    waits.join(30)
    assert not waits.is_alive()


def test_nobody_waits_in_a_circle(service: Service) -> None:
    """Everything that ends a video, at the same moments."""
    made = [jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id for _ in range(24)]
    runs = [run for name in made if (run := begin(service, name, "worker")) is not None]
    start = threading.Barrier(4)

    def act(*names: str) -> None:
        start.wait()
        for number, run in enumerate(runs):
            with contextlib.suppress(ApiError):  # another was first
                ENDS[names[number % len(names)]](service, run)

    todo = [("finish", "fail"), ("cancel",), ("measure", "begin"), ("begin", "cancel", "delete")]
    threads = [threading.Thread(target=act, args=names) for names in todo]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    with service.database.reading() as session:
        counted = "SELECT pg_stat_clear_snapshot(), deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert session.execute(sa.text(counted)).one()[1] == 0
        assert not session.scalar(sa.select(sa.func.count()).where(Job.status.in_(("queued", "in_progress"))))
