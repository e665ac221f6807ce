"""A worker: takes videos from the queue and makes them, says that it is alive, and takes over what dead ones have
left."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig

from yozora import __version__
from yozora.create.generator import YozoraWarning
from yozora.serve.context import APPLICATION, FORMAT, QUEUE, WEBHOOKS, Service
from yozora.serve.database import persist
from yozora.serve.housekeeping import sweep
from yozora.serve.jobs import MAKE
from yozora.serve.metrics import gpu_bytes
from yozora.serve.pool import Models
from yozora.serve.runs import hand_back
from yozora.serve.tables import WorkerRow
from yozora.serve.webhooks import AT_ONCE, AT_ONCE_EACH, DELIVER, attempt
from yozora.serve.workflow import make_video

__all__ = ["Worker"]

BEHIND = 5  # how much nicer than the rest of a process its sampling is, where it answers requests, too
GRACE = 30.0  # seconds that a running sampling step may take to be given back
_log = logging.getLogger(__name__)


class Worker:
    """One a process (DBOS is). `start` returns at once; `stop` hands running jobs back to the others."""

    def __init__(self, service: Service, models: Models | None = None, behind: bool = False) -> None:
        """`behind`: this process answers requests, too, and these come first."""
        settings = service.settings
        self.service, self.settings = service, settings
        self.host, self.pid = _where(), os.getpid()
        self.id = f"{socket.gethostname()[:100]}-{self.pid}-{secrets.token_hex(4)}"
        self.models = models or Models(settings.device, int(settings.memory_gb * 2**30))
        self.scratch = settings.scratch / self.id
        self._behind = behind
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._count = threading.Lock()

    def start(self) -> None:
        """Loads the default model, then takes jobs. Raises ModelError, ConfigError."""
        warnings.filterwarnings("ignore", category=YozoraWarning)  # clients are told otherwise
        self.models.rewriter(self.settings.model, self.settings.rewriter, None)  # what is wrong with it is said now
        self.models.get(self.settings.model)
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.beat()
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": self.service.database.url,
            "application_version": FORMAT,
            "executor_id": self.id,
            "log_level": "WARNING",
            "console_log_level": "WARNING",
            "scheduler_polling_interval_sec": 3600.0,
            "run_migrations": False,
        }
        DBOS(config=config)
        DBOS.workflow(name=MAKE)(lambda job_id: self._make(job_id))  # DBOS takes functions, not methods
        DBOS.workflow(name=DELIVER)(lambda name: self._deliver(name))
        DBOS.listen_queues([QUEUE, WEBHOOKS])
        DBOS.launch()
        poll = self.settings.poll_seconds
        DBOS.register_queue(
            QUEUE, worker_concurrency=self.settings.slots, polling_interval_sec=poll, on_conflict="always_update"
        )
        DBOS.register_queue(
            WEBHOOKS,
            worker_concurrency=AT_ONCE,
            partition_worker_concurrency=AT_ONCE_EACH,
            polling_interval_sec=poll,
            on_conflict="always_update",
        )
        for work, pause in ((self._alive, self.settings.heartbeat_seconds), (self._tidy, self.settings.sweep_seconds)):
            thread = threading.Thread(target=self._every, args=(work, pause), name=work.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)
        _log.info("worker started", extra={"worker": self.id, "device": str(self.models.device)})

    def stop(self) -> None:
        """Takes no more, stops what runs within a sampling step, and leaves it to the others; waits for what receivers
        of webhooks are being told."""
        self._stop.set()
        for thread in self._threads:
            thread.join(self.settings.heartbeat_seconds + 5)
        end = time.monotonic() + GRACE
        while self._running and time.monotonic() < end:
            time.sleep(0.02)
        DBOS.destroy(destroy_registry=True)
        with self.service.database.writing() as session:  # now anybody may take over what was ours
            session.execute(sa.update(WorkerRow).where(WorkerRow.id == self.id).values(seen_at=0.0))
            hand_back(session, self.id)
        shutil.rmtree(self.scratch, ignore_errors=True)
        _log.info("worker stopped", extra={"worker": self.id})

    @property
    def is_alive(self) -> bool:
        """Whether its threads run."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    # ---- workflows ---------------------------------------------------------------------------------------------------

    def _make(self, job_id: str) -> None:
        with self._counted():
            if self._behind:
                _step_back()
            make_video(self.service, self.models, self.id, self._stop.is_set, job_id)

    def _deliver(self, name: str) -> None:
        with self._counted():
            if not self._stop.is_set():  # else its turn comes to nothing, and is given again
                attempt(self.service, name)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._count:
            self._running += 1
        try:
            yield
        finally:
            with self._count:
                self._running -= 1

    # ---- staying alive -----------------------------------------------------------------------------------------------

    def _every(self, work, pause: float) -> None:  # type: ignore[no-untyped-def]
        """Does some work again and again; whatever goes wrong with it once, goes well another time."""
        while not self._stop.wait(pause):
            try:
                work()
            except Exception:
                _log.exception("%s failed", work.__name__.strip("_"))

    def _alive(self) -> None:
        self.beat()
        self.adopt()

    def _tidy(self) -> None:
        sweep(self.service)

    def beat(self) -> None:
        """Says that this worker is alive."""

        def note() -> None:
            now, held = self.service.database.now, gpu_bytes(self.models.device)
            with self.service.database.writing() as session:
                known = sa.update(WorkerRow).where(WorkerRow.id == self.id)
                updated = session.execute(known.values(seen_at=now, models=self.models.names, gpu_bytes=held))
                if updated.rowcount == 0:  # type: ignore[attr-defined]
                    session.add(
                        WorkerRow(
                            id=self.id,
                            host=self.host,
                            pid=self.pid,
                            device=str(self.models.device),
                            version=__version__,
                            models=self.models.names,
                            gpu_bytes=held,
                            started_at=time.time(),
                            seen_at=session.scalar(sa.select(now)) or 0.0,
                        )
                    )

        persist(note)

    def adopt(self) -> None:
        """Puts the jobs of workers that are dead back into the queue, in their old places."""
        for dead in self._dead():
            # only jobs that are still the dead one's: two adopters do no harm
            DBOS._recover_pending_workflows([dead])
            with self.service.database.writing() as session:
                session.execute(sa.delete(WorkerRow).where(WorkerRow.id == dead))
            shutil.rmtree(self.settings.scratch / dead, ignore_errors=True)
            _log.warning("jobs of a dead worker taken over", extra={"worker": dead})

    def _dead(self) -> list[str]:
        """Those whose heartbeat stopped long ago, and those that ran where we do and whose process is gone."""
        with self.service.database.reading() as session:
            silent = self.service.database.now - WorkerRow.seen_at > self.settings.dead_seconds
            rows = session.execute(sa.select(WorkerRow.id, WorkerRow.host, WorkerRow.pid, silent)).all()
        return [
            row.id
            for row in rows
            if row.id != self.id and (row[3] or (row.host == self.host and not _exists(row.pid, self.pid)))
        ]


def _step_back() -> None:
    """This thread, and those that it starts to compute with, get a core after the others of this process. Linux knows
    such threads; elsewhere nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, os.getpid())  # the first thread's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, nice + BEHIND))


def _where() -> str:
    """Where numbers of processes mean the same as here: the host's name and, on Linux, since several containers or
    machines may have one name, this start of the machine and the namespace of its processes."""
    name = socket.gethostname()[:60]
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{name} {boot} {os.readlink('/proc/self/ns/pid')}"
    return name


def _exists(pid: int, own: int) -> bool:
    """Whether a process of this place is there; one with our own number was before us."""
    if pid == own:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
