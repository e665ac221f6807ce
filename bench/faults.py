"""What survives: videos are ordered, and meanwhile workers are killed at random moments, the database is restarted, and
the disk is full for a while.

    python bench/faults.py [--jobs 100] [--workers 2] [--slots 3] [--seed 0]

Each worker makes several videos at a time, those that are alike in one pass. At the end every video must be completed
or failed with a reason, none lost, none made twice, and no file there that belongs to none. The database is restarted
where PostgreSQL is installed, the disk filled where a small one can be mounted (Linux, root). Exits with 1, and says
why, where any of this does not hold or a fault did not happen.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from common import show_table, write_results
from sqlalchemy.exc import SQLAlchemyError

from yozora.serve import jobs
from yozora.serve.context import Service, open_service
from yozora.serve.housekeeping import orphans
from yozora.serve.orders import Order
from yozora.serve.settings import read_settings
from yozora.serve.tables import COMPLETED, FAILED, UNFINISHED, Job

# the tests' own ways to start a PostgreSQL, and the commands as processes
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "service"))
import postgres
import processes

DISK_MB = 24
FULL_SECONDS = 2.0
TOGETHER = "videos are sampled together"
MORE = {"YOZORA_DEAD_SECONDS": "3", "YOZORA_ATTEMPTS": "20"}


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A disk of DISK_MB at `folder`, where that can be had; whether it could."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    mounted = (
        os.geteuid() == 0 and shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0
    )
    try:
        yield bool(mounted)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


class Crew:
    """Workers as processes; a killed one is replaced."""

    def __init__(self, service: Service, folder: Path, count: int, slots: int) -> None:
        self.service, self.folder, self.started, self.slots = service, folder, 0, slots
        self.workers = [self.start() for _ in range(count)]

    def start(self) -> processes.Process:
        settings, self.started = self.service.settings, self.started + 1
        arguments = ["worker", "--data", str(settings.data), "--model", settings.model, "--storage", settings.storage]
        arguments += ["--slots", str(self.slots)]
        arguments += ["--database-url", settings.database_url] if settings.database_url else []
        return processes.Process(arguments, self.folder / f"worker-{self.started}.txt", MORE)

    def kill_one(self, chance: random.Random) -> None:
        number = chance.randrange(len(self.workers))
        self.workers[number].kill()
        self.workers[number] = self.start()
        self.workers[number].wait_for("yozora works")  # or none would ever come to work

    def end(self) -> None:
        for worker in self.workers:
            worker.end()


def run(
    options: argparse.Namespace, service: Service, server: postgres.Server | None, disk: Path | None, logs: Path
) -> Any:
    """Orders, breaks things, waits for the end, and counts."""
    chance, kills, done = random.Random(options.seed), 0, {"restarted": False, "filled": False}
    crew = Crew(service, logs, options.workers, options.slots)
    try:
        for number in range(options.jobs):
            order = Order(prompt=f"ball {number}", seconds=chance.choice((0.1, 1, 2)), steps=chance.choice((1, 4, 8)))
            jobs.create(service, service.local, order)
        for worker in crew.workers:
            worker.wait_for("yozora works")
        begun = time.monotonic()
        while (left := _left(service)) and time.monotonic() - begun < options.most_seconds:
            time.sleep(chance.uniform(0.2, options.pause))
            share = 1 - left / options.jobs
            if share > 0.3 and server is not None and not done["restarted"]:
                server.restart()
                service.database.engine.dispose()
                done["restarted"] = True
            elif share > 0.5 and disk is not None and not done["filled"]:
                _fill(disk)
                done["filled"] = True
            elif share < 0.8:
                crew.kill_one(chance)
                kills += 1
        took = time.monotonic() - begun
    finally:
        crew.end()
    counted = _counted(service, options.jobs)
    counted["twice"] += _completed_twice(logs)
    counted["shared_passes"] = sum(line.count(TOGETHER) for line in _lines(logs))
    return counted | done | {"killed": kills, "seconds": round(took, 1)}


def _completed_twice(logs: Path) -> int:
    """How many videos the workers' logs call completed more than once."""
    told = [re.search(r'"job_id": "(\w+)"', line) for line in _lines(logs) if '"a video is completed"' in line]
    return sum(count > 1 for count in collections.Counter(match[1] for match in told if match).values())


def _lines(logs: Path) -> list[str]:
    return [line for log in logs.glob("worker-*.txt") for line in log.read_text(errors="replace").splitlines()]


def _left(service: Service) -> int:
    try:
        with service.database.reading() as session:
            return session.scalar(sa.select(sa.func.count()).where(Job.status.in_(UNFINISHED))) or 0
    except SQLAlchemyError:  # it is being restarted
        return 1


def _fill(disk: Path) -> None:
    """Leaves no room for a while."""
    path = disk / "full"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as out:
        while True:
            out.write(b"\0" * 2**16)
    time.sleep(FULL_SECONDS)
    path.unlink()


def _counted(service: Service, ordered: int) -> dict[str, Any]:
    with service.database.reading() as session:
        rows = list(session.scalars(sa.select(Job)))
    states = collections.Counter(job.status for job in rows)
    kept = collections.Counter(key.split("/")[2] for key in service.storage.keys(f"{service.folder}/videos"))
    expected = {job.id: len(job.files) for job in rows if job.files}
    return {
        "completed": states[COMPLETED],
        "failed_with_a_reason": sum(job.status == FAILED and bool(job.error) for job in rows),
        "reasons": dict(collections.Counter(job.error_code for job in rows if job.status == FAILED)),
        "lost": ordered - states[COMPLETED] - states[FAILED],
        "without_all_files": sum(job.status == COMPLETED and len(job.files) != 3 for job in rows),
        "twice": sum(kept[name] > number for name, number in expected.items()),
        "files_missing": sum(kept[name] < number for name, number in expected.items()),
        "orphans": len(list(orphans(service, 0))),
        "taken_over": sum(job.attempt > 1 for job in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slots", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pause", type=float, default=12.0, help="the longest between two faults, in seconds")
    parser.add_argument("--most-seconds", type=float, default=3600.0)
    parser.add_argument("--model", default="mini")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in good order: the disk and the database go, too
    binaries = postgres.find_binaries()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        mounted = stack.enter_context(small_disk(root / "disk"))
        server = stack.enter_context(postgres.running(binaries)) if binaries else None
        url = server.database("faults") if server else f"sqlite:///{root / 'faults.db'}"
        settings = read_settings(
            data=root / "disk" / "data", database_url=url, storage=str(root / "disk" / "files"), model=options.model
        )
        service = open_service(settings)
        stack.callback(service.close)
        results = run(options, service, server, root / "disk" if mounted else None, root)
        show_table(
            f"{options.jobs} videos, {options.workers} workers", ["", ""], [[k, str(v)] for k, v in results.items()]
        )
    write_results("faults", vars(options) | results)
    wrong = [name for name in ("lost", "twice", "orphans", "files_missing", "without_all_files") if results[name]]
    if results["completed"] + results["failed_with_a_reason"] != options.jobs:
        wrong.append("failed without a reason")
    if not results["completed"]:
        wrong.append("none completed")
    faults = ("killed", "taken_over", "restarted", "filled", *(("shared_passes",) if options.slots > 1 else ()))
    wrong += [f"not {name}" for name in faults if not results[name]]
    sys.exit(f"missed: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
