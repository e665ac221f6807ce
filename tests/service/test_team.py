"""A worker of two processes, started by torchrun: each video is made by both, and by others where they die."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import numpy as np
import processes
import pytest
import sqlalchemy as sa

import yozora
from yozora.clip import Clip
from yozora.create.canvas import Canvas, Cue
from yozora.create.events import Progress
from yozora.create.memory import NotEnoughMemory
from yozora.errors import CanvasError, ConfigError
from yozora.serve import jobs
from yozora.serve.context import Service, open_service
from yozora.serve.orders import Order
from yozora.serve.run import run_worker
from yozora.serve.settings import read_settings
from yozora.serve.tables import COMPLETED, FAILED, QUEUED, RUNNING, Job, WorkerRow
from yozora.serve.team import Team
from yozora.train.mesh import Mesh

ROOT = Path(__file__).parents[2]
LONG = {"prompt": "a red ball", "size": "64x64", "steps": 1000}


@pytest.fixture
def service(tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    opened = open_service(read_settings(data=tmp_path / "data", model=str(tiny_model)))
    yield opened
    opened.close()


@contextlib.contextmanager
def team(service: Service, log: Path, restarts: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Two processes that work for the service, for as long as the block lasts."""
    settings = service.settings
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "-m", "yozora", "worker"]
    command += ["--data", str(settings.data), "--model", settings.model, "--device", "cpu"]
    environment = {**os.environ, **processes.QUICK, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as out:
        running = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        wait_until(lambda: "yozora works" in log.read_text() or running.poll() is not None, log)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        running.terminate()
        try:
            running.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def wait_until(done: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + processes.START
    while not done():
        assert time.monotonic() < end, log.read_text()[-4000:]
        time.sleep(0.05)


def order(service: Service, **asked: object) -> str:
    return jobs.create(service, service.local, Order.model_validate(asked))[0].id


def look(service: Service, name: str) -> Job:
    with service.database.reading() as session:
        return jobs.find(session, service.local, name)


def begins(service: Service, name: str, log: Path) -> None:
    wait_until(lambda: look(service, name).stage == "generate" and look(service, name).progress > 0, log)


def test_both_make_what_one_makes_and_let_go_of_what_is_cancelled(
    service: Service, tiny_model: Path, tmp_path: Path
) -> None:
    log, asked = tmp_path / "log.txt", {"prompt": "a red ball", "size": "64x64", "seed": 3}
    with team(service, log):
        long = order(service, **LONG)
        begins(service, long, log)
        jobs.cancel(service, service.local, long)
        picture = order(service, way="image", **asked)
        wait_until(lambda: look(service, picture).status in (COMPLETED, FAILED), log)
        assert look(service, picture).status == COMPLETED, look(service, picture).error
        last = order(service, **LONG)
        begins(service, last, log)
    assert log.read_text().count("yozora works") == 1  # one speaks for both
    assert look(service, last).status in (QUEUED, RUNNING)  # given back
    with service.database.reading() as session:
        assert session.scalar(sa.select(sa.func.max(WorkerRow.seen_at))) == 0.0
    service.storage.fetch(str(look(service, picture).files["video"]["key"]), tmp_path / "made.png")
    made = Clip.read(tmp_path / "made.png").frames.astype(int)
    alone = yozora.load(tiny_model, "cpu").image("a red ball", size="64x64", seed=3).frames.astype(int)
    assert made.shape == alone.shape and np.abs(made - alone).max() <= 1


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux says whose children processes are")
def test_where_one_of_them_is_killed_both_begin_anew(service: Service, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with team(service, log, restarts=1) as running:
        video = order(service, **LONG | {"steps": 60})
        begins(service, video, log)
        with service.database.reading() as session:
            first = session.scalars(sa.select(WorkerRow.pid)).one()
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        others = [int(each) for each in children if int(each) != first]
        (second,) = [each for each in others if b"yozora" in Path(f"/proc/{each}/cmdline").read_bytes()]
        os.kill(second, signal.SIGKILL)
        wait_until(lambda: look(service, video).status in (COMPLETED, FAILED), log)
        assert look(service, video).status == COMPLETED, look(service, video).error
        assert log.read_text().count("yozora works") == 2


def test_one_video_at_a_time(service: Service) -> None:
    with pytest.raises(ConfigError, match="one video at a time"):
        run_worker(service.settings.model_copy(update={"slots": 2}), mesh=Mesh(size=2))


@pytest.mark.parametrize("lack", [NotEnoughMemory("not enough memory"), RuntimeError("a broken GPU")])
def test_what_one_alone_may_lack_ends_the_process(lack: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the others would wait for it in the middle of a step, where nothing can be cancelled."""

    def gone(code: int) -> None:
        raise SystemExit(code)

    def stream() -> Generator[Progress]:
        yield Progress("sample", 1, 2, 0.0)
        raise lack

    monkeypatch.setattr(os, "_exit", gone)
    leader = Team(Mesh())
    try:
        events = leader.lead("mini", [Canvas(64, 64, 1, 8.0, (Cue(0.0, "a"),))], [0], {}, stream())
        assert isinstance(next(events), Progress)
        with pytest.raises(SystemExit, match="1"):
            next(events)
    finally:
        leader.end()


def test_what_all_lack_is_said_of_the_video() -> None:
    def stream() -> Generator[Progress]:
        raise CanvasError("no such size")
        yield

    leader = Team(Mesh())
    try:
        with pytest.raises(CanvasError, match="no such size"):
            next(leader.lead("mini", [Canvas(64, 64, 1, 8.0, (Cue(0.0, "a"),))], [0], {}, stream()))
    finally:
        leader.end()
