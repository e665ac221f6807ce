"""HTTP itself, where uvicorn's own ways are not enough: what is no request is answered with an error object, too; a
client that has said all it will say still gets its answer; and one that says nothing is not waited for for ever."""

from __future__ import annotations

import asyncio
import http
import json
import secrets
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from yozora.serve.errors import error_object
from yozora.serve.metrics import REQUESTS

__all__ = ["Protocol"]

PATIENCE = 30.0  # seconds in which the head of a request must have come


class Protocol(H11Protocol):
    """One connection."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer is out; the beginning of the next request may be here already."""
        super().on_response_complete()
        self._watch()

    def eof_received(self) -> bool:
        """The client will send nothing more: what it has sent whole is answered, what it has begun is refused."""
        if self.cycle is not None and not self.cycle.response_complete:
            if not self.cycle.more_body:
                self.cycle.keep_alive = False
                return True  # the way back is open until the answer is out
            self._refuse(400, "the request ends before its body does", "incomplete_request")
        elif self._begun:
            self._refuse(400, "the request ends before its head does", "incomplete_request")
        return False

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP; called while h11's complaint is being handled."""
        error = sys.exc_info()[1]
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            self._refuse(431, "the head of this request is too large", "too_large")
        else:
            self._refuse(status, f"this is no HTTP request that is understood: {error or msg}", "invalid_request")

    @property
    def _begun(self) -> bool:
        """Whether a part of a head is here, and no more."""
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def _watch(self) -> None:
        """Starts to wait for the head of a request, or ends it where there is none to wait for."""
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._rest()
        elif self._waiting is None and (self._begun or self.cycle is None):
            self._waiting = self.loop.call_later(PATIENCE, self._give_up)

    def _rest(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        if self._begun:
            self._refuse(408, f"the head of this request has not come in {PATIENCE:g} s", "timeout")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str, code: str) -> None:
        """An error object, and an end; without it where an answer has begun already."""
        if self.transport.is_closing():
            return
        REQUESTS.labels("other", "other", str(status)).inc()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps(error_object(status, message[:300], code)).encode()
            headers: list[Any] = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
                (b"x-request-id", f"req_{secrets.token_hex(12)}".encode()),
            ]
            reason = http.HTTPStatus(status).phrase.encode()
            response = h11.Response(status_code=status, headers=headers, reason=reason)
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever still reads this request, or answers it, need not any more
            self.cycle.message_event.set()
        self.transport.close()
