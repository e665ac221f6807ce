"""OpenAI's Videos API, as its official client speaks it: /v1/videos and /v1/models.

What that API has no word for (seed, steps, guidance, …) may be sent besides, as the client's `extra_body` does; in a
form all of it comes as text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json
from starlette.datastructures import UploadFile

from yozora.create.sizes import MAX_SIDE, parse_size
from yozora.errors import CanvasError
from yozora.serve import jobs
from yozora.serve.access import Asking, KnownFirst, Serving
from yozora.serve.accounts import User
from yozora.serve.bodies import Body, Sent, data_url
from yozora.serve.content import Variant, content
from yozora.serve.context import Service
from yozora.serve.errors import ApiError, invalid, missing
from yozora.serve.looks import Seen
from yozora.serve.orders import parse_order
from yozora.serve.schemas import CHARACTER, CREATE, EDIT, EXTEND, FILE, PARTS, POLLED, REMIX, answers, failures, takes
from yozora.serve.storage import FileGone
from yozora.serve.tables import CANCELLED, COMPLETED, FAILED, UNFINISHED, Character, Job, Upload
from yozora.serve.uploads import (
    create_character,
    discard,
    find_character,
    find_upload,
    made_character,
    receive,
)

__all__ = ["router", "video_object"]

router = APIRouter(prefix="/v1", tags=["OpenAI Videos"], route_class=KnownFirst)
EXTRAS = (
    "negative", "aspect", "resolution", "fit", "enhance", "enhance_fps", "strength",
    "seed", "steps", "guidance", "solver", "preset", "rewrite", "previews",
)  # fmt: skip
SECONDS = 4.0  # OpenAI's own default
NAMES = {"clip": "video", "image": "input_reference"}  # what an order calls otherwise
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]


@router.post("/videos", openapi_extra=takes(CREATE), responses=answers("video") | failures(404, 429))
def create(body: Sent, service: Serving, user: Asking, key: Key = None) -> dict[str, Any]:
    """A new video of a prompt, perhaps from a picture."""
    return _create(service, user, body, key)


@router.get("/videos", responses=answers("list") | failures(404))
def listing(
    service: Serving,
    user: Asking,
    after: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """One's own videos, the latest first."""
    with service.database.reading() as session:
        found, more = jobs.listed(session, user, limit, after, order == "asc")
        data = [video_object(job) for job in found]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "has_more": more, "first_id": first, "last_id": last}


@router.post("/videos/edits", openapi_extra=takes(EDIT), responses=answers("video") | failures(404, 429))
def edit(body: Sent, service: Serving, user: Asking, key: Key = None) -> dict[str, Any]:
    """A video under another prompt: one of the library, or one that is sent."""
    return _from_video(service, user, body, key, "remix")


@router.post("/videos/extensions", openapi_extra=takes(EXTEND), responses=answers("video") | failures(404, 429))
def extend(body: Sent, service: Serving, user: Asking, key: Key = None) -> dict[str, Any]:
    """A video and what comes after it."""
    return _from_video(service, user, body, key, "extend")


@router.post("/videos/characters", openapi_extra=takes(CHARACTER), responses=answers("character") | failures(404))
def add_character(body: Sent, service: Serving, user: Asking, key: Key = None) -> dict[str, Any]:
    """A name for somebody or something that is to come again."""
    _known(body, ("name", "video"))
    name, part = body.get("name"), body.get("video")
    if not isinstance(name, str):
        raise invalid("name must be text", "name", "missing_required_parameter")
    once, told = key or None, _fingerprint("characters", body) if key else None
    made = made_character(service, user, once, told)
    if made is None:
        made = create_character(service, user, name, _bytes_of(service, user, part, "video"), once, told)
    return character_object(made)


@router.get("/videos/characters/{character_id}", responses=answers("character") | failures(404))
def character(character_id: str, service: Serving, user: Asking) -> dict[str, Any]:
    """A character of one's own."""
    return character_object(find_character(service, user, character_id))


@router.get("/videos/{video_id}", response_class=JSONResponse, responses=POLLED | failures(404))
async def retrieve(video_id: str, request: Request, user: Asking) -> Response:
    """A video of one's own, finished or not."""
    job = await request.app.state.videos.ask(video_id)
    if job is None or job.account_id != user.id:
        raise missing("video", video_id)
    answer = Response(to_json(video_object(job)), media_type="application/json")
    if job.status in UNFINISHED:
        answer.headers["openai-poll-after-ms"] = str(await request.app.state.line.ask_again(job))
    return answer


@router.delete("/videos/{video_id}", responses=answers("deleted") | failures(404))
def delete(video_id: str, service: Serving, user: Asking) -> dict[str, Any]:
    """Removes a video and its files; one that is being made is cancelled."""
    jobs.delete(service, user, video_id)
    return {"id": video_id, "deleted": True, "object": "video.deleted"}


