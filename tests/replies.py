"""A real HTTP server in place of a language model's: it answers what it was told to, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Replies(ThreadingHTTPServer):
    """Answers with one text after the other, and then with the last for ever."""

    def __init__(self, *texts: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts, self.asked = list(texts), list[dict[str, Any]]()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Replies)
        server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        text = server.texts[0] if len(server.texts) == 1 else server.texts.pop(0)
        body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def replying(*texts: str) -> Iterator[Replies]:
    """Such a server, for as long as the block lasts."""
    with running(Replies(*texts)) as server:
        yield server


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """A server at work, for as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
