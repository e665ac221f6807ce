"""Locks on PostgreSQL: whoever ends a video takes them in the same order, so that nobody waits in a circle."""

from __future__ import annotations

import contextlib
import io
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import postgres
import pytest
import sqlalchemy as sa
from PIL import Image

from yozora.serve import database, housekeeping, jobs, library_api, uploads, webhooks
from yozora.serve.context import Service, open_service
from yozora.serve.errors import ApiError
from yozora.serve.jobs import Ticket
from yozora.serve.library_api import Change, FolderName
from yozora.serve.orders import Order
from yozora.serve.runs import Run, begin
from yozora.serve.settings import read_settings
from yozora.serve.tables import CANCELLED, Account, Delivery, Job, Upload, Usage


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


def test_what_is_put_into_the_queue_waits_for_the_account(service: Service) -> None:
    """Who cancels a video at the same moment has it out again."""
    made = [jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id for _ in range(2)]
    with service.database.writing() as session:
        session.execute(sa.update(Job).values(admitted=False))
    sweeps = threading.Thread(target=housekeeping.unstick, args=(service,))
    with service.database.writing() as session:
        session.execute(sa.select(Account.id).with_for_update(key_share=True))
        sweeps.start()
        sweeps.join(0.5)
        assert sweeps.is_alive()
        job = session.get(Job, made[0])
        assert job is not None
        job.status = CANCELLED
    sweeps.join(30)
    with service.database.reading() as session:
        assert list(session.scalars(sa.select(Job.id).where(Job.admitted))) == [made[1]]


def test_who_tells_of_a_video_waits_for_who_removes_its_webhook(service: Service) -> None:
    run = begin(service, jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id, "worker")
    assert run is not None and run.finish({}, {})
    hook = webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/")
    tells = threading.Thread(target=webhooks.announce, args=(service, run.job_id))
    with service.database.writing() as session:
        session.execute(sa.select(Account.id).with_for_update(key_share=True))
        tells.start()
        tells.join(0.5)
        assert tells.is_alive()
        session.delete(session.merge(hook))
    tells.join(30)
    assert not tells.is_alive()
    with service.database.reading() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Delivery)) == 0


def test_an_upload_whose_time_is_over_while_it_is_ordered_with(service: Service) -> None:
    """It is there when the order is looked at, and gone when it is kept: so there is no order, for which it would be
    missing."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    user = service.local
    jobs.create(service, user, Order(prompt="a red ball", seconds=1))  # so that there is a row of its usage
    old = uploads.receive(service, user, picture.getvalue())
    with service.database.writing() as session:
        session.execute(sa.update(Upload).values(created_at=0.0))
    animated = Order(prompt="it rolls", way="animate", image=old.id, seconds=1)
    with ThreadPoolExecutor(1) as pool:
        with service.database.writing() as session:
            session.execute(sa.select(Usage).with_for_update())  # for which the order waits, after its first look
            ordered = pool.submit(jobs.create, service, user, animated)
            with pytest.raises(TimeoutError):
                ordered.result(0.5)
            housekeeping.expire(service)
        with pytest.raises(ApiError, match=old.id) as failure:
            ordered.result(30)
    assert failure.value.status == 404
    with service.database.reading() as session:
        assert list(session.scalars(sa.select(Job.way))) == ["generate"]


def test_no_more_than_may_be_are_made_at_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MOST", 3)
    add = partial(webhooks.add_webhook, service, service.local)
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(add, f"http://127.0.0.1:9/{number}") for number in range(8)]
    assert sum(each.exception() is None for each in told) == 3


def test_processes_that_start_at_once_on_an_empty_database(postgres_server: postgres.Server) -> None:
    """One makes the tables; the others wait, and not within a statement, which its indexes would wait for."""
    url = postgres_server.database(f"empty-{secrets.token_hex(4)}")
    command = [sys.executable, "-c", f"from yozora.serve.database import Database; Database({url!r}).migrate()"]
    several = [subprocess.Popen(command) for _ in range(3)]
    try:
        assert [each.wait(60) for each in several] == [0, 0, 0]
    finally:
        for each in several:
            each.kill()


def test_hiding_and_deleting_at_once(service: Service) -> None:
    for _ in range(8):
        run = begin(service, jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id, "worker")
        assert run is not None and run.finish({}, {})
        with service.database.writing() as session:
            session.execute(sa.update(Job).values(public=True))
        hide = Change(public=False)

        def change(name: str = run.job_id, hide: Change = hide) -> None:
            with contextlib.suppress(ApiError):  # there is none any more
                library_api.change(name, hide, service, service.local)

        def delete(name: str = run.job_id) -> None:
            jobs.delete(service, service.local, name)

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(each) for each in (change, delete, change)]:
                done.result(30)


def test_what_is_asked_of_one_thing_at_once_is_done_or_told_to_be_gone(service: Service) -> None:
    """Favourites twice, and folders that go while they are renamed, filled and ordered into."""
    user, name = service.local, jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    for number in range(8):
        folder = library_api.add_folder(FolderName(name=f"{number}"), service, user)["id"]
        into, ticket = Change(folder=folder), Ticket(folder=folder)
        asked: list[Callable[[], object]] = [
            *(lambda: library_api.like(name, service, user),) * 3,
            *(
                lambda f=folder, n=new: library_api.rename_folder(f, n, service, user)
                for new in (FolderName(name="x"),)
            ),
            lambda f=folder: library_api.delete_folder(f, service, user),
            lambda c=into: library_api.change(name, c, service, user),
            lambda t=ticket: jobs.create(service, user, Order(prompt="a red ball", seconds=1), t),
        ]
        with ThreadPoolExecutor(len(asked)) as pool:
            for done in [pool.submit(each) for each in asked]:
                try:
                    done.result(30)
                except ApiError as error:
                    assert error.status == 404
        library_api.unlike(name, service, user)


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


def test_who_waits_for_another_that_prepares_the_database_says_so(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.1)
    with ThreadPoolExecutor(1) as pool:
        with service.database._alone():
            waits = pool.submit(service.database.migrate)
            with pytest.raises(TimeoutError):
                waits.result(1)
        waits.result(30)
    told = [each.message for each in caplog.records if each.name == database.__name__]
    assert told == ["another process is preparing the database; waiting until it has ended"]
