"""What is asked for most, by clients that wait and by feeds: a few columns, of many videos in one look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from yozora.serve.database import Database
from yozora.serve.tables import COMPLETED, Job

__all__ = ["Page", "Seen", "look_at_pages", "look_at_videos"]

Seen = sa.Row[*tuple[Any, ...]]
"""Some columns of a job, by their names."""
_WATCHED = (
    Job.id, Job.account_id, Job.status, Job.stage, Job.progress, Job.model, Job.prompt, Job.seconds, Job.width,
    Job.height, Job.priority, Job.created_at, Job.started_at, Job.finished_at, Job.expires_at, Job.source_id,
    Job.error_code, Job.error,
)  # fmt: skip
_SHOWN = (
    Job.id, Job.account_id, Job.status, Job.way, Job.model, Job.prompt, Job.seconds, Job.width, Job.height,
    Job.created_at, Job.public, Job.featured, Job.files,
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    """A part of a feed: at most `limit` videos, those after the time and id of `after`."""

    featured: bool
    limit: int
    after: tuple[float, str] | None = None


def look_at_videos(database: Database, ids: Sequence[str]) -> dict[str, Seen]:
    """How the videos of these ids stand; those that are not there are left out."""
    with database.looking() as connection:
        return {row.id: row for row in connection.execute(_VIDEOS, {"ids": ids})}


def look_at_pages(database: Database, pages: Sequence[Page]) -> dict[Page, list[Seen]]:
    """The public videos of each page, the latest first, and one more where there are more."""
    with database.looking() as connection:
        return {page: list(connection.execute(*_query(page))) for page in pages}


def _query(page: Page) -> tuple[sa.Select[*tuple[Any, ...]], dict[str, Any]]:
    values: dict[str, Any] = {"most": page.limit + 1}
    if page.after is not None:
        values["time"], values["name"] = page.after
    return _PAGES[page.featured, page.after is not None], values


def _pages(featured: bool, after: bool) -> sa.Select[*tuple[Any, ...]]:
    query = sa.select(*_SHOWN).where(Job.public, Job.status == sa.literal(COMPLETED))
    if featured:
        query = query.where(Job.featured)
    if after:
        place = sa.tuple_(sa.bindparam("time", type_=sa.Double), sa.bindparam("name", type_=sa.String))
        query = query.where(sa.tuple_(Job.created_at, Job.id) < place)
    return query.order_by(Job.created_at.desc(), Job.id.desc()).limit(sa.bindparam("most", type_=sa.Integer))


# Built once: building a statement takes longer than the databases take to answer it.
_VIDEOS = sa.select(*_WATCHED).where(Job.id.in_(sa.bindparam("ids", expanding=True)))
_PAGES = {(featured, after): _pages(featured, after) for featured in (False, True) for after in (False, True)}
