"""How requests and answers are described in the OpenAPI document, where a function's signature cannot."""

from __future__ import annotations

from typing import Any

__all__ = [
    "CHARACTER",
    "CREATE",
    "EDIT",
    "ERROR",
    "EVENTS",
    "EXTEND",
    "FILE",
    "METRICS",
    "PARTS",
    "POLLED",
    "REMIX",
    "UPLOAD",
    "answers",
    "failures",
    "header",
    "takes",
]

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string", "maxLength": 10_000}
_NUMBER: Schema = {"anyOf": [{"type": "number"}, {"type": "string"}]}
_FILE: Schema = {"type": "string", "format": "binary"}
_EXTRAS: dict[str, Schema] = {
    "negative": _TEXT,
    "aspect": {"type": "string", "examples": ["16:9"]},
    "resolution": {"type": "string", "examples": ["128p"]},
    "fit": {"type": "string", "enum": ["crop", "pad", "stretch"]},
    "enhance": {"type": "string", "examples": ["1080p"]},
    "enhance_fps": _NUMBER,
    "strength": _NUMBER,
    "seed": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]},
    "steps": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 1000}, {"type": "string"}]},
    "guidance": _NUMBER,
    "solver": {"type": "string"},
    "preset": {"type": "string"},
    "rewrite": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
    "previews": {"anyOf": [{"type": "boolean"}, {"type": "string"}]},
}
_VIDEO_ID: Schema = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
_REFERENCE: Schema = {"type": "object", "properties": {"file_id": {"type": "string"}, "image_url": {"type": "string"}}}
_SECONDS: Schema = {"anyOf": [{"type": "string", "examples": ["4"]}, {"type": "number"}]}


def _object(required: tuple[str, ...], **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties, "additionalProperties": False}


CREATE = _object(
    ("prompt",),
    prompt=_TEXT,
    model={"type": "string"},
    seconds=_SECONDS,
    size={"type": "string", "examples": ["1280x720"]},
    input_reference=_REFERENCE,
    characters={"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}}}},
    **_EXTRAS,
)
EDIT = _object(("prompt", "video"), prompt=_TEXT, video=_VIDEO_ID, **_EXTRAS)
EXTEND = _object(("prompt", "video"), prompt=_TEXT, video=_VIDEO_ID, seconds=_SECONDS, **_EXTRAS)
REMIX = _object(("prompt",), prompt=_TEXT, **_EXTRAS)
CHARACTER = _object(("name", "video"), name={"type": "string", "maxLength": 100}, video=_VIDEO_ID)
UPLOAD = _object(("file",), file=_FILE)
ERROR: Schema = _object(
    ("error",),
    error=_object(
        ("message", "type", "param", "code"),
        message={"type": "string"},
        type={"type": "string"},
        param={"type": ["string", "null"]},
        code={"type": ["string", "null"]},
    ),
)
_VIDEO = _object(
    ("id", "object", "created_at", "status", "progress", "model", "seconds", "size"),
    id={"type": "string"},
    object={"const": "video"},
    created_at={"type": "integer"},
    completed_at={"type": ["integer", "null"]},
    expires_at={"type": ["integer", "null"]},
    status={"enum": ["queued", "in_progress", "completed", "failed"]},
    progress={"type": "integer", "minimum": 0, "maximum": 100},
    model={"type": "string"},
    prompt={"type": ["string", "null"]},
    seconds={"type": "string"},
    size={"type": "string"},
    remixed_from_video_id={"type": ["string", "null"]},
    error={"anyOf": [{"type": "null"}, {"type": "object"}]},
)
_ANSWERS: dict[str, Schema] = {
    "video": _VIDEO,
    "list": _object(
        ("object", "data", "has_more", "first_id", "last_id"),
        object={"const": "list"},
        data={"type": "array", "items": _VIDEO},
        has_more={"type": "boolean"},
        first_id={"type": ["string", "null"]},
        last_id={"type": ["string", "null"]},
    ),
    "deleted": _object(
        ("id", "deleted", "object"),
        id={"type": "string"},
        deleted={"type": "boolean"},
        object={"const": "video.deleted"},
    ),
    "character": _object(
        ("id", "created_at"),
        id={"type": "string"},
        name={"type": "string"},
        created_at={"type": "integer"},
        object={"type": "string"},
    ),
}


def takes(schema: Schema, form_only: bool = False) -> dict[str, Any]:
    """The body of a request that may be JSON or a form; in a form, what names a file may be one. `form_only`: it is all
    about the file."""
    files = {name: _FILE for name in ("input_reference", "video") if name in schema["properties"]}
    form = schema | {"properties": schema["properties"] | files}
    kinds = {} if form_only else {"application/json": schema, "application/x-www-form-urlencoded": schema}
    content = {kind: {"schema": each} for kind, each in (kinds | {"multipart/form-data": form}).items()}
    return {"requestBody": {"required": True, "content": content}}


def answers(name: str) -> dict[int | str, dict[str, Any]]:
    """What a request is answered with when it goes well."""
    return {200: {"content": {"application/json": {"schema": _ANSWERS[name]}}}}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Error objects with these statuses."""
    told = {400: "what was sent cannot be used", 401: "nobody that is known", 403: "not allowed", 404: "not there",
            408: "not all of it came", 409: "not now", 413: "too large", 415: "a body of another kind",
            416: "past the end", 429: "too much at once: later", 503: "not for the moment"}  # fmt: skip
    later = {"headers": {"Retry-After": header("Seconds.")}}
    return {
        status: {"description": told[status], "content": {"application/json": {"schema": ERROR}}}
        | (later if status in (429, 503) else {})
        for status in statuses
    }


def header(about: str) -> Schema:
    """What an answer's header says."""
    return {"description": about, "schema": {"type": "string"}}


POLLED = {
    200: answers("video")[200] | {"headers": {"openai-poll-after-ms": header("When to ask again, unless finished.")}}
}
_BYTES = {kind: {"schema": _FILE} for kind in ("video/mp4", "image/png", "image/webp", "image/jpeg")}
_KEPT = {"Accept-Ranges": header("bytes"), "ETag": header("Changes when the file does.")}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "the whole file", "content": _BYTES, "headers": _KEPT},
    206: {
        "description": "the part that Range asks for",
        "content": _BYTES,
        "headers": _KEPT | {"Content-Range": header("bytes FIRST-LAST/ALL")},
    },
    304: {"description": "the file is still the one of If-None-Match", "headers": _KEPT},
} | failures(404, 409, 416)
PARTS: dict[str, Any] = {
    "parameters": [
        {"name": name, "in": "header", "required": False, **header(about)}
        for name, about in (
            ("Range", "One part, bytes=FIRST-LAST; several, and other units, are answered with the whole file."),
            ("If-Range", "An ETag: the part only if the file is still that one, else the whole."),
            ("If-None-Match", "An ETag: nothing if the file is still that one."),
        )
    ]
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
} | failures(404)
METRICS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
