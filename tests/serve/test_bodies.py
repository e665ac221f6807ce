from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.datastructures import UploadFile
from starlette.types import Message, Receive, Scope, Send

from yozora.serve import bodies
from yozora.serve.app import answer_well, create_app
from yozora.serve.bodies import LimitBody, Sent, data_url
from yozora.serve.context import Service
from yozora.serve.errors import ApiError


@pytest.fixture(scope="module")
def echo() -> TestClient:
    """Answers with what it was sent."""
    app = FastAPI()

    @app.post("/")
    def told(body: Sent) -> Any:
        return json.loads(
            json.dumps(body, default=lambda each: f"file {each.size}" if isinstance(each, UploadFile) else 0)
        )

    answer_well(app, most=10_000)
    return TestClient(app)


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("video[id]", "v")], {"video": {"id": "v"}}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[0]", "1"), ("a[1]", "2")], {"a": ["1", "2"]}),
        ([("a", "1"), ("a", "2")], {"a": ["1", "2"]}),
        ([("c[][id]", "x"), ("c[][id]", "y")], {"c": [{"id": "x"}, {"id": "y"}]}),
        ([("c[0][id]", "x"), ("c[0][n]", "1"), ("c[1][id]", "y")], {"c": [{"id": "x", "n": "1"}, {"id": "y"}]}),
    ],
)
def test_bracket_fields(echo: TestClient, fields: list[tuple[str, str]], read: Any) -> None:
    as_form = echo.post("/", data=dict(fields)) if len(dict(fields)) == len(fields) else None
    parts = [(name, (None, value)) for name, value in fields]
    assert echo.post("/", files=parts).json() == read
    assert as_form is None or as_form.json() == read


def test_files_and_json(echo: TestClient) -> None:
    assert echo.post("/", files={"video": ("x", b"123")}).json() == {"video": "file 3"}
    assert echo.post("/", json={"a": {"b": [1, 2.5, None]}}).json() == {"a": {"b": [1, 2.5, None]}}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b"null", b'{"a": NaN}', b'{"a": "\\u0000"}', b'{"a": "\\ud800"}', b"\xff", b'{"a":' * 3000,
     b'{"a":' + b"[" * 100 + b"]" * 100 + b"}"],
)  # fmt: skip
def test_what_is_no_json(echo: TestClient, body: bytes) -> None:
    answer = echo.post("/", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413), answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "image/png", "nonsense"])
