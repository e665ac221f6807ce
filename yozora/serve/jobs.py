"""Jobs: ordering, finding, cancelling and deleting videos. Both APIs call these functions and nothing below them.

A job waits in our table until it is its account's turn (`admit`), then in DBOS's queue until a worker is free. So an
account that orders a thousand videos has at most its plan's concurrency in the queue, and the others' come between.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from yozora.create.limits import MAX_SEED
from yozora.create.sizes import Native
from yozora.serve.accounts import User, lock, user_by_id
from yozora.serve.allowance import charge, check_plan, this_month, used, used_up
from yozora.serve.context import QUEUE, Service
from yozora.serve.errors import ApiError, forbidden, invalid, missing, wait
from yozora.serve.line import pace
from yozora.serve.marks import leave_mark, marked
from yozora.serve.orders import MAX_VARIATIONS, Order, expected, named, sources_of
from yozora.serve.plans import Plan
from yozora.serve.tables import (
    CANCELLED,
    COMPLETED,
    QUEUED,
    RUNNING,
    UNFINISHED,
    Character,
    Favourite,
    Folder,
    Job,
    Lineage,
    Preview,
    Upload,
    new_id,
)
from yozora.serve.webhooks import announce_in

__all__ = [
    "LANES",
    "MAKE",
    "Ticket",
    "admit",
    "cancel",
    "cost",
    "create",
    "delete",
    "find",
    "held",
    "listed",
    "lock",
    "measure",
    "ordered",
    "settle",
]

MAKE = "make_video"
LANES = {"priority": 100, "standard": 1000, "relaxed": 10_000}  # places in the queue: the lower goes first
MAX_PRIORITY = 9


@dataclass(frozen=True)
class Ticket:
    """How an order is to be treated: `key` makes it happen once, `source` is what it remixes."""

    count: int = 1
    lane: str = "standard"
    priority: int = 0
    folder: str | None = None
    key: str | None = None
    fingerprint: str | None = None
    source: str | None = None
    model: str | None = None
    """The name of the model as the client gave it."""


def create(service: Service, user: User, order: Order, ticket: Ticket | None = None) -> list[Job]:
    """Orders videos: one, or as many variations as the ticket says. Raises ApiError."""
    ticket = ticket or Ticket()
    if made := ordered(service, user, ticket.key, ticket.fingerprint):
        return made
    if ticket.lane not in LANES:
        raise invalid(f"there is no lane {ticket.lane[:40]!r}: use {', '.join(LANES)}", "lane")
    if ticket.lane == "priority" and not user.plan.priority:
        raise forbidden(f"the plan {user.plan.name} has no priority lane: leave it out")
    if not 0 <= ticket.priority <= MAX_PRIORITY:
        raise invalid(f"priority is a number from 0 to {MAX_PRIORITY}", "priority")
    order, native = _settled(service, order)
    (width, height), seconds = expected(order, native)
    with service.database.reading() as session:
        seconds = _with_sources(session, user, order, seconds)
        if ticket.folder is not None:
            _check_folder(session, user, ticket.folder)
    check_plan(user.plan, width, height, seconds)
    seed = secrets.randbelow(2**31) if order.seed is None else order.seed
    if seed + ticket.count - 1 > MAX_SEED:
        raise invalid(
            f"{ticket.count} variations have seeds in a row, up to {MAX_SEED}: begin with a lower one", "seed"
        )
    group = new_id("group")
    jobs = [
        Job(
            id=new_id("video"),
            account_id=user.id,
            folder_id=ticket.folder,
            group_id=group,
            order=order.model_copy(update={"seed": seed + number}).model_dump(mode="json"),
            way=order.way,
            prompt=order.prompt,
            model=ticket.model or order.model,
            seconds=seconds,
            width=width,
            height=height,
            lane=ticket.lane,
            priority=LANES[ticket.lane] - ticket.priority,
            created_at=time.time(),
            source_id=ticket.source,
            idempotency=f"{ticket.key}#{number}" if ticket.key else None,
            fingerprint=ticket.fingerprint,
            status=QUEUED,
            stage="",
            progress=0,
            admitted=False,
            attempt=0,
            files={},
            public=False,
            featured=False,
        )
        for number in range(ticket.count)
    ]
    try:
        _insert(service, user, jobs, order, seconds)
    except IntegrityError:  # the same key, at the same moment
        if made := ordered(service, user, ticket.key, ticket.fingerprint):
            return made
        raise
    return jobs


def _settled(service: Service, order: Order) -> tuple[Order, Native]:
    """An order of a model that there is, checked, and what that model makes. Raises ApiError."""
    named("preset", lambda: order.style)
    model = service.model(order.model)
    native = service.native(model)
    settled = order.model_copy(update={"model": model}).within(native)
    settled.check(native)
    return settled, native


def cost(service: Service, user: User, order: Order, count: int = 1) -> dict[str, Any]:
    """What an order would take, without ordering it: seconds of the allowance, size, and model evaluations."""
    order, native = _settled(service, order)
    size, seconds = expected(order, native)
    with service.database.reading() as session:
        seconds = _with_sources(session, user, order, seconds)
        spent = used(session, user.id)
        waiting = session.scalar(sa.select(sa.func.count()).where(Job.status == QUEUED)) or 0
        each = pace(session, service.database)
    check_plan(user.plan, *size, seconds)
    left = None if not user.plan.monthly_seconds else max(0.0, user.plan.monthly_seconds - spent)
    return {
        "seconds": round(seconds * count, 3),
        "size": f"{size[0]}x{size[1]}",
        "frames": native.grid.nearest_frames(seconds, native.fps),
        "allowance_left": left,
        "allowed": left is None or seconds * count <= left,
        "videos_waiting": waiting,
        "expected_wait": round(waiting * each, 1),
    }


def ordered(service: Service, user: User, key: str | None, fingerprint: str | None) -> list[Job]:
    """What is left of what was ordered under the same Idempotency-Key: to be asked before anything else is, since what
    it was made from may be gone by now. Raises ApiError where that was another request."""
    if not key:
        return []
    names = [f"{key}#{number}" for number in range(MAX_VARIATIONS)]
    with service.database.reading() as session:
        own = sa.select(Job).where(Job.account_id == user.id, Job.idempotency.in_(names))
        made = list(session.scalars(own.order_by(Job.idempotency)))
    if made and made[0].fingerprint != fingerprint:
        raise invalid("this Idempotency-Key was used for another request", None, "idempotency_key_reused")
    return made


def find(session: Session, user: User, job_id: str, public: bool = False) -> Job:
    """Somebody's own job, or, where that is enough, anybody's public one. Raises ApiError, as for one that there is
    not."""
    job = session.get(Job, job_id)
    if job is None or not (job.account_id == user.id or (public and job.public and job.status == COMPLETED)):
        raise missing("video", job_id)
    return job


def listed(
    session: Session,
    user: User,
    limit: int = 20,
    after: str | None = None,
    ascending: bool = False,
    where: Sequence[sa.ColumnElement[bool]] = (),
    favourite: bool = False,
) -> tuple[list[Job], bool]:
    """Somebody's jobs in order of time, or their favourites, which may be of others and public; those after the one
    called `after`, and whether there are more. Raises ApiError."""
    whose = Job.account_id == user.id
    if favourite:
        liked = sa.select(Favourite.job_id).where(Favourite.account_id == user.id)
        whose = sa.and_(Job.id.in_(liked), sa.or_(whose, sa.and_(Job.public, Job.status == COMPLETED)))
    place = None if after is None else place_of(session, user, after, public=favourite)
    return page(session, sa.select(Job).where(whose, *where), limit, place, ascending)


def place_of(session: Session, user: User, job_id: str, public: bool = False) -> tuple[float, str]:
    """The time and id by which lists are in order, of a job as of `find`, or of one that was there a while ago. Raises
    ApiError."""
    if gone := marked(session, user, job_id, public):
        return gone
    job = find(session, user, job_id, public)
    return job.created_at, job.id


def page(
    session: Session, query: sa.Select[Job], limit: int, after: tuple[float, str] | None, ascending: bool = False
) -> tuple[list[Job], bool]:
    """At most `limit` of the query's jobs in order of time, from those after the place `after` on, and whether more
    follow."""
    place = sa.tuple_(Job.created_at, Job.id)
    if after is not None:
        here = sa.tuple_(*map(sa.literal, after))
        query = query.where(place > here if ascending else place < here)
    order = (Job.created_at.asc(), Job.id.asc()) if ascending else (Job.created_at.desc(), Job.id.desc())
    found = list(session.scalars(query.order_by(*order).limit(limit + 1)))
    return found[:limit], len(found) > limit


def cancel(service: Service, user: User, job_id: str) -> Job:
    """Stops a job that waits or runs; the worker is free within one sampling step. Raises ApiError for one that is
    finished."""
    with service.database.writing() as session:
        lock(session, user.id)
        job = find(session, user, job_id)
        if job.status not in UNFINISHED:
            raise ApiError(409, f"this video is {job.status}: there is nothing to cancel", code="not_cancellable")
        settle(service, session, job, CANCELLED, "cancelled", "the video was cancelled")
        announce_in(service, session, job)
        return job


def delete(service: Service, user: User, job_id: str) -> None:
    """Removes a video, its files and, where it is being made, the making. Raises ApiError."""
    with service.database.writing() as session:
        lock(session, user.id)
        job = find(session, user, job_id)
        if job.status in UNFINISHED:
            settle(service, session, job, CANCELLED, "cancelled", "the video was deleted")
        keys = [each["key"] for each in job.files.values()]
        leave_mark(session, job)
        session.delete(job)
    service.storage.delete(keys)  # last: what stays behind after a crash here is swept up as an orphan


def measure(session: Session, job: Job, size: tuple[int, int], seconds: float) -> None:
    """What a job will be, which could only be guessed when it was ordered, is known: its plan holds for that, and the
    difference is charged, or given back. In the caller's transaction, which an ApiError undoes. Raises ApiError."""
    lock(session, job.account_id)
    plan = user_by_id(session, job.account_id).plan
    check_plan(plan, *size, seconds)
    if job.charged and seconds != job.seconds:
        more = seconds - job.seconds
        if (
            more > 0
            and plan.monthly_seconds
            and used(session, job.account_id, job.charged) + more > plan.monthly_seconds
        ):
            raise used_up(plan)
        charge(session, job.account_id, job.charged, more)
    job.seconds, (job.width, job.height) = seconds, size


