"""A PostgreSQL of its own for the tests: made in a temporary folder, reached through a free port, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_binaries() -> Path | None:
    """The folder of initdb and pg_ctl: of the PATH, or the newest where Debian keeps them."""
    on_path = shutil.which("pg_ctl")
    folders = [Path(on_path).parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A running server; `url` is that of its first database."""

    def __init__(self, binaries: Path, folder: Path, port: int) -> None:
        self.binaries, self.folder, self.port = binaries, folder, port
        self.url = f"postgresql://yozora@127.0.0.1:{port}/postgres"

    def control(self, *arguments: str) -> None:
        """Runs pg_ctl."""
        settings = f"-p {self.port} -h 127.0.0.1 -k '' -c fsync=off -c max_connections=200"
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.folder), "-w", "-l", f"{self.folder}/log", *arguments]
        _run([*command, "-o", settings] if "stop" not in arguments else command)

    def restart(self) -> None:
        """As after a crash: connections are cut."""
        self.control("stop", "-m", "immediate")
        self.control("start")

    def database(self, name: str) -> str:
        """A new, empty database's address."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        return self.url.removesuffix("postgres") + name


@contextmanager
def running(binaries: Path) -> Iterator[Server]:
    """A server for as long as the block lasts."""
    parent = Path(tempfile.mkdtemp(prefix="yozora-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(parent, "postgres")
        server = Server(binaries, parent / "data", free_port())
        initdb = [str(binaries / "initdb"), "-D", str(server.folder), "-U", "yozora", "-A", "trust", "-E", "UTF8", "-N"]
        _run(initdb)
        server.control("start")
        try:
            yield server
        finally:
            server.control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(parent, ignore_errors=True)


def _run(command: list[str]) -> None:
    """PostgreSQL refuses to run as root."""
    who = "postgres" if os.geteuid() == 0 else None
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, user=who, group=who)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