def test_other_kinds(echo: TestClient, kind: str) -> None:
    answer = echo.post("/", content=b"x", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("name", ["[a]", "a]b[", "a[b", "", "a" + "[b]" * 50])
def test_names_that_are_none(echo: TestClient, name: str) -> None:
    body = f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n1\r\n--x--\r\n'.encode()
    answer = echo.post("/", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.status_code == 400 and "error" in answer.json()


def test_broken_forms(echo: TestClient) -> None:
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
        answer = echo.post("/", content=b"--y\r\nnothing", headers={"Content-Type": kind})
        assert answer.status_code == 400 and "error" in answer.json()


def test_too_much_is_refused_while_it_comes(echo: TestClient) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while sent < 50_000_000:
            sent += 5000
            yield b"x" * 5000

    answer = echo.post("/", content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    said = echo.post("/", content=b"x" * 10_001, headers={"Content-Type": "application/json"})
    assert said.status_code == 413


def test_data_addresses() -> None:
    assert data_url("data:image/png;base64," + base64.b64encode(b"abc").decode(), "x") == b"abc"
    for wrong in ("http://example.org/x.png", "file:///etc/passwd", "data:image/png,abc", "data:;base64,???"):
        with pytest.raises(ApiError):
            data_url(wrong, "x")


def test_a_body_that_does_not_end_is_not_waited_for() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass

    async def receive() -> Message:
        if came:
            await asyncio.sleep(60)
        came.append(1)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def send(_: Message) -> None:
        raise AssertionError("nothing is to be sent")

    came: list[int] = []
    scope: Scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(ApiError) as raised:
        asyncio.run(LimitBody(app, 100, silence=0.05)(scope, receive, send))
    assert raised.value.status == 408 and raised.value.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/x",
        "multipart/form-data+json",
        "",
    ],
)
def test_all_but_forms_with_files_has_the_limit_of_memory(
    monkeypatch: pytest.MonkeyPatch, echo: TestClient, kind: str
) -> None:
    monkeypatch.setattr(bodies, "MAX_JSON", 100)
    assert echo.post("/", content=b"x" * 200, headers={"Content-Type": kind}).status_code == 413
    twice = [("Content-Type", kind), ("Content-Type", "multipart/form-data; boundary=x")]
    assert echo.post("/", content=b"x" * 200, headers=twice).status_code == 413
    assert echo.post("/", files={"a": b"x" * 200}).json() == {"a": "file 200"}


def test_nothing_is_read_of_a_body_whose_sender_is_not_known(shared: Service) -> None:
    app = create_app(shared)
    for path in ("/api/videos", "/v1/videos", "/api/uploads", "/api/keys", "/api/admin/videos/x"):
        for kind in (b"application/json", b"multipart/form-data; boundary=x", b"text/plain", b""):
            assert _told(app, path, [(b"content-type", kind)]) == (401, 0), (path, kind)


def test_a_form_is_not_read_where_json_is_wanted(shared: Service) -> None:
    """It may be as large as an upload, and FastAPI would hold it in memory, of somebody who signs in, too."""
    kind = (b"content-type", b"multipart/form-data; boundary=x")
    assert _told(create_app(shared), "/api/sign-in", [kind]) == (415, 0)


def test_a_body_of_no_kind_is_not_read_to_its_end(service: Service) -> None:
    assert _told(create_app(service), "/v1/videos", []) == (415, 1)


def _told(app: FastAPI, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    """The status that an endless POST is answered with, and how many pieces of it were read before."""
    read, statuses = 0, []

    async def receive() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x", "more_body": read < 1000}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    method = "PATCH" if "admin" in path else "POST"
    headers = [(b"host", b"127.0.0.1:8000"), *headers]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return statuses[0], read


@pytest.mark.parametrize("charset", ["undefined", "unicode_escape", "utf-16", "no-such"])
def test_a_form_is_read_as_utf8_alone(local: TestClient, charset: str) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="\\ud800["\r\n\r\nhi\r\n--x--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = local.post("/v1/videos", content=form, headers=headers)
    assert answer.status_code == 415 and "UTF-8" in answer.json()["error"]["message"]
    headers["Content-Type"] = "multipart/form-data; boundary=x; charset=UTF-8"
    assert local.post("/v1/videos", content=form, headers=headers).status_code == 400


PART = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
WORDS = "a Bär ほし"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", f"prompt={WORDS}&seconds=1".encode()),  # as `curl -d` sends it
        ("application/x-www-form-urlencoded; charset=utf-8", f"prompt={quote(WORDS)}&seconds=1".encode()),
        ("application/x-www-form-urlencoded", f"prompt={quote_plus(WORDS)}&seconds=1".encode()),
        *(
            (f"multipart/form-data; boundary=x{more}", PART + WORDS.encode() + b"\r\n--x--\r\n")
            for more in ("", "; charset=utf-8", "; charset=us-ascii", "; charset=")
        ),
        ('multipart/form-data; boundary="x"', PART + WORDS.encode() + b"\r\n--x--\r\n"),
    ],
)
def test_text_of_any_language_comes_as_it_was_sent(local: TestClient, kind: str, body: bytes) -> None:
    answer = local.post("/v1/videos", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 200, answer.text
    assert answer.json()["prompt"] == WORDS


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"prompt=caf%E9"),
        ("application/x-www-form-urlencoded", b"prompt=caf\xe9"),
        ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(300))),
        ("multipart/form-data; boundary=x", PART + b"caf\xe9\r\n--x--\r\n"),
        ("multipart/form-data", PART + b"a\r\n--x--\r\n"),
    ],
)
def test_a_form_that_is_not_utf8_or_no_form_is_refused(local: TestClient, kind: str, body: bytes) -> None:
    answer = local.post("/v1/videos", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text
    assert local.get("/v1/videos").json()["data"] == []


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_form_that_is_cut_off_is_refused(service: Service, piece: int) -> None:
    """However its bytes come; the library would drop a part that does not end, and a video be made without it."""
    parts = b'--xyz\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na red ball\r\n'
    parts += b'--xyz\r\nContent-Disposition: form-data; name="seconds"\r\n\r\n1'
    end = b"\r\n--xyz--\r\n"

    def pieces(body: bytes) -> Iterator[bytes]:
        yield from (body[at : at + piece] for at in range(0, len(body), piece))

    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000") as client:
        for cut in (parts, parts + end[:6], parts[:50], parts + b"--xyz--\r\n"):
            answer = client.post("/v1/videos", content=pieces(cut), headers=headers)
            assert answer.status_code == 400, answer.text
            assert answer.json()["error"]["type"] == "invalid_request_error"
        assert client.get("/v1/videos").json()["data"] == []
        whole = client.post("/v1/videos", content=pieces(parts + end + b"epilogue"), headers=headers)
        assert whole.status_code == 200 and whole.json()["seconds"] == "1"