def settle(
    service: Service, session: Session, job: Job, status: str, code: str | None = None, message: str | None = None
) -> None:
    """A job is over, however it ended: the account's next one may go. In the caller's transaction."""
    lock(session, job.account_id)
    plan = user_by_id(session, job.account_id).plan
    now = time.time()
    if job.status == QUEUED and job.admitted:
        service.unqueue(session, job.id)
    job.status, job.finished_at, job.stage = status, now, ""
    job.error_code, job.error, job.worker_id = code, message, None
    job.expires_at = now + 86400 * plan.keep_days if plan.keep_days else None
    session.execute(sa.delete(Preview).where(Preview.job_id == job.id))
    if status == COMPLETED:
        job.progress = 100
    elif job.charged:
        charge(session, job.account_id, job.charged, -job.seconds)
        job.charged = None
    session.flush()
    admit(service, session, job.account_id, plan)


def held(session: Session, job_id: str) -> Job | None:
    """A job that nobody else changes until the transaction ends; None where there is none. Its account is held first,
    here as everywhere: two that take the same locks in different orders would wait for one another for ever."""
    account_id = session.scalar(sa.select(Job.account_id).where(Job.id == job_id))
    if account_id is None:
        return None
    lock(session, account_id)
    return session.scalar(sa.select(Job).where(Job.id == job_id).with_for_update())


