"""Cleaning up, without a worker."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from sqlalchemy import Engine, event

from yozora.clip import Clip
from yozora.serve import jobs, uploads, webhooks
from yozora.serve.context import Service, open_service
from yozora.serve.housekeeping import expire, orphans, remove_orphans, sweep, unstick
from yozora.serve.orders import Order
from yozora.serve.runs import begin
from yozora.serve.settings import read_settings
from yozora.serve.tables import Delivery, Job


def picture(folder: Path) -> bytes:
    Clip(np.zeros((1, 8, 8, 3), np.uint8), 1.0).write(folder / "picture.png")
    return (folder / "picture.png").read_bytes()


def test_only_ones_own_files_are_swept(tiny_model: Path, tmp_path: Path) -> None:
    """The storage is a folder that the operator and another service use, too."""
    place = tmp_path / "shared"
    given = {"storage": str(place), "model": str(tiny_model), "orphan_seconds": 1e-6}
    one = open_service(read_settings(data=place, **given))  # the database as well
    two = open_service(read_settings(data=tmp_path / "two", **given))
    others = [place / "thesis.txt", place / "videos" / "holiday.mp4", place / "uploads" / f"file_{'0' * 32}"]
    others.append(place / one.folder / "notes.txt")
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    kept = [uploads.receive(each, each.local, picture(tmp_path)) for each in (one, two)]
    lost = [f"{one.folder}/videos/video_{'1' * 32}/1-video.mp4", f"{one.folder}/uploads/file_{'2' * 32}"]
    for key in lost:
        one.storage.put(key, b"x")
    assert sorted(orphans(one, 0)) == sorted(lost) and list(orphans(two, 0)) == []
    assert (remove_orphans(one), remove_orphans(one), remove_orphans(two)) == (2, 0, 0)
    assert all(path.is_file() for path in (*others, place / "yozora.db", *(place / each.key for each in kept)))
    for each in (one, two):
        each.close()


def test_what_has_expired_goes_with_its_files(service: Service) -> None:
    """What is removed and what the rows say comes from one look: another may see other rows."""
    names = [jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id for _ in range(3)]
    for name in names:
        run = begin(service, name, "worker")
        assert run is not None
        key = f"{service.folder}/videos/{name}/1-video.mp4"
        assert run.finish({"video": {"key": key, "type": "video/mp4", "bytes": service.storage.put(key, b"x")}}, {})
    with service.database.writing() as session:
        session.execute(sa.update(Job).where(Job.id.in_(names[:2])).values(expires_at=1.0))
    asked: list[str] = []
    event.listen(Engine, "before_cursor_execute", note := lambda *given: asked.append(given[2]))
    try:
        expire(service)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert sum("jobs.expires_at <" in text for text in asked) == 1
    assert list(service.storage.keys()) == [f"{service.folder}/videos/{names[2]}/1-video.mp4"]
    with service.database.reading() as session:
        kept = {job.id: (bool(job.files), job.expires_at) for job in session.scalars(sa.select(Job))}
    assert kept == {names[0]: (False, None), names[1]: (False, None), names[2]: (True, None)}


def test_what_a_killed_process_had_of_an_upload_goes(service: Service) -> None:
    scratch = service.settings.scratch
    old, new, other = scratch / "upload-old", scratch / "upload-new", scratch / "worker"
    other.mkdir(parents=True)
    for path in (old, new, other / "upload-of-a-run"):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (1.0, 1.0))
    expired = time.time() - service.settings.orphan_seconds
    os.utime(new, (expired + 600, expired + 600))
    sweep(service)
    assert sorted(path.name for path in scratch.rglob("*")) == ["upload-new", "upload-of-a-run", "worker"]


def test_a_services_folder_is_drawn_once(service: Service) -> None:
    again = open_service(service.settings)
    assert again.folder == service.folder and service.folder.startswith("yozora-")
    again.close()


def test_a_video_whose_workflow_came_to_nothing_fails_and_that_is_told(service: Service) -> None:
    webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/x")
    stuck, waits = (jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id for _ in range(2))
    service.queue.cancel_workflow(stuck)
    unstick(service, older_than=0)
    with service.database.reading() as session:
        status = {job.id: (job.status, job.error_code) for job in session.scalars(sa.select(Job))}
        events = [each.event for each in session.scalars(sa.select(Delivery))]
    assert status == {stuck: ("failed", "server_error"), waits: ("queued", None)}
    assert [(event["type"], event["data"]) for event in events] == [("video.failed", {"id": stuck})]


def test_who_was_not_told_of_a_video_is_told_by_the_sweep(service: Service) -> None:
    """Once, and neither of what ended before the webhook was there nor of what its own workflow may still tell."""
    made = [jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id for _ in range(3)]
    for name in made:
        run = begin(service, name, "worker")
        assert run is not None and run.finish({}, {})
    hook = webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/")
    now = time.time()
    with service.database.writing() as session:
        session.merge(hook).created_at = now - 1000
        for name, ago in zip(made, (300, 2000, 5), strict=True):
            job = session.get(Job, name)
            assert job is not None
            job.finished_at = now - ago
    for _ in range(2):
        sweep(service)
    with service.database.reading() as session:
        told = [delivery.event["data"]["id"] for delivery in session.scalars(sa.select(Delivery))]
    assert told == made[:1]
