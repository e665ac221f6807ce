"""Accounts: keys, of which only hashes are kept, sign-up and sign-in, roles; and the one user of the local mode."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from yozora.serve.database import Database
from yozora.serve.errors import ApiError, invalid, missing, unauthorized
from yozora.serve.plans import LOCAL, Plan, find_plan
from yozora.serve.tables import Account, ApiKey, SignIn, new_id

__all__ = [
    "ROLES",
    "User",
    "create_account",
    "create_key",
    "delete_key",
    "digest",
    "find_account",
    "list_keys",
    "local_user",
    "lock",
    "sign_in",
    "sign_out",
    "user_by_id",
    "user_of_key",
    "user_of_session",
]

ROLES = ("user", "reviewer", "admin")
ADULT = 18
PREFIX = "yz-"
LONGEST_PASSWORD = 1000
_SCRYPT = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26}
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,190}\.[^@\s.]{2,60}")


@dataclass(frozen=True)
class User:
    """Who asks: an account and its role and plan, as they were when the request came."""

    id: str
    role: str
    plan: Plan
    email: str | None = None

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    @property
    def is_reviewer(self) -> bool:
        return self.role in ("reviewer", "admin")


def local_user(database: Database) -> User:
    """The one user of the single-user mode, made when first asked for."""
    with database.writing() as session:
        account = session.scalar(sa.select(Account).where(Account.plan == LOCAL, Account.email.is_(None)).limit(1))
        if account is None:
            account = Account(id=new_id("acct"), role="admin", plan=LOCAL, created_at=time.time())
            session.add(account)
        return _user(account)


def create_account(
    database: Database, email: str, password: str | None, birth_year: int, role: str = "user", plan: str = "free"
) -> User:
    """A new account. Raises ApiError for somebody who may be under 18, an address that is none or taken, a password
    that is too short. Without a password there are only keys."""
    email = email.strip().lower()
    if len(email) > 254 or not _EMAIL.fullmatch(email):
        raise invalid("that is no e-mail address", "email")
    if password is not None and not 8 <= len(password) <= LONGEST_PASSWORD:
        raise invalid(f"a password has 8 to {LONGEST_PASSWORD} characters", "password")
    year = datetime.datetime.now(datetime.UTC).year
    if not year - 130 <= birth_year <= year:
        raise invalid("that is no year of birth", "birth_year")
    if year - birth_year <= ADULT:  # who turns 18 this year may not have done so yet
        raise ApiError(403, "accounts are for those who are 18 or older all year", code="under_age", param="birth_year")
    if role not in ROLES:
        raise invalid(f"there is no role {role[:40]!r}: use {', '.join(ROLES)}", "role")
    account = Account(
        id=new_id("acct"),
        email=email,
        password=None if password is None else hash_password(password),
        birth_year=birth_year,
        role=role,
        plan=find_plan(plan).name,
        created_at=time.time(),
    )
    try:
        with database.writing() as session:
            session.add(account)
    except IntegrityError:
        raise ApiError(409, "this address has an account: sign in", code="email_taken", param="email") from None
    return _user(account)


def find_account(database: Database, email: str) -> User | None:
    """The account of an address, where there is one."""
    with database.reading() as session:
        account = session.scalar(sa.select(Account).where(Account.email == email.strip().lower()))
        return None if account is None else _user(account)


# ---- keys ------------------------------------------------------------------------------------------------------------


def create_key(database: Database, account_id: str, name: str = "") -> tuple[str, ApiKey]:
    """A new key in clear text, which is seen only now, and what is kept of it."""
    key = PREFIX + secrets.token_urlsafe(32)
    row = ApiKey(
        id=new_id("key"),
        account_id=account_id,
        name=name.strip()[:100],
        hash=digest(key),
        hint=key[-4:],
        created_at=time.time(),
    )
    with database.writing() as session:
        session.add(row)
    return key, row


def list_keys(database: Database, account_id: str) -> list[ApiKey]:
    """The account's keys, oldest first."""
    with database.reading() as session:
        found = sa.select(ApiKey).where(ApiKey.account_id == account_id).order_by(ApiKey.created_at)
        return list(session.scalars(found))


