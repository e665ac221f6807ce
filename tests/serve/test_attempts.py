"""Guessing passwords is slow."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from yozora.serve import attempts
from yozora.serve.accounts import create_account
from yozora.serve.attempts import ACCOUNT, ADDRESS, BOTH, SIGN_UPS, count_sign_in, count_sign_up, forget_sign_in
from yozora.serve.context import Service
from yozora.serve.errors import ApiError


def refused(service: Service, email: str, address: str) -> bool:
    try:
        count_sign_in(service.database, email, address)
    except ApiError as error:
        assert error.status == 429 and 1 <= int(error.headers["Retry-After"]) <= 60
        return True
    return False


def test_one_address_guesses_one_password_so_often(shared: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    told = [refused(shared, "a@example.org", "192.0.2.1") for _ in range(BOTH + 3)]
    assert told == [False] * BOTH + [True] * 3
    assert refused(shared, " A@Example.org", "::ffff:192.0.2.1")  # the same two
    assert not refused(shared, "a@example.org", "192.0.2.2")
    assert not refused(shared, "b@example.org", "192.0.2.1")
    monkeypatch.setattr(attempts, "MINUTES", 0)  # as after a while
    assert not refused(shared, "a@example.org", "192.0.2.1")


def test_one_address_guesses_many_and_many_guess_one(shared: Service) -> None:
    told = [refused(shared, f"{n}@example.org", f"2001:db8::{n:x}") for n in range(ADDRESS + 1)]
    assert told == [False] * ADDRESS + [True]
    assert not refused(shared, "x@example.org", "2001:db8:1::1")
    told = [refused(shared, "y@example.org", f"198.51.100.{n}") for n in range(ACCOUNT + 1)]
    assert told == [False] * ACCOUNT + [True]


def test_a_right_password_is_no_guess(shared: Service) -> None:
    for _ in range(2 * ADDRESS):
        forget_sign_in(shared.database, count_sign_in(shared.database, "a@example.org", "192.0.2.1"))
    assert not refused(shared, "a@example.org", "192.0.2.1")


def test_accounts_are_not_made_by_the_hundred(shared: Service) -> None:
    for _ in range(SIGN_UPS):
        count_sign_up(shared.database, "192.0.2.1")
    with pytest.raises(ApiError):
        count_sign_up(shared.database, "192.0.2.1")
    count_sign_up(shared.database, "192.0.2.2")


def test_who_guesses_is_told_to_wait(web: TestClient, shared: Service) -> None:
    """Even where the next guess would be right."""
    create_account(shared.database, "a@example.org", "long enough", 1990)
    form = {"email": "a@example.org", "password": "wrong"}
    for _ in range(BOTH):
        count_sign_in(shared.database, "a@example.org", "testclient")
    right = web.post("/api/sign-in", json=form | {"password": "long enough"})
    assert (right.status_code, right.json()["error"]["type"]) == (429, "rate_limit_error")
    assert "yozora_session" not in web.cookies
