"""Media: what is written is what is read back; real-world files come out upright, steady and opaque."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yozora.clip import Clip, FrameWriter, Recipe, check_writable, open_frames
from yozora.errors import MediaError

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


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("count", [1, 9])
def test_every_format_keeps_the_recipe_and_gives_the_same_bytes_twice(tmp_path: Path, ending: str, count: int) -> None:
    clip = Clip(gradient(count), 8, RECIPE)
    one, two = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
    clip.write(one)
    clip.write(two)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [one.name, two.name]
    back = Clip.read(one)
    assert back.recipe == RECIPE
    if ending in ANIMATED:
        assert back.frames.shape == clip.frames.shape
        assert back.fps == (8 if count > 1 or ending != "webp" else 1)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_recipe_of_any_length_and_none_at_all(tmp_path: Path, ending: str) -> None:
    long = Recipe("ball 夜 " * 20_000)
    Clip(gradient(2), 8, long).write(tmp_path / f"long.{ending}")
    assert Clip.read(tmp_path / f"long.{ending}").recipe == long
    Clip(gradient(2), 8).write(tmp_path / f"none.{ending}")
    assert Clip.read(tmp_path / f"none.{ending}").recipe is None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frames=st.integers(2, 12),
    width=st.integers(8, 60),
    height=st.integers(8, 60),
    fps=st.one_of(st.integers(1, 60), st.sampled_from([7.5, 12.5, 24000 / 1001, 30000 / 1001])),
    ending=st.sampled_from(["mp4", "webp"]),
)
def test_round_trip(tmp_path: Path, frames: int, width: int, height: int, fps: float, ending: str) -> None:
    clip = Clip(gradient(frames, 2 * width, 2 * height), fps)
    clip.write(tmp_path / f"x.{ending}")
    back = Clip.read(tmp_path / f"x.{ending}")
    assert back.frames.shape == clip.frames.shape
    assert back.fps == pytest.approx(fps, rel=1e-9 if ending == "mp4" else 0.02)
    assert psnr(back.frames, clip.frames) > 35


@pytest.mark.parametrize("fps", [1, 5, 8, 12, 16, 24, 25, 30, 50])
def test_gif_keeps_count_and_rate_despite_its_coarse_clock(tmp_path: Path, fps: int) -> None:
    clip = Clip(gradient(13, 48, 32), fps)
    clip.write(tmp_path / "x.gif")
    back = Clip.read(tmp_path / "x.gif")
    assert back.frames.shape == clip.frames.shape
    assert back.fps == fps
    assert psnr(back.frames, clip.frames) > 28  # 256 colours


def test_gif_faster_than_gif_can_go_drops_frames(tmp_path: Path) -> None:
    Clip(gradient(24, 32, 32), 60).write(tmp_path / "x.gif")
    back = Clip.read(tmp_path / "x.gif")
    assert (len(back.frames), back.fps) == (20, 50)


@pytest.mark.parametrize("ending", ANIMATED)
def test_a_still_scene_keeps_its_frames(tmp_path: Path, ending: str) -> None:
    clip = Clip(np.repeat(gradient(1), 7, 0), 8)
    clip.write(tmp_path / f"x.{ending}")
    assert Clip.read(tmp_path / f"x.{ending}").frames.shape == clip.frames.shape


def test_pictures(tmp_path: Path) -> None:
    clip = Clip(gradient(1), 8)
    clip.write(tmp_path / "x.png")
    clip.write(tmp_path / "x.JPG")
    assert np.array_equal(Clip.read(tmp_path / "x.png").frames, clip.frames)
    assert psnr(Clip.read(tmp_path / "x.JPG").frames, clip.frames) > 35
    assert Clip.read(tmp_path / "x.png").fps == 1


def test_several_frames_as_a_picture_are_the_contact_sheet(tmp_path: Path) -> None:
    clip = Clip(gradient(40), 8)
    clip.write(tmp_path / "x.png")
    assert np.array_equal(Clip.read(tmp_path / "x.png").frames[0], clip.contact_sheet())


def test_odd_sizes_become_even_in_mp4_and_stay_in_gif_and_webp(tmp_path: Path) -> None:
    clip = Clip(gradient(3, 31, 17), 8)
    for ending, size in (("mp4", (32, 18)), ("gif", (31, 17)), ("webp", (31, 17))):
        clip.write(tmp_path / f"x.{ending}")
        back = Clip.read(tmp_path / f"x.{ending}")
        assert back.size == size
        if ending != "gif":
            assert psnr(back.frames[:, :17, :31], clip.frames) > 33


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (16, 2), (3, 200)])
@pytest.mark.parametrize("ending", ENDINGS)
def test_tiny_sizes(tmp_path: Path, size: tuple[int, int], ending: str) -> None:
    Clip(gradient(2, *size), 8).write(tmp_path / f"x.{ending}")
    assert len(Clip.read(tmp_path / f"x.{ending}").frames) in (1, 2)


def test_mp4_suits_browsers(tmp_path: Path) -> None:
    Clip(gradient(), 8, RECIPE).write(tmp_path / "x.mp4")
    data = (tmp_path / "x.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(tmp_path / "x.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert json.loads(container.metadata["comment"])["prompt"] == RECIPE.prompt


@pytest.mark.parametrize("rotation, turned", [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_phone_videos_are_turned_upright(tmp_path: Path, rotation: int, turned: int) -> None:
    path = write_with_av(tmp_path / "x.mp4", np.repeat(quadrants(96, 64)[None], 3, 0), rotation=rotation)
    clip = Clip.read(path)  # the matrix turns counter-clockwise, as numpy does
    assert clip.size == ((96, 64) if turned % 2 == 0 else (64, 96))
    assert corners(clip.frames[0]) == corners(np.rot90(quadrants(96, 64), turned))


def test_exif_orientation_of_photographs(tmp_path: Path) -> None:
    Clip(quadrants(96, 64)[None], 1).write(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)  # 6: turn right to see it
    (tmp_path / "x.jpg").write_bytes(data[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 2) + exif + data[2:])
    clip = Clip.read(tmp_path / "x.jpg")
    assert clip.size == (64, 96)
    assert corners(clip.frames[0]) == ["blue", "red", "white", "green"]


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


def test_max_frames_and_streaming(tmp_path: Path) -> None:
    Clip(gradient(), 8, RECIPE).write(tmp_path / "x.mp4")
    assert len(Clip.read(tmp_path / "x.mp4", max_frames=4).frames) == 4
    with open_frames(tmp_path / "x.mp4") as reader:
        assert (reader.fps, reader.size, reader.recipe) == (8, (96, 64), RECIPE)
        assert sum(1 for _ in reader) == 9
    with pytest.raises(MediaError, match="max_frames"):
        Clip.read(tmp_path / "x.mp4", max_frames=0)


@pytest.mark.parametrize("ending", ANIMATED)
def test_memory_does_not_grow_with_length(tmp_path: Path, ending: str) -> None:
    code = """
