"""Fetching open weights from the Hugging Face hub: what was begun goes on, and every file is checked by its hash.

A model is downloaded beside its place and moved there once all of it is right, so what has a place is whole.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yozora.errors import ModelError
from yozora.models.folder import CONFIG, first_line
from yozora.models.wan_folder import PIPELINE

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.pth", "LICENSE*", "README.md")
BLOCK = 2**22


def is_hub_name(name: str) -> bool:
    """Whether it reads as ORGANISATION/NAME."""
    return NAME.fullmatch(name) is not None


def models_folder() -> Path:
    """Where fetched models are kept: `yozora/models` in $XDG_DATA_HOME or ~/.local/share, in ~/Library/Application
    Support on macOS, in %LOCALAPPDATA% on Windows. Raises ModelError for a user without a home."""
    try:
        home = Path.home()
    except RuntimeError:
        raise ModelError("there is no home folder to keep models in: set HOME") from None
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = home / "Library" / "Application Support"
    else:
        root = Path(os.environ.get("XDG_DATA_HOME", ""))
        if not root.is_absolute():  # unset, or one that the XDG specification says to ignore
            root = home / ".local" / "share"
    return root / "yozora" / "models"


def fetched(name: str) -> Path | None:
    """The folder of a model that was fetched; None where it was not."""
    folder = models_folder() / name
    return folder if is_hub_name(name) and folder.is_dir() else None


def fetch_model(
    name: str, revision: str | None = None, folder: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> Path:
    """Downloads a model, ORGANISATION/NAME, into `folder` (None: where `load` finds it by its name) and returns that.
    Files that are there from an interrupted download are gone on with. Raises ModelError, in one line."""
    if not is_hub_name(name):
        raise ModelError(f"{name[:120]!r} is no name on the hub: give ORGANISATION/NAME")
    folder = models_folder() / name if folder is None else folder
    if folder.exists():
        raise ModelError(f"{folder} is there already: remove it to fetch {name} again")
    hub = _library()
    partial = folder.with_name(f".{folder.name}.fetching")
    try:
        files, commit = list_files(hub, name, revision)
        size = sum(file.size for file in files)
        say(f"{name} at {commit[:12]}: {len(files)} files, {size / 1e9:.2f} GB")
        hub.snapshot_download(name, revision=commit, local_dir=partial, allow_patterns=[file.path for file in files])
        for file in files:
            say(f"checking {file.path}")
            check_file(partial / file.path, file)
        (partial / "fetched.json").write_text(json.dumps({"name": name, "commit": commit}, indent=2) + "\n")
        os.replace(partial, folder)
    except ModelError:
        raise
    except Exception as error:  # the hub's own, its network library's, or the disk's
        raise ModelError(explain(hub, name, error)) from None
    return folder


def list_files(hub: Any, name: str, revision: str | None) -> tuple[list[Any], str]:
    """The files of a model that are needed, with sizes and hashes, and the commit. Raises the hub's errors and
    ModelError."""
    api = hub.HfApi()
    commit = api.model_info(name, revision=revision).sha
    tree = [file for file in api.list_repo_tree(name, recursive=True, revision=commit) if hasattr(file, "size")]
    files = [file for file in tree if any(Path(file.path).match(pattern) for pattern in WANTED)]
    paths = {file.path for file in files}
    if not paths & {PIPELINE, CONFIG}:
        raise ModelError(f"{name} has neither {PIPELINE} nor {CONFIG}: it is no model that Yozora runs")
    return files, commit


def check_file(path: Path, file: Any) -> None:
    """Raises ModelError, and removes the file, where it is not of the size and hash that the hub says."""
    right = path.is_file() and path.stat().st_size == file.size
    if right:
        large = getattr(file, "lfs", None)
        digest, wanted = (
            (hashlib.sha256(), large.sha256) if large else (hashlib.sha1(b"blob %d\0" % file.size), file.blob_id)
        )  # small files are known by git's hash of them
        with path.open("rb") as content:
            while block := content.read(BLOCK):
                digest.update(block)
        right = digest.hexdigest() == wanted
    if not right:
        path.unlink(missing_ok=True)
        raise ModelError(f"{file.path} did not arrive whole: fetch again, which goes on with the rest")


def explain(hub: Any, name: str, error: Exception) -> str:
    """An error of the hub or of the network, in one line that says what to do."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return f"{name} is only for those who were granted it: ask on its page, then log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no such revision: leave it out for the newest"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no model {name} on the hub, or it is private: check the name, or log in with `hf auth login`"
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub refused {name} ({first_line(error)}): try again later"
    if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
        return f"cannot write {name} ({error.strerror}): make room, or choose another folder with --output"
    return f"cannot reach the hub for {name} ({first_line(error)}): check the network, then fetch again to go on"


def _library() -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise ModelError("fetching models needs huggingface_hub: pip install 'yozora[open]'") from None
