"""What is given: pictures, clips and masks, from files or memory, brought to a canvas's size and rate.

A file is decoded frame by frame and each frame is fitted as it comes, so that a long clip of large frames needs no more
memory than the canvas that it is put on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from yozora.clip import Clip, open_frames
from yozora.create.limits import shown
from yozora.create.sizes import MAX_SECONDS
from yozora.errors import CanvasError, MediaError

Fit = Literal["crop", "pad", "stretch"]
Picture = Clip | str | Path | np.ndarray
"""A picture or a clip: a file, frames in memory, or uint8 [H, W, 3]."""

WHITE = 128  # a mask's pixel is white from here on: compressed masks are not quite black and white
SAME_SHAPE = 0.03  # how far, as a part, the aspects of a clip and its mask may differ


@dataclass(frozen=True, eq=False)
class Given:
    """A picture or clip before it is put on a canvas: its file ("" where there is none) or its frames, its own size
    (width, height) and rate."""

    path: str
    size: tuple[int, int]
    fps: float
    clip: Clip | None = None

    @property
    def aspect(self) -> float:
        """Width / height."""
        return self.size[0] / self.size[1]

    def read(self, width: int, height: int, fps: float, how: Fit = "crop", count: int | None = None) -> Clip:
        """Its frames, at most the first `count`, at the canvas's size and rate; a picture is one frame. Raises
        MediaError, and CanvasError for a clip that is longer than any canvas."""
        frames: list[np.ndarray] = []
        last: np.ndarray | None = None
        most = int(MAX_SECONDS * fps) + 1
        with ExitStack() as stack:
            coming = iter(self.clip.frames) if self.clip else stack.enter_context(open_frames(self.path))
            for frame in at_rate(coming, self.fps, fps):
                # a frame that is shown several times is fitted once
                same = frame is last
                frames.append(frames[-1] if same else fit_frames(frame[None], width, height, how)[0])
                last = frame
                if len(frames) == count:
                    break
                if len(frames) > most:
                    name = self.path or "the clip"
                    raise CanvasError(f"{name} is too long: at most {MAX_SECONDS:g} s; cut it first")
        return Clip(np.stack(frames), fps)


def open_given(what: Picture) -> Given:
    """Looks at what is given without reading all of it. Raises MediaError for a file, CanvasError for an array."""
    if isinstance(what, (str, Path)):
        with open_frames(what) as reader:
            return Given(str(what), reader.size, reader.fps)
    if isinstance(what, Clip):
        return Given("", what.size, what.fps, what)
    if not isinstance(what, np.ndarray):
        hint = "; of a Pillow image, np.asarray(image.convert('RGB'))" if hasattr(what, "convert") else ""
        raise CanvasError(f"a picture is a file, a Clip or an array uint8 [height, width, 3], not {shown(what)}{hint}")
    if what.dtype != np.uint8 or what.ndim != 3 or what.shape[2] != 3 or 0 in what.shape:
        raise CanvasError(f"a picture is uint8 [height, width, 3], not {what.dtype} {list(what.shape)}")
    return Given("", (what.shape[1], what.shape[0]), 1.0, Clip(what[None], 1.0))


def held_smaller(path: str, size: tuple[int, int], fps: float) -> list[str]:
    """A line where a clip's file has more pixels, or more frames a second, than the canvas that it is put on; of a
    picture only the first counts."""
    try:
        with open_frames(path) as reader:
            (w, h), rate, moves = reader.size, reader.fps, len(list(islice(reader, 2))) == 2
    except MediaError:  # gone since it was read
        return []
    width, height = size
    if w * h <= width * height and (rate <= fps or not moves):
        return []
    was, becomes = f"{w}x{h}", f"{width}x{height}"
    if moves:
        was, becomes = f"{was} at {rate:.4g} frames a second", f"{becomes} at {fps:g}"
    return [f"{path} is {was} and becomes {becomes}, which is what this model makes; --enhance enlarges the result"]


def at_rate(frames: Iterator[np.ndarray], rate: float, fps: float) -> Iterator[np.ndarray]:
    """Frames shown at `rate` as they are seen at `fps`: some twice, or some left out. One frame alone stays one."""
    shown, first, index = 0, None, -1
    for index, frame in enumerate(frames):
        if first is None:
            first = frame  # waits until there is a second one
            continue
        for number, each in ((index - 1, first), (index, frame)) if index == 1 else ((index, frame),):
            while math.floor((shown + 0.5) * rate / fps + 1e-9) == number:
                yield each
                shown += 1
    if first is not None and shown == 0:
        yield first


def take(frames: np.ndarray, first: int, count: int) -> np.ndarray:
    """`count` frames from `first` on; before the beginning the first is repeated, after the end the last."""
    if first >= 0 and first + count <= len(frames):
        return frames[first : first + count]
    return frames[np.clip(np.arange(first, first + count), 0, len(frames) - 1)]


def fit(clip: Clip, width: int, height: int, how: Fit = "crop") -> Clip:
    """The clip at width × height pixels: cropped about its centre to that aspect, padded with black, or stretched."""
    return Clip(fit_frames(clip.frames, width, height, how), clip.fps, clip.recipe)


def fit_frames(frames: np.ndarray, width: int, height: int, how: Fit = "crop") -> np.ndarray:
    """`fit` for uint8 [T, H, W, 3]."""
    check_fit(how)
    h, w = frames.shape[1:3]
    if how == "pad":
        left, top, inner_w, inner_h = pad_box((w, h), (width, height))
        padded = np.zeros((len(frames), height, width, 3), np.uint8)
        padded[:, top : top + inner_h, left : left + inner_w] = _resize(frames, inner_w, inner_h)
        return padded
    if how == "crop":
        left, top, cropped_w, cropped_h = crop_box((w, h), (width, height))
        frames = np.ascontiguousarray(frames[:, top : top + cropped_h, left : left + cropped_w])
    return _resize(frames, width, height)


def crop_box(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """What of a source is left when it is cropped to the shape of `size` (both width, height): left, top, width,
    height."""
    (w, h), (width, height) = source, size
    if w * height > h * width:
        w = max(1, round(h * width / height))
    else:
        h = max(1, round(w * height / width))
    return (source[0] - w) // 2, (source[1] - h) // 2, w, h


def pad_box(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a source stands when it is padded to `size` (both width, height): left, top, width, height."""
    scale = min(size[0] / source[0], size[1] / source[1])
    w, h = max(1, round(source[0] * scale)), max(1, round(source[1] * scale))
    return (size[0] - w) // 2, (size[1] - h) // 2, w, h


def check_fit(how: str) -> None:
    """Raises CanvasError for a way of fitting that there is not."""
    if how not in get_args(Fit):
        raise CanvasError(f"{shown(how)} is no way to fit: use {', '.join(get_args(Fit))}")


def read_mask(mask: Given, size: tuple[int, int], width: int, height: int, fps: float, how: Fit) -> np.ndarray:
    """bool [n, height, width], True where the mask is white, fitted as the clip of `size` that it belongs to. Raises
    CanvasError where it is of another shape than that clip, or white nowhere."""
    if abs(math.log(mask.aspect * size[1] / size[0])) > SAME_SHAPE:
        (w, h), (clip_w, clip_h) = mask.size, size
        raise CanvasError(f"the mask is {w}x{h} and the clip {clip_w}x{clip_h}: they must have the same shape")
    white = mask.read(width, height, fps, how).frames.mean(-1) >= WHITE
    if not white.any():
        raise CanvasError("the mask is white nowhere: paint white what is to be invented")
    return white


def _resize(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    return frames if frames.shape[1:3] == (height, width) else Clip(frames, 1.0).resized(width, height).frames