@router.head("/videos/{video_id}/content", include_in_schema=False)
@router.get("/videos/{video_id}/content", response_class=Response, responses=FILE, openapi_extra=PARTS)
def download(video_id: str, request: Request, service: Serving, user: Asking, variant: Variant = "video") -> Response:
    """The video (MP4), its thumbnail (WebP) or its sheet of frames (JPEG)."""
    with service.database.reading() as session:
        job = jobs.find(session, user, video_id)
    return content(service, request, job, variant)


@router.post("/videos/{video_id}/remix", openapi_extra=takes(REMIX), responses=answers("video") | failures(404, 429))
def remix(video_id: str, body: Sent, service: Serving, user: Asking, key: Key = None) -> dict[str, Any]:
    """A video of the library under another prompt."""
    _known(body, ("prompt", *EXTRAS))
    return _from_video(service, user, body | {"video": {"id": video_id}}, key, "remix")


@router.get("/models")
def models(service: Serving, user: Asking) -> dict[str, Any]:
    """The models that may be asked for, and the names that stand for one of them."""
    return {"object": "list", "data": [model_object(name) for name in service.settings.names]}


@router.get("/models/{name:path}", responses=failures(404))
def model(name: str, service: Serving, user: Asking) -> dict[str, Any]:
    """One of them."""
    if name not in service.settings.names:
        raise missing("model", name)
    return model_object(name)


# ---- objects ---------------------------------------------------------------------------------------------------------


def video_object(job: Job | Seen) -> dict[str, Any]:
    """A job as OpenAI's Video. It has no word for cancelled, which is a failure there."""
    failed = job.status in (FAILED, CANCELLED)
    return {
        "id": job.id,
        "object": "video",
        "created_at": int(job.created_at),
        "completed_at": int(job.finished_at) if job.finished_at and job.status == COMPLETED else None,
        "expires_at": int(job.expires_at) if job.expires_at else None,
        "status": FAILED if failed else job.status,
        "progress": job.progress,
        "model": job.model,
        "prompt": job.prompt,
        "seconds": f"{job.seconds:g}",
        "size": f"{job.width}x{job.height}",
        "remixed_from_video_id": job.source_id,
        "error": {"code": job.error_code, "message": job.error} if failed else None,
    }


def character_object(character: Character) -> dict[str, Any]:
    """As the client's type says."""
    return {"id": character.id, "name": character.name, "created_at": int(character.created_at), "object": "character"}


def model_object(name: str) -> dict[str, Any]:
    """A model's name as OpenAI's Model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "yozora"}


# ---- orders ----------------------------------------------------------------------------------------------------------


def _create(service: Service, user: User, body: Body, key: str | None) -> dict[str, Any]:
    _known(body, ("prompt", "model", "seconds", "size", "input_reference", "characters", *EXTRAS))
    asked = _Asked(service, user, body, key, "videos")
    if (made := asked.before) is not None:
        return made
    raw = _shared(body) | {"seconds": _seconds(body)}
    if body.get("size") is not None:
        raw |= _sized(service, body, str(body["size"]))
    given = body.get("input_reference")
    characters = body.get("characters")
    if given not in (None, ""):
        with _upload(service, user, given, "input_reference") as upload:
            return asked.order(raw | {"way": "animate", "image": upload.id})
    if characters:
        raw |= {"way": "animate", "image": _character(service, user, characters)}
    return asked.order(raw)


def _from_video(service: Service, user: User, body: Body, key: str | None, way: str) -> dict[str, Any]:
    _known(body, ("prompt", "video", *(("seconds",) if way == "extend" else ()), *EXTRAS))
    prompt, given = body.get("prompt"), body.get("video")
    if not isinstance(prompt, str) or not prompt.strip():
        raise invalid("prompt is missing: say what the video should show", "prompt", "missing_required_parameter")
    if given in (None, ""):
        raise invalid("video is missing: send a file, or video[id]", "video", "missing_required_parameter")
    asked = _Asked(service, user, body, key, way)
    if (made := asked.before) is not None:
        return made
    raw = _shared(body) | {"way": way}
    if way == "extend":
        raw["seconds"] = _seconds(body)
    source = given.get("id") if isinstance(given, Mapping) else given if isinstance(given, str) else None
    if isinstance(source, str):
        with service.database.reading() as session:
            job = jobs.find(session, user, source, public=True)
            raw |= {"clip": job.id, "model": job.order.get("model")}
            if not service.native(service.model(job.order.get("model"))).makes(job.width, job.height):
                raw["enhance"] = raw.get("enhance") or f"{job.width}x{job.height}"
        return asked.order(raw, source=job.id, model=job.model)
    with _upload(service, user, given, "video") as upload:
        return asked.order(raw | {"clip": upload.id})


class _Asked:
    """A request for a video, which under an Idempotency-Key makes one only once."""

    def __init__(self, service: Service, user: User, body: Body, key: str | None, where: str) -> None:
        self.service, self.user, self.body, self.key = service, user, body, key or None
        self.fingerprint = _fingerprint(where, body) if key else None

    @property
    def before(self) -> dict[str, Any] | None:
        """The answer that it was given already. Raises ApiError where the key is another request's."""
        made = jobs.ordered(self.service, self.user, self.key, self.fingerprint)
        return video_object(made[0]) if made else None

    def order(self, raw: dict[str, Any], source: str | None = None, model: str | None = None) -> dict[str, Any]:
        """Orders it; what is wrong with what is given is told by the names that this API has for it. Raises
        ApiError."""
        told = self.body.get("model")
        try:
            order = parse_order(raw)
            ticket = jobs.Ticket(
                key=self.key,
                fingerprint=self.fingerprint,
                source=source if order.way == "remix" else None,
                model=model or (told if isinstance(told, str) else None),
            )
            return video_object(jobs.create(self.service, self.user, order, ticket)[0])
        except ApiError as error:
            error.param = NAMES.get(error.param or "", error.param)
            raise


