"""`yozora world`: clips of the simulated world, with captions and ground truth."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.errors import CanvasError, MediaError, SceneError, needing

if TYPE_CHECKING:
    import numpy as np

    from yozora.clip import Clip
    from yozora.world.scene import Scene

world = typer.Typer(help="The simulated world that the shipped model learns from.", no_args_is_help=True)
MAX_CLIPS = 100_000
MAX_PIXELS = 2**28  # width × height × frames of a clip, which is rendered in memory: 0.8 GB


@world.callback()
def _world() -> None:
    """The simulated world that the shipped model learns from."""


@world.command()
def sample(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write to.")],
    count: Annotated[int, typer.Option("-n", "--count", help="How many clips.")] = 8,
    seed: Annotated[int, typer.Option(help="The first scene's seed; the others follow.")] = 0,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT; both even.")] = "256x256",
    seconds: Annotated[float, typer.Option(help="Length of a clip.")] = 3.0,
    fps: Annotated[float, typer.Option(help="Frames a second.")] = 16.0,
    language: Annotated[str, typer.Option(help="Language of the captions: en, de, fr or es.")] = "en",
    mix: Annotated[str, typer.Option(help="Which scenes: full or simple.")] = "full",
) -> None:
    """Render clips of random scenes, with captions.jsonl, scenes.jsonl and a contact sheet, sheet.png."""
    with needing("the simulated world needs", "world"):
        from yozora.world import MIXES, render, sample_scene
    from yozora.clip import Clip

    width, height, frames = _check(size, seconds, fps, count, seed, language)
    if mix not in MIXES:
        raise SceneError(f"unknown mix {mix!r}; known: {', '.join(MIXES)}")
    # what a caption tells then fills the clip, no less and no more; a mix lasts at least 0.1 s
    lasting = replace(MIXES[mix], duration=max(0.1, frames / fps))
    _make_folder(output)
    captions, scenes, rows = [], [], []
    most = min(12, max(1, MAX_PIXELS // (6 * width * height)))
    digits = max(3, len(str(count - 1)))
    try:
        for i in _progress(count):
            scene = sample_scene(seed + i, lasting)
            clip = Clip(render(scene, width, height, frames, fps).frames, fps)
            name = f"{i:0{digits}d}.mp4"
            clip.write(output / name)
            captions.append(_caption(name, scene, language, seed + i))
            scenes.append(scene.to_json())
            if len(rows) < most:
                rows.append(_row(clip))
    finally:  # clips that were made before an interruption have their captions, too
        if rows:
            _write_lines(output / "captions.jsonl", captions)
            _write_lines(output / "scenes.jsonl", scenes)
            Clip(_sheet(rows)[None], 1.0).write(output / "sheet.png")
    print(f"{output}: {count} clips of {width}x{height}, {frames} frames; captions.jsonl, scenes.jsonl, sheet.png")


def _caption(name: str, scene: Scene, language: str, seed: int) -> str:
    from yozora.world import describe, is_held_out

    said = {detail: describe(scene, language, detail, seed) for detail in ("short", "dense", "timed")}
    line = {"file": name, "seed": seed, "language": language, **said, "held_out": bool(is_held_out(scene))}
    return json.dumps(line, ensure_ascii=False)


def _row(clip: Clip) -> np.ndarray:
    """Six frames of a clip side by side: uint8 [H, 6 W, 3]."""
    import numpy as np

    shown = np.linspace(0, len(clip.frames) - 1, 6).round().astype(int)
    return np.concatenate(list(clip.frames[shown]), axis=1)


def _sheet(rows: list[np.ndarray]) -> np.ndarray:
    """The rows one below the other."""
    import numpy as np

    return np.concatenate(rows, axis=0)


def _check(size: str, seconds: float, fps: float, count: int, seed: int, language: str) -> tuple[int, int, int]:
    """(width, height, frames). Raises CanvasError, SceneError."""
    from yozora.create.sizes import Grid, check_fps, check_seconds, parse_size

    width, height = parse_size(size)
    Grid(spatial=2, patch=1).check_size(width, height)  # H.264 in yuv420p wants even sides
    check_fps(fps)
    check_seconds(seconds)
    frames = Grid(temporal=1).nearest_frames(seconds, fps)
    if width * height * frames > MAX_PIXELS:
        raise CanvasError(
            f"{frames} frames of {width}x{height} are too much for a clip: "
            "ask for a smaller size, fewer seconds or fewer frames a second"
        )
    if not 1 <= count <= MAX_CLIPS:
        raise SceneError(f"{count} clips cannot be made: use 1 to {MAX_CLIPS}")
    if seed < 0 or seed + count > 2**63:
        raise SceneError(f"seed {seed} is out of range: use 0 or more, below 2^63")
    if language not in ("en", "de", "fr", "es"):
        raise SceneError(f"unknown language {language!r}; known: en, de, fr, es")
    return width, height, frames


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"cannot write to {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise MediaError(f"cannot write to {folder}: permission denied")


def _write_lines(path: Path, lines: list[str]) -> None:
    """All of the file or nothing of it."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MediaError(f"cannot write {path}: {error.strerror}") from None


def _progress(count: int) -> Iterable[int]:
    """range(count), with a bar on a terminal."""
    if not sys.stderr.isatty():
        return range(count)
    from rich.console import Console
    from rich.progress import track

    return track(range(count), "rendering", console=Console(stderr=True), transient=True)
