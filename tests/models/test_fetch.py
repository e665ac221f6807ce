"""Fetching from the hub: the real client against a server in the hub's form; going on, checks, errors in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from yozora.errors import ModelError
from yozora.models.fetch import FETCHED, check_model, fetch_model, fetched, is_hub_name
from yozora.models.registry import find_model

NAME, COMMIT = "someone/tiny-wan", "0123456789abcdef0123456789abcdef01234567"
LARGE = b"weights " * 2_000_000  # more than the client takes at a time, 10 MiB
PARTS = "transformer", "vae"
CONFIGS: dict[str, dict[str, Any]] = {
    "model_index.json": {"_class_name": "WanPipeline"},
    "transformer/config.json": {
        "_class_name": "WanTransformer3DModel", "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 2,
        "out_channels": 2, "num_layers": 1, "ffn_dim": 32, "freq_dim": 32, "text_dim": 8, "eps": 1e-6,
        "patch_size": [1, 2, 2], "cross_attn_norm": True,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKLWan", "z_dim": 2, "base_dim": 8, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
        "temperal_downsample": [False, True, True], "latents_mean": [0.0, 0.0], "latents_std": [1.0, 1.0],
    },
}  # fmt: skip
FILES = {path: json.dumps(fields).encode() for path, fields in CONFIGS.items()} | {
    "transformer/diffusion_pytorch_model.safetensors": LARGE,
    "assets/picture.png": b"not asked for",
}


class Hub(ThreadingHTTPServer):
    """A server that says of one model what the hub says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = dict(FILES)
        self.asked: list[tuple[str, str, str | None]] = []
        self.break_after: int | None = None
        self.gated = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        if self.server.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        elif path in (f"/api/models/{NAME}", f"/api/models/{NAME}/revision/{COMMIT}"):
            self._send(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode(), {}, body)
        elif path == f"/api/models/{NAME}/tree/{COMMIT}":
            self._send(200, json.dumps([entry(*file) for file in FILES.items()]).encode(), {}, body)
        elif path.startswith(f"/{NAME}/resolve/{COMMIT}/"):
            self._file(path.split(f"{COMMIT}/")[1], body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _file(self, name: str, body: bool) -> None:
        content = self.server.files[name]
        etag = entry(name, FILES[name])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag.get("lfs", etag)["oid"]}"', "Accept-Ranges": "bytes"}
        begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        status = 206 if self.headers.get("Range") else 200
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        part, cut = content[begin:], self.server.break_after
        if body and cut is not None and len(part) > cut:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(part))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(part[:cut])
            self.wfile.flush()
            self.close_connection = True
            return
        self._send(status, part, headers, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def entry(path: str, content: bytes) -> dict[str, Any]:
    """What the hub says of a file: git's hash of a small one, SHA-256 of a large one."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    said: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if content == LARGE:
        said["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return said


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(
    hub: Hub | str, home: Path, *arguments: str, name: str = NAME, verb: str = "fetch"
) -> subprocess.CompletedProcess[str]:
    """`yozora models VERB` as a command of its own, since the client reads its settings when it is imported."""
    url = hub if isinstance(hub, str) else hub.url
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "XDG_DATA_HOME": str(home), "HOME": str(home),
                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "yozora", "models", verb, name, *arguments],
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_what_is_needed_is_fetched_checked_and_found_by_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = fetch(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "yozora" / "models" / NAME
    assert str(folder) in done.stdout and "one noise level a clip" in done.stdout
    for path, content in FILES.items():
        assert (folder / path).is_file() == (not path.endswith(".png"))
        assert path.endswith(".png") or (folder / path).read_bytes() == content
    told = json.loads((folder / "fetched.json").read_text())
    assert (told["name"], told["commit"]) == (NAME, COMMIT) and "model_index.json" in told["files"]
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert fetched(NAME) == find_model(NAME) == folder
    again = fetch(hub, tmp_path)
    assert again.returncode == 2 and "is there already" in again.stderr


def test_an_interrupted_download_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = 12_000_000
    first = fetch(hub, tmp_path)
    place = tmp_path / "yozora" / "models" / "someone"
    if first.returncode:  # the client itself goes on a few times, and may even come to the end
        assert one_error(first) and not (place / "tiny-wan").exists()
    hub.break_after = None
    second = first if first.returncode == 0 else fetch(hub, tmp_path)
    assert second.returncode == 0, second.stderr
    assert (place / "tiny-wan" / "transformer" / "diffusion_pytorch_model.safetensors").read_bytes() == LARGE
    ranges = [asked for _, path, asked in hub.asked if path.endswith("safetensors") and asked]
    assert any(int(asked.removeprefix("bytes=").split("-")[0]) > 0 for asked in ranges)
    assert not list(place.glob(".*"))


def test_nothing_of_an_earlier_commit_stays(hub: Hub, tmp_path: Path) -> None:
    partial = tmp_path / "yozora" / "models" / "someone" / ".tiny-wan.fetching"
    for old in ("transformer/diffusion_pytorch_model.safetensors.index.json", "old/part.safetensors"):
        (partial / old).parent.mkdir(parents=True, exist_ok=True)
        (partial / old).write_text("{}")
    assert fetch(hub, tmp_path).returncode == 0
    folder = tmp_path / "yozora" / "models" / NAME
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    told = json.loads((folder / FETCHED).read_text())["files"]
    assert there == {*told, FETCHED} and not (folder / "old").exists()


def test_a_file_that_is_not_what_the_hub_says_is_refused(hub: Hub, tmp_path: Path) -> None:
    path = "transformer/diffusion_pytorch_model.safetensors"
    hub.files[path] = LARGE[:-1] + b"?"
    done = fetch(hub, tmp_path)
    assert done.returncode == 2 and f"{path} did not arrive whole" in one_error(done)
    assert not (tmp_path / "yozora" / "models" / NAME).exists()
    hub.files[path] = LARGE
    assert fetch(hub, tmp_path).returncode == 0


def test_a_folder_is_checked_again(hub: Hub, tmp_path: Path) -> None:
    """By what was written down when it was fetched, without the network; another by what the hub says now."""
    assert fetch(hub, tmp_path).returncode == 0
    folder, path = tmp_path / "yozora" / "models" / NAME, "transformer/diffusion_pytorch_model.safetensors"
    nowhere = "http://127.0.0.1:9"
    right = fetch(nowhere, tmp_path, verb="check")
    assert right.returncode == 0 and f"4 files, 0.02 GB, all as in {NAME} at {COMMIT[:12]}" in right.stdout
    copied = shutil.copytree(folder, tmp_path / "copied")
    (copied / "fetched.json").unlink()
    assert "say by --name" in one_error(fetch(nowhere, tmp_path, name=str(copied), verb="check"))
    assert "check the network" in one_error(fetch(nowhere, tmp_path, "--name", NAME, name=str(copied), verb="check"))
    assert fetch(hub, tmp_path, "--name", NAME, name=str(copied), verb="check").returncode == 0
    (copied / "fetched.json").write_text(json.dumps({"name": NAME, "commit": COMMIT}))  # as older versions wrote it
    assert "give --name" in one_error(fetch(nowhere, tmp_path, name=str(copied), verb="check"))
    (folder / path).write_bytes(LARGE[:-1] + b"?")
    (folder / "vae" / "config.json").unlink()
    wrong = fetch(nowhere, tmp_path, verb="check")
    assert wrong.returncode == 2 and f"vae/config.json and 1 more missing or not as {NAME} has it" in one_error(wrong)
    assert (folder / path).exists()


@pytest.mark.parametrize(("path", "change", "said"), [
    ("model_index.json", {"_class_name": "FluxPipeline"}, f"{NAME}: model_index.json is of FluxPipeline, which Yozora"),
    ("transformer/config.json", {"image_dim": 1280}, f"{NAME}: transformer/config.json is of a Wan that attends to a"),
    ("vae/config.json", {"num_res_blocks": 0.5}, f"{NAME}: vae/config.json describes no autoencoder of Wan"),
])  # fmt: skip
def test_a_model_that_does_not_run_is_refused_before_its_weights(
    path: str, change: dict[str, Any], said: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = json.dumps(CONFIGS[path] | change).encode()
    monkeypatch.setitem(FILES, path, other)
    hub.files[path] = other
    place = tmp_path / "yozora" / "models" / "someone" / ".tiny-wan.fetching"
    place.mkdir(parents=True)
    (place / "half").write_text("of another revision, which may go on")
    assert said in one_error(fetch(hub, tmp_path))
    assert not [path for _, path, _ in hub.asked if path.endswith(".safetensors")]
    assert [file.name for file in place.parent.iterdir()] == [place.name] and (place / "half").exists()


def test_an_original_layout_that_does_not_run_is_refused_so_too(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FILES, "model_index.json")
    monkeypatch.setitem(FILES, "config.json", json.dumps({"_class_name": "WanModel", "model_type": "i2v"}).encode())
    hub.files = dict(FILES)
    assert "attends to a picture (i2v)" in one_error(fetch(hub, tmp_path))
    assert not [path for _, path, _ in hub.asked if path.endswith(".safetensors")]


@pytest.mark.parametrize("told", [
    {"name": NAME, "commit": COMMIT, "files": {}},
    {"name": NAME, "commit": 7, "files": {"a": {"size": 1, "kind": "git", "digest": "00"}}},
    {"name": NAME, "commit": COMMIT, "files": {"a": {"size": None, "kind": "git", "digest": "00"}}},
    {"name": NAME, "commit": COMMIT, "files": {"a": {"size": 1, "kind": "md5", "digest": "00"}}},
    {"name": NAME, "commit": COMMIT, "files": ["a"]},
    {"name": "a/\ud800", "commit": COMMIT, "files": {"a": {"size": 1, "kind": "git", "digest": "00"}}},
    {"name": NAME, "commit": "", "files": {"a": {"size": 1, "kind": "git", "digest": "00"}}},
])  # fmt: skip
def test_a_note_that_says_nothing_of_use(told: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / FETCHED).write_text(json.dumps(told))
    with pytest.raises(ModelError, match="give --name to ask the hub"):
        check_model(tmp_path)


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and done.stderr.rstrip().endswith(errors[0]) and "Traceback" not in done.stderr
    return errors[0]


def test_errors_are_one_line(hub: Hub, tmp_path: Path) -> None:
    assert "there is no model someone/else on the hub" in one_error(fetch(hub, tmp_path, name="someone/else"))
    hub.gated = True
    assert "hf auth login" in one_error(fetch(hub, tmp_path))
    assert "check the network" in one_error(fetch("http://127.0.0.1:9", tmp_path))


def test_names(tmp_path: Path) -> None:
    assert is_hub_name("Wan-AI/Wan2.1-T2V-1.3B-Diffusers")
    for name in ("mini", "../x", "a/../b", "a/b/c", "/a/b", "a/"):
        assert not is_hub_name(name)
        with pytest.raises(ModelError, match="ORGANISATION/NAME"):
            fetch_model(name, folder=tmp_path / "new")
    with pytest.raises(ModelError, match="yozora models fetch nobody/nothing"):
        find_model("nobody/nothing")
