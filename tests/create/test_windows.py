"""Long videos: which windows are made, what each holds, and that given frames lie untouched and without a step."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yozora.clip import Clip
from yozora.create import Anchor, Canvas, Chunk, Cue, Generator, Grid, Mask, Native, YozoraWarning, load
from yozora.create.composite import DISSOLVE, composite
from yozora.create.streaming import window_seed
from yozora.create.windows import Past, given_latents, part_of, plan, plan_leads, tail_of

GRID = Grid()


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return load(tiny_model, "cpu", torch.float32)


def noise(frames: int, width: int = 32, height: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def first(latent: int) -> int:
    return GRID.first_frame(latent)


@st.composite
def canvases(draw: st.DrawFn, longest: int = 12) -> Canvas:
    """Any valid canvas of 32x32: some latent frames held, some firmly, some masked, some cues, perhaps a loop."""
    latents = draw(st.integers(1, longest))
    anchors, place = [], 0
    while place < latents:
        count = draw(st.integers(1, 4))
        end = min(latents, place + count)
        hold = draw(st.none() | st.sampled_from([1.0, 1.0, 0.5, (1.0, 0.0)]) | st.floats(0, 1))
        if hold is not None:
            frames = noise(first(end) - first(place), seed=place)
            white = draw(st.booleans()) and draw(st.booleans())
            mask = Mask(np.ones((1, 32, 32), bool)) if white else None
            anchors.append(Anchor(Clip(frames, 8.0), first(place), hold, mask=mask))
        place = end
    seconds = first(latents) / 8
    starts = [0.0, *sorted(draw(st.sets(st.floats(0.01, max(0.02, seconds - 0.01)), max_size=2)))]
    cues = tuple(Cue(start, f"a{number}") for number, start in enumerate(starts) if start < seconds)
    loop = latents > (1 if anchors else 2) and draw(st.booleans())
    return Canvas(32, 32, first(latents), 8.0, cues, tuple(anchors), loop)


@given(canvases(30), st.sampled_from([1, 5, 9, 13, 25, 81]))
def test_windows_make_every_latent_frame_once_and_see_what_is_beside_them(canvas: Canvas, most: int) -> None:
    native = Native(frames_max=most, fps=8.0)
    windows, length, tail = plan(canvas, native), GRID.latent_frames(canvas.frames), tail_of(canvas, native)
    made = given_latents(canvas, GRID)
    done = 0
    if leads := plan_leads(canvas, native):
        done = leads[0].until
        assert made[done] and not made[:done].any() and not canvas.loop
        exist = done + next((k for k, each in enumerate(made[done:]) if not each), length - done)
        for lead in leads:
            assert lead.until == done < lead.end <= exist  # something that exists is seen
            assert lead.fresh < lead.until and lead.end - lead.start <= native.window
            done, exist = lead.fresh, lead.end
        assert done == 0 and len(leads) > 1
        done = leads[0].until
    for window in windows:
        assert window.fresh == done < window.end <= length + tail
        done = window.end
        if not window.sampled:
            assert made[window.fresh : window.end].all()
            continue
        assert window.end - window.start <= native.window
        assert window.start <= max(0, window.fresh - 1)  # what exists is seen
        if window.end < length and made[window.end]:
            assert made[window.end - 1]  # and so is the first of what comes
        if window.end > length:
            assert window.fresh > 0
    assert (tail > 0) == canvas.loop
    assert done == length + tail * (done > length)
    if canvas.turns:
        assert done == length + tail and windows[-1].fresh > tail  # what the tail repeats has been made


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(canvases(), st.integers(0, 2**63 - 1))
def test_any_valid_canvas_is_filled_and_what_is_held_comes_back(
    generator: Generator, canvas: Canvas, seed: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", YozoraWarning)
        clip = generator.run_many(canvas, [seed], steps=1, guidance=1)[0]
    assert clip.frames.shape == (canvas.frames - canvas.turns, 32, 32, 3)
    held = canvas.hold_map(GRID)
    if held.frames is not None:
        kept = held.kept == 1
        assert np.array_equal(clip.frames[: len(kept)][kept], held.frames[kept])


def test_a_window_holds_the_end_of_what_exists_and_a_loop_its_beginning() -> None:
    canvas = Canvas(32, 32, 25, 8.0, (Cue(0.0, "a"), Cue(2.0, "b")), loop=True)
    native = Native(frames_max=17, fps=8.0)
    tail = tail_of(canvas, native)
    assert tail == 2
    windows, past = plan(canvas, native), Past(canvas, native)
    frames = noise(25)
    for window in windows[:-1]:
        past.add(frames[first(window.fresh) : first(window.end)])
    last = windows[-1]
    part = part_of(canvas, last, past, GRID)
    held = part.hold_map(GRID)
    old = first(last.fresh) - 4 * last.start
    assert held.frames is not None
    assert np.array_equal(held.frames[:old], frames[4 * last.start : first(last.fresh)])
    assert np.array_equal(held.frames[-8:], frames[1:9])
    assert held.hold.tolist() == [1] * (last.fresh - last.start) + [0] * (7 - last.fresh) + [1, 1]
    assert [cue.prompt for cue in part.cues] in (["a", "b"], ["b"])
    wanted = canvas.cue_map(GRID)[last.fresh :]
    made = [part.cues[owner].prompt for owner in part.cue_map(GRID)[last.fresh - last.start : -tail]]
    assert made == ["ab"[owner] for owner in wanted]


def test_windows_have_seeds_of_their_own() -> None:
    assert window_seed(5, 0) == 5
    seeds = [window_seed(seed, index) for seed in (0, 1, 2**63 - 1) for index in (1, 2, 3)]
    assert len(set(seeds)) == 9 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")
def test_frames_stream_in_order_for_each_seed_and_nothing_else_is_kept(generator: Generator) -> None:
    canvas = Canvas(32, 32, 41, 8.0, (Cue(0.0, "a"),), trim=(3, 2))
    clips = generator.run_many(canvas, [1, 2], steps=1)
    streamed: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for event in generator.stream(canvas, [1, 2], steps=1):
        if isinstance(event, Chunk):
            assert len(event.frames) <= 4 * generator.native.window
            streamed[event.index].append(event.frames)
    for index, clip in enumerate(clips):
        assert clip.frames.shape == (36, 32, 32, 3)
        assert np.array_equal(np.concatenate(streamed[index]), clip.frames)
    assert not np.array_equal(clips[0].frames, clips[1].frames)


def test_given_frames_are_laid_over_and_the_difference_fades_beside_them() -> None:
    decoded = np.full((48, 4, 4, 3), 100, np.uint8)
    given_frames, kept = np.full((48, 4, 4, 3), 140, np.uint8), np.zeros(48, np.float32)
    kept[[0, 1, 47]] = 1
    result = composite(decoded, given_frames, kept)[0][:, 0, 0, 0].astype(int)
    assert result[:2].tolist() == [140, 140] and result[47] == 140
    assert np.abs(np.diff(result)).max() <= 5  # a step of 40 became a slope
    assert abs(result[24] - 100) <= 6
    assert (decoded == 100).all()


def test_the_difference_soon_fades_where_something_moves() -> None:
    decoded = np.full((12, 32, 32, 3), 100, np.uint8)
    decoded[:, :, :16] = noise(12)[:, :, :16]
    given_frames, kept = decoded.copy(), np.eye(12, dtype=np.float32)[0]
    given_frames[0] = decoded[0] // 2
    result = composite(decoded, given_frames, kept)[0].astype(int)
    moving, still = (np.abs(result - decoded)[4, :, part].mean() for part in (slice(0, 12), slice(20, 32)))
    assert still > 25 and moving < 4


def test_a_video_in_parts_leans_as_one_in_one_piece() -> None:
    decoded, given_frames = noise(10) // 32 + 100, noise(10, seed=1)
    kept = np.zeros(10, np.float32)
    kept[:3] = 1
    whole, _ = composite(decoded, given_frames, kept)
    begin, left = composite(decoded[:5], given_frames[:5], kept[:5])
    rest, _ = composite(decoded[5:], given_frames[5:], kept[5:], left)
    assert left is not None and np.array_equal(np.concatenate([begin, rest]), whole)
    assert not np.array_equal(rest, decoded[5:])


def test_nothing_given_changes_nothing_and_a_mask_is_kept_to_the_pixel() -> None:
    decoded, frames = noise(3), noise(3, seed=1)
    result, left = composite(decoded, frames, np.zeros(3, np.float32))
    assert np.array_equal(result, decoded) and left is None
    kept = np.ones((3, 32, 32), np.float32)
    kept[:, :8] = 0
    result, _ = composite(decoded, frames, kept)
    assert np.array_equal(result[:, 8:], frames[:, 8:])
    assert np.array_equal(result[:, :8], decoded[:, :8])


def test_what_does_not_lead_up_to_given_frames_dissolves_into_them() -> None:
    """Ten invented frames show another picture than the given ones after them, which the autoencoder gives back rightly
    but for its first frame, as it does after a change."""
    decoded = np.full((16, 8, 8, 3), 50, np.uint8)
    decoded[11:] = 190
    given_frames, kept = np.full((16, 8, 8, 3), 200, np.uint8), (np.arange(16) >= 10).astype(np.float32)
    own = np.full((16, 8, 8, 3), 190, np.uint8)
    result = composite(decoded, given_frames, kept, own=own)[0][:, 0, 0, 0].astype(int)
    assert (result[10:] == 200).all() and result[0] < 75
    assert (np.diff(result) >= 0).all() and np.diff(result).max() <= 0.3 * 150


def test_what_a_difference_belongs_to_may_go_slowly() -> None:
    """By steps of 4 of 255, each hardly a motion, the picture becomes another one before the given frame."""
    decoded = np.minimum(200, 140 + 4 * np.arange(16))[:, None, None, None].repeat(8, 1).repeat(8, 2).repeat(3, 3)
    decoded = decoded.astype(np.uint8)
    given_frames, kept = np.full((16, 8, 8, 3), 240, np.uint8), (np.arange(16) == 15).astype(np.float32)
    leaned = composite(decoded, given_frames, kept)[0][:, 0, 0, 0].astype(int) - decoded[:, 0, 0, 0]
    assert leaned[15] == 40 and leaned[14] > 20 and (np.diff(leaned) >= 0).all()
    assert leaned[8] <= 2 and not leaned[:6].any()  # over 6, and some, where only neighbours were compared


def test_what_does_not_lead_up_dissolves_by_even_steps() -> None:
    decoded = np.full((30, 8, 8, 3), 50, np.uint8)
    given_frames, kept = np.full((30, 8, 8, 3), 180, np.uint8), (np.arange(30) >= 26).astype(np.float32)
    kept[:20] = 1
    given_frames[:20], own = 50, given_frames.copy()
    own[:20] = 50
    result = composite(decoded, given_frames, kept, own=own)[0][:, 0, 0, 0].astype(int)
    steps = np.diff(result)[19:26]  # from the last given frame over six invented ones to the next given one
    assert (result[:20] == 50).all() and (result[26:] == 180).all()
    assert steps.min() >= 18 and steps.max() <= 19  # 130 in seven steps
    far = composite(decoded, given_frames, (np.arange(30) >= 26).astype(np.float32), own=own)[0][:, 0, 0, 0].astype(int)
    assert (far[: 26 - DISSOLVE] == 50).all() and np.diff(far).max() <= 130 / (1 + DISSOLVE) + 1


def test_nothing_dissolves_into_a_thing_that_is_not_there_yet() -> None:
    """A square stands elsewhere in the invented frames: its edges, which come late, are no ghosts there."""
    decoded = np.full((12, 48, 48, 3), 90, np.uint8)
    decoded[:8, 4:20, 4:20] = 220
    decoded[8:, 24:40, 24:40] = 220
    own = decoded.copy()
    own[8:, 23:41, 23] = own[8:, 23:41, 40] = 30  # an outline, which is in the given frames and not yet in `decoded`
    own[8:, 2:6, 44] = 40  # and something where nothing else changes
    kept = (np.arange(12) >= 8).astype(np.float32)
    result = composite(decoded, own.copy(), kept, own=own)[0].astype(int)
    assert np.array_equal(result[8:], own[8:])
    change = np.abs(result - decoded)[:8]
    assert change[:, 23:41, 23].max() <= 6  # a ghost of up to 51 before
    assert change[7, 2:6, 44].min() > 30 and not change[:2].any()
