"""Frames and files that the tests of media share."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from yozora.clip import Recipe

RECIPE = Recipe(
    "a 'red' ball on <grass> & 夜空 \0\n", negative="fog", seed=7, steps=4, guidance=3.5, canvas={"frames": 9}
)
ANIMATED = ("mp4", "gif", "webp")
ENDINGS = (*ANIMATED, "png", "jpg")


def gradient(frames: int = 9, width: int = 96, height: int = 64) -> np.ndarray:
    """Smooth moving colours, uint8 `[T, H, W, 3]`."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    waves = [np.sin(x / 40 + t / 5), np.cos(y / 35 - t / 7), np.sin((x + y) / 60 + t / 9)]
    return np.stack([128 + 90 * wave for wave in waves], -1).astype(np.uint8)


def quadrants(width: int, height: int) -> np.ndarray:
    """A picture whose corners tell how it is turned: red, green / blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 255, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 255)
    picture[height // 2 :, width // 2 :] = (255, 255, 255)
    return picture


def corners(picture: np.ndarray) -> list[str]:
    """Names of the corner colours: top left, top right, bottom left, bottom right."""
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    places = (picture[8, 8], picture[8, -8], picture[-8, 8], picture[-8, -8])
    return [names.get(tuple((corner > 127).astype(int).tolist()), "?") for corner in places]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b.astype(float)) ** 2), 1e-9)))


def write_with_av(
    path: Path, frames: np.ndarray, codec: str = "libx264", pixels: str = "yuv420p", **extra: Any
) -> Path:
    """A file that Yozora did not write. `extra`: times (in 1/600 s), rotation, aspect, source (pixel format)."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)  # pyright cannot know that it is a video codec
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if "aspect" in extra:
            stream.codec_context.sample_aspect_ratio = extra["aspect"]
        if "rotation" in extra:
            stream.set_display_rotation(extra["rotation"])
        if "times" in extra:
            stream.codec_context.time_base = Fraction(1, 600)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format=extra.get("source", "rgb24"))
            if "times" in extra:
                picture.pts, picture.time_base = extra["times"][index], Fraction(1, 600)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path
