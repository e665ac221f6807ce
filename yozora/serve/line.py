"""The line of waiting videos: how long one of them still takes, about, and so when to ask for it again."""

from __future__ import annotations

import bisect
import time
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from yozora.serve.database import Database
from yozora.serve.looks import Seen
from yozora.serve.tables import COMPLETED, QUEUED, Job, WorkerRow

__all__ = ["Line", "pace"]

FRESH = 1.0  # seconds that a look at the line is used
NEWEST = 20  # finished videos that say how long one takes
MOST = 5000  # waiting videos that are told apart
UNKNOWN = 5.0  # seconds a video, where none was finished yet
SHARE = 10  # a client asks again after a tenth of what is left, and the official one keeps to what it was told first:
# so it learns of the end at most a tenth too late
TELLING = 5  # per cent, from which on what was done says how long the rest takes
SOONEST, LATEST = 250, 5000  # milliseconds
_TIMES = sa.select(Job.finished_at - Job.started_at).where(Job.status == sa.literal(COMPLETED))
_TIMES = _TIMES.order_by(Job.finished_at.desc()).limit(NEWEST)
_PLACES = sa.select(Job.priority, Job.created_at).where(Job.status == sa.literal(QUEUED))
_PLACES = _PLACES.order_by(Job.priority, Job.created_at).limit(MOST)


def pace(session: Session, database: Database) -> float:
    """Seconds from one finished video to the next while there are some to make: how long the latest took, shared among
    the workers that are alive."""
    times = [spent for spent in session.scalars(_TIMES) if spent is not None]
    alive = sa.select(sa.func.count()).select_from(WorkerRow).where(WorkerRow.seen_at > database.now - 30)
    workers = session.scalar(alive) or 0
    mean = sum(times) / len(times) if times else UNKNOWN
    return min(600.0, max(0.05, mean / max(1, workers)))


@dataclass(frozen=True)
class _Look:
    """The line at a moment: places in order, and seconds from one finished video to the next."""

    places: tuple[tuple[int, float], ...] = ()
    pace: float = UNKNOWN


class Line:
    """The line as it was a moment ago. It says when to ask again, so it need not be exact."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._look, self._asked = _Look(), -FRESH

    async def ask_again(self, job: Seen) -> int:
        """Milliseconds after which to ask again for an unfinished video."""
        if time.monotonic() - self._asked >= FRESH:
            self._asked = time.monotonic()  # others go by the look before meanwhile
            self._look = await run_in_threadpool(self._see)
        return max(SOONEST, min(LATEST, round(1000 * self._left(job) / SHARE)))

    def _left(self, job: Seen) -> float:
        """Seconds until a video is finished, about."""
        if job.status == QUEUED:
            return self._look.pace * (1 + bisect.bisect_left(self._look.places, (job.priority, job.created_at)))
        if job.progress < TELLING or job.started_at is None:
            return self._look.pace
        return (time.time() - job.started_at) * (100 - job.progress) / job.progress

    def _see(self) -> _Look:
        with self.database.reading() as session:
            places = tuple((priority, created_at) for priority, created_at in session.execute(_PLACES))
            return _Look(places, pace(session, self.database))
