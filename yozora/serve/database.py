"""The database: SQLite for one machine, PostgreSQL for many, behind one small class; tables are in `tables`.

Our tables and DBOS's are in one database, so that a job and the workflow that runs it come to be in one transaction.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from dbos import DBOS
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from yozora.errors import ConfigError

__all__ = ["Database", "is_outage", "persist"]

MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x796F7A6F7261  # "yozora": one process at a time changes tables
_PATIENCE = 10.0  # seconds after which who waits for that says so
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Database:
    """An engine, and sessions on it: `reading()` sees one state, `writing()` commits all or nothing; `looking()` is a
    plain connection."""

    def __init__(self, url: str, pool: int = 20) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        try:
            if self.is_sqlite:
                self.engine = sa.create_engine(url, pool_size=pool, max_overflow=pool, connect_args={"timeout": 30})
                event.listen(self.engine, "connect", _prepare_sqlite)
                event.listen(self.engine, "begin", _begin_sqlite)
            else:
                options = {"connect_timeout": 10, "application_name": "yozora"}
                self.engine = sa.create_engine(
                    url, pool_size=pool, max_overflow=pool, pool_pre_ping=True, connect_args=options
                )
        except (SQLAlchemyError, ValueError) as error:
            raise ConfigError(f"this database cannot be used: {str(error).splitlines()[0]}") from None
        # SQLite lets one writer in at a time; one that will write says so from the start, or two that have read wait
        # for one another for ever
        self._writer = self.engine.execution_options(yozora_writes=True)
        # on SQLite each statement is one by itself wherever we begin none; PostgreSQL's driver must be told
        looks: dict[str, Any] = {"yozora_looks": True} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        self._looker = self.engine.execution_options(**looks)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A session for looking only."""
        with Session(self.engine) as session:
            yield session

    def looking(self) -> sa.Connection:
        """A connection without transactions: each statement sees its own state, and costs one trip."""
        return self._looker.connect()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in a transaction, which is committed at the end of the block."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def migrate(self) -> None:
        """Brings our tables and those of DBOS up to date. Raises ConfigError where the database cannot be reached."""
        try:
            if self.is_sqlite:
                Path(str(self.engine.url.database)).parent.mkdir(parents=True, exist_ok=True)
            with self._alone():
                config = Config(stdout=io.StringIO())
                config.set_main_option("script_location", str(MIGRATIONS))
                with self._writer.connect() as connection:
                    config.attributes["connection"] = connection
                    command.upgrade(config, "head")
                    connection.commit()
                DBOS.migrate(self.url)
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise ConfigError(f"the database cannot be used: {reason}") from None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Several processes may be started at once."""
        if self.is_sqlite:
            yield
            return
        # outside of any transaction: DBOS builds indexes in a way that waits for all of them to end
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # asked again and again: whoever waits within a statement is in a transaction that those would wait for
            say = time.monotonic() + _PATIENCE
            while not connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATION_LOCK}):
                if time.monotonic() > say:
                    _log.warning("another process is preparing the database; waiting until it has ended")
                    say = math.inf
                time.sleep(0.2)
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _MIGRATION_LOCK})

    @property
    def now(self) -> sa.ColumnElement[float]:
        """The database's own clock, seconds since 1970: machines' clocks differ."""
        if self.is_sqlite:
            return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Float)
        return sa.literal_column("extract(epoch from clock_timestamp())::float8", sa.Float)

    def check(self) -> None:
        """Raises SQLAlchemyError where it does not answer."""
        with self.engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        """Lets go of every connection."""
        self.engine.dispose()


def is_outage(error: BaseException) -> bool:
    """Whether the database was not there, rather than the question wrong."""
    return isinstance(error, OperationalError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def persist(action: Callable[[], _T], seconds: float = 60.0) -> _T:
    """The action's value; where the database is away, tried again for so long. The action must be one transaction."""
    end, pause = time.monotonic() + seconds, 0.1
    while True:
        try:
            return action()
        except SQLAlchemyError as error:
            if not is_outage(error) or time.monotonic() > end:
                raise
            _log.warning("the database does not answer; trying again", extra={"reason": str(error).splitlines()[0]})
            time.sleep(pause)
            pause = min(2.0, 2 * pause)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we begin ourselves
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("yozora_looks"):
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("yozora_writes") else "BEGIN")
