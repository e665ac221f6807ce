"""The ways of creating: each is a short function that draws a canvas."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yozora.clip import Clip
from yozora.create.canvas import Anchor, Canvas, Cue, fit
from yozora.create.sizes import Native, choose_size, frames_for
from yozora.errors import CanvasError

Picture = Clip | str | Path | np.ndarray


def text_to_video(
    prompt: str,
    *,
    native: Native,
    seconds: float | None = None,
    size: str | tuple[int, int] | None = None,
    aspect: str | float | None = None,
    resolution: str | int | None = None,
    negative: str = "",
) -> Canvas:
    """Nothing is held. What is not said is as the model was trained: its length, size and rate. Raises CanvasError."""
    width, height = choose_size(native, size, aspect, resolution)
    frames = frames_for(seconds, native.fps, native)
    return Canvas(width, height, frames, native.fps, (Cue(0.0, prompt),), negative=negative)


def text_to_image(
    prompt: str,
    *,
    native: Native,
    size: str | tuple[int, int] | None = None,
    aspect: str | float | None = None,
    resolution: str | int | None = None,
    negative: str = "",
) -> Canvas:
    """A video of one frame. Raises CanvasError."""
    width, height = choose_size(native, size, aspect, resolution)
    return Canvas(width, height, 1, native.fps, (Cue(0.0, prompt),), negative=negative)


def image_to_video(
    image: Picture,
    prompt: str = "",
    *,
    native: Native,
    seconds: float | None = None,
    size: str | tuple[int, int] | None = None,
    aspect: str | float | None = None,
    resolution: str | int | None = None,
    negative: str = "",
) -> Canvas:
    """The first frame is held. `image` is a file, a Clip (its first frame counts) or uint8 [H, W, 3]; it is cropped
    about its centre to the canvas, whose aspect is the picture's unless another is asked for. Raises CanvasError,
    MediaError."""
    picture, source = read_picture(image)
    if size is None and aspect is None:
        aspect = float(np.clip(picture.size[0] / picture.size[1], 1 / 8, 8))
    width, height = choose_size(native, size, aspect, resolution)
    frames = frames_for(seconds, native.fps, native)
    anchor = Anchor(fit(picture, width, height), 0, 1.0, source)
    return Canvas(width, height, frames, native.fps, (Cue(0.0, prompt),), (anchor,), negative=negative)


def read_picture(image: Picture) -> tuple[Clip, str]:
    """(a clip of one frame, the file it came from or ""). Raises MediaError for a file, CanvasError for an array."""
    if isinstance(image, (str, Path)):
        return Clip.read(image, max_frames=1), str(image)
    if isinstance(image, Clip):
        return Clip(image.frames[:1], image.fps), ""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise CanvasError(f"a picture is uint8 [height, width, 3], not {image.dtype} {list(image.shape)}")
    return Clip(image[None], 1.0), ""
