"""Writing media: what is written is what is read back, and nothing half-written is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from clips import ANIMATED, ENDINGS, RECIPE, gradient, psnr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yozora.clip import Clip, FrameWriter, Recipe, check_writable
from yozora.errors import MediaError


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


def discs(frames: int = 6, size: int = 96) -> np.ndarray:
    """Soft-edged discs of strong colours that travel, uint8 `[T, H, W, 3]`."""
    y, x = np.mgrid[:size, :size]
    picture = np.full((frames, size, size, 3), (40.0, 130.0, 60.0))
    for k, colour in enumerate([(230, 40, 30), (40, 60, 220), (240, 220, 40)]):
        for t in range(frames):
            away = np.hypot(x - 20 - 26 * k - t, y - 30 - 12 * k) - 11
            share = np.clip(0.5 - away / 3, 0, 1)[..., None]
            picture[t] += (np.array(colour) - picture[t]) * share
    return picture.round().astype(np.uint8)


def test_what_is_written_and_read_and_written_again_stays_as_it_was(tmp_path: Path) -> None:
    given = frames = discs()
    for _ in range(3):
        Clip(frames, 8).write(tmp_path / "x.mp4")
        frames = Clip.read(tmp_path / "x.mp4").frames
    assert psnr(frames, given) > 41  # 30 where colour samples stand elsewhere than a reader takes them to


@pytest.mark.parametrize("side", [64, 640])
def test_every_player_takes_our_mp4s(tmp_path: Path, side: int) -> None:
    Clip(gradient(3, side, side), 8).write(tmp_path / "x.mp4")
    with av.open(str(tmp_path / "x.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.profile, context.pix_fmt) == ("h264", "High", "yuv420p")


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