import resource, sys
import numpy as np
from yozora.clip import FrameWriter, open_frames
peaks = []
for count in (100, 400):
    with FrameWriter(sys.argv[1], (320, 240), 25) as writer:
        for n in range(count):
            writer.write(np.full((240, 320, 3), n % 256, np.uint8))
    assert sum(1 for _ in open_frames(sys.argv[1])) == count
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
assert peaks[1] < 1.1 * peaks[0], peaks
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / f"x.{ending}")], check=True, env=os.environ)


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


@pytest.mark.parametrize(
    "frames, fps",
    [
        (np.zeros((2, 4, 4, 3), np.float32), 8),
        (np.zeros((4, 4, 3), np.uint8), 8),
        (np.zeros((2, 4, 4, 4), np.uint8), 8),
        (np.zeros((0, 4, 4, 3), np.uint8), 8),
        ([[1, 2]], 8),
        (np.zeros((2, 4, 4, 3), np.uint8), 0),
        (np.zeros((2, 4, 4, 3), np.uint8), float("nan")),
    ],
)
def test_clips_that_cannot_be(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(MediaError):
        Clip(frames, fps)


def test_unwritable_outputs(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").touch()
    for name, words in {
        "x.avi": "must end in",
        "x": "must end in",
        "folder.mp4": "is a folder",
        "none/x.mp4": "does not exist",
        "file/x.mp4": "does not exist|Not a directory",
        "x" * 300 + ".mp4": "name too long",
        "a\0b.mp4": "null",
    }.items():
        with pytest.raises(MediaError, match=words):
            check_writable(tmp_path / name)
        with pytest.raises(MediaError, match=words):
            FrameWriter(tmp_path / name, (8, 8), 8)
    check_writable(tmp_path / "x.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_names_that_ffmpeg_would_interpret(tmp_path: Path) -> None:
    for name in ("http:x.mp4", "a %03d.png", "pipe:.gif", "*.webp", "夜空.mp4"):
        Clip(gradient(2, 16, 16), 8).write(tmp_path / name)
        assert Clip.read(tmp_path / name).frames.size
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_only_what_was_there(tmp_path: Path, ending: str, error: type[BaseException]) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"before")
    with pytest.raises(error), FrameWriter(path, (96, 64), 8) as writer:
        writer.write(gradient(1)[0])
        raise error
    assert [(item.name, item.read_bytes()) for item in tmp_path.iterdir()] == [(path.name, b"before")]


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_frames_and_wrong_frames(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    with pytest.raises(MediaError, match="no frames"), FrameWriter(path, (8, 8), 8):
        pass
    with pytest.raises(MediaError, match="a frame must be"), FrameWriter(path, (8, 8), 8) as writer:
        writer.write(np.zeros((8, 9, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    for ending in ENDINGS:
        Clip(gradient(2), 8).write(tmp_path / f"x.{ending}")
        assert (tmp_path / f"x.{ending}").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_contact_sheet() -> None:
    clip = Clip(gradient(40, 40, 30), 8)
    sheet = clip.contact_sheet(columns=4, max_frames=8)
    assert sheet.shape == (2 + 2 * 32, 2 + 4 * 42, 3)
    assert np.array_equal(sheet[2:32, 2:42], clip.frames[0])
    assert np.array_equal(sheet[34:64, 128:168], clip.frames[-1])
    assert clip.contact_sheet().shape[1] > clip.contact_sheet().shape[0]
    with pytest.raises(MediaError):
        clip.contact_sheet(columns=0)


def test_resized() -> None:
    clip = Clip(gradient(3, 96, 64), 8, RECIPE)
    smaller = clip.resized(48, 32)
    assert smaller.size == (48, 32) and smaller.recipe == RECIPE
    averaged = clip.frames.reshape(3, 32, 2, 48, 2, 3).mean((2, 4))
    assert psnr(smaller.frames, averaged) > 45
    assert psnr(smaller.resized(96, 64).frames, clip.frames) > 40
    with pytest.raises(MediaError):
        clip.resized(0, 10)


def test_recipes() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    assert Recipe.from_json('{"yozora": 2, "prompt": "x", "later": 1}') == Recipe("x")
    for text in ("", "[]", '{"prompt": "x"}', '{"yozora": 1, "seed": "x"}', "[" * 100_000):
        with pytest.raises(MediaError):
            Recipe.from_json(text)
