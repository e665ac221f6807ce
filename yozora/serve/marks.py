"""Marks: where a video stood in the lists that it is no longer in, so that these can be gone on with from there."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from yozora.serve.accounts import User
from yozora.serve.tables import COMPLETED, Job, Mark

__all__ = ["leave_mark", "marked"]


def leave_mark(session: Session, job: Job) -> None:
    """Where this job stands, which is about to go from its lists. One that everybody could see once is so for good."""
    gone = session.get(Mark, job.id)
    public = (job.public and job.status == COMPLETED) or (gone is not None and gone.public)
    mark = Mark(id=job.id, account_id=job.account_id, public=public, created_at=job.created_at, since=time.time())
    session.merge(mark)


def marked(session: Session, user: User, job_id: str, public: bool) -> tuple[float, str] | None:
    """The time and id of one's own job that is gone, or where `public` is enough of anybody's that all could see."""
    gone = session.get(Mark, job_id)
    if gone is None or not (gone.account_id == user.id or (public and gone.public)):
        return None
    return gone.created_at, gone.id