def _shared(body: Body) -> dict[str, Any]:
    return {name: body[name] for name in ("prompt", "model", *EXTRAS) if body.get(name) not in (None, "")}


def _seconds(body: Body) -> Any:
    """As asked, else OpenAI's own default."""
    return SECONDS if body.get("seconds") in (None, "") else body["seconds"]


def _sized(service: Service, body: Body, size: str) -> dict[str, Any]:
    """The size as it is, where the model makes such; else a shape that it makes, enlarged to it."""
    try:
        width, height = parse_size(size)
    except CanvasError as error:
        raise invalid(str(error), "size") from None
    told = body.get("model")
    native = service.native(service.model(told if isinstance(told, str) else None))
    if native.makes(width, height):
        return {"size": f"{width}x{height}"}
    if min(width, height) < 16 or max(width, height) > MAX_SIDE:
        raise invalid(f"{width}x{height} is no size that can be made", "size")
    return {"aspect": f"{width}:{height}", "enhance": f"{width}x{height}"}


@contextmanager
def _upload(service: Service, user: User, given: Any, param: str) -> Iterator[Upload]:
    """What is given as a file part, as {"file_id": …} or as {"image_url": "data:…"}; what was sent is let go of where
    no video is ordered with it in the block, or was before under the same key."""
    if isinstance(given, Mapping) and isinstance(given.get("file_id"), str):
        yield find_upload(service, user, given["file_id"])
        return
    if isinstance(given, UploadFile):
        upload = receive(service, user, given, param)
    elif isinstance(given, Mapping) and isinstance(given.get("image_url"), str):
        upload = receive(service, user, data_url(given["image_url"], param), param)
    else:
        raise invalid(f"{param} is a file, or an object that names one", param)
    try:
        yield upload
    finally:
        discard(service, upload)


def _bytes_of(service: Service, user: User, given: Any, param: str) -> UploadFile | bytes:
    """A file part, or the bytes of a video of one's own."""
    if isinstance(given, UploadFile):
        return given
    if isinstance(given, Mapping) and isinstance(given.get("id"), str):
        with service.database.reading() as session:
            job = jobs.find(session, user, given["id"])
        if "video" not in job.files:
            raise invalid(f"the video {job.id} is {job.status}", param, "video_not_ready")
        file = job.files["video"]
        try:
            return b"".join(service.storage.read(file["key"], 0, int(file["bytes"])))
        except FileGone:
            raise missing("video any more of the video", job.id) from None
    raise invalid(f"{param} is a file", param, "missing_required_parameter")


def _character(service: Service, user: User, given: Any) -> str:
    """The one character that a video begins with."""
    if not isinstance(given, list) or len(given) != 1:
        raise invalid("characters is a list of one: videos begin with one character", "characters")
    name = given[0].get("id") if isinstance(given[0], Mapping) else given[0]
    if not isinstance(name, str):
        raise invalid("a character is given by its id", "characters")
    return find_character(service, user, name).id


def _known(body: Body, names: tuple[str, ...]) -> None:
    """Raises ApiError for what would be ignored: better said than wondered about."""
    for name in body:
        if name not in names:
            raise ApiError(400, f"there is no parameter {name[:80]!r}", code="unknown_parameter", param=name[:80])


def _fingerprint(where: str, body: Body) -> str:
    """The same for the same request, whatever boundary its form has."""

    def told(value: Any) -> Any:
        if isinstance(value, UploadFile):
            value.file.seek(0)
            return hashlib.file_digest(value.file, "sha256").hexdigest()  # type: ignore[arg-type]
        return repr(value)

    return hashlib.sha256(json.dumps([where, body], default=told, sort_keys=True).encode()).hexdigest()
