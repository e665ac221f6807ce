"""Yozora's own API, first part: ordering videos in every way, following and steering them while they are made."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from yozora.create.presets import load_presets
from yozora.models.registry import find_model, read_card
from yozora.serve import jobs
from yozora.serve.access import Asking, KnownFirst, Serving
from yozora.serve.bodies import Sent
from yozora.serve.content import Variant, content
from yozora.serve.context import Service
from yozora.serve.database import is_outage
from yozora.serve.errors import invalid, missing
from yozora.serve.looks import Seen
from yozora.serve.orders import MAX_VARIATIONS, Order
from yozora.serve.schemas import EVENTS, FILE, PARTS, UPLOAD, failures, takes
from yozora.serve.tables import RUNNING, UNFINISHED, Favourite, Job, Preview, Upload
from yozora.serve.together import Together
from yozora.serve.uploads import find_upload, receive, remove_upload

__all__ = ["job_object", "router"]

router = APIRouter(prefix="/api", tags=["Creating"], route_class=KnownFirst)
LOOK = 0.25  # seconds from one look at a video that is followed to the next
AWAY = 60.0  # seconds that the database may be away before a stream ends
SILENCE = 15.0  # after which a comment is sent, so that nothing between us and the client hangs up


class NewVideos(Order):
    """An order, how often it is to be made, and how it is to be treated."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    variations: int = Field(default=1, ge=1, le=MAX_VARIATIONS)
    lane: str = Field("standard", description="priority, standard or relaxed.", max_length=20)
    priority: int = Field(default=0, ge=0, le=jobs.MAX_PRIORITY, description="Before others of the lane.")
    folder: str | None = Field(default=None, max_length=60)

    @property
    def order(self) -> Order:
        """What is to be made."""
        return Order.model_validate(self.model_dump(exclude=set(NewVideos.model_fields) - set(Order.model_fields)))


@router.post("/videos", status_code=201, responses=failures(404, 429))
def create(
    new: NewVideos,
    service: Serving,
    user: Asking,
    key: Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)] = None,
) -> dict[str, Any]:
    """Orders a video, or several variations of it."""
    fingerprint = new.model_dump_json() if key else None
    ticket = jobs.Ticket(new.variations, new.lane, new.priority, new.folder, key or None, fingerprint)
    made = jobs.create(service, user, new.order, ticket)
    return {"videos": [job_object(job) for job in made]}


@router.post("/videos/cost", responses=failures(404))
def cost(new: NewVideos, service: Serving, user: Asking) -> dict[str, Any]:
    """What it would take: seconds of the allowance, frames, and about how long it would wait."""
    return jobs.cost(service, user, new.order, new.variations)


@router.post("/videos/{video_id}/cancel", responses=failures(404, 409))
def cancel(video_id: str, service: Serving, user: Asking) -> dict[str, Any]:
    """Stops a video that waits or is being made."""
    return job_object(jobs.cancel(service, user, video_id))


@router.get("/videos/{video_id}", responses=failures(404))
def retrieve(video_id: str, service: Serving, user: Asking) -> dict[str, Any]:
    """A video: one's own, or a public one."""
    with service.database.reading() as session:
        job = jobs.find(session, user, video_id, public=True)
        liked = session.get(Favourite, (user.id, job.id)) is not None
        return job_object(job, own=job.account_id == user.id) | {"favourite": liked}


@router.delete("/videos/{video_id}", status_code=204, responses=failures(404))
def delete(video_id: str, service: Serving, user: Asking) -> None:
    """Removes a video and its files."""
    jobs.delete(service, user, video_id)


@router.head("/videos/{video_id}/content", include_in_schema=False)
@router.get("/videos/{video_id}/content", response_class=Response, responses=FILE, openapi_extra=PARTS)
def download(video_id: str, request: Request, service: Serving, user: Asking, variant: Variant = "video") -> Response:
    """One of its files, or a range of it: one's own, or a public one."""
    with service.database.reading() as session:
        job = jobs.find(session, user, video_id, public=True)
    return content(service, request, job, variant)


@router.get("/videos/{video_id}/events", response_class=StreamingResponse, responses=EVENTS)
async def events(video_id: str, request: Request, service: Serving, user: Asking) -> StreamingResponse:
    """Server-sent events until it is finished: `progress`, `preview` (a JPEG in base64, where the order says previews),
    and `done`."""
    videos: Together[str, Seen] = request.app.state.videos
    job = await videos.ask(video_id)
    if job is None or job.account_id != user.id:
        raise missing("video", video_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_followed(service, videos, video_id), headers=headers, media_type="text/event-stream")


