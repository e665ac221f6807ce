"""Enhancing: the size, rate and length that were asked for, frame by frame, and no half-written files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yozora.cli import main
from yozora.clip import Clip, Recipe
from yozora.create import enhance as enhancing
from yozora.create.enhance import enhance, enhance_clip, enlarge, load_enhancer, write_enhanced
from yozora.create.target import Target, choose_target, falls_short
from yozora.errors import CanvasError, MediaError, ModelError
from yozora.models.enhancer import Enhancer, EnhancerConfig
from yozora.models.folder import save_module


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    """Tiny and random: every weight drawn, so that each input matters."""
    torch.manual_seed(0)
    sizes = {"width": 4, "depth": 1, "reach": 1, "search_width": 4, "search_depth": 0, "refine_width": 4}
    network = Enhancer(EnhancerConfig(**sizes)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def film(count: int, width: int = 16, height: int = 12) -> np.ndarray:
    """Smooth frames that all differ, uint8 [count, height, width, 3], with no cut."""
    x, y, t = np.meshgrid(np.arange(width), np.arange(height), np.arange(count), indexing="xy")
    waves = [np.sin(0.4 * x + 0.3 * y + 0.2 * t + phase) for phase in (0, 1, 2)]
    return np.round(127.5 + 100 * np.stack(waves, -1)).astype(np.uint8).transpose(2, 0, 1, 3)


@pytest.mark.parametrize(
    ("source", "size", "fit", "expected"),
    [
        ((16, 12), "96x54", "crop", (96, 54)),
        ((16, 12), "96x54", "pad", (96, 54)),
        ((16, 12), "33x101", "stretch", (33, 101)),
        ((16, 12), "48p", "crop", (64, 48)),
        ((12, 16), "48p", "crop", (48, 64)),
        ((16, 12), (8, 6), "crop", (8, 6)),
        ((16, 12), "300x4", "crop", (300, 4)),
        ((1, 1), "50p", "crop", (50, 50)),
    ],
)
def test_the_size_that_was_asked_for(enhancer: Enhancer, source: tuple[int, int], size, fit, expected) -> None:
    clip = enhance_clip(Clip(film(2, *source), 12), size, 12, fit, enhancer)
    assert clip.size == expected
    assert len(clip.frames) == 2


@settings(max_examples=20, deadline=None)
@given(
    frames=st.integers(1, 7),
    rates=st.tuples(st.sampled_from([1.0, 10.0, 12.0, 30000 / 1001, 30.0, 50.0]), st.sampled_from([2.0, 12, 24, 30])),
)
def test_any_rate_keeps_the_length_and_streams_what_is_asked(
    enhancer: Enhancer, frames: int, rates: tuple[float, float]
) -> None:
    given, (rate, fps) = film(frames, 8, 8), rates
    target = choose_target((8, 8), rate, (8, 8), fps)
    out = list(enhance(given, target, enhancer))
    assert len(out) == target.count(frames)
    if len(out) > 1:
        assert abs(len(out) / fps - frames / rate) <= 0.5 / fps + 1e-9
    for number, frame in enumerate(out):
        place = number * target.step
        first = min(math.floor(place), frames - 1)
        moment = place - first
        if first == frames - 1 or moment <= enhancing.SAME:
            expected = given[first]
        elif moment >= 1 - enhancing.SAME:
            expected = given[first + 1]
        else:
            pair = [torch.from_numpy(given[i]).permute(2, 0, 1)[None] / 127.5 - 1 for i in (first, first + 1)]
            drawn = enhancer.between(*pair, torch.tensor([float(moment)]))
            expected = (drawn[0].permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255).byte().numpy()
        assert np.abs(frame.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("rate", "fps", "factor"), [(12, 24, 2), (12, 30, 2.5), (24, 24, 1), (30, 24, 0.8)])
def test_the_usual_rates(enhancer: Enhancer, rate: float, fps: float, factor: float) -> None:
    clip = enhance_clip(Clip(film(20, 8, 8), rate), "8x8", fps, enhancer=enhancer)
    assert (len(clip.frames), clip.fps) == (20 * factor, fps)


def test_the_same_size_and_rate_change_nothing(enhancer: Enhancer) -> None:
    clip = Clip(film(3), 12)
    assert np.array_equal(enhance_clip(clip, clip.size, enhancer=enhancer).frames, clip.frames)


def test_frames_are_taken_only_as_they_are_needed(enhancer: Enhancer) -> None:
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield film(1, 8, 8)[0]

    target = choose_target((8, 8), 12, "16x16", 30)
    stream = enhance(endless(), target, enhancer)
    for number in range(1, 30):
        assert next(stream).shape == (16, 16, 3)
        assert taken <= math.ceil(number * target.step) + 2


def test_nothing_is_drawn_between_two_scenes(enhancer: Enhancer) -> None:
    dark, bright = np.full((8, 8, 3), 20, np.uint8), np.full((8, 8, 3), 220, np.uint8)
    frames = list(enhance([dark, dark, bright, bright], choose_target((8, 8), 6, "8x8", 24), enhancer))
    levels = [round(float(frame.mean())) for frame in frames]
    jumps = [abs(b - a) for a, b in pairwise(levels)]
    assert levels[4:9] == [20, 20, 220, 220, 220]
    assert sorted(jumps)[-1] == 200 > 20 > sorted(jumps)[-2]


def test_padding_is_black_and_cropping_is_about_the_centre(enhancer: Enhancer) -> None:
    clip = Clip(np.full((1, 12, 16, 3), 200, np.uint8), 12)
    padded = enhance_clip(clip, "64x96", fit="pad", enhancer=enhancer).frames[0]
    assert padded[:24].max() == padded[72:].max() == 0
    assert padded[26:70].min() > 100
    frames = np.zeros((1, 12, 16, 3), np.uint8)
    frames[:, :, 2:14] = 200
    cropped = enhance_clip(Clip(frames, 12), "6x6", enhancer=enhancer).frames
    assert cropped.min() > 150


def test_strips_are_the_same_as_one_piece(enhancer: Enhancer, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, target = film(1, 40, 50)[0], choose_target((40, 50), 12, "100p")
    for size in ("100p", "200p"):  # two sizes: the network's own factor, and half of it
        target = choose_target((40, 50), 12, size)
        whole = enlarge(frame, target, enhancer.upscaler).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(enhancing, "STRIP_PIXELS", 40 * 7)
            strips = enlarge(frame, target, enhancer.upscaler)
        assert np.abs(whole - strips).max() <= 1


def test_it_is_enlarged_again_while_that_is_quick(enhancer: Enhancer) -> None:
    frame, target = film(1, 16, 16)[0], choose_target((16, 16), 12, "256p")
    twice, once = (enlarge(frame, target, enhancer.upscaler, again) for again in (64 * 64, 64 * 64 - 1))
    assert twice.shape == once.shape == (256, 256, 3)
    assert not np.array_equal(twice, once)


def test_the_recipe_says_what_was_done(enhancer: Enhancer, tmp_path: Path) -> None:
    clip = Clip(film(2), 12, Recipe("a red ball", seed=3, canvas={"width": 16}))
    out = enhance_clip(clip, "64x48", 24, "pad", enhancer)
    assert out.recipe is not None
    assert (out.recipe.prompt, out.recipe.seed) == ("a red ball", 3)
    assert out.recipe.canvas == {"width": 16, "enhance": {"size": [64, 48], "fps": 24, "fit": "pad"}}
    target = choose_target((16, 12), 12, "64x48", 24)
    assert write_enhanced(clip.frames, target, tmp_path / "o.mp4", clip.recipe, enhancer) == 4
    again = Clip.read(tmp_path / "o.mp4")
    assert (again.size, len(again.frames), again.fps) == ((64, 48), 4, 24)
    assert again.recipe == target.recipe(clip.recipe)


@pytest.mark.parametrize(
    "asked",
    [
        {"size": "0x10"},
        {"size": "100x5000"},
        {"size": "big"},
        {"size": "0p"},
        {"size": "1p"},
        {"fps": 0.5},
        {"fps": math.nan},
        {"fps": 1000},
        {"fit": "squeeze"},
        {"source_fps": 0.1, "fps": 120},
    ],
)
def test_what_cannot_be_is_refused(asked: dict) -> None:
    with pytest.raises(CanvasError) as refusal:
        choose_target(**{"source": (16, 12), "source_fps": 12, **asked})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "size", "becomes"), [((16, 12), "4096p", (4096, 3072)), ((1, 99), "1080p", (42, 4096))]
)
def test_any_shape_is_enlarged_as_far_as_a_side_goes(
    source: tuple[int, int], size: str, becomes: tuple[int, int]
) -> None:
    target = choose_target(source, 12, size)
    assert target.size == becomes
    (line,) = falls_short(size, target)
    assert f"it becomes {becomes[0]}x{becomes[1]}" in line
    assert not falls_short("480p", choose_target((16, 9), 12, "480p"))


def test_frames_of_another_kind_are_refused(enhancer: Enhancer) -> None:
    target = Target((16, 12), 12, (32, 24), 12)
    for frame in (np.zeros((12, 17, 3), np.uint8), np.zeros((12, 16, 3)), np.zeros((12, 16), np.uint8)):
        with pytest.raises(MediaError, match="frame to enhance must be uint8"):
            next(enhance([frame], target, enhancer))
    assert list(enhance([], target, enhancer)) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MediaError])
def test_nothing_half_written_is_left(enhancer: Enhancer, tmp_path: Path, error: type[BaseException]) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from film(2)
        raise error

    with pytest.raises(error):
        write_enhanced(broken(), choose_target((16, 12), 12, "24p"), tmp_path / "o.mp4", None, enhancer)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def home(enhancer: Enhancer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a clip, in.mp4, and weights to enhance it with."""
    save_module(enhancer, tmp_path / "weights")
    monkeypatch.setattr(enhancing, "WEIGHTS", tmp_path / "weights")
    work = tmp_path / "work"
    work.mkdir()
    Clip(film(5), 12, Recipe("a red ball")).write(work / "in.mp4")
    monkeypatch.chdir(work)
    return work


