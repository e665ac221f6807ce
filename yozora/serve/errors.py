"""Errors as clients see them: a status and OpenAI's error object, {"error": {message, type, param, code}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yozora.errors import YozoraError

__all__ = ["ApiError", "blocked", "forbidden", "invalid", "missing", "unauthorized", "wait"]

TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(YozoraError):
    """An answer that is no success: an HTTP status with a line for the user."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, dict(headers or {})
        if status == 409:  # which OpenAI's client tries again by itself, though it would be the same
            self.headers.setdefault("x-should-retry", "false")

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        return error_object(self.status, str(self), self.code, self.param)


def error_object(status: int, message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """{"error": …} for a status."""
    kind = "server_error" if status >= 500 else TYPES.get(status, "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    """400: something the request says cannot be used."""
    return ApiError(400, message, code=code, param=param)


def blocked(message: str) -> ApiError:
    """400: what is asked for is not allowed to be made."""
    return ApiError(400, message, code="moderation_blocked")


def unauthorized(message: str = "this key is not known: make one with `yozora keys create`, or sign in") -> ApiError:
    """401: nobody, or not with this key."""
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def forbidden(message: str) -> ApiError:
    """403: known, and not allowed."""
    return ApiError(403, message, code="not_allowed")


def missing(what: str, name: str) -> ApiError:
    """404: it is not there, or somebody else's, which must look the same."""
    return ApiError(404, f"there is no {what} {name[:80]!r}", code="not_found")


def wait(message: str, seconds: float, code: str = "rate_limit_exceeded") -> ApiError:
    """429: later."""
    return ApiError(429, message, code=code, headers={"Retry-After": str(max(1, min(60, round(seconds))))})
