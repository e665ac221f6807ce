"""The processes: `yozora serve`, with a worker in it or without, and `yozora worker`."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from yozora.errors import ConfigError
from yozora.serve import logs, tracing
from yozora.serve.app import create_app
from yozora.serve.context import Service, open_service
from yozora.serve.housekeeping import clear_scratch
from yozora.serve.metrics import PROCESS
from yozora.serve.pool import Models
from yozora.serve.protocol import Protocol
from yozora.serve.settings import Settings
from yozora.serve.team import Team, follow
from yozora.serve.worker import Worker
from yozora.train.mesh import Mesh

__all__ = ["run_server", "run_worker"]

DRAIN = 5  # seconds that running requests are given
_log = logging.getLogger(__name__)


def run_server(settings: Settings, log_level: str = "info") -> int:
    """Serves until it is told to end (SIGTERM, Ctrl-C), then hands running jobs back. The exit code. Raises
    ConfigError, ModelError where it cannot begin."""
    logs.set_up(log_level.upper())
    tracing.set_up()
    with _bound(settings) as listener, _service(settings) as service:
        app = create_app(service)
        worker = Worker(service, behind=True) if settings.workers else None
        try:
            if worker is not None:
                worker.start()
            app.state.worker = worker
            _serve(app, settings, listener)
        finally:
            if worker is not None:
                worker.stop()
    return 0


def run_worker(
    settings: Settings, metrics_port: int | None = None, log_level: str = "info", mesh: Mesh | None = None
) -> int:
    """Works until it is told to end, then hands running jobs back. The exit code. `mesh`: the processes that make each
    video together, of which the first is the worker (see `yozora.serve.team`). Raises ConfigError, ModelError."""
    if mesh is not None and settings.slots > 1:
        raise ConfigError("a worker of several processes makes one video at a time: leave --slots at 1")
    logs.set_up(log_level.upper())
    models = Models(settings.device, int(settings.memory_gb * 2**30), group=None if mesh is None else mesh.row)
    if mesh is not None and not mesh.first:
        follow(mesh, models, settings.model)
        return 0
    with ExitStack() as stack:
        if mesh is not None:
            models.team = Team(mesh)
            stack.callback(models.team.end)
        return _work(settings, metrics_port, models)


def _work(settings: Settings, metrics_port: int | None, models: Models) -> int:
    tracing.set_up()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with _service(settings) as service:
        worker = Worker(service, models)
        worker.start()
        try:
            if metrics_port is not None:
                start_http_server(metrics_port, registry=PROCESS)
            print("yozora works", flush=True)
            ended.wait()
        finally:
            worker.stop()
    return 0


def _serve(app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=DRAIN,
        timeout_keep_alive=30,
        server_header=False,
        forwarded_allow_ips=settings.proxies,
        h11_max_incomplete_event_size=2**16,
    )
    server = uvicorn.Server(config)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    listener.listen(config.backlog)  # who reads the next line may ask at once, and waits until somebody answers
    print(f"yozora serves http://{host}:{port} (API: /v1, /api/docs; data: {settings.data})", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn ends on both, and raises them once more afterwards
        signal.signal(number, lambda *_: None)
    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it again and again would halt all answers
    server.run(sockets=[listener])


@contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """The port, before anything else: a second server must not touch the first one's data."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # or asyncio sets no TCP_NODELAY
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen at {settings.host}:{settings.port}: {error.strerror or error}") from None
    with listener:
        yield listener


@contextmanager
def _service(settings: Settings) -> Iterator[Service]:
    service = open_service(settings)
    try:
        service.storage.check()
        clear_scratch(service)
        yield service
    finally:
        service.close()
        tracing.finish()
