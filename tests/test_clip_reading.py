"""Reading media: real-world files come out upright, steady and opaque."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import corners, gradient, psnr, quadrants, write_with_av
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from yozora.clip import Clip, open_frames


@pytest.mark.parametrize("rotation, turned", [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_phone_videos_are_turned_upright(tmp_path: Path, rotation: int, turned: int) -> None:
    path = write_with_av(tmp_path / "x.mp4", np.repeat(quadrants(96, 64)[None], 3, 0), rotation=rotation)
    clip = Clip.read(path)  # the matrix turns counter-clockwise, as numpy does
    assert clip.size == ((96, 64) if turned % 2 == 0 else (64, 96))
    assert corners(clip.frames[0]) == corners(np.rot90(quadrants(96, 64), turned))


def exif(orientation: int, order: str = ">") -> bytes:
    """A TIFF block whose first directory has another tag and then the orientation."""
    head = {">": b"MM\0*", "<": b"II*\0"}[order]
    tags = struct.pack(f"{order}HHIHH", 0x0100, 3, 1, 96, 0) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    return head + struct.pack(f"{order}IH", 8, 2) + tags + bytes(4)


def tagged(path: Path, block: bytes) -> Path:
    """The picture with a block of EXIF put where its format has it."""
    data = path.read_bytes()
    if path.suffix == ".jpg":
        data = data[:2] + struct.pack(">HH", 0xFFE1, len(block) + 8) + b"Exif\0\0" + block + data[2:]
    elif path.suffix == ".png":
        chunk = b"eXIf" + block
        data = data[:33] + struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    else:
        chunks = data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block + bytes(len(block) % 2)
        data = b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
    path.write_bytes(data)
    return path


SEEN = {  # orientation: the corners as they are to be seen, and how numpy gets there
    1: (["red", "green", "blue", "white"], lambda p: p),
    2: (["green", "red", "white", "blue"], np.fliplr),
    3: (["white", "blue", "green", "red"], lambda p: np.rot90(p, 2)),
    4: (["blue", "white", "red", "green"], np.flipud),
    5: (["red", "blue", "green", "white"], lambda p: p.swapaxes(0, 1)),
    6: (["blue", "red", "white", "green"], lambda p: np.rot90(p, -1)),
    7: (["white", "green", "blue", "red"], lambda p: np.rot90(p, 2).swapaxes(0, 1)),
    8: (["green", "white", "red", "blue"], np.rot90),
}


@pytest.mark.parametrize("orientation", SEEN)
@pytest.mark.parametrize("ending, order", [("jpg", ">"), ("jpg", "<"), ("png", ">"), ("webp", "<")])
def test_all_eight_orientations(tmp_path: Path, orientation: int, ending: str, order: str) -> None:
    Clip(quadrants(96, 64)[None], 1).write(tmp_path / f"x.{ending}")
    untouched = Clip.read(tmp_path / f"x.{ending}").frames[0]
    clip = Clip.read(tagged(tmp_path / f"x.{ending}", exif(orientation, order)))
    names, turn = SEEN[orientation]
    assert corners(clip.frames[0]) == names
    assert np.array_equal(clip.frames[0], turn(untouched))


def test_an_animated_webp_is_turned_too(tmp_path: Path) -> None:
    Clip(np.repeat(quadrants(96, 64)[None], 3, 0), 8).write(tmp_path / "x.webp")
    clip = Clip.read(tagged(tmp_path / "x.webp", exif(6)))
    assert clip.frames.shape == (3, 96, 64, 3)
    assert corners(clip.frames[2]) == SEEN[6][0]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.one_of(st.binary(max_size=40), st.binary(max_size=30).map(lambda junk: exif(6)[:9] + junk)))
@example(block=exif(0))
@example(block=exif(9))
@example(block=exif(6)[:-9])
@example(block=b"MM\0*\xff\xff\xff\xff")
def test_exif_that_says_nothing_leaves_the_picture_be(tmp_path: Path, ending: str, block: bytes) -> None:
    Clip(quadrants(32, 32)[None], 1).write(tmp_path / f"x.{ending}")
    clip = Clip.read(tagged(tmp_path / f"x.{ending}", block))
    assert sorted(corners(clip.frames[0])) == ["blue", "green", "red", "white"]


@pytest.mark.parametrize("matrix, orientation", [((1, 0, 0, 1), 1), ((-1, 0, 0, 1), 2), ((0, 1, 1, 0), 5)])
def test_mirrored_videos(tmp_path: Path, matrix: tuple[int, ...], orientation: int) -> None:
    """Selfie cameras write a mirroring matrix into the MP4's track header."""
    path = write_with_av(tmp_path / "x.mp4", np.repeat(quadrants(96, 64)[None], 2, 0))
    data, (a, b, c, d) = bytearray(path.read_bytes()), (65536 * n for n in matrix)
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(data)
    assert corners(Clip.read(path).frames[0]) == SEEN[orientation][0]


