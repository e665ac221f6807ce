"""Calls to servers that others have named."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator

import pytest

from yozora.serve import calls
from yozora.serve.calls import find_address, post


@contextlib.contextmanager
def dripping(begin: bytes) -> Iterator[int]:
    """The port of a server that answers with `begin`, and then with a byte again and again for 5 s."""
    over = threading.Event()

    def answer() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                connection.sendall(begin)
                for _ in range(100):
                    if over.wait(0.05):
                        return
                    connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize(
    ("scheme", "begin"),
    [("http", b""), ("http", b"HTTP/1.1 200 OK\r\nX: "), ("https", b"\x16\x03\x03\x40\x00")],
    ids=["status", "headers", "greeting"],
)
def test_no_call_takes_longer_than_its_time(scheme: str, begin: bytes) -> None:
    """Something comes all the while, so that no single read is waited for."""
    since = time.monotonic()
    with dripping(begin) as port, pytest.raises(TimeoutError, match=r"0\.3 s"):
        post(f"{scheme}://127.0.0.1:{port}/x", b"{}", {}, private=True, seconds=0.3)
    assert time.monotonic() - since < 2


@pytest.mark.parametrize(
    "host",
    ["[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "224.0.0.1",
     "[ff02::1]", "[ff0e::1]", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[fec0::1]", "[fd00::1]", "100.64.0.1",
     "192.0.0.192"],
)  # fmt: skip
def test_what_is_inside_by_another_name(host: str) -> None:
    with pytest.raises(ValueError, match="private"):
        find_address(urllib.parse.urlsplit(f"http://{host}/"), private=False, seconds=10)


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1]", "[64:ff9b::808:808]", "[2002:808:808::1]"])
def test_what_is_outside(host: str) -> None:
    assert find_address(urllib.parse.urlsplit(f"http://{host}/"), private=False, seconds=10) == host.strip("[]")


def test_looking_up_a_name_is_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(calls.socket, "getaddrinfo", lambda *_given, **_named: (over.wait(20), [])[1])
    since = time.monotonic()
    with pytest.raises(TimeoutError, match=r"example\.org was not found"):
        post("https://example.org/x", b"{}", {}, False, 0.2)
    assert time.monotonic() - since < 5
    over.set()


def test_what_is_no_name() -> None:
    for url in (f"http://{'a' * 70}.example.org/", "http://a..example.org/"):
        with pytest.raises(OSError):
            post(url, b"{}", {}, True, 5)
