"""Yozora's own API, second part: the library, its folders, favourites, feeds, and what came of what."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from yozora.serve import jobs
from yozora.serve.access import Asking, KnownFirst, Serving
from yozora.serve.accounts import User
from yozora.serve.bodies import Told
from yozora.serve.context import Service
from yozora.serve.create_api import job_object
from yozora.serve.errors import ApiError, missing
from yozora.serve.looks import Page
from yozora.serve.marks import leave_mark
from yozora.serve.schemas import failures
from yozora.serve.tables import COMPLETED, Favourite, Folder, Job, Lineage, new_id
from yozora.serve.uploads import delete_character, list_characters

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["Library"], route_class=KnownFirst)
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(max_length=60)]
MOST_FOLDERS = 1000


class Change(Told):
    """What may be changed of a video that is made; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    folder: str | None = Field(default=None, max_length=60)
    public: bool | None = None


class Feed(BaseModel):
    """A part of a feed."""

    videos: list[dict[str, Any]]
    has_more: bool


class FolderName(Told):
    """A folder's name."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100)


@router.get("/videos", responses=failures(404))
def listing(
    service: Serving,
    user: Asking,
    limit: Limit = 20,
    after: After = None,
    order: Literal["asc", "desc"] = "desc",
    folder: Annotated[str | None, Query(max_length=60)] = None,
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled"] | None = None,
    favourite: bool = False,
    text: Annotated[str | None, Query(max_length=200, description="Words of the prompt.")] = None,
) -> dict[str, Any]:
    """One's own videos, the latest first; of one's favourites those of others, too."""
    where: list[sa.ColumnElement[bool]] = []
    if folder is not None:
        where.append(Job.folder_id == folder)
    if status is not None:
        where.append(Job.status == status)
    if text:
        where.append(Job.prompt.icontains(text, autoescape=True))
    with service.database.reading() as session:
        found, more = jobs.listed(session, user, limit, after, order == "asc", where, favourite)
        return {"videos": [job_object(job, own=job.account_id == user.id) for job in found], "has_more": more}


@router.patch("/videos/{video_id}", responses=failures(404, 409))
def change(video_id: str, new: Change, service: Serving, user: Asking) -> dict[str, Any]:
    """Moves a video to a folder (null: out of it), or shows it in the feeds."""
    with service.database.writing() as session:
        jobs.lock(session, user.id)  # who deletes it meanwhile waits, or was first
        job = jobs.find(session, user, video_id)
        if "folder" in new.model_fields_set:
            job.folder_id = None if new.folder is None else _folder(session, user, new.folder).id
        if new.public is not None:
            if new.public and job.status != COMPLETED:
                raise ApiError(409, f"this video is {job.status}: show it when it is completed", code="video_not_ready")
            if job.public and not new.public:
                leave_mark(session, job)
            job.public, job.featured = new.public, job.featured and new.public
        return job_object(job)


@router.get("/videos/{video_id}/lineage", responses=failures(404))
def lineage(video_id: str, service: Serving, user: Asking) -> dict[str, Any]:
    """What a video was made from, and what was made from it, as far as one may see it."""
    with service.database.reading() as session:
        job = jobs.find(session, user, video_id, public=True)
        above = session.execute(sa.select(Lineage.parent_id, Lineage.role).where(Lineage.job_id == job.id)).all()
        below = sa.select(Job, Lineage.role).join(Lineage, Lineage.job_id == Job.id).where(Lineage.parent_id == job.id)
        mine = sa.or_(Job.account_id == user.id, sa.and_(Job.public, Job.status == COMPLETED))
        children = session.execute(below.where(mine).order_by(Job.created_at).limit(100)).all()
        own = job.account_id == user.id
        return {
            "parents": [{"id": parent, "role": role} for parent, role in above] if own else [],
            "children": [{"id": child.id, "role": role, "prompt": child.prompt} for child, role in children],
        }


@router.put("/videos/{video_id}/favourite", status_code=204, responses=failures(404))
def like(video_id: str, service: Serving, user: Asking) -> None:
    """Puts a video among one's favourites."""
    with service.database.writing() as session:
        jobs.lock(session, user.id)  # who asks twice at once
        job = jobs.find(session, user, video_id, public=True)
        session.merge(Favourite(account_id=user.id, job_id=job.id, created_at=time.time()))


