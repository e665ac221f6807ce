"""Webhooks: `video.completed` and `video.failed`, signed by the Standard Webhooks scheme, tried again with growing
pauses.

A delivery is a row, each attempt at it a durable workflow of its own, so that none is lost and none waits in a thread.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
import urllib.parse
from typing import Any

import sqlalchemy as sa
from dbos import EnqueueOptions
from sqlalchemy.orm import Session

from yozora.serve.accounts import User, lock
from yozora.serve.calls import find_address, post
from yozora.serve.context import FORMAT, WEBHOOKS, Service
from yozora.serve.database import persist
from yozora.serve.errors import invalid, missing
from yozora.serve.tables import COMPLETED, FAILED, UNFINISHED, Delivery, Job, Webhook, new_id

__all__ = [
    "AT_ONCE",
    "AT_ONCE_EACH",
    "DELIVER",
    "ENDED",
    "add_webhook",
    "announce",
    "announce_in",
    "announce_late",
    "attempt",
    "delete_webhook",
    "list_webhooks",
    "revive",
    "sign",
]

DELIVER = "deliver_event"
TIMEOUT = 10.0  # seconds that a delivery may take in all
MOST = 10  # webhooks an account
LATE = 3600.0  # seconds after which nobody waits to be told of a video any more
BATCH = 500  # deliveries that are looked at together
ENDED = ("ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS")  # states of workflows that come to no more
WAITING = "waiting"  # a delivery that was not made yet
AT_ONCE = 16  # deliveries of a worker
AT_ONCE_EACH = 4  # of these for one account, so that those whose receivers are slow keep nobody else's waiting


def add_webhook(service: Service, user: User, url: str) -> Webhook:
    """A webhook with a new secret. Raises ApiError for an address that cannot be called."""
    _check_url(url, private=service.settings.webhook_private or not service.settings.accounts)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    webhook = Webhook(id=new_id("hook"), account_id=user.id, url=url, secret=secret, created_at=time.time())
    with service.database.writing() as session:
        lock(session, user.id)
        own = session.scalar(sa.select(sa.func.count()).where(Webhook.account_id == user.id)) or 0
        if own >= MOST:
            raise invalid(f"you have {own} webhooks already: remove one first")
        session.add(webhook)
    return webhook


def list_webhooks(service: Service, user: User) -> list[Webhook]:
    """Somebody's webhooks, oldest first."""
    with service.database.reading() as session:
        found = sa.select(Webhook).where(Webhook.account_id == user.id).order_by(Webhook.created_at)
        return list(session.scalars(found))


def delete_webhook(service: Service, user: User, webhook_id: str) -> None:
    """It is called no more. Raises ApiError where there is none."""
    with service.database.writing() as session:
        lock(session, user.id)  # whose videos tell it of their end
        webhook = session.get(Webhook, webhook_id)
        if webhook is None or webhook.account_id != user.id:
            raise missing("webhook", webhook_id)
        session.delete(webhook)


def announce(service: Service, job_id: str) -> None:
    """Tells every webhook of the account that a job is over; once, however often this is called."""
    with service.database.writing() as session:
        account_id = session.scalar(sa.select(Job.account_id).where(Job.id == job_id))
        if account_id is not None:
            lock(session, account_id)  # no webhook of it goes meanwhile
        job = session.get(Job, job_id)
        if job is not None and job.status not in UNFINISHED:
            announce_in(service, session, job)


def announce_in(service: Service, session: Session, job: Job) -> None:
    """The same in the caller's transaction. One that was cancelled has failed, for those who know OpenAI's events: it
    is what they see when they look, and else they would wait for ever."""
    event = {
        "id": f"evt_{job.id.removeprefix('video_')}",
        "object": "event",
        "created_at": int(job.finished_at or time.time()),
        "type": f"video.{COMPLETED if job.status == COMPLETED else FAILED}",
        "data": {"id": job.id},
    }
    for webhook in session.scalars(sa.select(Webhook).where(Webhook.account_id == job.account_id)):
        name = f"{event['id']}.{webhook.id}"
        if session.get(Delivery, name) is None:
            now = time.time()
            session.add(
                Delivery(id=name, webhook_id=webhook.id, event=event, status=WAITING, attempts=0, created_at=now)
            )
            session.flush()
            _enqueue(service, session, webhook.account_id, name, 1, 0)


