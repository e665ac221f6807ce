"""A worker is killed between the end of a video and the webhook: it is told nevertheless, as the same event."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import sqlalchemy as sa

from yozora.serve import jobs
from yozora.serve.context import Service, open_service
from yozora.serve.orders import Order
from yozora.serve.settings import read_settings
from yozora.serve.tables import COMPLETED, FAILED, UNFINISHED, Delivery, Job
from yozora.serve.webhooks import add_webhook
from yozora.serve.worker import Worker

DIES = """
import os, signal
from yozora.serve import runs, steps, webhooks

def then_dies(act):
    def acts(*given):
        act(*given)
        os.kill(os.getpid(), signal.SIGKILL)
    return acts
"""
# when the first worker dies, and how often the receiver hears of it
WHEN = {
    "the row says completed, no step does": ("runs.Run.finish = then_dies(runs.Run.finish)", COMPLETED, 1),
    "nobody is to be told yet": ("steps.announce = then_dies(lambda *_: None)", COMPLETED, 1),
    "it was told, and that is not noted": ("webhooks.persist = then_dies(lambda *_: None)", COMPLETED, 2),
    "the row says failed, no step does": ("runs.Run.fail = then_dies(runs.Run.fail)", FAILED, 1),
}


@pytest.fixture
def service(tiny_model: Path, tmp_path: Path) -> Iterator[Service]:
    often = {"poll_seconds": 0.05, "heartbeat_seconds": 0.2, "dead_seconds": 2}
    opened = open_service(read_settings(data=tmp_path / "data", model=str(tiny_model), **often))
    yield opened
    opened.close()


@pytest.fixture
def heard() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The address of a receiver, and the id and type of every event that came."""
    events: list[tuple[str, str]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            events.append((self.headers["webhook-id"], body["type"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", events
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("when", WHEN)
def test_who_waits_for_a_video_hears_of_its_end(
    service: Service, heard: tuple[str, list[tuple[str, str]]], tmp_path: Path, when: str
) -> None:
    url, events = heard
    code, status, times = WHEN[when]
    add_webhook(service, service.local, url)
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=0.1, steps=1))[0].id
    if status == FAILED:  # of what it is to start from there is nothing
        broken = Order(way="animate", image=f"file_{'0' * 32}", seconds=0.1).model_dump(mode="json")
        with service.database.writing() as session:
            session.execute(sa.update(Job).values(order=broken))
    arguments = ["worker", "--data", str(service.settings.data), "--model", service.settings.model]
    first = processes.Process(arguments, tmp_path / "first.txt", {}, DIES + code)
    assert first.process.wait(processes.START) == -9, first.text
    with service.database.reading() as session:
        job = session.get(Job, name)
        assert job is not None and job.status == status and job.status not in UNFINISHED
    second = Worker(service)
    second.start()
    try:
        end = time.monotonic() + 60
        while not told(service):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        second.stop()
    wanted = (f"evt_{name.removeprefix('video_')}", f"video.{status}")
    assert events == [wanted] * times


def told(service: Service) -> bool:
    with service.database.reading() as session:
        return list(session.scalars(sa.select(Delivery.status))) == ["delivered"]
