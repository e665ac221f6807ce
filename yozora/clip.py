"""Clip: frames and a rate; reading, writing and streaming media.

`Clip.read` and `clip.write` hold a whole clip in memory; `open_frames` and `FrameWriter` go frame by frame, so that
memory does not grow with length. MP4 (H.264), GIF, WebP, PNG and JPEG are written by file ending; reading takes these
and the other common video formats, turns photographs and phone videos upright, puts transparent pictures on white and
makes a variable frame rate constant. The recipe (what a clip was made from) travels in every format.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from yozora import _decode, _encode, _pictures
from yozora.errors import MediaError

__all__ = ["Clip", "FrameReader", "FrameWriter", "Recipe", "check_writable", "minding", "open_frames"]

_LONGEST_EDGE = 16384
_MOST_FPS = 1000.0
_minded: ContextVar[Callable[[], None] | None] = ContextVar("minded", default=None)


@dataclass(frozen=True)
class Recipe:
    """What a clip was made from: enough to make it again. `canvas` is any JSON object; `library` what a library of
    clips had to do with it."""

    prompt: str = ""
    negative: str = ""
    seed: int | None = None
    model: str = ""
    steps: int | None = None
    guidance: float | None = None
    solver: str = ""
    projected: bool = False
    lora: list[str] = field(default_factory=list)
    lora_sha256: list[str] = field(default_factory=list)
    reuse: float = 0.0
    interval: str = ""
    weights: str = ""
    tile: int = 0
    canvas: dict[str, Any] = field(default_factory=dict)
    library: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """ASCII JSON, marked as Yozora's."""
        return json.dumps({"yozora": 1, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe that `to_json` wrote; keys of later versions are ignored. Raises MediaError for anything else."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or "yozora" not in values:
            raise MediaError("this text is not a Yozora recipe")
        types = {
            "seed": int,
            "steps": int,
            "guidance": (int, float),
            "projected": bool,
            "reuse": (int, float),
            "lora": list,
            "tile": int,
            "lora_sha256": list,
            "canvas": dict,
            "library": dict,
        }
        known = {item.name: values[item.name] for item in fields(cls) if values.get(item.name) is not None}
        for name, value in known.items():
            if not isinstance(value, types.get(name, str)):
                raise MediaError(f"this recipe's {name} is of the wrong type")
        for name in ("lora", "lora_sha256"):
            if not all(isinstance(each, str) for each in known.get(name, ())):
                raise MediaError(f"this recipe's {name} is of the wrong type")
        return cls(**known)


@dataclass(frozen=True, eq=False)
class Clip:
    """A video, or a picture as a video of one frame: `frames` uint8 `[T, H, W, 3]` sRGB, shown at `fps` a second."""

    frames: np.ndarray
    fps: float
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        shape = getattr(self.frames, "shape", ())
        if getattr(self.frames, "dtype", None) != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            found = f"{getattr(self.frames, 'dtype', type(self.frames).__name__)} {list(shape)}"
            raise MediaError(f"frames must be a uint8 array [frames, height, width, 3], not {found}")
        _check_fps(self.fps)

    @classmethod
    def read(cls, path: str | os.PathLike[str], max_frames: int | None = None) -> Clip:
        """Read a video or picture, at most its first `max_frames`. A picture is one frame at 1 fps. Raises MediaError
        if it cannot be read, or has more than 2**27 (134 million) pixels a frame."""
        with open_frames(path) as reader:
            frames = list(islice(reader, max_frames))
        if not frames:
            raise MediaError(f"max_frames must be at least 1, not {max_frames}")
        return cls(np.stack(frames), reader.fps, reader.recipe)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the format that the file ending names; several frames as .png or .jpg become a contact sheet.
        MP4 makes odd sizes even by repeating the last row or column. Raises MediaError and leaves nothing behind."""
        with FrameWriter(path, self.size, self.fps, self.recipe) as writer:
            for frame in self.frames:
                writer.write(frame)

    @property
    def seconds(self) -> float:
        """How long it is shown."""
        return len(self.frames) / self.fps

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.frames.shape[2], self.frames.shape[1]

    def contact_sheet(self, columns: int | None = None, max_frames: int = _pictures.SHEET_FRAMES) -> np.ndarray:
        """One picture, uint8 `[H, W, 3]`, of up to `max_frames` frames evenly spaced from the first to the last."""
        if max_frames < 1 or (columns is not None and columns < 1):
            raise MediaError("a contact sheet needs at least one frame and one column")
        return _pictures.contact_sheet(self.frames[_pictures.spread(len(self.frames), max_frames)], columns)

    def resized(self, width: int, height: int) -> Clip:
        """The same clip at another size (bicubic, antialiased); the aspect ratio is the caller's to keep."""
        _check_size((width, height))
        return replace(self, frames=_pictures.resize(self.frames, width, height))


class FrameReader:
    """Iterates over a file's frames, uint8 `[H, W, 3]`, once. `fps`, `size` (width, height), `recipe` and how many
    `seconds` the file says it has (None for a picture, or where it does not say) are known from the start. Closes
    itself at the end; close it, or use `with`, to stop early."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        source = _decode.open_source(Path(path))
        self.fps, self.size, self._frames = source.fps, source.size, source.frames
        self.seconds = source.seconds
        try:
            self.recipe: Recipe | None = Recipe.from_json(source.label)
        except MediaError:  # somebody else's comment
            self.recipe = None

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        if (check := _minded.get()) is not None:
            check()
        return next(self._frames)

    def close(self) -> None:
        """Let go of the file."""
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextmanager
def minding(check: Callable[[], None]) -> Iterator[None]:
    """In the block, `check` is called before every frame that this thread reads from a file; what it raises ends the
    reading: a long clip may be no longer wanted half way through."""
    token = _minded.set(check)
    try:
        yield
    finally:
        _minded.reset(token)


def open_frames(path: str | os.PathLike[str]) -> FrameReader:
    """Open a video or picture for reading frame by frame. Raises MediaError if it cannot be read."""
    return FrameReader(path)


class FrameWriter:
    """Writes a file frame by frame, in a `with` block. The file appears under its name only when it is complete; after
    an exception nothing is left. A bad path, size or rate is a MediaError before any frame is taken."""

    def __init__(
        self, path: str | os.PathLike[str], size: tuple[int, int], fps: float, recipe: Recipe | None = None
    ) -> None:
        check_writable(path)
        _check_fps(fps)
        self.path, self.size, self.fps = Path(path), _check_size(size), float(fps)
        self.count = 0
        self._label = recipe.to_json() if recipe else ""
        self._encoder: _encode.Encoder | None = None

    def __enter__(self) -> Self:
        self._part = self.path.with_name(f".yozora-{secrets.token_hex(6)}.part")
        with self._explained():
            try:
                self._encoder = _encode.open_encoder(
                    self.path.suffix.lower(), self._part, self.size, self.fps, self._label
                )
            except BaseException:
                self._part.unlink(missing_ok=True)
                raise
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 `[H, W, 3]` of the writer's size."""
        width, height = self.size
        if frame.dtype != np.uint8 or frame.shape != (height, width, 3):
            raise MediaError(f"a frame must be uint8 [{height}, {width}, 3], not {frame.dtype} {list(frame.shape)}")
        if self._encoder is None:
            raise MediaError("a FrameWriter takes frames only inside its `with` block")
        with self._explained():
            self._encoder.add(frame)
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        encoder, self._encoder = self._encoder, None
        assert encoder is not None
        try:
            if kind is None:
                if self.count == 0:
                    raise MediaError(f"{self.path} was not written: there are no frames")
                with self._explained():
                    encoder.finish()
                    os.replace(self._part, self.path)
        finally:
            with contextlib.suppress(Exception):  # whatever went wrong has been raised already
                encoder.abort()
            self._part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what the system or the encoder complains of into one line."""
        try:
            yield
        except (OSError, ValueError) as error:  # av.FFmpegError is both
            reason = getattr(error, "strerror", None) or error
            raise MediaError(f"{self.path} cannot be written: {reason}") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise MediaError unless a file with a known ending can be made at `path`, without leaving anything there."""
    path = Path(path)
    if path.suffix.lower() not in _encode.ENDINGS:
        raise MediaError(f"{path} must end in {', '.join(_encode.ENDINGS[:-1])} or {_encode.ENDINGS[-1]}")
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(path.stat().st_mode):
                raise MediaError(f"{path} is a folder; give a file name")
            if not os.access(path, os.W_OK):
                raise MediaError(f"{path} is write-protected")
        if not path.parent.is_dir():
            raise MediaError(f"{path} cannot be written: the folder {path.parent} does not exist")
        tempfile.TemporaryFile(dir=path.parent).close()  # asking permission is not enough: a disk may be read-only
    except (OSError, ValueError) as error:
        raise MediaError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from None


def _check_fps(fps: float) -> None:
    if not (math.isfinite(fps) and 0.01 <= fps <= _MOST_FPS):
        raise MediaError(f"fps must be between 0.01 and {_MOST_FPS:g}, not {fps}")


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    if not (1 <= width <= _LONGEST_EDGE and 1 <= height <= _LONGEST_EDGE):
        raise MediaError(f"a size must be between 1x1 and {_LONGEST_EDGE}x{_LONGEST_EDGE}, not {width}x{height}")
    return width, height
