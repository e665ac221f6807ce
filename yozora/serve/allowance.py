"""What an account's plan allows: how large and long a video may be, and how many seconds of a month are used."""

from __future__ import annotations

import datetime

from sqlalchemy.orm import Session

from yozora.serve.errors import ApiError, invalid
from yozora.serve.plans import Plan
from yozora.serve.tables import Usage

__all__ = ["charge", "check_plan", "this_month", "used", "used_up"]


def this_month() -> str:
    """As "2026-11", by UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m")


def check_plan(plan: Plan, width: int, height: int, seconds: float) -> None:
    """Raises ApiError for what the plan does not let be made."""
    if max(width, height) > plan.largest:
        raise invalid(f"{width}x{height} is larger than the plan {plan.name} allows: {plan.largest} pixels", "size")
    if seconds > plan.longest + 1:
        raise invalid(f"{seconds:.3g} s are longer than the plan {plan.name} allows: {plan.longest:g} s", "seconds")


def used_up(plan: Plan) -> ApiError:
    """429: not this month any more."""
    return ApiError(
        429,
        f"this month's {plan.monthly_seconds:g} s of the plan {plan.name} do not reach for it",
        code="insufficient_quota",
        headers={"x-should-retry": "false"},
    )


def used(session: Session, account_id: str, month: str | None = None) -> float:
    """Seconds that were asked for in a month, this one unless said otherwise."""
    row = session.get(Usage, (account_id, month or this_month()))
    return row.seconds if row else 0.0


def charge(session: Session, account_id: str, month: str, seconds: float) -> None:
    """So many seconds more, or fewer, in a month; in the caller's transaction, which holds the account."""
    row = session.get(Usage, (account_id, month))
    if row is None:
        session.add(Usage(account_id=account_id, month=month, seconds=max(0.0, seconds)))
    else:
        row.seconds = max(0.0, row.seconds + seconds)
