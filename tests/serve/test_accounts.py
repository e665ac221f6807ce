from __future__ import annotations

import datetime

import pytest
import sqlalchemy as sa

from yozora.serve import accounts
from yozora.serve.context import Service
from yozora.serve.errors import ApiError
from yozora.serve.tables import Account, ApiKey, SignIn

YEAR = datetime.datetime.now(datetime.UTC).year


def test_a_key_is_kept_as_a_hash_only(shared: Service) -> None:
    user = accounts.create_account(shared.database, " One@Example.org ", "long enough", 1990)
    key, row = accounts.create_key(shared.database, user.id, "laptop")
    assert accounts.user_of_key(shared.database, key).email == "one@example.org"
    with shared.database.reading() as session:
        kept = session.scalar(sa.select(ApiKey))
        assert kept is not None and key not in (kept.hash, kept.hint) and key.endswith(kept.hint)
        password = session.scalar(sa.select(Account.password))
        assert password is not None and "long enough" not in password
    accounts.delete_key(shared.database, user.id, row.id)
    with pytest.raises(ApiError) as raised:
        accounts.user_of_key(shared.database, key)
    assert raised.value.status == 401


@pytest.mark.parametrize("age", [0, 10, 17, 18])
def test_who_may_be_under_18_is_refused(shared: Service, age: int) -> None:
    with pytest.raises(ApiError, match="18") as raised:
        accounts.create_account(shared.database, "young@example.org", "long enough", YEAR - age)
    assert (raised.value.status, raised.value.code) == (403, "under_age")
    accounts.create_account(shared.database, "old@example.org", "long enough", YEAR - 19)


@pytest.mark.parametrize(
    ("email", "password", "year"),
    [
        ("none", "long enough", 1990),
        ("a@b.org", "short", 1990),
        ("a@b.org", "long enough", 1800),
        ("a@b@c.org", "x" * 9, 1990),
    ],
)
def test_what_is_no_account(shared: Service, email: str, password: str, year: int) -> None:
    with pytest.raises(ApiError) as raised:
        accounts.create_account(shared.database, email, password, year)
    assert raised.value.status == 400


def test_an_address_has_one_account(shared: Service) -> None:
    accounts.create_account(shared.database, "one@example.org", None, 1990)
    with pytest.raises(ApiError) as raised:
        accounts.create_account(shared.database, "ONE@example.org", None, 1990)
    assert raised.value.status == 409


def test_signing_in_and_out(shared: Service) -> None:
    user = accounts.create_account(shared.database, "one@example.org", "long enough", 1990)
    token = accounts.sign_in(shared.database, "One@example.org", "long enough", 1)
    assert accounts.user_of_session(shared.database, token).id == user.id
    with shared.database.reading() as session:
        assert token not in list(session.scalars(sa.select(SignIn.hash)))
    accounts.sign_out(shared.database, token)
    for wrong in (lambda: accounts.user_of_session(shared.database, token),
                  lambda: accounts.sign_in(shared.database, "one@example.org", "wrong one", 1),
                  lambda: accounts.sign_in(shared.database, "two@example.org", "long enough", 1)):  # fmt: skip
        with pytest.raises(ApiError) as raised:
            wrong()
        assert raised.value.status == 401


def test_a_session_ends(shared: Service) -> None:
    accounts.create_account(shared.database, "one@example.org", "long enough", 1990)
    token = accounts.sign_in(shared.database, "one@example.org", "long enough", -1)
    with pytest.raises(ApiError):
        accounts.user_of_session(shared.database, token)


def test_a_disabled_account_is_out(shared: Service) -> None:
    user = accounts.create_account(shared.database, "one@example.org", "long enough", 1990)
    key, _ = accounts.create_key(shared.database, user.id)
    with shared.database.writing() as session:
        session.execute(sa.update(Account).values(disabled=True))
    for wrong in (lambda: accounts.user_of_key(shared.database, key),
                  lambda: accounts.sign_in(shared.database, "one@example.org", "long enough", 1)):  # fmt: skip
        with pytest.raises(ApiError):
            wrong()


def test_the_local_user_stays_the_same(service: Service) -> None:
    assert accounts.local_user(service.database) == accounts.local_user(service.database)
    assert service.local.is_admin and service.local.plan.name == "local"