def test_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enhance", "in.mp4", "--size", "96x54", "--fps", "30", "-o", "o.mp4"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("o.mp4: 96x54, 13 frames, 0.43 s, made in")
    clip = Clip.read("o.mp4")
    assert (clip.size, len(clip.frames), clip.fps) == ((96, 54), 13, 30)
    assert clip.recipe is not None
    assert (clip.recipe.prompt, clip.recipe.canvas["enhance"]["fps"]) == ("a red ball", 30)
    assert main(["enhance", "in.mp4", "--size", "24p", "-o", "p.gif", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["size"] == [32, 24]


def test_a_picture_stays_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Clip(film(1), 1).write("in.png")
    assert main(["enhance", "in.png", "--size", "48p", "-o", "o.png"]) == 0
    assert "a picture" in capsys.readouterr().out
    assert Clip.read("o.png").frames.shape == (1, 48, 64, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["missing.mp4"],
        ["."],
        ["in.mp4", "-o", "o.txt"],
        ["in.mp4", "-o", "none/o.mp4"],
        ["in.mp4", "--size", "huge"],
        ["in.mp4", "--size", "9999x9999"],
        ["in.mp4", "--fps", "0"],
        ["in.mp4", "--fps", "nan"],
        ["in.mp4", "--fit", "fill"],
        ["cut.mp4"],
        [],
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    (home / "cut.mp4").write_bytes((home / "in.mp4").read_bytes()[:-200])
    before = sorted(home.iterdir())
    assert main(["enhance", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert sorted(home.iterdir()) == before


def test_without_weights_it_says_so(home: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(enhancing, "WEIGHTS", home / "none")
    with pytest.raises(ModelError, match="no weights for enhancing"):
        load_enhancer()
    assert main(["enhance", "in.mp4"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
