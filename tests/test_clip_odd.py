"""Odd files that other programs write: unusual pixels, alpha, interlacing, one frame, odd sizes, sound beside."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.codec import Codec
from clips import corners, gradient, psnr, quadrants, write_with_av

from yozora.clip import Clip

DEPTHS = [
    ("libx264", "yuv420p10le", "mp4"),
    ("libx264", "yuv444p10le", "mkv"),
    ("libx265", "yuv420p10le", "mp4"),
    ("libx265", "yuv420p12le", "mp4"),
    ("libsvtav1", "yuv420p10le", "mp4"),
    ("libvpx-vp9", "yuv420p", "webm"),
    ("prores_ks", "yuv422p10le", "mov"),
    ("ffv1", "yuv420p16le", "mkv"),
    ("mpeg4", "yuv420p", "avi"),
    ("mpeg2video", "yuv420p", "ts"),
    ("mjpeg", "yuvj420p", "avi"),
]


def encoder(name: str) -> str:
    """The name of an encoder, or a skip where this FFmpeg was built without it."""
    try:
        Codec(name, "w")
    except ValueError:
        pytest.skip(f"this FFmpeg has no {name}")
    return name


@pytest.mark.parametrize("codec, pixels, ending", DEPTHS)
def test_codecs_and_depths(tmp_path: Path, codec: str, pixels: str, ending: str) -> None:
    frames = gradient(5)
    clip = Clip.read(write_with_av(tmp_path / f"x.{ending}", frames, encoder(codec), pixels))
    assert clip.frames.shape == frames.shape and clip.fps == 30
    assert psnr(clip.frames, frames) > 32


@pytest.mark.parametrize(
    "codec, pixels, ending",
    [
        ("libvpx-vp9", "yuva420p", "webm"),
        ("prores_ks", "yuva444p10le", "mov"),
        ("qtrle", "argb", "mov"),
        ("ffv1", "yuva420p10le", "mkv"),
        ("apng", "rgba", "apng"),
    ],
)
def test_transparent_videos_are_seen_on_white(tmp_path: Path, codec: str, pixels: str, ending: str) -> None:
    frames = gradient(4)
    rgba = np.concatenate([frames, np.full((*frames.shape[:3], 1), 255, np.uint8)], -1)
    rgba[:, :32, :, 3] = 0
    path = write_with_av(tmp_path / f"x.{ending}", rgba, encoder(codec), pixels, source="rgba")
    seen = frames.copy()
    seen[:, :32] = 255
    assert psnr(Clip.read(path).frames, seen) > 35


@pytest.mark.parametrize(
    "codec, pixels, ending, black, white",
    [("libx264", "gray", "mp4", 16, 235), ("libx264", "gray10le", "mp4", 16, 235), ("qtrle", "gray", "mov", 0, 255)],
)
def test_grey_videos_keep_their_levels(
    tmp_path: Path, codec: str, pixels: str, ending: str, black: int, white: int
) -> None:
    """Monochrome H.264 that says nothing of its range has the range of television, like any other."""
    ramp = np.repeat(np.linspace(black, white, 96)[None], 64, 0)
    written = np.repeat(ramp.round().astype(np.uint8)[None], 3, 0)
    clip = Clip.read(write_with_av(tmp_path / f"x.{ending}", written, codec, pixels, source="gray"))
    assert np.array_equal(clip.frames[..., 0], clip.frames[..., 1])
    assert psnr(clip.frames[1, ..., 2], (ramp - black) / (white - black) * 255) > 38


def png(kind: int, depth: int, width: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one of the specification's colour types."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        *chunks,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


PALETTE = (b"PLTE", bytes((255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9)))
RED, GREEN, BLUE, WHITE, BLACK = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [0] * 3


@pytest.mark.parametrize(
    "data, pixels",
    [
        (png(3, 8, 3, [bytes((0, 1, 2))], PALETTE), [RED, GREEN, BLUE]),
        (png(3, 2, 4, [bytes((0b00011011,))], PALETTE), [RED, GREEN, BLUE, [9, 9, 9]]),
        (png(3, 8, 2, [bytes((0, 1))], PALETTE, (b"tRNS", b"\0")), [WHITE, GREEN]),
        (png(0, 8, 2, [bytes((0, 255))]), [BLACK, WHITE]),
        (png(0, 1, 4, [bytes((0b01010000,))]), [BLACK, WHITE, BLACK, WHITE]),
        (png(0, 16, 2, [bytes((0, 0, 255, 255))]), [BLACK, WHITE]),
        (png(4, 8, 2, [bytes((0, 255, 0, 0))]), [BLACK, WHITE]),
        (png(2, 16, 1, [bytes((255, 255, 0, 0, 0, 0))]), [RED]),
        (png(6, 8, 2, [bytes((255, 0, 0, 255, 255, 0, 0, 0))]), [RED, WHITE]),
    ],
    ids=[
        "palette",
        "4 colours",
        "palette with alpha",
        "grey",
        "1 bit",
        "16 bits",
        "grey with alpha",
        "48 bits",
        "alpha",
    ],
)
def test_every_kind_of_png(tmp_path: Path, data: bytes, pixels: list[list[int]]) -> None:
    (tmp_path / "x.png").write_bytes(data)
    assert Clip.read(tmp_path / "x.png").frames[0, 0].tolist() == pixels


@pytest.mark.parametrize(
    "codec, pixels, ending",
    [
        ("libx264", "yuv420p", "mp4"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("ffv1", "yuv420p", "mkv"),
        ("mpeg4", "yuv420p", "avi"),
        ("qtrle", "rgb24", "mov"),
        ("gif", "rgb8", "gif"),
    ],
)
def test_videos_of_one_frame(tmp_path: Path, codec: str, pixels: str, ending: str) -> None:
    clip = Clip.read(write_with_av(tmp_path / f"x.{ending}", gradient(1), encoder(codec), pixels))
    assert clip.frames.shape == (1, 64, 96, 3)


@pytest.mark.parametrize(
    "codec, pixels, ending",
    [
        ("libx264", "yuv444p", "mp4"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("ffv1", "yuv420p", "mkv"),
        ("mjpeg", "yuvj420p", "avi"),
    ],
)
@pytest.mark.parametrize("size", [(33, 17), (17, 65), (5, 41)])
def test_odd_sizes(tmp_path: Path, codec: str, pixels: str, ending: str, size: tuple[int, int]) -> None:
    frames = gradient(3, *size)
    clip = Clip.read(write_with_av(tmp_path / f"x.{ending}", frames, encoder(codec), pixels))
    assert clip.frames.shape == frames.shape
    assert psnr(clip.frames, frames) > 33


def moving_bar(count: int) -> np.ndarray:
    frames = np.zeros((count, 64, 96, 3), np.uint8)
    for index in range(count):
        frames[index, :, 4 * index : 4 * index + 20] = 255
    return frames


def combing(frames: np.ndarray) -> float:
    """How much rows differ from both of their neighbours."""
    rows = frames.astype(float)
    return float(np.abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]).mean())


@pytest.mark.parametrize("count", [2, 6])
def test_interlaced_videos_show_one_moment_a_frame(tmp_path: Path, count: int) -> None:
    bars = moving_bar(2 * count)
    woven = bars[0::2].copy()
    woven[:, 1::2] = bars[1::2, 1::2]
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"x264-params": "tff=1", "crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in woven:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    clip = Clip.read(tmp_path / "x.mp4")
    assert clip.frames.shape == woven.shape and clip.fps == 25
    assert combing(clip.frames) < 0.2 * combing(woven)
    assert len(Clip.read(tmp_path / "x.mp4", max_frames=1).frames) == 1


def test_a_progressive_video_is_left_as_it_is(tmp_path: Path) -> None:
    bars = moving_bar(4)
    path = write_with_av(tmp_path / "x.mkv", bars, "ffv1", "bgr0")
    assert np.array_equal(Clip.read(path).frames, bars)


def test_a_phone_video_of_variable_rate_upright_at_a_constant_one(tmp_path: Path) -> None:
    path = write_with_av(
        tmp_path / "x.mp4", np.repeat(quadrants(96, 64)[None], 5, 0), times=[0, 20, 40, 100, 120], rotation=-90
    )
    clip = Clip.read(path)
    assert clip.size == (64, 96) and clip.fps == 30
    assert len(clip.frames) >= 7  # the last one is shown from 0.2 s on
    assert {tuple(corners(frame)) for frame in clip.frames} == {("blue", "red", "white", "green")}


def test_sound_beside_the_picture_is_left_out(tmp_path: Path) -> None:
    frames = gradient(6)
    with av.open(str(tmp_path / "x.mp4"), "w") as container:
        sound: Any = container.add_stream("aac", rate=44100)
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        noise.sample_rate = 44100
        container.mux(sound.encode(noise))
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        for each in (sound, stream):
            container.mux(each.encode(None))
    assert psnr(Clip.read(tmp_path / "x.mp4").frames, frames) > 35