def test_variable_rate_becomes_constant(tmp_path: Path) -> None:
    """Frame n is shown from times[n] (1/600 s) on; at 30 fps a tick is 20 of these."""
    times = [0, 20, 40, 100, 120, 125, 160, 180, 200]
    path = write_with_av(
        tmp_path / "x.mp4", np.stack([np.full((32, 32, 3), 25 * n, np.uint8) for n in range(9)]), times=times
    )
    clip = Clip.read(path)
    shown = np.round(clip.frames.mean((1, 2, 3)) / 25).astype(int).tolist()
    assert clip.fps == 30
    assert shown[:11] == [0, 1, 2, 2, 2, 3, 5, 5, 6, 7, 8]


def test_gif_with_frames_of_various_lengths(tmp_path: Path) -> None:
    frames = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 120, 240)])
    Clip(frames, 10).write(tmp_path / "x.gif")
    data = bytearray((tmp_path / "x.gif").read_bytes())
    delays = [at for at in range(len(data)) if data[at : at + 3] == b"!\xf9\x04"]
    for at, delay in zip(delays, (10, 30, 20), strict=True):
        data[at + 4 : at + 6] = struct.pack("<H", delay)
    (tmp_path / "x.gif").write_bytes(data)
    clip = Clip.read(tmp_path / "x.gif")
    assert clip.fps == 10
    assert np.round(clip.frames.mean((1, 2, 3)) / 120).tolist() == [0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("codec, pixels, ending", [("libx264", "yuv420p10le", "mp4"), ("ffv1", "yuv444p10le", "mkv")])
def test_ten_bits(tmp_path: Path, codec: str, pixels: str, ending: str) -> None:
    frames = gradient()
    clip = Clip.read(write_with_av(tmp_path / f"x.{ending}", frames, codec, pixels))
    assert clip.frames.shape == frames.shape
    assert psnr(clip.frames, frames) > 35


def test_transparency_is_seen_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((1, 32, 32, 4), np.uint8)
    rgba[:, :16] = (255, 0, 0, 255)
    rgba[:, 16:, :16] = (0, 0, 0, 51)
    path = write_with_av(tmp_path / "x.png", rgba, "png", "rgba", source="rgba")
    frame = Clip.read(path).frames[0]
    assert frame[0, 0].tolist() == [255, 0, 0]
    assert frame[31, 0].tolist() == [204, 204, 204]
    assert frame[31, 31].tolist() == [255, 255, 255]


def test_webp_of_another_encoder_with_partial_frames(tmp_path: Path) -> None:
    """FFmpeg's own animation encoder stores only what changes, and merges frames that are alike."""
    frames = np.repeat(gradient(1, 64, 64), 6, 0)
    for index in range(6):
        frames[index, 8:24, 4 + 8 * (index // 2) : 20 + 8 * (index // 2)] = (250, 40, 30)
    path = write_with_av(tmp_path / "x.webp", frames, "libwebp_anim", "bgra", source="rgb24")
    clip = Clip.read(path)
    assert clip.frames.shape[1:] == frames.shape[1:]
    assert psnr(clip.frames[0], frames[0]) > 30
    assert psnr(clip.frames[-1], frames[-1]) > 30


def test_non_square_pixels(tmp_path: Path) -> None:
    path = write_with_av(tmp_path / "x.mp4", gradient(3, 72, 58), aspect=Fraction(16, 12))
    assert Clip.read(path).size == (96, 58)


@pytest.mark.parametrize(
    ("name", "seconds"), [("x.mp4", 2.5), ("x.gif", 2.5), ("x.webp", 2.5), ("x.png", None), ("one.webp", None)]
)
def test_how_long_a_file_says_it_is(tmp_path: Path, name: str, seconds: float | None) -> None:
    count = 1 if seconds is None else 20
    Clip(np.arange(count * 16 * 16 * 3).reshape(count, 16, 16, 3).astype(np.uint8), 8.0).write(tmp_path / name)
    with open_frames(tmp_path / name) as reader:
        assert reader.seconds == pytest.approx(seconds, abs=0.05)