@router.delete("/videos/{video_id}/favourite", status_code=204)
def unlike(video_id: str, service: Serving, user: Asking) -> None:
    """Takes a video out of one's favourites."""
    with service.database.writing() as session:
        session.execute(sa.delete(Favourite).where(Favourite.account_id == user.id, Favourite.job_id == video_id))


@router.get("/feeds/{feed}", response_class=JSONResponse, responses={200: {"model": Feed}, **failures(404)})
async def feed(
    feed: Literal["recent", "featured"], request: Request, service: Serving, user: Asking,
    limit: Limit = 20, after: After = None,
) -> Response:  # fmt: skip
    """Public videos, as everybody sees them: the most recent, or those that reviewers chose."""
    place = None if after is None else await run_in_threadpool(_place, service, user, after)
    found = await request.app.state.pages.ask(Page(feed == "featured", limit, place))
    videos = [job_object(job, own=False) | {"own": job.account_id == user.id} for job in found[:limit]]
    return Response(to_json({"videos": videos, "has_more": len(found) > limit}), media_type="application/json")


def _place(service: Service, user: User, video_id: str) -> tuple[float, str]:
    """Where a video stands in a feed. Raises ApiError."""
    with service.database.reading() as session:
        return jobs.place_of(session, user, video_id, public=True)


@router.get("/characters")
def characters(service: Serving, user: Asking) -> dict[str, Any]:
    """One's characters, which `POST /v1/videos/characters` makes."""
    rows = list_characters(service, user)
    return {"characters": [{"id": row.id, "name": row.name, "created_at": row.created_at} for row in rows]}


@router.delete("/characters/{character_id}", status_code=204, responses=failures(404))
def remove_character(character_id: str, service: Serving, user: Asking) -> None:
    """Removes a character and its clip."""
    delete_character(service, user, character_id)


# ---- folders ---------------------------------------------------------------------------------------------------------


@router.get("/folders")
def folders(service: Serving, user: Asking) -> dict[str, Any]:
    """One's folders, and how many videos are in each."""
    with service.database.reading() as session:
        count = sa.select(sa.func.count()).where(Job.folder_id == Folder.id).scalar_subquery()
        rows = session.execute(sa.select(Folder, count).where(Folder.account_id == user.id).order_by(Folder.name))
        return {"folders": [folder_object(row) | {"videos": number} for row, number in rows]}


@router.post("/folders", status_code=201, responses=failures(409))
def add_folder(new: FolderName, service: Serving, user: Asking) -> dict[str, Any]:
    """A new folder."""
    folder = Folder(id=new_id("folder"), account_id=user.id, name=new.name, created_at=time.time())
    with service.database.writing() as session:
        jobs.lock(session, user.id)
        own = session.scalar(sa.select(sa.func.count()).where(Folder.account_id == user.id)) or 0
        if own >= MOST_FOLDERS:
            raise ApiError(409, f"you have {own} folders: remove some first", code="too_many_folders")
        session.add(folder)
    return folder_object(folder)


@router.patch("/folders/{folder_id}", responses=failures(404))
def rename_folder(folder_id: str, new: FolderName, service: Serving, user: Asking) -> dict[str, Any]:
    """Another name."""
    with service.database.writing() as session:
        jobs.lock(session, user.id)
        folder = _folder(session, user, folder_id)
        folder.name = new.name
        return folder_object(folder)


@router.delete("/folders/{folder_id}", status_code=204, responses=failures(404))
def delete_folder(folder_id: str, service: Serving, user: Asking) -> None:
    """Removes a folder; the videos in it stay."""
    with service.database.writing() as session:
        jobs.lock(session, user.id)  # who puts a video into it waits, or was first
        session.delete(_folder(session, user, folder_id))


def folder_object(folder: Folder) -> dict[str, Any]:
    """A folder as this API tells it."""
    return {"id": folder.id, "name": folder.name, "created_at": folder.created_at}


def _folder(session: Session, user: User, folder_id: str) -> Folder:
    folder = session.get(Folder, folder_id)
    if folder is None or folder.account_id != user.id:
        raise missing("folder", folder_id)
    return folder
