"""Who asks: by an API key, by a signed-in browser, or, in the single-user mode, whoever sits at this machine."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from yozora.serve.accounts import User, user_of_key, user_of_session
from yozora.serve.bodies import check_is_json
from yozora.serve.context import Service
from yozora.serve.errors import ApiError, forbidden, unauthorized

__all__ = ["COOKIE", "Admin", "Asking", "KnownFirst", "Reviewer", "Serving", "asks", "asks_for_role"]

COOKIE = "yozora_session"
SAFE = ("GET", "HEAD", "OPTIONS")


async def serving(request: Request) -> Service:
    """The service that answers."""
    return request.app.state.service


async def asking(request: Request) -> User:
    """Who asks, found out once a request. Raises ApiError for nobody that is known."""
    user: User | None = getattr(request.state, "user", None)
    if user is None:
        user = request.state.user = await _find(request)
    return user


async def _find(request: Request) -> User:
    service: Service = request.app.state.service
    if not service.settings.accounts:
        _check_local(request, service)
        return service.local
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return await service.known.user(key.strip(), user_of_key, service.database)
    token = request.cookies.get(COOKIE)
    if not token:
        raise unauthorized("no API key was given: send it as Authorization: Bearer yz-…")
    if request.method not in SAFE:
        _check_origin(request, {request.headers.get("host", "")})
    return await service.known.user(token, user_of_session, service.database)


class KnownFirst(APIRoute):
    """A route that takes nothing of a body before it knows who sends it, where it wants to know, and holds no body in
    memory but JSON. (FastAPI reads bodies before it asks any dependency.)"""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with this before it."""
        handle = super().get_route_handler()
        wants, takes_json = asks(self.dependant), self.body_field is not None

        async def known_first(request: Request) -> Response:
            if wants:
                await asking(request)
            if takes_json:
                check_is_json(request)
            return await handle(request)

        return known_first


def asks(dependant: Dependant) -> bool:
    """Whether who asks is among what a route depends on."""
    return dependant.call is asking or any(asks(each) for each in dependant.dependencies)


def _check_local(request: Request, service: Service) -> None:
    """Only this machine may use the single-user mode: neither a page of somebody else's (its Origin tells), nor one
    whose name was made to mean this machine (its Host tells)."""
    host = request.headers.get("host", "")
    if _name(host) not in service.settings.allowed_hosts:
        raise forbidden(f"requests to {host[:80]!r} are refused: --hosts adds a name, --accounts lets others in")
    _check_origin(request, {name for name in (host, *service.settings.allowed_hosts) if name})


def _check_origin(request: Request, allowed: set[str]) -> None:
    origin = request.headers.get("origin")
    if origin is None:
        return
    host = urllib.parse.urlsplit(origin).netloc
    if host not in allowed and _name(host) not in allowed:
        raise forbidden(f"pages of {origin[:80]!r} may not use this service")


def _name(host: str) -> str:
    """The host without its port."""
    return host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host


async def _reviewer(user: Annotated[User, Depends(asking)]) -> User:
    if not user.is_reviewer:
        raise ApiError(403, "this is for reviewers", code="not_allowed")
    return user


async def _admin(user: Annotated[User, Depends(asking)]) -> User:
    if not user.is_admin:
        raise ApiError(403, "this is for administrators", code="not_allowed")
    return user


def asks_for_role(dependant: Dependant) -> bool:
    """Whether a route is for reviewers or administrators alone."""
    return any(each.call in (_reviewer, _admin) for each in dependant.dependencies)


Serving = Annotated[Service, Depends(serving)]
Asking = Annotated[User, Depends(asking)]
Reviewer = Annotated[User, Depends(_reviewer)]
Admin = Annotated[User, Depends(_admin)]
