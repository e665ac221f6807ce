"""A run: one worker's work on one job. Its row in the table says who may write to it, and whether anybody still wants
it.

A worker that was taken for dead may still be alive: what it does then must not show. So every run has a number, the
row knows the latest, and whatever a run tells the table holds only where that number is its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from yozora.create.canvas import Canvas
from yozora.create.sizes import Native
from yozora.serve.context import Service
from yozora.serve.database import persist
from yozora.serve.jobs import held, measure, settle
from yozora.serve.metrics import WAIT_SECONDS
from yozora.serve.orders import Order
from yozora.serve.tables import COMPLETED, FAILED, QUEUED, RUNNING, Job, Preview

__all__ = ["HandedBack", "Run", "Stopped", "begin", "hand_back"]

LOAD = "load"  # the stage in which a video waits for its model
EARLY = ("", "check", "rewrite", LOAD)  # the stages before sampling
OFTEN = 0.25  # seconds from one report to the next, where nobody waits for it


class Stopped(Exception):
    """Nobody wants this run any more: the video was cancelled or deleted, or another worker has it."""


class HandedBack(BaseException):
    """The worker is shutting down; the job is to go on elsewhere. No Exception, so that no step records it as its
    own failure."""


@dataclass
class Run:
    """Run number `attempt` of a job, on `worker`; `scratch` is its own folder."""

    service: Service
    job_id: str
    worker: str
    attempt: int
    order: Order
    scratch: Path
    stopping: Callable[[], bool] = lambda: False
    lost: int = 0
    """Workers that died while they made it."""
    timings: dict[str, float] = field(default_factory=dict)
    drawn: tuple[Native, Canvas] | None = None
    """Its canvas, once that has been read, and for which model."""
    _told: float = 0.0
    _asked: float = 0.0
    _stage: str | None = None

    def report(self, stage: str, share: float, always: bool = False) -> None:
        """Tells how far it is, 0 to 1 of all. Raises Stopped, or HandedBack, where it is to stop. Unless `always`, or
        where a stage begins, only every now and then."""
        if self.stopping():
            raise HandedBack
        now, percent = time.monotonic(), min(99, int(100 * share))
        if not always and stage == self._stage and now - self._told < OFTEN:
            return
        self._told, self._stage = now, stage
        if not persist(lambda: self._tell(stage, percent)):
            raise Stopped

    def heed(self) -> None:
        """Raises Stopped, or HandedBack, where it is to stop; asks the table only every now and then."""
        if self.stopping():
            raise HandedBack
        if (now := time.monotonic()) - self._asked >= OFTEN:
            self._asked = now
            if self.state() != RUNNING:
                raise Stopped

    def _tell(self, stage: str, percent: int) -> bool:
        further = sa.case((Job.progress < percent, percent), else_=Job.progress)
        with self.service.database.writing() as session:
            told = session.execute(self._mine(sa.update(Job)).values(stage=stage, progress=further))
            return told.rowcount == 1  # type: ignore[attr-defined]

    def show(self, step: int, picture: bytes) -> None:
        """Keeps a preview, a JPEG, in place of the one before."""

        def keep() -> None:
            with self.service.database.writing() as session:
                # locked: who cancels it meanwhile removes what is kept here, and must not come in between
                if session.scalar(self._mine(sa.select(Job.id)).with_for_update()) is not None:
                    session.merge(Preview(job_id=self.job_id, step=step, picture=picture))

        persist(keep)

    def state(self) -> str:
        """RUNNING where this run may go on, COMPLETED or FAILED where the job is over; else it is nobody's or
        another's, and "" is what it is for us."""

        def look() -> str:
            with self.service.database.reading() as session:
                row = session.execute(
                    sa.select(Job.status, Job.worker_id, Job.attempt).where(Job.id == self.job_id)
                ).first()
                if row is None:
                    return ""
                mine = row.status == RUNNING and (row.worker_id, row.attempt) == (self.worker, self.attempt)
                return row.status if mine or row.status in (COMPLETED, FAILED) else ""

        return persist(look)

    def awaits(self) -> bool:
        """Whether videos that are likely to go into one batch with this one are on their way: those that this worker
        has begun with, and those next in line, as many as it has room for."""
        ours = sa.select(Job.id, Job.stage, Job.order).where(Job.status == RUNNING, Job.worker_id == self.worker)
        soon = sa.select(Job.order).where(Job.status == QUEUED, Job.admitted)
        soon = soon.order_by(Job.priority, Job.created_at, Job.id)

        def look() -> list[dict[str, object]]:
            with self.service.database.reading() as session:
                rows = session.execute(ours).all()
                room = self.service.settings.slots - sum(row.stage in (*EARLY, "generate") for row in rows)
                early = [row.order for row in rows if row.stage in EARLY and row.id != self.job_id]
                return [*early, *(session.scalars(soon.limit(room)) if room > 0 else [])]

        return any(Order.model_validate(each).likeness == self.order.likeness for each in persist(look))

    def measure(self, size: tuple[int, int], seconds: float) -> None:
        """What the video will be is known: its account's plan must let it, and is charged for it. Raises ApiError."""

        def note() -> None:
            with self.service.database.writing() as session:
                job = self._held(session)
                if job is not None:
                    measure(session, job, size, seconds)

        persist(note)

    def finish(self, files: dict[str, dict[str, object]], made: dict[str, object]) -> bool:
        """The job is completed with these files, unless it is not ours any more. `made` are further columns."""

        def complete() -> bool:
            with self.service.database.writing() as session:
                job = self._held(session)
                if job is None:
                    return False
                job.files, job.timings = files, {name: round(spent, 4) for name, spent in self.timings.items()}
                for name, value in made.items():
                    setattr(job, name, value)
                settle(self.service, session, job, COMPLETED)
                return True

        return persist(complete)

    def fail(self, code: str, message: str) -> bool:
        """The job has failed, unless it is not ours any more."""

        def end() -> bool:
            with self.service.database.writing() as session:
                job = self._held(session)
                if job is None:
                    return False
                settle(self.service, session, job, FAILED, code, message)
                return True

        return persist(end)

    def clean(self) -> None:
        """Nothing is left on this machine's disk."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _mine(self, query):  # type: ignore[no-untyped-def]
        """The query, of this job while it is this run's."""
        return query.where(
            Job.id == self.job_id, Job.status == RUNNING, Job.worker_id == self.worker, Job.attempt == self.attempt
        )

    def _held(self, session: Session) -> Job | None:
        """The job, while it is this run's, for a transaction that ends or measures it."""
        job = held(session, self.job_id)
        if job is None or job.status != RUNNING:
            return None
        return job if (job.worker_id, job.attempt) == (self.worker, self.attempt) else None