def announce_late(service: Service, older_than: float = 60.0) -> None:
    """Tells of videos that are over of which their own workflow could not."""
    now = time.time()
    event = sa.func.replace(Job.id, "video_", "evt_", type_=sa.String)  # as in `announce_in`
    untold = sa.select(Job.id).join(Webhook, Webhook.account_id == Job.account_id).where(
        Job.status.notin_(UNFINISHED),
        Job.finished_at.between(now - LATE, now - older_than),
        Webhook.created_at < Job.finished_at,
        ~sa.exists().where(Delivery.id == event.concat(".").concat(Webhook.id)),
    )  # fmt: skip
    with service.database.reading() as session:
        names = list(session.scalars(untold.distinct().limit(BATCH)))
    for name in names:
        announce(service, name)


def attempt(service: Service, name: str) -> None:
    """One attempt, called `DELIVERY#NUMBER`, at a delivery; the next one is queued in its place if it fails."""
    delivery_id, _, number = name.rpartition("#")
    with service.database.reading() as session:
        delivery = session.get(Delivery, delivery_id)
        webhook = session.get(Webhook, delivery.webhook_id) if delivery else None
        if delivery is None or webhook is None or delivery.status != WAITING or delivery.attempts >= int(number):
            return
        account, url, secret, event = webhook.account_id, webhook.url, webhook.secret, delivery.event
    error = _post(service, url, secret, event)

    def note() -> None:
        with service.database.writing() as session:
            delivery = session.get(Delivery, delivery_id)
            if delivery is None:
                return
            delivery.attempts, delivery.error = int(number), error
            if error is None:
                delivery.status = "delivered"
            elif int(number) >= service.settings.webhook_attempts:
                delivery.status = "given_up"
            else:
                pause = service.settings.webhook_interval * 2 ** (int(number) - 1)
                _enqueue(service, session, account, delivery_id, int(number) + 1, pause)

    persist(note)


def revive(service: Service, older_than: float = 60.0) -> int:
    """Deliveries whose turn came to nothing (their worker lost the database for too long, or an older version had
    queued them as nobody calls them any more) are queued again; how many."""
    with service.database.reading() as session:
        since = time.time() - older_than
        open_ones = sa.select(Delivery, Webhook.account_id).join(Webhook, Webhook.id == Delivery.webhook_id)
        open_ones = open_ones.where(Delivery.status == WAITING, Delivery.created_at < since).limit(BATCH)
        turns = {f"{row.id}#{row.attempts + 1}": (row, account) for row, account in session.execute(open_ones)}
    if not turns:
        return 0
    states = service.queue.list_workflows(workflow_ids=list(turns), load_input=False, load_output=False)
    known = {each.workflow_id: each for each in states}
    revived = 0
    for turn, (row, account) in turns.items():
        state = known.get(turn)
        astray = state is not None and state.status in ("ENQUEUED", "DELAYED") and state.queue_partition_key is None
        if state is not None and state.status not in ENDED and not astray:
            continue
        if astray:
            service.queue.cancel_workflow(turn)
        with service.database.writing() as session:
            delivery = session.get(Delivery, row.id, with_for_update=True)
            if delivery is not None and (delivery.status, delivery.attempts) == (WAITING, row.attempts):
                delivery.attempts += state is not None  # that number is used
                _enqueue(service, session, account, row.id, delivery.attempts + 1, 0)
                revived += 1
    return revived


def sign(secret: str, name: str, moment: int, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks for a body that is sent at `moment`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = hmac.new(key, f"{name}.{moment}.".encode() + body, hashlib.sha256).digest()
    return {
        "webhook-id": name,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
    }


def _enqueue(service: Service, session: Session, account: str, delivery_id: str, number: int, pause: float) -> None:
    options: EnqueueOptions = {
        "workflow_name": DELIVER,
        "queue_name": WEBHOOKS,
        "queue_partition_key": account,
        "workflow_id": f"{delivery_id}#{number}",
        "app_version": FORMAT,
    }
    if pause:
        options["delay_seconds"] = pause
    service.queue.enqueue_in_transaction(session, options, f"{delivery_id}#{number}")


def _post(service: Service, url: str, secret: str, event: dict[str, Any]) -> str | None:
    """Sends an event; what went wrong, if anything did. Redirections are not followed."""
    body = json.dumps(event, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "yozora"}
    headers |= sign(secret, event["id"], int(time.time()), body)
    private = service.settings.webhook_private or not service.settings.accounts
    try:
        status = post(url, body, headers, private, TIMEOUT)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None if 200 <= status < 300 else f"answered {status}"


def _check_url(url: str, private: bool) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and len(url) <= 2000 and url.isascii()
        fine = fine and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise invalid("a webhook's address is http:// or https:// with a host", "url")
    try:
        find_address(parts, private, TIMEOUT)
    except (OSError, ValueError) as error:
        raise invalid(f"this webhook cannot be called: {error}", "url") from None
