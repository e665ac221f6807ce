"""Which workers are taken for dead: those that are silent, and those that ran here and whose process is gone."""

from __future__ import annotations

import os
import time

import pytest
import sqlalchemy as sa

from yozora.serve import worker
from yozora.serve.context import Service
from yozora.serve.pool import Models
from yozora.serve.tables import WorkerRow
from yozora.serve.worker import Worker

GONE = 2**22 + 1  # a number that no process has


def note(service: Service, name: str, host: str, pid: int, ago: float = 0.0) -> None:
    now = time.time()
    about = {"version": "1", "models": [], "started_at": now, "device": "cpu", "gpu_bytes": None}
    with service.database.writing() as session:
        seen = session.scalar(sa.select(service.database.now)) or 0.0
        session.add(WorkerRow(id=name, host=host, pid=pid, seen_at=seen - ago, **about))


def test_who_is_dead(service: Service) -> None:
    own = Worker(service, Models("cpu"))
    note(service, "silent", "elsewhere", 1, ago=3600)
    note(service, "beating", "elsewhere", GONE)
    note(service, "gone", own.host, GONE)
    note(service, "before us", own.host, os.getpid())  # a container's processes have the same numbers again
    note(service, "alive", own.host, os.getppid())
    assert set(own._dead()) == {"silent", "gone", "before us"}


def test_a_machine_of_the_same_name_is_another_place(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers may share a host's name, and each numbers its processes from 1."""
    own = Worker(service, Models("cpu"))
    as_it_is = os.readlink
    monkeypatch.setattr(worker.os, "readlink", lambda path: "pid:[1]" if "ns/pid" in str(path) else as_it_is(path))
    other = Worker(service, Models("cpu"))
    assert other.host != own.host
    note(service, "theirs", other.host, GONE)
    assert own._dead() == [] and other._dead() == ["theirs"]
