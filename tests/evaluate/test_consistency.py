"""World consistency: each measure on clips whose answer is known, renders first of all, and all of them on a tiny
model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import yozora
from yozora.clip import Clip
from yozora.evaluate import film, load_inspector
from yozora.evaluate.consistency import COLUMNS, consistency
from yozora.evaluate.following import Prompt
from yozora.evaluate.hidden import fullest, goes_out_of_sight, moving_thing
from yozora.evaluate.inspector import Look, finding_of
from yozora.evaluate.points import rigid
from yozora.evaluate.scenes import CLEAR, FIRST, Bench, draw_prompts
from yozora.evaluate.states import drift, holds

SIZE, FRAMES, FPS = (128, 128), 17, 8.0
STILL = CLEAR | {"cameras": {"still": 1.0}}


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """Blobs with corners, uint8 [H, W, 3], larger than a frame."""
    coarse = np.random.default_rng(0).integers(0, 256, (40, 40, 1), dtype=np.uint8)
    return Clip(coarse.repeat(3, 2)[None], 1).resized(320, 320).frames[0]


def slid(texture: np.ndarray, steps: int = 12, step: int = 2) -> np.ndarray:
    """A camera that pans over a picture."""
    return np.stack([texture[60:188, 20 + step * t : 148 + step * t] for t in range(steps)])


def test_a_pan_over_a_picture_is_explained(texture: np.ndarray) -> None:
    fits = rigid(slid(texture))
    assert fits.followed > 0.5
    assert fits.homography > 0.95 and fits.fundamental > 0.95


def test_a_picture_that_flows_in_all_directions_is_not(texture: np.ndarray) -> None:
    rows, columns = np.mgrid[0:128, 0:128]
    frames = []
    for t in range(12):
        bend = 1.2 * t * np.sin(columns / 9), 1.2 * t * np.sin(rows / 7 + 1)
        frames.append(texture[(rows + 60 + bend[0]).astype(int), (columns + 60 + bend[1]).astype(int)])
    fits = rigid(np.stack(frames))
    assert fits.homography < 0.6
    assert not fits.fundamental > 0.95


def test_exchanged_ways_are_the_floor() -> None:
    changes = CLEAR | {"count": {"2": 1.0}, "motions": {"still": 1.0}, "materials": {"checkered": 1.0}}
    changes |= {"cameras": {"dolly": 1.0}, "grounds": {"studio": 1.0}}
    frames = film(draw_prompts(1, FIRST["camera"], FRAMES / FPS, changes)[0], SIZE, FRAMES, FPS).frames
    true, floor = rigid(frames), rigid(frames, shuffled=True)
    assert true.fundamental > 0.75 > floor.fundamental
    assert true.homography > floor.homography + 0.2


@pytest.mark.parametrize("frames", [np.full((9, 64, 64, 3), 40, np.uint8), np.full((1, 16, 16, 3), 40, np.uint8)])
def test_nothing_to_follow(frames: np.ndarray) -> None:
    assert np.isnan(rigid(frames).fundamental)


def test_a_still_camera_has_no_geometry(texture: np.ndarray) -> None:
    fits = rigid(slid(texture, step=0))
    assert fits.followed > 0.9 and np.isnan(fits.fundamental)


def test_a_hidden_thing_is_told_from_its_wall() -> None:
    inspector, right = load_inspector(), 0
    prompts = draw_prompts(6, FIRST["hide"], FRAMES / FPS, STILL | {"motions": {"hide": 1.0}}, ("colour", "shape"))
    for prompt in prompts:
        assert prompt.scene.walls
        look = moving_thing(film(prompt, SIZE, FRAMES, FPS), inspector)
        assert goes_out_of_sight(look, FRAMES // 4)
        ends = (fullest(look, 0, FRAMES // 4), fullest(look, FRAMES - FRAMES // 4, FRAMES))
        right += sum(finding_of(end, inspector).colour == prompt.colour for end in ends)
    assert right >= 11  # of 12


def test_the_fullest_frames_are_chosen_in_order() -> None:
    mask = torch.zeros(6, 4, 4, dtype=torch.bool)
    for t, cells in enumerate((0, 3, 1, 4, 2, 4)):
        mask[t].view(-1)[:cells] = True
    chosen = fullest(Look(mask, torch.zeros(6, 1), torch.arange(6)[:, None].float(), torch.zeros(6, 4, 1, 1)), 1, 5)
    assert chosen.shapes[:, 0].tolist() == [1, 3]


def test_what_is_never_seen_does_not_go_out_of_sight() -> None:
    empty = Look(torch.zeros(8, 4, 4, dtype=torch.bool), torch.zeros(8, 1), torch.zeros(8, 1), torch.zeros(8, 4, 1, 1))
    assert not goes_out_of_sight(empty, 2)


@pytest.mark.parametrize("kind", ["recolour", "grow", "shrink"])
def test_changes_are_seen_in_renders_and_not_backwards(kind: str) -> None:
    inspector, states = load_inspector(), ("colour", "colour_to") if kind == "recolour" else ("colour",)
    changes = STILL | {"motions": {kind: 1.0}, "materials": {"matte": 1.0}, "grounds": {"studio": 1.0, "sand": 1.0}}
    prompts = draw_prompts(3, FIRST["state"], FRAMES / FPS, changes, states)
    clips = [film(prompt, SIZE, FRAMES, FPS) for prompt in prompts]
    forward = [holds(inspector, clip, prompt, kind) for clip, prompt in zip(clips, prompts, strict=True)]
    assert sum(end and stays for end, stays in forward) >= 2, forward
    backward = [Clip(clip.frames[::-1].copy(), FPS) for clip in clips]
    assert not any(holds(inspector, clip, p, kind)[0] for clip, p in zip(backward, prompts, strict=True))


def test_a_thing_that_is_gone_has_not_shrunk() -> None:
    prompt = draw_prompts(1, FIRST["state"], 2.0, STILL | {"motions": {"shrink": 1.0}}, ("colour",))[0]
    frames = film(prompt, SIZE, FRAMES, FPS).frames.copy()
    frames[FRAMES // 2 :] = 128
    assert holds(load_inspector(), Clip(frames, FPS), prompt, "shrink") == (False, False)


def test_drift_of_a_known_change() -> None:
    frames = np.full((8, 16, 16, 3), 100, np.uint8)
    frames[-2:] += np.array([3, 0, 0], np.uint8)
    assert drift(Clip(frames, 2.0)) == pytest.approx((1.0, 3.0))


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")  # a long video is meant to be too long
def test_consistency_of_a_tiny_model(tiny_model: Path) -> None:
    steps: list[tuple[int, int]] = []
    generator = yozora.load(tiny_model)
    section = consistency(generator, 3.0, lambda done, total, what: steps.append((done, total)), 2)
    rows = {row[0]: row[1:] for row in section.rows}
    assert section.columns == ("", *COLUMNS)
    assert steps[-1] == (8, 8)
    assert rows["hidden: seen before and after"][1] == "100.0 % (2/2)"
    assert rows["hidden: the same colour and shape after"][2]
    assert rows["long: seconds with the first one's colour"][0].endswith("/2)")
    assert rows["changes colour: at the end"][1].endswith("/1)")
    assert any(name.startswith("space: ") for name in rows)
    long = next(shown for shown in section.clips if len(shown.clip.frames) > generator.native.frames_max)
    assert long.clip.seconds == pytest.approx(3.0, abs=0.3)
    assert isinstance(long.good, bool)


def test_scenes_that_no_caption_tells_are_an_error() -> None:
    with pytest.raises(yozora.YozoraError, match="no caption"):
        draw_prompts(1, FIRST["state"], 1.0, STILL | {"motions": {"still": 1.0}}, ("colour_to",))


def test_the_bench_counts_its_steps(tiny_model: Path) -> None:
    said: list[tuple[int, int, str]] = []
    bench = Bench(yozora.load(tiny_model), lambda *step: said.append(step), 2)
    bench.step("one")
    bench.step("two")
    assert said == [(0, 2, ""), (1, 2, "one"), (2, 2, "two")]
    prompt: Prompt = draw_prompts(1, FIRST["quality"], bench.duration)[0]
    assert bench.render(prompt).frames.shape == bench.make(prompt).frames.shape
