from __future__ import annotations

import base64
import contextlib
import socket
import threading
import time

import pytest
import sqlalchemy as sa

from yozora.serve import jobs, webhooks
from yozora.serve.accounts import create_account
from yozora.serve.context import Service
from yozora.serve.errors import ApiError
from yozora.serve.orders import Order
from yozora.serve.runs import begin
from yozora.serve.tables import Delivery
from yozora.serve.worker import Worker


def test_the_signature_of_the_specification() -> None:
    """The example that Standard Webhooks publishes."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = webhooks.sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org", "http://", "example.org", "http://[", "http://a b", "https://x.invalid/", "javascript:1"],
)
def test_what_is_no_address(service: Service, url: str) -> None:
    with pytest.raises(ApiError):
        webhooks.add_webhook(service, service.local, url)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "[::1]", "0.0.0.0", "localhost"]
)
def test_nobody_may_make_us_call_our_own_network(shared: Service, service: Service, host: str) -> None:
    user = create_account(shared.database, "one@example.org", None, 1990)
    with pytest.raises(ApiError, match="private"):
        webhooks.add_webhook(shared, user, f"http://{host}/x")
    webhooks.add_webhook(service, service.local, f"http://{host}/x")  # one's own machine, in the single-user mode


def test_an_event_is_announced_once(service: Service) -> None:
    hook = webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/x")
    assert len(base64.b64decode(hook.secret.removeprefix("whsec_"))) == 32
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    webhooks.announce(service, name)  # it is not over yet
    run = begin(service, name, "worker")
    assert run is not None and run.fail("server_error", "x")
    webhooks.announce(service, name)
    webhooks.announce(service, name)
    with service.database.reading() as session:
        (delivery,) = session.scalars(sa.select(Delivery)).all()
    assert delivery.event["type"] == "video.failed" and delivery.event["data"] == {"id": name}


def test_a_delivery_is_given_up_in_the_end(service: Service) -> None:
    webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/x")  # nobody listens there
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    run = begin(service, name, "worker")
    assert run is not None and run.finish({}, {})
    webhooks.announce(service, name)
    with service.database.reading() as session:
        delivery = session.scalars(sa.select(Delivery.id)).one()
    for number in range(1, service.settings.webhook_attempts + 2):
        webhooks.attempt(service, f"{delivery}#{number}")
    with service.database.reading() as session:
        row = session.get(Delivery, delivery)
        assert row is not None and (row.status, row.attempts) == ("given_up", service.settings.webhook_attempts)
        assert row.error is not None and "refused" in row.error


def test_one_accounts_receivers_do_not_hold_up_anothers(service: Service) -> None:
    """Six that never answer are called four at a time, and somebody else's in between."""
    came: dict[socket.socket, list[socket.socket]] = {}

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                came[listening].append(listening.accept()[0])

    def wait_for(listening: socket.socket, count: int) -> None:
        end = time.monotonic() + 20
        while len(came[listening]) < count:
            assert time.monotonic() < end, f"{len(came[listening])} calls came, not {count}"
            time.sleep(0.02)

    one, two = (create_account(service.database, f"{name}@example.org", None, 1990) for name in ("one", "two"))
    worker = Worker(service)
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as other:
        threads = [threading.Thread(target=accept, args=(each,)) for each in (silent, other)]
        for user, listening, count in ((one, silent, 6), (two, other, 1)):
            came[listening] = []
            for _ in range(count):
                webhooks.add_webhook(service, user, f"http://127.0.0.1:{listening.getsockname()[1]}/x")
            name = jobs.create(service, user, Order(prompt="a red ball", seconds=1))[0].id
            run = begin(service, name, "worker")
            assert run is not None and run.finish({}, {})
            webhooks.announce(service, name)
        try:
            for thread in threads:
                thread.start()
            worker.start()
            wait_for(other, 1)
            wait_for(silent, 4)
            time.sleep(4 * service.settings.poll_seconds)
            assert len(came[silent]) == webhooks.AT_ONCE_EACH == 4
            came[silent][0].close()
            wait_for(silent, 5)
        finally:
            for listening in (silent, other):
                listening.shutdown(socket.SHUT_RDWR)  # wakes up who accepts
            for thread in threads:
                thread.join()
            for listening in (silent, other):
                listening.close()
                for each in came[listening]:
                    each.close()
            worker.stop()


def told(service: Service) -> list[tuple[str, str, int]]:
    """Events of deliveries, how they stand, and attempts."""
    with service.database.reading() as session:
        rows = session.scalars(sa.select(Delivery).order_by(Delivery.created_at))
        return [(row.event["type"], row.status, row.attempts) for row in rows]


def test_a_video_that_is_cancelled_has_failed_and_one_that_is_deleted_is_gone(service: Service) -> None:
    webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/x")
    waits, gone = (jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id for _ in range(2))
    jobs.cancel(service, service.local, waits)
    jobs.delete(service, service.local, gone)
    webhooks.announce(service, waits)  # once, whoever says it
    assert told(service) == [("video.failed", "waiting", 0)]


def states(service: Service) -> dict[str, tuple[str, str | None]]:
    """The workflows of deliveries by their number."""
    found = service.queue.list_workflows(name=webhooks.DELIVER)
    return {each.workflow_id.rpartition("#")[2]: (each.status, each.queue_partition_key) for each in found}


def test_a_delivery_whose_turn_came_to_nothing_gets_another(service: Service) -> None:
    webhooks.add_webhook(service, service.local, "http://127.0.0.1:9/x")
    name = jobs.create(service, service.local, Order(prompt="a red ball", seconds=1))[0].id
    jobs.cancel(service, service.local, name)
    account = service.local.id
    assert webhooks.revive(service, older_than=0) == 0 and states(service) == {"1": ("ENQUEUED", account)}
    with service.database.reading() as session:
        delivery = session.scalars(sa.select(Delivery.id)).one()
    service.queue.cancel_workflow(f"{delivery}#1")
    assert webhooks.revive(service) == 0  # it is too young
    assert webhooks.revive(service, older_than=0) == 1 and webhooks.revive(service, older_than=0) == 0
    assert states(service) == {"1": ("CANCELLED", account), "2": ("ENQUEUED", account)}
    assert told(service) == [("video.failed", "waiting", 1)]
    with service.database.writing() as session:  # as an older version queued it, which no worker looks at any more
        session.execute(sa.text("UPDATE workflow_status SET queue_partition_key = NULL WHERE status = 'ENQUEUED'"))
    assert webhooks.revive(service, older_than=0) == 1
    assert states(service)["2"][0] == "CANCELLED" and states(service)["3"] == ("ENQUEUED", account)
    webhooks.attempt(service, f"{delivery}#3")
    assert told(service) == [("video.failed", "waiting", 3)]
