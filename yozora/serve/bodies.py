"""What requests carry: JSON, forms with files, and forms with bracket fields (`video[id]=…`), all read to one shape."""

from __future__ import annotations

import asyncio
import base64
import binascii
import codecs
import json
import re
from collections.abc import AsyncIterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, NoReturn
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yozora.serve.errors import ApiError, invalid

__all__ = ["Body", "LimitBody", "Sent", "Told", "check_is_json", "data_url", "read_body"]

MAX_TEXT = 2**20  # bytes of a form's text field
MAX_JSON = 2**25  # bytes of a body that is held in memory: JSON, with the pictures in it, and all but multipart
SILENCE = 60.0  # seconds in which nothing comes of a body that has not ended
MAX_FIELDS, MAX_FILES, MAX_DEPTH = 200, 80, 20
MULTIPART = b"multipart/form-data"  # the one kind of body whose files go to the disk as they come
LENIENT = "yozora_utf8"
"""UTF-8 in which bytes that are none become what `_check_text` refuses: the reader of forms takes them for Latin-1."""
_BRACKETS = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
Body = dict[str, Any]
"""Names to texts, numbers, dicts, lists, and UploadFiles."""


async def read_body(request: Request) -> AsyncIterator[Body]:
    """A dependency: the body as one dict, whatever form it came in; its files are closed after the answer. Raises
    ApiError."""
    kind = _kind(request)
    if kind == "application/x-www-form-urlencoded":
        _check_is_utf8(request)
        yield _checked(_nested(_urlencoded(await request.body())))
    elif kind == "multipart/form-data":
        _check_is_utf8(request)
        ended = _Ended(request)
        said = f"{request.headers['content-type']}; charset={LENIENT}"  # the last one counts
        headers = [(b"content-type", said.encode("latin-1"))]
        whole = Request({**request.scope, "headers": headers}, ended.receive)
        async with whole.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_TEXT) as form:
            if not ended:
                raise invalid("the form is cut off: its last part does not end", code="invalid_form")
            yield _checked(_nested(form))
    elif _is_json(kind):
        yield _checked(_json(await request.body()))
    elif not kind and await _is_empty(request):
        yield {}
    else:
        raise _unreadable(kind, "JSON or multipart/form-data")


def _check_is_utf8(request: Request) -> None:
    if _option(request, b"charset").lower() not in (b"", b"utf-8", b"utf8", b"us-ascii"):
        raise ApiError(415, "a form is read as UTF-8 and no other charset", code="unsupported_media_type")


def _option(request: Request, name: bytes) -> bytes:
    """What is said of a body's type besides its name."""
    return parse_options_header(request.headers.get("content-type", ""))[1].get(name, b"")


def _urlencoded(raw: bytes) -> FormData:
    """The fields of such a form, whose bytes outside of ASCII may be escaped or not. Raises ApiError."""
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except UnicodeDecodeError:
        raise invalid("the form has text that is not valid (UTF-8)") from None
    except ValueError:
        raise invalid(f"the form has more than {MAX_FIELDS} fields", code="invalid_form") from None
    return FormData([(name, value) for name, value in pairs])


def _leniently(name: str) -> codecs.CodecInfo | None:
    def decode(raw: Any, errors: str = "", /) -> tuple[str, int]:
        return codecs.utf_8_decode(raw, "surrogateescape", True)

    return codecs.CodecInfo(codecs.utf_8_encode, decode, name=LENIENT) if name == LENIENT else None


codecs.register(_leniently)


class _Ended:
    """Looks for the end of a form with files in what comes of a request: the reader of forms drops, without a word, a
    part that does not end. True once it was there."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._mark = b"\r\n--" + _option(request, b"boundary") + b"--"  # the end is at the beginning of a line
        self._tail, self._seen = b"\r\n", False

    def __bool__(self) -> bool:
        return self._seen

    async def receive(self) -> Message:
        """As the request's own."""
        message = await self._request.receive()
        if not self._seen:
            text = self._tail + message.get("body", b"")
            self._seen, self._tail = self._mark in text, text[-len(self._mark) :]
        return message


def check_is_json(request: Request) -> None:
    """Raises ApiError for a body that is said to be something else, before any of it is read."""
    kind = _kind(request)
    if kind and not _is_json(kind):
        raise _unreadable(kind, "JSON")


Sent = Annotated[Body, Depends(read_body)]


class Told(BaseModel):
    """A JSON object whose members are known; none of its texts has a NUL character, which no database takes."""

    @field_validator("*")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise PydanticCustomError("nul", "this text has a NUL character in it")
        return value