def admit(service: Service, session: Session, account_id: str, plan: Plan) -> int:
    """Puts an account's next jobs into the queue, as many as its plan lets be made at once, and says how many."""
    busy = sa.or_(Job.status == RUNNING, sa.and_(Job.status == QUEUED, Job.admitted))
    at_once = session.scalar(sa.select(sa.func.count()).where(Job.account_id == account_id, busy)) or 0
    room = plan.concurrency - at_once
    if room <= 0:
        return 0
    waiting = sa.select(Job).where(Job.account_id == account_id, Job.status == QUEUED, ~Job.admitted)
    following = session.scalars(waiting.order_by(Job.priority, Job.created_at, Job.id).limit(room)).all()
    for job in following:
        job.admitted = True
        service.enqueue(session, MAKE, QUEUE, job.id, job.priority)
    return len(following)


# ---- what an order has to pass ---------------------------------------------------------------------------------------


def _insert(service: Service, user: User, jobs: list[Job], order: Order, seconds: float) -> None:
    """All of the jobs or none. Raises ApiError where there are too many already."""
    month = this_month()
    with service.database.writing() as session:
        lock(session, user.id)
        _with_sources(session, user, order, seconds)  # once more, now that nothing goes meanwhile
        if jobs[0].folder_id is not None:
            _check_folder(session, user, jobs[0].folder_id)
        waiting = session.scalar(sa.select(sa.func.count()).where(Job.status == QUEUED)) or 0
        own = session.scalar(sa.select(sa.func.count()).where(Job.status == QUEUED, Job.account_id == user.id)) or 0
        each = pace(session, service.database)
        if waiting + len(jobs) > service.settings.queue_limit:
            raise wait(f"{waiting} videos are waiting, which is all there is room for", waiting * each / 10)
        if user.plan.waiting and own + len(jobs) > user.plan.waiting:
            raise wait(f"{own} of your videos are waiting, all that the plan {user.plan.name} has room for", each)
        total = seconds * len(jobs)
        if user.plan.monthly_seconds and used(session, user.id) + total > user.plan.monthly_seconds:
            raise used_up(user.plan)
        charge(session, user.id, month, total)
        for job in jobs:
            job.charged = month
            session.add(job)
        session.flush()
        for job in jobs:
            seen = dict.fromkeys((found, role) for role, found in sources_of(order))
            session.add_all(Lineage(job_id=job.id, parent_id=parent, role=role) for parent, role in seen)
        named = {found for _, found in sources_of(order) if found.startswith("file_")}
        ordered = sa.update(Upload).where(Upload.id.in_(named)).values(ordered_at=time.time())
        if gone := named.difference(session.scalars(ordered.returning(Upload.id))):
            raise missing("file", min(gone))  # its time was over at this very moment
        session.flush()
        admit(service, session, user.id, user.plan)


