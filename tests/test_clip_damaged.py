"""What is no media, or damaged, is refused in one line."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from clips import ENDINGS, RECIPE, gradient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yozora.clip import Clip
from yozora.errors import MediaError


def make_text(path: Path) -> None:
    path.write_text("this is not a video\n" * 50)


def make_playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n")


def make_sound(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.touch(), "is empty"),
        (os.mkfifo, "is not an ordinary file"),
        (make_text, "not a video or picture"),
        (make_playlist, "not a video or picture"),
        (make_sound, "no picture in it"),
        (lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)), "not a video or picture"),
    ],
)
def test_files_that_are_no_media(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    for ending in ("mp4", "png"):
        path = tmp_path / f"x.{ending}"
        make(path)
        with pytest.raises(MediaError, match=words) as error:
            Clip.read(path)
        assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_webp_that_claims_to_be_enormous(tmp_path: Path) -> None:
    Clip(gradient(2), 8).write(tmp_path / "x.webp")
    data = bytearray((tmp_path / "x.webp").read_bytes())
    data[24:30] = b"\xff" * 6
    (tmp_path / "x.webp").write_bytes(data)
    with pytest.raises(MediaError, match="too large"):
        Clip.read(tmp_path / "x.webp")


def png_header(side: int) -> bytes:
    """A PNG, one row of it, whose header says side × side."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg_header(side: int) -> bytes:
    frame = struct.pack(">HHBHHB", 0xFFC0, 11, 8, side, side, 1) + b"\1\x11\0"
    return b"\xff\xd8" + frame + struct.pack(">HH", 0xFFDA, 8) + b"\1\1\0\0?\0" + b"\xff\xd9"


def gif_header(side: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b";"


def webp_header(side: int) -> bytes:
    body = b"/" + (side - 1 | (side - 1) << 14).to_bytes(4, "little")
    return b"RIFF" + struct.pack("<I", 18) + b"WEBPVP8L" + struct.pack("<I", 5) + body + b"\0"


@pytest.mark.parametrize(
    "make, side", [(png_header, 12_000), (jpeg_header, 60_000), (gif_header, 40_000), (webp_header, 16_383)]
)
def test_a_picture_that_is_too_large_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[int], bytes], side: int
) -> None:
    (tmp_path / "x").write_bytes(make(side))
    monkeypatch.setattr(av, "open", None)  # which would decode it
    with pytest.raises(MediaError, match=rf"too large: {side}x{side}, more than 134 million pixels"):
        Clip.read(tmp_path / "x")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files(tmp_path: Path, ending: str, part: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    path = tmp_path / f"x.{ending}"
    Clip(noise, 8).write(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(MediaError) as error:
        Clip.read(path)
    assert "\n" not in str(error.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ending=st.sampled_from(ENDINGS), at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=8))
def test_damaged_files_never_raise_anything_else(tmp_path: Path, ending: str, at: float, junk: bytes) -> None:
    path = tmp_path / f"x.{ending}"
    Clip(gradient(3, 32, 32), 8, RECIPE).write(path)
    data = bytearray(path.read_bytes())
    start = int(at * len(data))
    data[start : start + len(junk)] = junk
    path.write_bytes(data)
    try:
        Clip.read(path)
    except MediaError as error:
        assert "\n" not in str(error)
