"""Answers with files: streamed from the storage a piece at a time, whole or in ranges (RFC 9110, 14)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Literal

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from yozora.serve.context import Service
from yozora.serve.errors import ApiError, missing
from yozora.serve.storage import FileGone, StorageError
from yozora.serve.tables import COMPLETED, Job

__all__ = ["Variant", "content"]

Variant = Literal["video", "thumbnail", "spritesheet"]
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def content(service: Service, request: Request, job: Job, variant: Variant) -> Response:
    """One of a video's files, or the part that is asked for. Raises ApiError where there is none (yet, or any more)."""
    if job.status != COMPLETED:
        headers = {"x-should-retry": "false"}
        raise ApiError(
            409, f"this video is {job.status}: there is nothing to download", code="video_not_ready", headers=headers
        )
    if variant not in job.files:
        raise missing(f"{variant} any more of the video", job.id)
    file = job.files[variant]
    size, etag = int(file["bytes"]), f'"{job.id}-{file["key"].rsplit("/", 1)[-1].split("-")[0]}"'
    ending = file["key"].rsplit(".", 1)[-1]
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'inline; filename="{job.id}.{ending}"',
        "X-Content-Type-Options": "nosniff",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    span = _span(asked, size)
    start, end = span or (0, size)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    body: Iterator[bytes] = iter(()) if request.method == "HEAD" else _opened(service, job, variant, start, end)
    return StreamingResponse(body, 206 if span is not None else 200, headers, media_type=str(file["type"]))


def _opened(service: Service, job: Job, variant: Variant, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file, of which the first are read now: once headers are sent, no error can be said. Raises
    ApiError."""
    pieces = service.storage.read(job.files[variant]["key"], start, end)
    try:
        first = next(pieces, b"")
    except FileGone:
        raise missing(f"{variant} any more of the video", job.id) from None
    except StorageError:
        message = "the files cannot be reached at the moment: try again"
        raise ApiError(503, message, code="storage_unavailable", headers={"Retry-After": "5"}) from None
    return chain((first,), pieces)


def _span(asked: str | None, size: int) -> tuple[int, int] | None:
    """start ≤ b < end of a Range header; None where all is asked for, or several parts, which may be answered with all.
    Raises ApiError for what is past the end."""
    match = _RANGE.fullmatch(asked.strip()) if asked else None
    if match is None or (not match[1] and not match[2]):
        return None
    if match[1]:
        start, end = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < int(match[1]):
            return None
    else:
        start, end = max(0, size - int(match[2])), size
    if start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise ApiError(416, f"the file has {size} bytes", code="range_not_satisfiable", headers=headers)
    return start, end
