"""Yozora's own API, last part: for administrators and reviewers."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from yozora.serve.access import Admin, KnownFirst, Reviewer, Serving
from yozora.serve.accounts import ROLES
from yozora.serve.bodies import Told
from yozora.serve.create_api import job_object
from yozora.serve.errors import invalid, missing
from yozora.serve.jobs import LANES, lock
from yozora.serve.marks import leave_mark
from yozora.serve.plans import find_plan, load_plans
from yozora.serve.schemas import failures
from yozora.serve.tables import COMPLETED, QUEUED, Account, Job, WorkerRow

__all__ = ["router"]

router = APIRouter(prefix="/api/admin", tags=["Administration"], route_class=KnownFirst)


class AccountChange(Told):
    """What may be changed of an account; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    role: str | None = Field(default=None, max_length=20)
    plan: str | None = Field(default=None, max_length=40)
    disabled: bool | None = None


class Review(BaseModel):
    """What a reviewer says of a public video."""

    model_config = ConfigDict(extra="forbid")
    featured: bool | None = None
    public: bool | None = None


@router.get("/accounts")
def accounts(
    service: Serving,
    admin: Admin,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=60)] = None,
) -> dict[str, Any]:
    """All accounts, by id."""
    query = sa.select(Account).order_by(Account.id).limit(limit + 1)
    if after is not None:
        query = query.where(Account.id > after)
    with service.database.reading() as session:
        rows = list(session.scalars(query))
    return {"accounts": [account_object(row) for row in rows[:limit]], "has_more": len(rows) > limit}


@router.patch("/accounts/{account_id}", responses=failures(404))
def change(account_id: str, new: AccountChange, service: Serving, admin: Admin) -> dict[str, Any]:
    """Another role, another plan, or an end to it."""
    if new.role is not None and new.role not in ROLES:
        raise invalid(f"there is no role {new.role!r}: use {', '.join(ROLES)}", "role")
    if new.plan is not None and new.plan not in load_plans():
        raise invalid(f"there is no plan {new.plan!r}: use {', '.join(load_plans())}", "plan")
    if account_id == admin.id and (new.disabled or new.role not in (None, "admin")):
        raise invalid("an administrator cannot lock themselves out", "role")
    with service.database.writing() as session:
        account = session.get(Account, account_id)
        if account is None:
            raise missing("account", account_id)
        account.role = new.role or account.role
        account.plan = find_plan(new.plan).name if new.plan else account.plan
        account.disabled = account.disabled if new.disabled is None else new.disabled
    service.known.forget()
    return account_object(account)


@router.get("/workers")
def workers(service: Serving, admin: Admin) -> dict[str, Any]:
    """The workers, and how long ago each was heard of."""
    with service.database.reading() as session:
        now = session.scalar(sa.select(service.database.now)) or 0.0
        rows = session.scalars(sa.select(WorkerRow).order_by(WorkerRow.started_at)).all()
    names = ("id", "host", "pid", "device", "version", "models", "gpu_bytes", "started_at")
    return {"workers": [{n: getattr(row, n) for n in names} | {"silent": now - row.seen_at} for row in rows]}


@router.get("/queue")
def queue(service: Serving, admin: Admin) -> dict[str, Any]:
    """How many videos are in which state, and how many wait in which lane."""
    count = sa.func.count()
    with service.database.reading() as session:
        states = sa.select(Job.status, count).group_by(Job.status)
        videos = dict(session.execute(states).all())
        lanes = sa.select(Job.lane, count).where(Job.status == QUEUED).group_by(Job.lane)
        waiting = dict.fromkeys(LANES, 0) | dict(session.execute(lanes).all())
    return {"videos": videos, "waiting": waiting}


@router.patch("/videos/{video_id}", responses=failures(404))
def review(video_id: str, new: Review, service: Serving, reviewer: Reviewer) -> dict[str, Any]:
    """Features a public video, or takes it out of the feeds."""
    with service.database.writing() as session:
        owner = session.scalar(sa.select(Job.account_id).where(Job.id == video_id))
        if owner is not None:
            lock(session, owner)
        job = session.get(Job, video_id)
        if job is None or not job.public or job.status != COMPLETED:
            raise missing("public video", video_id)
        if new.public is not None:
            if not new.public:
                leave_mark(session, job)
            job.public = new.public
        job.featured = job.public and (job.featured if new.featured is None else new.featured)
        return job_object(job, own=False)


def account_object(row: Account) -> dict[str, Any]:
    """An account as an administrator sees it."""
    names = ("id", "email", "role", "plan", "created_at", "disabled")
    return {name: getattr(row, name) for name in names}
