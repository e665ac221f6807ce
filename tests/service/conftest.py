"""What the tests of the whole service share: both databases, and a server with accounts on each."""

from __future__ import annotations

from collections.abc import Iterator

import postgres
import processes
import pytest
from serving import Served, missing

from yozora.serve.accounts import create_account, create_key
from yozora.serve.database import Database
from yozora.serve.settings import read_settings


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    binaries = postgres.find_binaries()
    if binaries is None:
        missing("PostgreSQL")
    else:
        with postgres.running(binaries) as server:
            yield server


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a new database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('database') / 'yozora.db'}"
    return request.getfixturevalue("postgres_server").database("service")


@pytest.fixture(scope="session")
def served(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with accounts, the shipped model and a worker in it."""
    data = tmp_path_factory.mktemp("data")
    arguments = ["--accounts", "--port", "0", "--data", str(data), "--database-url", database_url]
    with processes.running("serve", *arguments, log=data / "log.txt", more={"YOZORA_MAX_UPLOAD_MB": "4"}) as process:
        database = Database(read_settings(data=data, database_url=database_url).url)
        users = [create_account(database, f"{name}@example.org", None, 1980, plan="pro") for name in ("one", "two")]
        key, other = (create_key(database, user.id)[0] for user in users)
        database.close()
        yield Served(processes.address(process), key, other, database_url, data, process)
    assert process.process.returncode == 0
