"""The report of an evaluation: a folder with a page, its figures as JSON and its clips; and the tables on the screen.

The folder appears when it is complete. One that an evaluation made before is replaced; any other is left alone.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from yozora import __version__
from yozora.create import Generator
from yozora.errors import MediaError
from yozora.evaluate.page import page
from yozora.evaluate.section import Section

MADE_BY = "yozora evaluate"
PAGE, FIGURES, CLIPS = "index.html", "report.json", "clips"


@dataclass(frozen=True)
class Stamp:
    """What was measured, how and when. `settings` are what the command was asked for."""

    suite: str
    model: str
    description: str
    device: str
    settings: dict[str, Any]
    seconds: float
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M"))
    versions: dict[str, str] = field(default_factory=lambda: _versions())

    def facts(self) -> dict[str, str]:
        """In words."""
        asked = ", ".join(f"{name} {_said(value)}" for name, value in self.settings.items() if value is not None)
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return {
            "model": f"{self.model}: {self.description}",
            "date": self.date,
            "settings": asked,
            "device": self.device,
            "versions": versions,
            "took": took(self.seconds),
        }


def stamp_of(generator: Generator, suite: str, settings: dict[str, Any], seconds: float) -> Stamp:
    """The stamp of a run with this model."""
    card, sampling = generator.bundle.card, vars(generator.settings())
    return Stamp(suite, card.name, card.description, _device(generator), sampling | settings, round(seconds, 1))


def figures(sections: Sequence[Section], stamp: Stamp) -> dict[str, Any]:
    """What `report.json` holds, without its clips' files."""
    return {
        "made_by": MADE_BY,
        **{name: _plain(value) for name, value in vars(stamp).items()},
        "sections": [
            {
                "title": section.title,
                "about": section.about,
                "columns": list(section.columns),
                "rows": [list(row) for row in section.rows],
                "figures": _plain(section.figures),
                "notes": list(section.notes),
                "clips": [{"caption": shown.caption, "good": shown.good} for shown in section.clips],
            }
            for section in sections
        ],
    }


def check_report(folder: Path) -> None:
    """Raises MediaError, in one line, unless a report can be written to `folder`: before the work is begun."""
    place = Path(os.path.abspath(folder))
    try:
        if not place.parent.is_dir():
            raise MediaError(f"{folder} cannot be written: the folder {folder.parent} does not exist")
        if place.exists() and not place.is_dir():
            raise MediaError(f"{folder} is a file: name a folder for the report")
        if place.is_symlink() or not _ours(place):
            raise MediaError(f"{folder} is not empty and holds no report of `{MADE_BY}`: name another folder")
        with contextlib.suppress(FileNotFoundError):
            os.lstat(place)  # which complains of names that cannot be
        tempfile.TemporaryFile(dir=place.parent).close()
    except (OSError, ValueError) as error:
        raise MediaError(f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def write_report(folder: Path, sections: Sequence[Section], stamp: Stamp) -> None:
    """Writes the folder, or nothing. Raises MediaError."""
    check_report(folder)
    folder = Path(os.path.abspath(folder))
    part = folder.with_name(f".yozora-{secrets.token_hex(6)}.part")
    try:
        (part / CLIPS).mkdir(parents=True)
        files = [_write_clips(part, number, section) for number, section in enumerate(sections)]
        said = figures(sections, stamp)
        for section, paths in zip(said["sections"], files, strict=True):
            for clip, path in zip(section["clips"], paths, strict=True):
                clip["file"] = path
        text = json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False)
        (part / FIGURES).write_text(text + "\n", encoding="utf-8")
        title = f"How good is {stamp.model}?"
        (part / PAGE).write_text(page(title, stamp.facts(), sections, files), encoding="utf-8")
        _put(part, folder)
    except OSError as error:
        raise MediaError(f"{folder} cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def show_sections(sections: Sequence[Section]) -> None:
    """Prints every table with its notes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    for section in sections:
        table = Table(title=Text(section.title), title_justify="left")
        for number, column in enumerate(section.columns):
            table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        for note in section.notes:
            console.print(Text(f"- {note}"))
        console.print()


def took(seconds: float) -> str:
    """A length of time in words."""
    minutes = round(seconds) // 60
    return f"{seconds:.1f} s" if minutes < 2 else f"{minutes} min {round(seconds) % 60} s"


def _write_clips(folder: Path, number: int, section: Section) -> list[str]:
    """The paths of a section's clips, from the folder on."""
    paths = [f"{CLIPS}/{number}-{index:03d}.mp4" for index in range(len(section.clips))]
    for path, shown in zip(paths, section.clips, strict=True):
        shown.clip.write(folder / path)
    return paths


def _put(part: Path, folder: Path) -> None:
    """Moves a complete folder to its place; what an evaluation made before gives way, and stays if that fails."""
    old = part.with_suffix(".old")
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(part, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _ours(folder: Path) -> bool:
    """Whether there is nothing in a folder but a report that this made."""
    if not folder.exists() or not any(folder.iterdir()):
        return True
    if {path.name for path in folder.iterdir()} - {PAGE, FIGURES, CLIPS}:
        return False
    try:
        return json.loads((folder / FIGURES).read_text(encoding="utf-8")).get("made_by") == MADE_BY
    except (OSError, ValueError, AttributeError):
        return False


def _plain(value: Any) -> Any:
    """What JSON can say: numbers that are not finite become null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _device(generator: Generator) -> str:
    import torch

    device = generator.bundle.device
    kind = str(generator.bundle.dtype).removeprefix("torch.")
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {kind}"
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return f"{device}{threads}, {kind}"


def _versions() -> dict[str, str]:
    import torch

    return {"yozora": __version__, "torch": torch.__version__, "Python": platform.python_version()}
