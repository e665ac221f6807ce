"""How often somebody may try: guessing passwords and making accounts by the hundred is slow, whoever does it, from
wherever, on however many servers.

An attempt is a row, and counts before its password is looked at, so that many at the same moment are no way around.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time

import sqlalchemy as sa

from yozora.serve.database import Database
from yozora.serve.errors import wait
from yozora.serve.tables import Attempt, new_id

__all__ = ["MINUTES", "count_sign_in", "count_sign_up", "forget_sign_in"]

MINUTES = 15
BOTH, ACCOUNT, ADDRESS = 10, 100, 50  # failed sign-ins: to an account from an address, to it from all, from it to all
SIGN_UPS = 20  # from one address


def count_sign_in(database: Database, email: str, address: str) -> list[str]:
    """Counts an attempt to sign in, and gives its ids. Raises ApiError (429) for one too many."""
    account, network = hashlib.sha256(email.strip().lower().encode("utf-8", "replace")).hexdigest(), _network(address)
    limits = {f"sign-in {account} {network}": BOTH, f"sign-in {account}": ACCOUNT, f"sign-in from {network}": ADDRESS}
    return _count(database, limits)


def forget_sign_in(database: Database, attempt: list[str]) -> None:
    """The password was right: this attempt was none, and those before it, from there to this account, were slips."""
    with database.writing() as session:
        both = sa.select(Attempt.name).where(Attempt.id == attempt[0]).scalar_subquery()
        session.execute(sa.delete(Attempt).where(Attempt.name == both))
        session.execute(sa.delete(Attempt).where(Attempt.id.in_(attempt)))


def count_sign_up(database: Database, address: str) -> None:
    """Counts an attempt to make an account. Raises ApiError (429) for one too many."""
    _count(database, {f"sign-up from {_network(address)}": SIGN_UPS})


def _count(database: Database, limits: dict[str, int]) -> list[str]:
    """An attempt counts for each of these names, at most so often; the ids of its rows, in their order."""
    now = time.time()
    since = now - 60 * MINUTES
    ids = {name: new_id("try") for name in limits}
    with database.writing() as session:
        session.execute(sa.delete(Attempt).where(Attempt.at < since))
        session.add_all(Attempt(id=ids[name], name=name, at=now) for name in limits)
    with database.writing() as session:
        counted = sa.select(Attempt.name, sa.func.count(), sa.func.min(Attempt.at)).where(Attempt.name.in_(limits))
        rows = session.execute(counted.group_by(Attempt.name)).all()
        over = [first for name, number, first in rows if number > limits[name]]
        if over:  # one that is refused is no guess, and does not make the wait longer
            session.execute(sa.delete(Attempt).where(Attempt.id.in_(ids.values())))
    if over:
        raise wait(f"too many attempts: wait up to {MINUTES} minutes", max(over) - since)
    return list(ids.values())


def _network(address: str) -> str:
    """Where it comes from: an IPv4 address, or the network of an IPv6 one, of which everybody has very many."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address[:60]
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is None:
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(getattr(ip, "ipv4_mapped", None) or ip)
