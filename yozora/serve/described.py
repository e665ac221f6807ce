"""The OpenAPI description of both APIs: what a route's own declaration says, and what all routes of its kind do.

FastAPI knows what a route takes and gives. How requests fail is ours: whatever cannot be used is 400, never 422; who is
not known is found out before a body is looked at; a body may be too large, of another kind, or end too early.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from yozora.serve.access import COOKIE, KnownFirst, asks, asks_for_role
from yozora.serve.schemas import failures, header

__all__ = ["describe"]

SIGNED: dict[str, Any] = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key: yz-…"},
    "browser": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "As POST /api/sign-in gives it."},
}
REQUEST_ID = "x-request-id"
_REFERENCE = {"$ref": f"#/components/headers/{REQUEST_ID}"}


def describe(app: FastAPI, routers: Sequence[APIRouter], accounts: bool) -> dict[str, Any]:
    """The description of an application that has these routers. `accounts`: whether keys and sessions are asked for."""
    told = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for route in chain.from_iterable(router.routes for router in routers):
        if not isinstance(route, APIRoute) or not route.include_in_schema:
            continue
        for method in route.methods or ():
            operation = told["paths"][route.path_format][method.lower()]
            operation["responses"].pop("422", None)
            if isinstance(route, KnownFirst):
                _complete(operation, route, method, accounts)
            operation["responses"] = {
                status: answer | {"headers": answer.get("headers", {}) | {REQUEST_ID: _REFERENCE}}
                for status, answer in operation["responses"].items()
            }
    schemas = told.get("components", {}).get("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    told.setdefault("components", {})["headers"] = {REQUEST_ID: header("Names this request, as it is in the logs.")}
    if accounts:
        told["components"]["securitySchemes"] = SIGNED
    return told


def _complete(operation: dict[str, Any], route: KnownFirst, method: str, accounts: bool) -> None:
    """Adds how a request may fail that its route does not say by itself."""
    statuses = [503] if route.dependant.dependencies else []
    if "requestBody" in operation:
        statuses += [400, 408, 413, 415]
    if operation.get("parameters"):
        statuses.append(400)
    if asks(route.dependant):
        # of one's own pages alone: others may neither use a browser's cookie nor the single-user mode
        refused = not accounts or method != "GET" or asks_for_role(route.dependant)
        statuses += [*([401] if accounts else []), *([403] if refused else [])]
        if accounts:
            operation["security"] = [{name: []} for name in SIGNED]
    own = operation["responses"]
    own |= {str(status): answer for status, answer in failures(*statuses).items() if str(status) not in own}
    operation["responses"] = dict(sorted(own.items()))
