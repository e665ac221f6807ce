"""Cleaning up: what has expired, what nothing refers to any more, and jobs whose workflow came to nothing."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterable

import sqlalchemy as sa

from yozora.serve.accounts import lock, user_by_id
from yozora.serve.context import Service
from yozora.serve.errors import ApiError
from yozora.serve.jobs import admit, held, settle
from yozora.serve.tables import FAILED, QUEUED, UNFINISHED, Character, Delivery, Job, Mark, SignIn, Upload
from yozora.serve.uploads import PREFIX, wanted
from yozora.serve.webhooks import ENDED, announce_in, announce_late, revive

__all__ = ["clear_scratch", "expire", "orphans", "sweep", "unstick"]

BATCH = 500
DELIVERY_DAYS = 30
MARK_SECONDS = 86400.0  # that a list can be gone on with from a video that is not in it any more
_KEY = re.compile(r"(videos|uploads|characters)/([a-z]+_[0-9a-f]{32})(/.*)?")
_log = logging.getLogger(__name__)


def sweep(service: Service) -> None:
    """All of it; any number of workers may do so."""
    expire(service)
    remove_orphans(service)
    clear_scratch(service)
    unstick(service)
    revive(service)
    announce_late(service)


def expire(service: Service) -> None:
    """Files of videos and uploads whose time is over, and what else was kept for a while."""
    now = time.time()
    with service.database.writing() as session:
        over = sa.select(Job).where(Job.expires_at < now, Job.status.notin_(UNFINISHED)).order_by(Job.expires_at)
        old = sa.select(Upload).where(Upload.created_at < now - 3600 * service.settings.upload_hours)
        # who is deleted needs it not; who is held cannot be ordered with, and what was ordered before is seen after
        jobs, uploads = (
            session.scalars(each.limit(BATCH).with_for_update(skip_locked=True)).all() for each in (over, old)
        )
        needed = wanted(session)
        keys: list[str] = []
        for job in jobs:
            if job.id not in needed:
                keys += [each["key"] for each in job.files.values()]
                job.files, job.expires_at = {}, None
        for upload in uploads:
            if upload.id not in needed:
                keys.append(upload.key)
                session.delete(upload)
        session.execute(sa.delete(Mark).where(Mark.since < now - MARK_SECONDS))
        session.execute(sa.delete(SignIn).where(SignIn.expires_at < now))
        session.execute(sa.delete(Delivery).where(Delivery.created_at < now - 86400 * DELIVERY_DAYS))
    service.storage.delete(keys)


def remove_orphans(service: Service) -> int:
    """Removes files that nothing refers to, and says how many."""
    found = list(orphans(service, service.settings.orphan_seconds))
    service.storage.delete(found)
    if found:
        _log.warning("files that nothing refers to were removed", extra={"count": len(found)})
    return len(found)


def orphans(service: Service, older_than: float) -> Iterable[str]:
    """Keys of files, written so many seconds ago or earlier, that no row refers to. Only what lies in the service's own
    folder, under a name that it gives, can be one: the storage may hold anything else besides."""
    batch: list[str] = []
    for key in service.storage.keys(service.folder, older_than):
        if _KEY.fullmatch(key.removeprefix(f"{service.folder}/")):
            batch.append(key)
        if len(batch) == BATCH:
            yield from _unknown(service, batch)
            batch = []
    yield from _unknown(service, batch)


def clear_scratch(service: Service) -> None:
    """Removes what processes that were killed had of uploads on this machine: files that are as old as an orphan."""
    latest = time.time() - service.settings.orphan_seconds
    for path in service.settings.scratch.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another process was first
            if path.stat().st_mtime < latest:
                path.unlink()


def unstick(service: Service, older_than: float = 60.0) -> None:
    """Jobs whose workflow has ended without them fail; accounts whose turn was missed get it."""
    with service.database.reading() as session:
        since = time.time() - older_than
        started = sa.select(Job.id).where(Job.status.in_(UNFINISHED), Job.admitted, Job.created_at < since)
        open_jobs = list(session.scalars(started.limit(BATCH)))
        waiting = sa.select(Job.account_id).where(Job.status == QUEUED, ~Job.admitted).distinct()
        accounts = list(session.scalars(waiting))
    if open_jobs:
        states = service.queue.list_workflows(workflow_ids=open_jobs, load_input=False, load_output=False)
        for ended in (each.workflow_id for each in states if each.status in ENDED):
            with service.database.writing() as session:
                job = held(session, ended)
                if job is not None and job.status in UNFINISHED:
                    settle(service, session, job, FAILED, "server_error", "the making of this video came to nothing")
                    announce_in(service, session, job)
    for account_id in accounts:
        with contextlib.suppress(ApiError), service.database.writing() as session:  # it may have gone meanwhile
            lock(session, account_id)
            admit(service, session, account_id, user_by_id(session, account_id).plan)


def _unknown(service: Service, keys: list[str]) -> list[str]:
    ids = {match[2] for key in keys if (match := _KEY.fullmatch(key.removeprefix(f"{service.folder}/")))}
    known: set[str] = set()
    with service.database.reading() as session:
        for files in session.scalars(sa.select(Job.files).where(Job.id.in_(ids))):
            known |= {each["key"] for each in files.values()}
        for table in (Upload, Character):
            known |= set(session.scalars(sa.select(table.key).where(table.id.in_(ids))))
    return [key for key in keys if key not in known]