@router.post("/uploads", status_code=201, openapi_extra=takes(UPLOAD, form_only=True), responses=failures(429))
def upload(body: Sent, service: Serving, user: Asking) -> dict[str, Any]:
    """Sends a picture or a clip (multipart, field `file`) to make videos from; it is kept for a day."""
    part = body.get("file")
    if not isinstance(part, UploadFile):
        raise invalid("send the file as the field `file` of a form", "file", "missing_required_parameter")
    return upload_object(receive(service, user, part, "file"))


@router.get("/uploads/{upload_id}", responses=failures(404))
def uploaded(upload_id: str, service: Serving, user: Asking) -> dict[str, Any]:
    """What is known of an upload."""
    return upload_object(find_upload(service, user, upload_id))


@router.delete("/uploads/{upload_id}", status_code=204, responses=failures(404, 409))
def remove(upload_id: str, service: Serving, user: Asking) -> None:
    """Removes an upload before its time."""
    remove_upload(service, user, upload_id)


@router.get("/presets")
def presets(user: Asking) -> dict[str, Any]:
    """The styles that an order may name."""
    return {"presets": [{"name": each.name, "description": each.description} for each in load_presets().values()]}


@router.get("/models")
def models(service: Serving, user: Asking) -> dict[str, Any]:
    """The models, and what each was trained to make."""
    cards = {name: read_card(find_model(name)) for name in service.settings.known_models}
    return {
        "models": [
            {
                "name": name,
                "description": card.description,
                "sizes": [f"{width}x{height}" for width, height in card.sizes],
                "fps": card.fps,
                "seconds": card.frames_max / card.fps,
                "steps": card.steps,
                "guidance": card.guidance,
                "projected": card.projected,
            }
            for name, card in cards.items()
        ]
    }


# ---- objects ---------------------------------------------------------------------------------------------------------


def job_object(job: Job | Seen, own: bool = True) -> dict[str, Any]:
    """A job as this API tells it; who does not own it sees what it shows, and not how it was ordered."""
    shown = {
        "id": job.id,
        "status": job.status,
        "prompt": job.prompt,
        "way": job.way,
        "model": job.model,
        "seconds": job.seconds,
        "width": job.width,
        "height": job.height,
        "created_at": job.created_at,
        "public": job.public,
        "featured": job.featured,
        "files": {name: f"/api/videos/{job.id}/content?variant={name}" for name in job.files},
    }
    if not own:
        return shown
    return shown | {
        "stage": job.stage,
        "progress": job.progress,
        "group": job.group_id,
        "folder": job.folder_id,
        "lane": job.lane,
        "order": job.order,
        "recipe": job.recipe,
        "timings": job.timings,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "expires_at": job.expires_at,
        "error": {"code": job.error_code, "message": job.error} if job.error_code else None,
    }


def upload_object(row: Upload) -> dict[str, Any]:
    """An upload as this API tells it."""
    return {
        "id": row.id,
        "bytes": row.bytes,
        "width": row.width,
        "height": row.height,
        "fps": row.fps,
        "created_at": row.created_at,
    }


# ---- following -------------------------------------------------------------------------------------------------------


async def _followed(service: Service, videos: Together[str, Seen], video_id: str) -> AsyncIterator[bytes]:
    last: dict[str, Any] | None = None
    step, silent, away = -1, 0.0, 0.0
    while True:
        told, preview = last, None
        try:
            job = await videos.ask(video_id)
            told = _standing(job, video_id)
            if job is not None and job.status == RUNNING:
                preview = await run_in_threadpool(_preview, service, video_id, step)
            away = 0.0
        except SQLAlchemyError as error:
            if not is_outage(error):
                raise
            if away >= AWAY:
                return  # who still wants to know asks anew
            away += LOOK
        if told is not None and told != last:
            last, silent = told, 0.0
            yield _event("progress", told)
        if preview is not None:
            step, silent = preview.step, 0.0
            yield _event("preview", {"step": step, "jpeg": base64.b64encode(preview.picture).decode()})
        if told is not None and told["status"] not in UNFINISHED:
            yield _event("done", told)
            return
        if silent >= SILENCE:
            silent = 0.0
            yield b": still here\n\n"
        await asyncio.sleep(LOOK)
        silent += LOOK


def _standing(job: Seen | None, video_id: str) -> dict[str, Any]:
    if job is None:
        return {"id": video_id, "status": "deleted", "stage": "", "progress": 0, "error": None}
    return {"id": job.id, "status": job.status, "stage": job.stage, "progress": job.progress, "error": job.error}


def _preview(service: Service, video_id: str, step: int) -> Preview | None:
    """What a video looks like by now, where that is another picture than that of `step`."""
    with service.database.reading() as session:
        return session.scalar(sa.select(Preview).where(Preview.job_id == video_id, Preview.step != step))


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
