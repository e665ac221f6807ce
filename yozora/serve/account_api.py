"""Yozora's own API, third part: signing up and in, keys, the plan and what is left of it, webhooks."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from yozora.serve.access import COOKIE, Asking, KnownFirst, Serving
from yozora.serve.accounts import (
    LONGEST_PASSWORD,
    create_account,
    create_key,
    delete_key,
    list_keys,
    sign_in,
    sign_out,
)
from yozora.serve.attempts import count_sign_in, count_sign_up, forget_sign_in
from yozora.serve.bodies import Told
from yozora.serve.context import Service
from yozora.serve.errors import forbidden
from yozora.serve.plans import load_plans
from yozora.serve.schemas import failures
from yozora.serve.tables import Usage, Webhook
from yozora.serve.webhooks import add_webhook, delete_webhook, list_webhooks

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["Account"], route_class=KnownFirst)
Text = Annotated[str, Field(max_length=254)]
Password = Annotated[str, Field(max_length=LONGEST_PASSWORD)]


class SignUp(Told):
    """Who wants an account."""

    model_config = ConfigDict(extra="forbid")
    email: Text
    password: Password
    birth_year: int = Field(ge=1000, le=9999)


class SignInForm(Told):
    """Who has one."""

    model_config = ConfigDict(extra="forbid")
    email: Text
    password: Password


class KeyName(Told):
    """What a key is for."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(max_length=100)] = ""


class WebhookUrl(Told):
    """Where events go."""

    model_config = ConfigDict(extra="forbid")
    url: Annotated[str, Field(max_length=2000)]


@router.post("/sign-up", status_code=201, responses=failures(403, 409, 429))
def sign_up(new: SignUp, request: Request, response: Response, service: Serving) -> dict[str, Any]:
    """A new account, signed in; for adults."""
    _needs_accounts(service)
    count_sign_up(service.database, _address(request))
    user = create_account(service.database, new.email, new.password, new.birth_year)
    _remember(service, request, response, new.email, new.password)
    return {"id": user.id, "email": user.email, "plan": user.plan.name, "role": user.role}


@router.post("/sign-in", responses=failures(401, 403, 429))
def signing_in(form: SignInForm, request: Request, response: Response, service: Serving) -> dict[str, Any]:
    """A cookie for this browser."""
    _needs_accounts(service)
    attempt = count_sign_in(service.database, form.email, _address(request))
    _remember(service, request, response, form.email, form.password)
    forget_sign_in(service.database, attempt)
    return {"ok": True}


@router.post("/sign-out", status_code=204)
def signing_out(request: Request, response: Response, service: Serving) -> None:
    """This browser is forgotten."""
    if token := request.cookies.get(COOKIE):
        sign_out(service.database, token)
        service.known.forget()
    response.delete_cookie(COOKIE)


@router.get("/account")
def account(service: Serving, user: Asking) -> dict[str, Any]:
    """Who one is, the plan, and what was used of it this month."""
    month = datetime.datetime.now(datetime.UTC).strftime("%Y-%m")
    with service.database.reading() as session:
        used = session.get(Usage, (user.id, month))
    return {
        "id": user.id,
        "email": user.email,
        "role": user.role,
        "plan": user.plan.model_dump(),
        "seconds_used": used.seconds if used else 0.0,
        "single_user": not service.settings.accounts,
    }


@router.get("/plans")
def plans() -> dict[str, Any]:
    """What each plan allows."""
    return {"plans": [plan.model_dump() for plan in load_plans().values()]}


@router.get("/keys")
def keys(service: Serving, user: Asking) -> dict[str, Any]:
    """One's API keys, of which only the ends are known."""
    rows = list_keys(service.database, user.id)
    return {"keys": [{"id": row.id, "name": row.name, "ends": row.hint, "created_at": row.created_at} for row in rows]}


@router.post("/keys", status_code=201)
def add_key(new: KeyName, service: Serving, user: Asking) -> dict[str, Any]:
    """A new key. It is shown this once."""
    key, row = create_key(service.database, user.id, new.name)
    return {"id": row.id, "name": row.name, "key": key}


@router.delete("/keys/{key_id}", status_code=204, responses=failures(404))
def remove_key(key_id: str, service: Serving, user: Asking) -> None:
    """The key opens nothing any more."""
    delete_key(service.database, user.id, key_id)
    service.known.forget()


@router.get("/webhooks")
def webhooks(service: Serving, user: Asking) -> dict[str, Any]:
    """One's webhooks."""
    return {"webhooks": [webhook_object(row) for row in list_webhooks(service, user)]}


@router.post("/webhooks", status_code=201)
def new_webhook(new: WebhookUrl, service: Serving, user: Asking) -> dict[str, Any]:
    """An address that is told of every video that is completed or has failed. The secret is shown this once."""
    row = add_webhook(service, user, new.url)
    return webhook_object(row) | {"secret": row.secret}


@router.delete("/webhooks/{webhook_id}", status_code=204, responses=failures(404))
def remove_webhook(webhook_id: str, service: Serving, user: Asking) -> None:
    """It is told nothing any more."""
    delete_webhook(service, user, webhook_id)


def webhook_object(row: Webhook) -> dict[str, Any]:
    """A webhook as this API tells it."""
    return {"id": row.id, "url": row.url, "created_at": row.created_at}


def _needs_accounts(service: Service) -> None:
    if not service.settings.accounts:
        raise forbidden("this service has one user: start it with --accounts for more")


def _address(request: Request) -> str:
    """Where a request comes from; behind a proxy that is trusted, what that says."""
    return request.client.host if request.client else ""


def _remember(service: Service, request: Request, response: Response, email: str, password: str) -> None:
    days = service.settings.session_days
    token = sign_in(service.database, email, password, days)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, token, max_age=int(86400 * days), httponly=True, samesite="lax", secure=secure)
