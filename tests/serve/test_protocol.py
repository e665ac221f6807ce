"""HTTP below the application: what is no request, what ends too early, what never comes."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request

from yozora.serve import protocol
from yozora.serve.app import answer_well
from yozora.serve.protocol import Protocol


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.post("/length")
    async def length(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    @app.get("/slow")
    def slow() -> dict[str, bool]:
        time.sleep(0.3)
        return {"ok": True}

    answer_well(app, 2**20)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, http=Protocol, ws="none", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def said(port: int, sent: bytes, half_close: bool = False, wait: float = 10) -> bytes:
    """All that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it need not read all of what is too large
            connection.sendall(sent)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # and closes with the rest unread
            while piece := connection.recv(2**16):
                answer += piece
    return answer


def error_of(answer: bytes, status: int) -> dict[str, Any]:
    """The error object of an answer that is one, whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first.startswith(f"http/1.1 {status} "), first
    assert headers["content-type"] == "application/json" and int(headers["content-length"]) == len(body)
    assert headers["x-request-id"].startswith("req_")
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


POST = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /a b c HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (POST + b"Content-Length: -1\r\n\r\n", 400),
        (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),  # after the application has begun to read
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000, 431),
    ],
)
def test_what_is_no_request(port: int, sent: bytes, status: int) -> None:
    error_of(said(port, sent), status)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        POST + b"Content-Length: 100\r\n\r\n{",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{",
    ],
)
def test_what_ends_too_early(port: int, sent: bytes) -> None:
    assert error_of(said(port, sent, half_close=True), 400)["code"] == "incomplete_request"


def test_who_has_said_all_still_gets_the_answer(port: int) -> None:
    answer = said(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", half_close=True)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'{"ok":true}')
    answer = said(port, POST + b"Content-Length: 2\r\n\r\n{}", half_close=True)
    assert answer.endswith(b'{"length":2}')


def test_who_says_nothing_hears_nothing(port: int) -> None:
    assert said(port, b"", half_close=True) == b""


def test_a_head_that_does_not_come(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PATIENCE", 0.2)
    assert error_of(said(port, b"GET / HTTP/1.1\r\n"), 408)["code"] == "timeout"
    assert said(port, b"") == b""
    # nor the second one on the same connection; a request that takes longer than that is none of these
    two = said(port, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET / ")
    first, second = two.split(b'{"ok":true}')
    assert first.startswith(b"HTTP/1.1 200 ")
    error_of(second, 408)