def data_url(text: str, param: str) -> bytes:
    """The bytes of a "data:…;base64,…" address. Raises ApiError for any other: we fetch nothing from elsewhere."""
    head, comma, data = text.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise invalid("only data: addresses are taken: upload the picture, or send it as base64", param)
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise invalid("this data: address is not valid base64", param) from None


class LimitBody:
    """ASGI middleware: a body that is too large is refused as soon as it is, not when it has all come; and one of which
    nothing comes any more is not waited for for ever."""

    def __init__(self, app: ASGIApp, most: int, silence: float = SILENCE) -> None:
        self.app, self.most, self.silence = app, most, silence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, counting."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        kinds = [value.split(b";")[0].strip().lower() for name, value in scope["headers"] if name == b"content-type"]
        streamed = kinds == [MULTIPART]  # what only begins like it, or is said twice, may be held in memory after all
        most = self.most if streamed else min(self.most, MAX_JSON)
        came, ended = 0, False

        async def counted() -> Message:
            nonlocal came, ended
            try:
                message = await (receive() if ended else asyncio.wait_for(receive(), self.silence))
            except TimeoutError:
                told = f"nothing came for {self.silence:g} s of a request that has not ended"
                raise ApiError(408, told, code="timeout", headers={"Connection": "close"}) from None
            if message["type"] == "http.request":
                ended = not message.get("more_body", False)
                came += len(message.get("body", b""))
                if came > most:
                    self._refuse(most)
            return message

        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said) > most:
            self._refuse(most)
        await self.app(scope, counted, send)

    def _refuse(self, most: int) -> NoReturn:
        told = f"this request is too large: at most {most / 2**20:g} MiB of such"
        raise ApiError(413, told, code="too_large", headers={"Connection": "close"})


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")


async def _is_empty(request: Request) -> bool:
    """Whether there is no body; of one that there is, only the beginning is read."""
    async for chunk in request.stream():
        if chunk:
            return False
    return True


def _unreadable(kind: str, taken: str) -> ApiError:
    told = f"a body of type {kind[:80] or 'unknown'!r} cannot be read: send {taken}"
    return ApiError(415, told, code="unsupported_media_type")


def _json(raw: bytes) -> Any:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no number")

    try:
        body = json.loads(raw, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        line = str(error).splitlines()[0][:120] if not isinstance(error, RecursionError) else "it is nested too deeply"
        raise invalid(f"the body is not valid JSON: {line}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", code="invalid_json")
    return body


def _nested(form: FormData) -> Body:
    """Fields `a[b]=c` become {"a": {"b": "c"}}; `a[]=b`, `a[0]=b` and fields that come several times become lists."""
    body: Body = {}
    for name, value in form.multi_items():
        _check_text(name)  # before it is told of
        match = _BRACKETS.fullmatch(name)
        if match is None or name.count("[") > MAX_DEPTH:
            raise invalid(f"the field {name[:80]!r} has no proper name", name[:80])
        *path, last = match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])
        here = body
        for key, following in pairwise([*path, last]):
            here = here.setdefault(key or _place(here, following), {})
            if not isinstance(here, dict):
                raise invalid(f"the field {name[:80]!r} is given in two ways", match[1])
        last = last or str(len(here))
        known = here.get(last)
        if isinstance(known, dict):
            raise invalid(f"the field {name[:80]!r} is given in two ways", match[1])
        here[last] = value if known is None else [*(known if isinstance(known, list) else [known]), value]
    return {name: _with_lists(value) for name, value in body.items()}


def _place(here: Body, following: str) -> str:
    """Which member `[]` means in `a[][b]`: the last one, until a name comes again."""
    last = str(len(here) - 1)
    return last if isinstance(here.get(last), dict) and following not in here[last] else str(len(here))


def _with_lists(value: Any) -> Any:
    """Dicts whose keys are 0, 1, 2, … are lists."""
    if not isinstance(value, dict):
        return value
    members = {name: _with_lists(each) for name, each in value.items()}
    return list(members.values()) if list(members) == [str(number) for number in range(len(members))] else members


def _checked(body: Body) -> Body:
    _check(body, 0)
    return body


def _check(value: Any, depth: int) -> None:
    """Raises ApiError for text that no database takes."""
    if depth > MAX_DEPTH:
        raise invalid("the body is nested too deeply")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            _check_text(key)
            _check(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            _check(each, depth + 1)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid("the body has text that is not valid (UTF-8)") from None
    if "\0" in text:
        raise invalid("the body has text with a NUL character in it")
