"""Clips in memory and their recipes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import RECIPE, gradient, psnr

from yozora import _pictures
from yozora.clip import Clip, Recipe, open_frames
from yozora.errors import MediaError


def test_max_frames_and_streaming(tmp_path: Path) -> None:
    Clip(gradient(), 8, RECIPE).write(tmp_path / "x.mp4")
    assert len(Clip.read(tmp_path / "x.mp4", max_frames=4).frames) == 4
    with open_frames(tmp_path / "x.mp4") as reader:
        assert (reader.fps, reader.size, reader.recipe) == (8, (96, 64), RECIPE)
        assert sum(1 for _ in reader) == 9
    with pytest.raises(MediaError, match="max_frames"):
        Clip.read(tmp_path / "x.mp4", max_frames=0)


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


def test_large_frames_are_resized_as_small_ones_are(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(gradient(3, 96, 64), 8)
    for width, height in ((48, 32), (13, 40), (150, 70)):
        small = clip.resized(width, height).frames.astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(_pictures, "_LARGE", 0)
            assert np.abs(clip.resized(width, height).frames - small).max() <= 1


def test_recipes() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE
    assert Recipe.from_json('{"yozora": 2, "prompt": "x", "later": 1}') == Recipe("x")
    for text in ("", "[]", '{"prompt": "x"}', '{"yozora": 1, "seed": "x"}', "[" * 100_000):
        with pytest.raises(MediaError):
            Recipe.from_json(text)
