"""A language model behind an OpenAI-compatible endpoint: one request, one answer, with a limit on time and size.

Nothing is sent anywhere unless somebody names an endpoint, as `openai:MODEL@URL`.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any, Protocol
from urllib.parse import urlsplit

from yozora.errors import ConfigError, ModelError, printable

PREFIX = "openai:"
KEY = "OPENAI_API_KEY"  # of the environment
LONGEST = 2**20  # bytes of an answer
PIECE = 2**14
WISHES = {"temperature": 0, "response_format": {"type": "json_object"}}
UNKNOWN = (400, 422)  # codes that servers refuse wishes with which they do not know

Message = dict[str, Any]  # role, and content: a text, or a list of texts and pictures


class Chat(Protocol):
    """A language model that answers messages, wherever it runs."""

    @property
    def name(self) -> str: ...

    def answer(self, messages: Sequence[Message]) -> str:
        """The text of the answer. Raises ModelError."""
        ...


@dataclass(frozen=True)
class Endpoint:
    """`model` at `url`, the part before `/chat/completions`. An answer may take `seconds` in all."""

    model: str
    url: str
    key: str = ""
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not self.model or not _is_address(self.url):
            raise ConfigError(f"{PREFIX}{self.model}@{self.url} is no endpoint: write {PREFIX}MODEL@https://HOST/v1")
        if not (self.key.isascii() and self.key.isprintable()):
            raise ConfigError(f"the key in {KEY} holds a character that no key has (a new line, or no letter of ASCII)")
        if self.seconds <= 0:
            raise ConfigError(f"an endpoint's time must be over 0 s, not {self.seconds:g}")

    @classmethod
    def parse(cls, text: str, seconds: float = 60.0) -> Endpoint:
        """`openai:MODEL@URL`, with the key in the environment's OPENAI_API_KEY. Raises ConfigError."""
        model, at, url = text.removeprefix(PREFIX).rpartition("@")
        if not at:
            raise ConfigError(f"{text} is no endpoint: write {PREFIX}MODEL@https://HOST/v1")
        return cls(model, url.rstrip("/"), os.environ.get(KEY, "").strip(), seconds)

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.model}@{self.url}"

    def answer(self, messages: Sequence[Message]) -> str:
        """One completion, asked for as JSON and without chance; without these wishes of an endpoint that refuses them.
        Raises ModelError where it is down, slow, refuses, or answers in another form; a redirection is not followed,
        for it would take the key along."""
        asked = {"model": self.model, "messages": list(messages)}
        until = time.monotonic() + self.seconds
        try:
            try:
                text = self._post(asked | WISHES, until)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in UNKNOWN:
                    raise
                text = self._post(asked, until)
            content = json.loads(text)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            error.close()
            raise ModelError(f"{self.url} answered {error.code} {printable(error.reason)[:160]}") from None
        except TimeoutError:
            raise ModelError(f"{self.url} took longer than {self.seconds:g} s") from None
        except (OSError, HTTPException) as error:  # URLError is an OSError
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise ModelError(f"{self.url} took longer than {self.seconds:g} s") from None
            raise ModelError(f"{self.url} cannot be reached ({printable(reason)[:160]})") from None
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise ModelError(f"{self.url} did not answer in the form of OpenAI's chat completions") from None
        if not isinstance(content, str):
            raise ModelError(f"{self.url} answered with no text")
        return content

    def _post(self, asked: Mapping[str, Any], until: float) -> bytes:
        """What comes back. Raises OSError, HTTPException, ValueError; TimeoutError at `until`, by the monotonic clock:
        a socket's own limit is one of each piece that it reads, and begins anew with every header line."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        answer: Future[bytes] = Future()

        def send() -> None:
            try:
                answer.set_result(self._send(asked, left, until))
            except BaseException as error:
                answer.set_exception(error)

        threading.Thread(target=send, name=self.name, daemon=True).start()  # left behind where nobody waits any more
        return answer.result(left)

    def _send(self, asked: Mapping[str, Any], left: float, until: float) -> bytes:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(asked).encode(), headers)
        with urllib.request.build_opener(_Stay).open(request, timeout=left) as response:
            return _read(response, until)


def _is_address(url: str) -> bool:
    """Whether a request can be sent there."""
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0  # which raises for a port that is none
    except ValueError:
        return False
    return whole and parts.scheme in ("http", "https") and url.isascii() and url.isprintable() and " " not in url


def _read(response: HTTPResponse, until: float) -> bytes:
    """All of an answer. Raises TimeoutError where that takes too long, though each piece may come in time; ValueError
    where it is too large."""
    pieces, size = [], 0
    while piece := response.read1(PIECE):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > until:
            raise TimeoutError
        if size > LONGEST:
            raise ValueError("too large")
    return b"".join(pieces)


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the answer is then an error, with its code."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