def delete_key(database: Database, account_id: str, key_id: str) -> None:
    """The key is known no more. Raises ApiError where there is none."""
    with database.writing() as session:
        gone = session.execute(sa.delete(ApiKey).where(ApiKey.id == key_id, ApiKey.account_id == account_id))
        if not gone.rowcount:  # type: ignore[attr-defined]
            raise missing("key", key_id)


def user_of_key(database: Database, key: str) -> User:
    """Whose key it is. Raises ApiError for one that is not known."""
    if not key.startswith(PREFIX) or len(key) > 200:
        raise unauthorized()
    with database.reading() as session:
        query = sa.select(Account).join(ApiKey, ApiKey.account_id == Account.id).where(ApiKey.hash == digest(key))
        account = session.scalar(query)
        if account is None or account.disabled:
            raise unauthorized()
        return _user(account)


# ---- sign-in ---------------------------------------------------------------------------------------------------------


def sign_in(database: Database, email: str, password: str, days: float) -> str:
    """A token for a browser. Raises ApiError, the same for a wrong address and a wrong password."""
    with database.reading() as session:
        account = session.scalar(sa.select(Account).where(Account.email == email.strip().lower()))
    # an unknown address takes as long as a known one
    kept = account.password if account is not None and account.password else _NOBODY
    right = check_password(password[:LONGEST_PASSWORD], kept)
    if account is None or not account.password or not right or account.disabled:
        raise unauthorized("address or password is wrong")
    token, now = secrets.token_urlsafe(32), time.time()
    with database.writing() as session:
        session.execute(sa.delete(SignIn).where(SignIn.expires_at < now))
        session.add(SignIn(hash=digest(token), account_id=account.id, created_at=now, expires_at=now + 86400 * days))
    return token


def user_of_session(database: Database, token: str) -> User:
    """Whose browser it is. Raises ApiError for a token that is not known, or no longer."""
    with database.reading() as session:
        query = sa.select(Account).join(SignIn, SignIn.account_id == Account.id)
        query = query.where(SignIn.hash == digest(token[:200]), SignIn.expires_at > time.time())
        account = session.scalar(query)
        if account is None or account.disabled:
            raise unauthorized("you are not signed in")
        return _user(account)


def sign_out(database: Database, token: str) -> None:
    """The token is known no more."""
    with database.writing() as session:
        session.execute(sa.delete(SignIn).where(SignIn.hash == digest(token)))


def user_by_id(session: Session, account_id: str) -> User:
    """The account as a user. Raises ApiError where there is none."""
    account = session.get(Account, account_id)
    if account is None:
        raise missing("account", account_id)
    return _user(account)


def hash_password(password: str) -> str:
    """ "scrypt$salt$hash" (RFC 7914)."""
    salt = secrets.token_bytes(16)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def check_password(password: str, kept: str) -> bool:
    """Whether it is the one that was hashed."""
    _, salt, expected = kept.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)), bytes.fromhex(expected))


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt, dklen=32, **_SCRYPT)  # type: ignore[arg-type]


def digest(token: str) -> str:
    """Tokens are 256 random bits, so a plain hash cannot be guessed from."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _user(account: Account) -> User:
    return User(account.id, account.role, find_plan(account.plan), account.email)


_NOBODY = "scrypt$" + "00" * 16 + "$" + "00" * 32


def lock(session: Session, account_id: str) -> None:
    """One transaction at a time counts and changes an account's jobs (on SQLite it is the only writer anyway)."""
    # only its numbers are in question, so that rows which refer to it may come meanwhile
    session.execute(sa.select(Account.id).where(Account.id == account_id).with_for_update(key_share=True))