def hand_back(session: Session, worker: str) -> None:
    """The jobs that a worker has are nobody's now, and did not lose it: it was told to end."""
    held = sa.update(Job).where(Job.worker_id == worker, Job.status == RUNNING)
    session.execute(held.values(worker_id=None))


def begin(service: Service, job_id: str, worker: str, stopping: Callable[[], bool] = lambda: False) -> Run | None:
    """The next run of a job, which from now on is the only one. A job that is over has a run, too, that only looks.
    None where there is no such job, or nobody wants it. A job that has lost too many workers fails here."""

    waited: list[tuple[str, float]] = []

    def claim() -> Run | None:
        waited.clear()
        with service.database.writing() as session:
            job = held(session, job_id)
            if job is None or job.status not in (QUEUED, RUNNING, COMPLETED, FAILED):
                return None
            if job.status in (QUEUED, RUNNING):
                waited.extend([] if job.started_at else [(job.lane, time.time() - job.created_at)])
                job.lost += job.worker_id is not None  # nobody handed it back
                job.status, job.worker_id, job.attempt = RUNNING, worker, job.attempt + 1
                job.started_at = job.started_at or time.time()
            if job.status == RUNNING and job.lost >= service.settings.attempts:
                settle(service, session, job, FAILED, "worker_lost", "the workers that made this video were lost")
            scratch = service.settings.scratch / worker / f"{job_id}-{job.attempt}"
            order = Order.model_validate(job.order)
            return Run(service, job_id, worker, job.attempt, order, scratch, stopping, job.lost)

    run = persist(claim)
    for lane, seconds in waited:
        WAIT_SECONDS.labels(lane).observe(seconds)
    return run
