"""The web application: both APIs, health, metrics, and what every answer has in common."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yozora import __version__
from yozora.errors import YozoraError
from yozora.serve import account_api, admin_api, create_api, health, library_api, videos_api
from yozora.serve.bodies import LimitBody
from yozora.serve.context import Service
from yozora.serve.database import is_outage
from yozora.serve.described import describe
from yozora.serve.errors import ApiError, error_object
from yozora.serve.line import Line
from yozora.serve.logs import REQUEST
from yozora.serve.looks import look_at_pages, look_at_videos
from yozora.serve.metrics import REQUEST_SECONDS, REQUESTS
from yozora.serve.storage import StorageError
from yozora.serve.together import Together

__all__ = ["answer_well", "create_app"]

ABOUT = "Video from text and pictures: `/v1` is OpenAI's Videos API, `/api` Yozora's own, with every way of creating."
CONFLICTS = (IntegrityError, StaleDataError)  # what a request needs went, or came, at the same moment
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_log = logging.getLogger(__name__)


def create_app(service: Service) -> FastAPI:
    """The application of a service; whoever opened that closes it."""
    app = FastAPI(title="Yozora", version=__version__, description=ABOUT, docs_url="/api/docs", redoc_url=None)
    app.state.service, app.state.worker = service, None
    app.state.videos = Together(partial(look_at_videos, service.database))
    app.state.line = Line(service.database)
    app.state.pages = Together(partial(look_at_pages, service.database))
    if not service.settings.accounts:
        _ = service.local  # known from the start: requests do not wait for it
    rooms = (videos_api, create_api, library_api, account_api, admin_api, health)
    routers = [room.router for room in rooms]
    for router in routers:
        app.include_router(router)
    app.openapi = lru_cache(maxsize=1)(partial(describe, app, routers, service.settings.accounts))
    answer_well(app, service.settings.max_upload)
    return app


def answer_well(app: FastAPI, most: int) -> None:
    """Whatever goes wrong is answered with an error object; bodies of more than `most` bytes are refused."""
    app.add_exception_handler(YozoraError, _told)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_middleware(LimitBody, most=most)
    app.add_middleware(Answer)


class Answer:
    """ASGI middleware, the outermost: gives every answer its id, counts and times it, and turns whatever was not
    foreseen into an error object, never a stack trace."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = f"req_{secrets.token_hex(12)}"
        token, since, status = REQUEST.set(name), time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", name.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            if b"%00" in scope.get("raw_path", b"") + b"?" + scope.get("query_string", b"") or "\0" in scope["path"]:
                raise ApiError(400, "the address has a NUL character in it", code="invalid_value")
            await self.app(scope, receive, answer)
        except ClientDisconnect:
            _log.info("a client went away")
        except asyncio.CancelledError:  # this process ends, and has waited for running requests as long as it may
            if status:  # what follows events ends here; a file of a length that was said is cut off
                with suppress(Exception):
                    await send({"type": "http.response.body"})
                return
            told = error_object(503, "the service is going down: try again", "unavailable")
            await JSONResponse(told, 503, {"Retry-After": "2"})(scope, receive, answer)
        except Exception as error:
            if not isinstance(error, (YozoraError, *CONFLICTS)) and not _is_outage(error):
                _log.exception("a request failed", extra={"path": scope["path"]})
            if status:
                raise  # the answer has begun: all that is left is to cut it off
            await _response(error)(scope, receive, answer)
        finally:
            self._note(scope, status, time.perf_counter() - since)
            REQUEST.reset(token)

    def _note(self, scope: Scope, status: int, spent: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in METHODS else "other"  # anybody may send any word
        REQUESTS.labels(method, route, str(status)).inc()
        REQUEST_SECONDS.labels(route).observe(spent)
        told = {"method": scope["method"], "route": route, "status": status, "seconds": round(spent, 4)}
        _log.debug("answered", extra=told)


def _response(error: BaseException) -> Response:
    """What an exception is to the client."""
    if isinstance(error, ApiError):
        return JSONResponse(error.body, error.status, error.headers)
    if isinstance(error, StorageError) or _is_outage(error):
        _log.error("not available", extra={"reason": str(error).splitlines()[0]})
        told = error_object(503, "the service is not available for the moment: try again", "unavailable")
        return JSONResponse(told, 503, {"Retry-After": "2"})
    if isinstance(error, CONFLICTS):
        _log.warning("a conflict", extra={"reason": str(error).splitlines()[0]})
        told = error_object(409, "something that this is about was changed at the same moment: try again", "conflict")
        return JSONResponse(told, 409)
    if isinstance(error, YozoraError):
        return JSONResponse(error_object(400, str(error), "invalid_value"), 400)
    return JSONResponse(error_object(500, "something went wrong on our side", "server_error"), 500)


async def _told(_request: Request, error: Exception) -> Response:
    return _response(error)


async def _not_valid(_request: Request, error: Exception) -> Response:
    """A parameter of the address or a header that FastAPI found wrong."""
    assert isinstance(error, RequestValidationError)
    first: Any = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"][1:])
    return JSONResponse(
        error_object(400, f"{name or 'the request'}: {first['msg']}", "invalid_value", name or None), 400
    )


async def _plain(_request: Request, error: Exception) -> Response:
    """What Starlette answers by itself: no such address, no such method, a form that is none."""
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_value")
    told = error_object(error.status_code, str(error.detail).lower(), code)
    return JSONResponse(told, error.status_code, error.headers)


def _is_outage(error: BaseException) -> bool:
    return isinstance(error, SQLAlchemyError) and is_outage(error)
