"""A language model behind an endpoint, against a real HTTP server that is well, slow, rude, or talks nonsense."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from replies import running

from yozora.errors import ConfigError, ModelError
from yozora.models.endpoint import LONGEST, Endpoint

ASKED = [{"role": "user", "content": "a red ball"}]


class Server(ThreadingHTTPServer):
    """Keeps what it was sent; `over` ends what it is slow at."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen, self.over = list[tuple[str, dict[str, str], Any]](), threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        assert isinstance(server, Server)
        server.seen.append((self.path, dict(self.headers), body))
        kind = self.path.split("/")[1]
        if kind == "refused":
            self.send_error(401)
        elif kind == "rude":
            self.send_error(500, "no\x1b[2Jne")
        elif kind == "plain" and {"temperature", "response_format"} & body.keys():
            self.send_error(400)
        elif kind == "elsewhere":
            self.send_response(302)
            self.send_header("Location", "/well/chat/completions")
            self.end_headers()
        elif kind == "drips":
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                if server.over.wait(0.05):
                    return
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return
        elif kind == "headers":
            with contextlib.suppress(OSError):
                while not server.over.wait(0.05):
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif kind == "silent":
            server.over.wait(5)
        else:
            self._send(
                {
                    "well": _completion("hello"),
                    "plain": _completion("hello"),
                    "odd": b'{"choices": []}',
                    "long": b"x" * (LONGEST + 1),
                }[kind]
            )

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked has heard enough
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _completion(text: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server
        server.over.set()


def _at(server: Server, kind: str, seconds: float = 5.0, key: str = "") -> Endpoint:
    return Endpoint("tiny", f"http://127.0.0.1:{server.server_port}/{kind}", key, seconds)


def test_an_answer_is_its_text_and_the_key_goes_along(server: Server) -> None:
    assert _at(server, "well", key="secret").answer(ASKED) == "hello"
    path, headers, body = server.seen[-1]
    assert path == "/well/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["messages"]) == ("tiny", ASKED)


def test_a_server_that_knows_no_wishes_is_asked_without(server: Server) -> None:
    before = len(server.seen)
    assert _at(server, "plain").answer(ASKED) == "hello"
    assert [set(body) for _, _, body in server.seen[before:]] == [
        {"model", "messages", "temperature", "response_format"},
        {"model", "messages"},
    ]


def test_without_a_key_none_is_sent(server: Server) -> None:
    _at(server, "well").answer(ASKED)
    assert "Authorization" not in server.seen[-1][1]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("refused", "answered 401"),
        ("rude", r"answered 500 no\[2Jne"),
        ("elsewhere", "answered 302"),
        ("odd", "form"),
        ("long", "form"),
    ],
)
def test_what_goes_wrong_is_said(server: Server, kind: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        _at(server, kind, key="secret").answer(ASKED)


@pytest.mark.parametrize("kind", ["silent", "drips"])
def test_too_slow_is_given_up_in_time(server: Server, kind: str) -> None:
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"longer than 0\.4 s"):
        _at(server, kind, seconds=0.4).answer(ASKED)
    assert time.monotonic() - started < 3


def test_what_is_down_cannot_be_reached() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ModelError, match="cannot be reached"):
        Endpoint("tiny", f"http://127.0.0.1:{port}", seconds=5).answer(ASKED)


def test_names_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert Endpoint.parse("openai:a/b@c@https://host/v1/") == Endpoint("a/b@c", "https://host/v1", "k")


def test_a_key_that_no_header_can_hold_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k\n")  # as many a file ends
    assert Endpoint.parse("openai:m@https://host/v1").key == "k"
    for key in ("one\ntwo", "schlüssel", "ключ"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(ConfigError, match="the key in OPENAI_API_KEY") as raised:
            Endpoint.parse("openai:m@https://host/v1")
        assert key not in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        *("openai:", "openai:m", "openai:m@host", "openai:m@file:///etc/passwd", "openai:@http://h"),
        *("openai:m@http://[::1/v1", "openai:m@http://h:99999", "openai:m@http://h/ü", "openai:m@http://h/a b"),
    ],
)
def test_what_is_no_endpoint_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="no endpoint"):
        Endpoint.parse(name)