def _with_sources(session: Session, user: User, order: Order, seconds: float) -> float:
    """Checks that everything an order is given is there, and says how long the video will be: what is remixed keeps its
    length, what is extended adds its own, a blend is as long as the longer. (An upload is as long as its file says;
    what it really has comes out when it is read: see `measure`.) Raises ApiError."""
    blended = 0.0
    for role, found in sources_of(order):
        if found.startswith("video_"):
            job = find(session, user, found, public=True)
            if job.status == COMPLETED and not job.files:
                raise invalid(f"the files of the video {found} are no longer kept", role, "video_expired")
            if job.status != COMPLETED:
                raise invalid(f"the video {found} is {job.status}: wait until it is completed", role, "video_not_ready")
            length = job.seconds
        else:
            table = Upload if found.startswith("file_") else Character
            row = session.get(table, found)
            if row is None or row.account_id != user.id:
                raise missing("file" if table is Upload else "character", found)
            length = row.seconds if isinstance(row, Upload) else None
        if role == "clip" and length is not None:
            if order.way in ("extend", "loop"):
                seconds += length
            elif order.way in ("remix", "inpaint"):
                seconds = length
        if order.way == "blend" and order.seconds is None and length is not None:
            blended = max(blended, length)
    return round(blended or seconds, 3)


def _check_folder(session: Session, user: User, folder_id: str) -> None:
    folder = session.get(Folder, folder_id)
    if folder is None or folder.account_id != user.id:
        raise missing("folder", folder_id)
