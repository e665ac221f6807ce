"""What no client should send: every answer is an error object, and the service goes on."""

from __future__ import annotations

import io
import json
import socket
import struct
import urllib.parse
import zlib
from typing import Any

import httpx2
import numpy as np
import pytest
from serving import Served

from yozora.clip import Clip


@pytest.fixture
def client(served: Served) -> Any:
    with httpx2.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.key}"}, timeout=60) as client:
        yield client


def refused(answer: httpx2.Response, *statuses: int) -> dict[str, Any]:
    """The error of an answer that is one, and nothing else."""
    assert answer.status_code in statuses, f"{answer.status_code}: {answer.text[:300]}"
    assert "Traceback" not in answer.text and answer.headers["x-request-id"].startswith("req_")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return error


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_an_upload_that_is_too_large_is_cut_off(served: Served) -> None:
    """While it streams: what is still to come is never read."""
    address = urllib.parse.urlsplit(served.url)
    sent = 0
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        head = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        first = b'--b\r\nContent-Disposition: form-data; name="input_reference"; filename="x"\r\n\r\n'
        connection.sendall(f"{len(first):x}\r\n".encode() + first + b"\r\n")
        try:
            while sent < 64 * 2**20:
                connection.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
                sent += 2**16
        except OSError:
            pass  # hung up on
        answer = b""
        try:
            while piece := connection.recv(2**16):
                answer += piece
        except OSError:
            pass
    assert sent < 64 * 2**20  # the limit here is 4 MiB; the rest were buffers on the way
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_too_much_by_its_own_account(client: Any) -> None:
    answer = client.post("/v1/videos", content=b"x" * (5 * 2**20), headers={"Content-Type": "application/json"})
    assert refused(answer, 413)["code"] == "too_large"


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "C:\\x.png", "a\u202egnp.exe", "x" * 5000, "%00.png"]
)
def test_names_are_not_used(client: Any, served: Served, name: str) -> None:
    picture = io.BytesIO()
    Clip(np.zeros((1, 64, 64, 3), np.uint8), 1.0).write(served.data / "black.png")
    picture.write((served.data / "black.png").read_bytes())
    answer = client.post("/api/uploads", files={"file": (name, picture.getvalue(), "image/png")})
    if answer.status_code == 201:
        assert answer.json()["id"].startswith("file_")
    else:
        refused(answer, 400)
    kept = {path.parent.name for path in (served.data / "files").rglob("*") if path.is_file()}
    assert kept <= {"uploads", "characters"} | {name for name in kept if name.startswith("video_")}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        b"GIF89a" + b"\xff" * 100,
        b"#!/bin/sh\nrm -rf /",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        png(60_000, 60_000, zlib.compress(b"\0" * 1_000_000)),  # a bomb: 10 GB of pixels in a kilobyte
        png(12_000, 11_000, zlib.compress(b"\0" * 1_000_000)),
        png(64, 64, b"not compressed"),
    ],
)
def test_files_that_are_no_pictures(client: Any, data: bytes) -> None:
    assert refused(client.post("/api/uploads", files={"file": ("x.png", data, "image/png")}), 400)["param"] == "file"
    form = {"prompt": "x", "seconds": "0.1"}
    answer = client.post("/v1/videos", data=form, files={"input_reference": ("x.png", data, "image/png")})
    assert refused(answer, 400)["param"] == "input_reference"


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "image/png", "multipart/form-data", ""])
def test_bodies_of_other_kinds(client: Any, kind: str) -> None:
    refused(client.post("/v1/videos", content=b"prompt=x", headers={"Content-Type": kind}), 400, 415)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": None}, {"prompt": ""}, {"prompt": 7}, {"prompt": "x" * 20_000}, {"prompt": "\0"},
        {"prompt": "\ud800"}, {"prompt": ["x"]}, {"prompt": {"a": "b"}},
        {"seconds": "-4"}, {"seconds": 0}, {"seconds": "1e9"}, {"seconds": "NaN"}, {"seconds": "∞"}, {"seconds": []},
        {"size": "-1x-1"}, {"size": "0x0"}, {"size": "1000000x1000000"}, {"size": "1x8192"}, {"size": {}},
        {"seed": -1}, {"seed": 2**64}, {"seed": 1.5}, {"steps": 0}, {"steps": 10**9}, {"guidance": -1},
        {"guidance": 1e99}, {"model": "../../etc"}, {"model": "/etc"}, {"model": 5}, {"preset": "../x"},
        {"solver": "x"}, {"fit": "x"}, {"enhance": "99999p"}, {"enhance": "1x1x1"}, {"unknown": 1},
        {"input_reference": {"file_id": "../../x"}}, {"input_reference": {"image_url": "file:///etc/passwd"}},
        {"input_reference": {"image_url": "http://127.0.0.1/"}}, {"input_reference": "x"},
        {"input_reference": {"wrong": "x"}}, {"characters": [{"id": "x"}]}, {"characters": "x"},
    ],
)  # fmt: skip
def test_parameters(client: Any, change: dict[str, Any]) -> None:
    body = {"prompt": "a red ball", "seconds": "0.1", "steps": 1} | change
    answer = client.post("/v1/videos", content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    refused(answer, 400, 404)


@pytest.mark.parametrize(
    "name", ["x", "video_", "video_" + "g" * 32, "..%2f..%2fetc", "%00", "a" * 5000, "%ff%fe", "' OR 1=1 --"]
)
def test_ids_that_are_none(client: Any, name: str) -> None:
    for path in (
        f"/v1/videos/{name}",
        f"/v1/videos/{name}/content",
        f"/api/videos/{name}",
        f"/v1/videos/characters/{name}",
    ):
        refused(client.get(path), 400, 404)
    refused(client.delete(f"/v1/videos/{name}"), 400, 404)
    refused(client.get("/v1/videos", params={"after": name}), 400, 404)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=-1", "limit=99999999999999999999", "limit=x", "order=sideways", "after=%00"]
)
def test_pages_that_are_none(client: Any, query: str) -> None:
    refused(client.get(f"/v1/videos?{query}"), 400)


@pytest.mark.parametrize("key", ["", "Bearer", "Basic eA==", "Bearer yz-" + "x" * 10_000, "Bearer \xff"])
def test_keys_that_are_none(served: Served, key: str) -> None:
    answer = httpx2.get(f"{served.url}/v1/videos", headers=[(b"Authorization", key.encode("latin-1"))])
    refused(answer, 401)


def test_connections_that_are_left_half_open(served: Served, client: Any) -> None:
    """And requests that are none: whoever still listens hears what is wrong."""
    address = urllib.parse.urlsplit(served.url)
    head = f"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.key}\r\n"
    starts = [
        b"",
        b"GET",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000,
        (head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{").encode(),
        (
            head + "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n--b"
        ).encode(),
        (head + "Content-Length: -1\r\n\r\n").encode(),
    ]
    connections = []
    for start in starts:
        for leave in (True, False):
            connection = socket.create_connection((address.hostname, address.port), timeout=60)
            connection.sendall(start)
            if leave:
                connection.close()
            else:
                connection.shutdown(socket.SHUT_WR)
                connections.append((start, connection))
    assert client.get("/v1/models").status_code == 200
    for start, connection in connections:
        answer = b""
        with connection:
            while piece := connection.recv(2**16):
                answer += piece
        assert bool(answer) == bool(start), start
        if answer:
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert client.get("/healthz").json()["ok"]
    assert "Traceback" not in served.process.text.replace("\\n", "\n"), served.process.text[-3000:]
