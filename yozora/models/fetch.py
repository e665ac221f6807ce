"""Fetching open weights from the Hugging Face hub: what was begun goes on, and every file is checked by its hash.

A model is downloaded beside its place and moved there once all of it is right, so what has a place is whole. What each
file should be is written down there, so that it can be checked again.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from yozora.errors import ModelError, printable
from yozora.models.folder import CONFIG, first_line, read_json
from yozora.models.wan_folder import PIPELINE, SCHEDULER, check_configs, find_parts, is_wan

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt", "*.pth", "LICENSE*", "README.md")
CONFIGS = (PIPELINE, CONFIG, SCHEDULER, f"transformer/{CONFIG}", f"vae/{CONFIG}")
BLOCK = 2**22
FETCHED = "fetched.json"


@dataclass(frozen=True)
class Known:
    """What a file should be: its size in bytes and its hash, hexadecimal: "sha256" of the content or, of small files,
    "git", which is SHA-1 of that with its length before it."""

    size: int
    kind: Literal["sha256", "git"]
    digest: str

    def is_of(self, path: Path) -> bool:
        """Whether the file is that. Raises OSError."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        made = hashlib.sha256() if self.kind == "sha256" else hashlib.sha1(b"blob %d\0" % self.size)
        with path.open("rb") as content:
            while block := content.read(BLOCK):
                made.update(block)
        return made.hexdigest() == self.digest


class Told(NamedTuple):
    """What is written down beside a model that was fetched."""

    name: Annotated[str, Field(pattern=f"^(?:{NAME.pattern})$")]
    commit: Annotated[str, Field(pattern="^[0-9a-f]{7,64}$")]
    files: Annotated[dict[str, Known], Field(min_length=1)]


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
        _check_runs(hub, name, commit, files)
        say(f"{name} at {commit[:12]}: {described(files)}")
        hub.snapshot_download(name, revision=commit, local_dir=partial, allow_patterns=list(files))
        for path, known in files.items():
            say(f"checking {path}")
            _check_arrived(partial, path, known)
        told = {"name": name, "commit": commit, "files": {path: asdict(known) for path, known in files.items()}}
        for path in sorted(partial.rglob("*"), reverse=True):  # what an earlier commit had, and the hub's own notes
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(partial).as_posix() not in files:
                path.unlink()
        (partial / FETCHED).write_text(json.dumps(told, indent=2) + "\n")
        os.replace(partial, folder)
    except ModelError:
        raise
    except Exception as error:  # the hub's own, its network library's, or the disk's
        raise ModelError(explain(hub, name, error)) from None
    return folder


def _check_arrived(partial: Path, path: str, known: Known) -> None:
    """Raises ModelError where a file is not what the hub says, and removes it."""
    if not known.is_of(partial / path):
        (partial / path).unlink(missing_ok=True)
        raise ModelError(f"{path} did not arrive whole: fetch again, which goes on with the rest")


def _check_runs(hub: Any, name: str, commit: str, files: Mapping[str, Known]) -> None:
    """Raises ModelError for a Wan that Yozora does not run, by its configurations alone: they come first, to a place of
    their own, since what they say may make all the rest useless."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        hub.snapshot_download(name, revision=commit, local_dir=place, allow_patterns=[p for p in CONFIGS if p in files])
        try:
            if is_wan(place):
                check_configs(find_parts(place))
        except ModelError as error:
            raise ModelError(str(error).replace(f"{place}{os.sep}", f"{name}: ")) from None


def check_model(folder: Path, name: str | None = None, say: Callable[[str], None] = lambda _: None) -> str:
    """Hashes every file of a model's folder once more; a line that says what is right. What they should be was written
    down when it was fetched, or is asked of the hub, where it is called `name`. Raises ModelError, which names the
    files that are others."""
    if name is None:
        name, commit, files = read_fetched(folder)
    else:
        hub = _library()
        try:
            files, commit = list_files(hub, name, None)
        except ModelError:
            raise
        except Exception as error:  # the hub's own or its network library's
            raise ModelError(explain(hub, name, error)) from None
    wrong = []
    for path, known in files.items():
        say(f"checking {printable(path)}")
        try:
            if not known.is_of(folder / path):
                wrong.append(path)
        except OSError as error:
            raise ModelError(f"cannot read {printable(folder / path)} ({error.strerror}): copy it again") from None
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(
            f"{folder}: {printable(wrong[0])}{more} missing or not as {name} has it: fetch or copy it again"
        )
    return f"{folder}: {described(files)}, all as in {name} at {commit[:12]}"


def read_fetched(folder: Path) -> Told:
    """What was written down of a folder that was fetched. Raises ModelError."""
    path = folder / FETCHED
    if not path.is_file():
        raise ModelError(f"{folder} was not fetched by `yozora models fetch`: say by --name what the hub calls it")
    told = read_json(path)
    try:
        return TypeAdapter(Told).validate_python(told)
    except ValidationError:
        raise ModelError(f"{path} does not say what the files should be: give --name to ask the hub") from None


def list_files(hub: Any, name: str, revision: str | None) -> tuple[dict[str, Known], str]:
    """The files of a model that are needed, and the commit. Raises the hub's errors and ModelError."""
    if not is_hub_name(name):
        raise ModelError(f"{name[:120]!r} is no name on the hub: give ORGANISATION/NAME")
    api = hub.HfApi()
    commit = api.model_info(name, revision=revision).sha
    files = {}
    for file in api.list_repo_tree(name, recursive=True, revision=commit):
        if hasattr(file, "size") and any(Path(file.path).match(pattern) for pattern in WANTED):
            large = getattr(file, "lfs", None)
            kind, digest = ("sha256", large.sha256) if large else ("git", file.blob_id)
            files[file.path] = Known(file.size, kind, digest)
    if not files.keys() & {PIPELINE, CONFIG}:
        raise ModelError(f"{name} has neither {PIPELINE} nor {CONFIG}: it is no model that Yozora runs")
    return files, commit


def described(files: Mapping[str, Known]) -> str:
    """How many files, and how large."""
    return f"{len(files)} files, {sum(known.size for known in files.values()) / 1e9:.2f} GB"


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
