"""Prometheus: what this process has counted, and what the shared database says when it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from yozora.serve.database import Database
from yozora.serve.jobs import LANES
from yozora.serve.tables import QUEUED, Job, WorkerRow

if TYPE_CHECKING:
    import torch

__all__ = [
    "PASS_VIDEOS",
    "REQUESTS",
    "REQUEST_SECONDS",
    "STAGE_SECONDS",
    "WAIT_SECONDS",
    "Shared",
    "gpu_bytes",
    "own",
    "rendered",
]

PROCESS = CollectorRegistry()
_SPANS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUESTS = Counter("yozora_requests", "Requests answered", ["method", "route", "status"], registry=PROCESS)
REQUEST_SECONDS = Histogram("yozora_request_seconds", "Time to an answer", ["route"], buckets=_SPANS, registry=PROCESS)
WAIT_SECONDS = Histogram(
    "yozora_wait_seconds",
    "Time a video waited for a worker",
    ["lane"],
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),
    registry=PROCESS,
)
STAGE_SECONDS = Histogram(
    "yozora_stage_seconds",
    "Time a step of a video took",
    ["step"],
    buckets=(0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800),
    registry=PROCESS,
)
PASS_VIDEOS = Histogram(
    "yozora_pass_videos",
    "Videos that were sampled together",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16, 32, 64),
    registry=PROCESS,
)


class Shared(Collector):
    """The queue and the workers, as the database knows them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def collect(self) -> Iterator[GaugeMetricFamily]:
        depth = GaugeMetricFamily("yozora_queue_depth", "Videos that wait", labels=["lane"])
        oldest = GaugeMetricFamily("yozora_queue_wait_seconds", "How long the oldest has waited", labels=["lane"])
        jobs = GaugeMetricFamily("yozora_jobs", "Videos by status", labels=["status"])
        with self.database.reading() as session:
            count, first = sa.func.count(), sa.func.min(Job.created_at)
            rows = session.execute(sa.select(Job.lane, count, first).where(Job.status == QUEUED).group_by(Job.lane))
            waiting = {lane: (number, since) for lane, number, since in rows}
            states = session.execute(sa.select(Job.status, count).group_by(Job.status)).all()
            recent = WorkerRow.seen_at > self.database.now - 30
            workers = session.execute(
                sa.select(WorkerRow.id, WorkerRow.device, WorkerRow.gpu_bytes).where(recent)
            ).all()
        now = time.time()
        for lane in LANES:
            number, since = waiting.get(lane, (0, now))
            depth.add_metric([lane], number)
            oldest.add_metric([lane], max(0.0, now - since))
        for status, number in states:
            jobs.add_metric([status], number)
        yield depth
        yield oldest
        yield jobs
        yield GaugeMetricFamily("yozora_workers", "Workers that are alive", value=len(workers))
        held = GaugeMetricFamily(
            "yozora_worker_gpu_memory_bytes", "GPU memory that a worker holds", labels=["worker", "device"]
        )
        for worker, device, size in workers:
            if size is not None:
                held.add_metric([worker, device], size)
        yield held


class _Memory(Collector):
    """What the GPUs that this process uses hold."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        import torch

        used = GaugeMetricFamily("yozora_gpu_memory_bytes", "GPU memory in use by this process", labels=["device"])
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            for number in range(torch.cuda.device_count()):
                used.add_metric([str(number)], torch.cuda.memory_allocated(number))
        yield used


PROCESS.register(_Memory())


def gpu_bytes(device: torch.device) -> int | None:
    """What this process holds of a GPU, with what PyTorch keeps for later; None of a CPU."""
    import torch

    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None


def own() -> bytes:
    """What this process has counted, in Prometheus's text format."""
    return generate_latest(PROCESS)


def rendered(database: Database) -> bytes:
    """What this process has counted and what the database knows."""
    shared = CollectorRegistry(auto_describe=False)
    shared.register(Shared(database))
    return own() + generate_latest(shared)
