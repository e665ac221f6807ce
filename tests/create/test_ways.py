"""The ways: what each draws, what comes back untouched, and one line for what cannot be drawn."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yozora.clip import Clip
from yozora.create import (
    Canvas,
    Generator,
    Grid,
    Native,
    Progress,
    YozoraWarning,
    blend,
    extend,
    fill,
    inpaint,
    load,
    loop,
    recut,
    remix,
    storyboard,
)
from yozora.create.given import at_rate, open_given, take
from yozora.create.join import parse_curve
from yozora.create.ways import parse_strength
from yozora.errors import CanvasError, MediaError

GRID = Grid()
NATIVE = Native(sizes=((64, 64), (96, 64)), frames_max=25, fps=8.0)


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return load(tiny_model, "cpu", torch.float32)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", YozoraWarning)
        yield


def clip(frames: int, width: int = 64, height: int = 64, fps: float = 8.0, seed: int = 0) -> Clip:
    """Frames of noise: none is like another."""
    return Clip(np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8), fps)


def hold(canvas: Canvas) -> list[float]:
    return canvas.hold_map(GRID).hold.round(3).tolist()


@pytest.mark.parametrize("count", [1, 4, 5, 11, 40])
def test_extend_keeps_every_given_frame(generator: Generator, count: int) -> None:
    given = clip(count)
    after = generator.extend(given, "a", seconds=1.5)
    assert len(after.frames) == count + 12
    assert np.array_equal(after.frames[:count], given.frames)
    before = generator.extend(given, "a", seconds=0.6, backward=True)
    assert len(before.frames) == count + 5
    assert np.array_equal(before.frames[5:], given.frames)
    assert not np.array_equal(after.frames[count:], generator.extend(given, "b", seconds=1.5).frames[count:])


def test_backward_goes_on_for_as_long_as_is_asked(generator: Generator) -> None:
    given = clip(6)
    canvas = extend(given, "a", native=NATIVE, seconds=5.6, backward=True)
    made = [made.frames for made in generator.run_many(canvas, [0, 1])]
    assert len(made[0]) == 45 + 6
    assert all(np.array_equal(frames[45:], given.frames) for frames in made)
    assert not np.array_equal(made[0], made[1])
    assert np.array_equal(generator.run_many(canvas, [1])[0].frames, made[1])
    steps = np.abs(np.diff(made[0].astype(float), axis=0)).mean((1, 2, 3))
    assert steps[44] < 1.5 * np.median(steps[36:45])  # noise is given: onto it there is no jump, but a way of 8 frames
    said = [event for event in generator.run(canvas, 0) if isinstance(event, Progress)]
    for stage in ("sample", "decode"):
        steps = [(event.step, event.total) for event in said if event.stage == stage]
        assert [step for step, _ in steps] == sorted(step for step, _ in steps)
        assert steps[-1][0] == steps[-1][1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 30])
def test_a_loop_of_a_clip_begins_with_it(generator: Generator, count: int) -> None:
    given = clip(count)
    made = generator.loop(given, "a", seconds=0.5)
    assert len(made.frames) == count + 4
    assert np.array_equal(made.frames[:count], given.frames)


def test_a_loop_of_a_prompt_is_as_long_as_asked(generator: Generator) -> None:
    canvas = loop(None, "a red ball", native=generator.native, seconds=2)
    made = generator.run_many(canvas, [1])[0]
    assert len(made.frames) == canvas.shown == canvas.frames - 1 == 16
    assert Canvas.from_dict(canvas.to_dict()).loop


def test_remix_holds_all_as_firmly_as_is_asked(generator: Generator) -> None:
    given = clip(9)
    assert hold(remix(given, "a", native=NATIVE, strength=0.25)) == [0.75] * 3
    assert np.array_equal(generator.remix(given, "a", strength=0).frames, given.frames)
    assert parse_strength("subtle") < parse_strength("mild") < parse_strength("strong")


def test_inpaint_changes_what_is_white_only(generator: Generator) -> None:
    given, mask = clip(6), np.zeros((64, 64, 3), np.uint8)
    mask[8:24, 8:24] = 255
    canvas = inpaint(given, "a", mask, native=NATIVE)
    assert hold(canvas) == [[[0, 1], [1, 1]]] * 3
    made = generator.inpaint(given, "a", mask)
    inside = np.broadcast_to(mask > 0, made.frames.shape)
    assert np.array_equal(made.frames[~inside], given.frames[~inside])
    assert not np.array_equal(made.frames[:, 12:20, 12:20], given.frames[:, 12:20, 12:20])


def test_a_mask_of_another_size_is_fitted_and_of_another_shape_refused() -> None:
    mask = np.full((200, 200, 3), 255, np.uint8)
    assert hold(inpaint(clip(1), "a", mask, native=NATIVE)) == [[[0, 0], [0, 0]]]
    with pytest.raises(CanvasError, match="same shape"):
        inpaint(clip(1), "a", mask[:100], native=NATIVE)
    with pytest.raises(CanvasError, match="white nowhere"):
        inpaint(clip(1), "a", mask * 0, native=NATIVE)


def test_a_mask_may_move() -> None:
    white = np.zeros((9, 64, 64, 3), np.uint8)
    white[5:, 40:, 40:] = 255
    canvas = inpaint(clip(9), "a", Clip(white, 8.0), native=NATIVE)
    assert hold(canvas) == [[[1, 1], [1, 1]], [[1, 1], [1, 1]], [[1, 1], [1, 0]]]


def test_fill_puts_pictures_and_clips_on_the_latent_frames_of_their_times(generator: Generator) -> None:
    first, last = clip(1, seed=1), clip(9, seed=2)
    canvas = fill([(1.2, last), (0, first)], "a", native=NATIVE)
    assert [(anchor.start, anchor.end) for anchor in canvas.anchors] == [(0, 1), (9, 21)]
    assert hold(canvas) == [1, 0, 0, 1, 1, 1]
    (note,) = canvas.notes
    assert "what is given is at 1.12 s instead of 1.2 s" in note
    made = generator.run_many(canvas, [0])[0]
    assert np.array_equal(made.frames[0], first.frames[0])
    assert np.array_equal(made.frames[9:], last.frames)  # all of it, though its end is not on the grid
    repeated = fill([(1.0, first)], "a", native=NATIVE, seconds=2).anchors[0]
    assert (repeated.start, repeated.end) == (5, 9)


def test_blend_begins_as_the_one_and_ends_as_the_other(generator: Generator) -> None:
    a, b = clip(9, seed=1), clip(9, seed=2)
    assert blend(a, clip(7, seed=2), native=NATIVE).frames == 9  # as long as the longer
    canvas = blend(a, b, native=NATIVE, seconds=1.6)
    held = canvas.hold_map(GRID)
    assert held.hold[0] == held.hold[-1] == 1
    made = generator.run_many(canvas, [0])[0]
    assert np.array_equal(made.frames[0], a.frames[0])
    assert np.array_equal(made.frames[-1], b.frames[-1])


def test_a_curve_is_the_share_of_the_second_clip() -> None:
    a, b = clip(17, seed=1), clip(17, seed=2)
    held = blend(a, b, native=NATIVE, seconds=2, curve="0:0,1:1").hold_map(GRID)
    assert held.hold.round(3).tolist() == [1, 0.75, 0.5, 0.75, 1]
    assert held.frames is not None
    for frame in range(5, 9):  # of the one latent frame in the middle
        share = 0.5 + (frame - 6.5) / 16
        mean = (1 - share) * a.frames[frame].astype(float) + share * b.frames[frame]
        assert np.abs(held.frames[frame] - mean).max() <= 1
    mixed = blend(a, b, native=NATIVE, seconds=2, curve="mix").hold_map(GRID).hold
    assert mixed.round(3).tolist() == [1, 0.5, 0.5, 0.5, 1]


@given(st.text("0123456789.:,-emix naf", max_size=12))
def test_a_curve_is_points_within_0_and_1_or_a_line(text: str) -> None:
    try:
        points = parse_curve(text)
    except CanvasError as error:
        assert "\n" not in str(error)
    else:
        assert points is None or all(0 <= value <= 1 for value in itertools.chain(*points))


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 12), st.sampled_from(["transition", "mix", "0:1,1:0"]))
def test_any_two_clips_blend_over_any_time(a: int, b: int, seconds: float, curve: str) -> None:
    canvas = blend(clip(a, 32, 32), clip(b, 32, 32), native=NATIVE, seconds=seconds, curve=curve, size="32x32")
    canvas.check(GRID)
    if curve == "transition":
        held = canvas.hold_map(GRID).hold
        assert held[0] == held[-1] == 1


def test_recut_keeps_pieces_where_they_are(generator: Generator) -> None:
    given = clip(24)
    canvas = recut(given, [(2, 3), (0, 1)], "a", native=NATIVE, to=4)
    assert [(anchor.start, anchor.end) for anchor in canvas.anchors] == [(0, 9), (17, 21)]
    made = generator.run_many(canvas, [0])[0]
    assert len(made.frames) == canvas.shown == 32
    assert np.array_equal(made.frames[:9], given.frames[:9])
    assert np.array_equal(made.frames[17:21], given.frames[17:21])


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=3), st.none() | st.floats(0.1, 9))
def test_any_pieces_are_kept_or_refused_in_a_line(keep: list[tuple[float, float]], to: float | None) -> None:
    try:
        canvas = recut(clip(24, 32, 32), keep, native=NATIVE, to=to, size="32x32")
    except CanvasError as error:
        expected = "empty|overlap|past the end|too short or too near|the last piece ends|shorter than a frame"
        assert re.search(expected, str(error)) and "\n" not in str(error)
    else:
        canvas.check(GRID)
        assert canvas.shown == max(1, round((max(end for _, end in keep) if to is None else to) * 8))


@pytest.mark.parametrize("start", range(23))
def test_a_piece_of_any_two_frames_is_kept(start: int) -> None:
    canvas = recut(clip(24, 32, 32), [(start / 8, (start + 2) / 8)], native=NATIVE, size="32x32")
    canvas.check(GRID)
    assert canvas.shown == start + 2
    (anchor,) = canvas.anchors
    assert abs(anchor.start - start) <= 2 and anchor.end <= canvas.frames
    assert anchor.start < start + 2 and anchor.end > start  # some of it is seen


def test_of_a_piece_at_the_end_something_is_seen_or_it_is_refused() -> None:
    (anchor,) = recut(clip(24), [(4.2 / 8, 5.4 / 8)], native=NATIVE).anchors
    assert (anchor.start, anchor.end) == (1, 5)
    with pytest.raises(CanvasError, match="too near another"):
        recut(clip(24), [(1.2 / 8, 3.6 / 8), (4.2 / 8, 5.4 / 8)], native=NATIVE)


def test_what_gives_way_to_the_grid_is_said_in_a_line() -> None:
    (note,) = recut(clip(24), [(0, 1.125), (1.5, 2.5)], native=NATIVE).notes
    assert "the piece from 1.5 to 2.5 s is kept from 1.62 to 2.50 s" in note
    assert not recut(clip(24), [(0, 1.125), (1.625, 3)], native=NATIVE).notes
    moved, cut = fill([(0, clip(1)), (1.0, clip(20))], native=NATIVE, seconds=2).notes
    assert "at 1.12 s instead of 1 s" in moved
    assert "the last 12 of the 20 frames of what is given are left out: the video ends before them" in cut
    (shortened,) = fill([(0, clip(11)), (3, clip(1))], native=NATIVE).notes
    assert "the last 2 of the 11 frames" in shortened and "groups of 4" in shortened
    assert not fill([(0, clip(9)), (2, clip(1)), (3, clip(1))], native=NATIVE).notes
    for made in (loop(clip(9), native=NATIVE, seconds=0.1), extend(clip(9), native=NATIVE, seconds=0.1)):
        assert "at least 0.50 s with this model: 0.1 s were asked for" in made.notes[0]
    assert "at least 1.00 s" in loop(None, "a", native=NATIVE, seconds=0.1).notes[0]
    assert not loop(clip(9), native=NATIVE, seconds=0.6).notes


def test_the_generator_passes_on_what_is_said(generator: Generator) -> None:
    with pytest.warns(YozoraWarning, match="is kept from"):
        generator.recut(clip(24), [(0, 1), (1.5, 2.5)], "a")


def test_a_picture_is_said_to_lose_size_but_no_rate(generator: Generator, tmp_path: Path) -> None:
    picture, film = str(tmp_path / "a.png"), str(tmp_path / "b.gif")
    clip(1, 640, 640).write(picture)
    clip(5, 64, 64, 50).write(film)
    lines = generator.cautions(fill([(1, picture), (2, film)], "a", native=NATIVE, size="64x64"))
    assert any(line.startswith(f"{picture} is 640x640 and becomes 64x64, which") for line in lines)
    assert any(line.startswith(f"{film} is 64x64 at 50 frames a second and becomes") for line in lines)


def test_a_shape_that_cannot_be_made_is_said() -> None:
    assert "flatter than this model can make" in loop(None, "x", native=NATIVE, aspect="100000:1").notes[0]


def board(folder: Path, text: str) -> Path:
    clip(1, seed=1).write(folder / "a.png")
    clip(1, seed=2).write(folder / "b.png")
    clip(9, seed=3).write(folder / "c.gif")
    (folder / "board.toml").write_text(text)
    return folder / "board.toml"


def test_a_storyboard_has_prompts_pictures_and_gaps(tmp_path: Path) -> None:
    path = board(
        tmp_path,
        'seconds = 3\nfit = "pad"\n[[card]]\nat = 0\nprompt = "x"\nimage = "a.png"\n'
        '[[card]]\nat = 0.7\nimage = "b.png"\n[[card]]\nat = 1.0\nimage = "a.png"\n'
        '[[card]]\nat = 2.5\nprompt = "y"\nimage = "b.png"',
    )
    canvas = storyboard(path, native=NATIVE)
    assert [(cue.start, cue.prompt) for cue in canvas.cues] == [(0, "x"), (2.5, "y")]
    assert [(anchor.start, anchor.end) for anchor in canvas.anchors] == [(0, 1), (5, 9), (9, 13), (17, 21)]
    assert hold(canvas) == [1, 0, 1, 1, 0, 1, 0]
    assert canvas.frames == 25


def test_cards_close_together_cut_hard(tmp_path: Path) -> None:
    path = board(tmp_path, "[[card]]\nat = 0\nimage = 'a.png'\n[[card]]\nat = 0.2\nimage = 'b.png'")
    canvas = storyboard(path, native=Native(frames_max=25, fps=24.0))
    assert [(anchor.start, anchor.end) for anchor in canvas.anchors] == [(0, 5), (5, 9)]


def test_a_prompt_just_before_a_picture_is_warned_about(tmp_path: Path) -> None:
    cards = (
        "[[card]]\nat = 0\nprompt = 'a ball'\n[[card]]\nat = {at}\nprompt = 'a cube'\n[[card]]\nat = 4\nimage = 'a.png'"
    )
    late = storyboard(board(tmp_path, cards.format(at=3)), native=NATIVE)
    assert late.notes == ("the prompt at 3 s begins 1 s before a.png, which shows already: put it 3.1 s or more ahead",)
    early = cards.format(at=0.5)
    assert storyboard(board(tmp_path, early), native=NATIVE).notes == ()
    with_picture = "[[card]]\nat = 3\nprompt = 'x'\nimage = 'a.png'\n[[card]]\nat = 4\nimage = 'b.png'"
    assert storyboard(board(tmp_path, with_picture), native=NATIVE).notes == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no cards"),
        ("[[card]\n", "no storyboard"),
        ("[[card]]\nprompt = 'x'", "card 1 needs"),
        ("[[card]]\nat = 0", "card 1 needs"),
        ("[[card]]\nat = nan\nprompt = 'x'", "no time"),
        ("[[card]]\nat = -1\nprompt = 'x'", "no time"),
        ("[[card]]\nat = true\nprompt = 'x'", "wrong type"),
        ("[[card]]\nat = 0\nprompt = ' '", "prompt of card 1 is empty"),
        ("[[card]]\nat = 0\nprompt = 'x'\nsong = 'y'", "does not know 'song'"),
        ("[[card]]\nat = 0\nimage = 'a.png'\nclip = 'a.png'", "card 1 needs"),
        ("seconds = 2\n[[card]]\nat = 2\nprompt = 'x'", "past the end"),
        ("seconds = 1e999\n[[card]]\nat = 0\nprompt = 'x'", "not a length"),
        ("[[card]]\nat = 0\nprompt = 'x'\n[[card]]\nat = 0\nprompt = 'y'", "same time"),
        ("[[card]]\nat = 0\nimage = 'none.png'", "does not exist"),
        ("[[card]]\nat = 1.9\nclip = 'c.gif'\n[[card]]\nat = 2\nimage = 'b.png'", "overlaps"),
        ("banana = 1\n[[card]]\nat = 0\nprompt = 'x'", "does not know 'banana': there are card, seconds, size"),
        ("[[cards]]\nat = 0\nprompt = 'x'", r"does not know 'cards' \(did you mean card\?\)"),
        (
            "[[card]]\nat = 0\npromt = 'x'",
            r"card 1 does not know 'promt' \(did you mean prompt\?\): there are at, prompt",
        ),
    ],
)
def test_a_storyboard_that_cannot_be_drawn(tmp_path: Path, text: str, said: str) -> None:
    path = board(tmp_path, text)
    with pytest.raises((CanvasError, MediaError), match=said) as error:
        storyboard(path, native=NATIVE)
    assert "\n" not in str(error.value)


BAD = {
    "times past the end": lambda: fill([(9, clip(1))], native=NATIVE, seconds=2),
    "overlapping cards": lambda: fill([(0, clip(9)), (0.5, clip(1))], native=NATIVE),
    "no cards": lambda: fill([], native=NATIVE),
    "nan time": lambda: fill([(float("nan"), clip(1))], native=NATIVE),
    "huge time": lambda: fill([(1e300, clip(1))], native=NATIVE),
    "zero-length keep": lambda: recut(clip(9), [(1, 1)], native=NATIVE),
    "a keep of next to nothing": lambda: recut(clip(9), [(0, 0.02), (0.5, 1)], native=NATIVE),
    "backward keep": lambda: recut(clip(9), [(1, 0)], native=NATIVE),
    "keep past the clip": lambda: recut(clip(9), [(0, 2)], native=NATIVE),
    "overlapping keeps": lambda: recut(clip(9), [(0, 1), (0.5, 1)], native=NATIVE),
    "end before the keep": lambda: recut(clip(9), [(0, 1)], native=NATIVE, to=0.5),
    "nan seconds": lambda: extend(clip(9), native=NATIVE, seconds=float("nan")),
    "no seconds": lambda: extend(clip(9), native=NATIVE, seconds=0),
    "too many seconds": lambda: extend(clip(9), native=NATIVE, seconds=1e9),
    "unknown fit": lambda: extend(clip(9), native=NATIVE, fit="zoom"),  # type: ignore[arg-type]
    "strength": lambda: remix(clip(9), "a", native=NATIVE, strength="wild"),
    "nan strength": lambda: remix(clip(9), "a", native=NATIVE, strength=float("nan")),
    "empty prompt": lambda: remix(clip(9), " ", native=NATIVE),
    "empty loop": lambda: loop(None, "", native=NATIVE),
    "too long a clip": lambda: extend(clip(600, 4, 4), native=NATIVE, size="32x32"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_drawn_is_one_line(case: str) -> None:
    with pytest.raises(CanvasError) as error:
        BAD[case]()
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@given(st.integers(1, 50), st.floats(0.5, 240), st.floats(1, 120))
def test_a_clip_of_another_rate_keeps_its_length_and_order(count: int, rate: float, fps: float) -> None:
    frames = [np.full((1, 1, 3), n, np.uint8) for n in range(count)]
    seen = [int(frame[0, 0, 0]) for frame in at_rate(iter(frames), rate, fps)]
    assert seen == sorted(seen)
    assert abs(len(seen) - (count * fps / rate if count > 1 else 1)) <= 1
    if rate == fps:
        assert seen == list(range(count))


def test_frames_before_the_first_and_after_the_last_repeat_them() -> None:
    assert take(np.arange(3), -2, 7).tolist() == [0, 0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize(("how", "corner"), [("crop", 255), ("pad", 0), ("stretch", 255)])
def test_fits(how, corner: int) -> None:
    white = Clip(np.full((2, 30, 90, 3), 255, np.uint8), 8.0)
    fitted = open_given(white).read(64, 64, 8.0, how)
    assert fitted.frames.shape == (2, 64, 64, 3)
    assert (fitted.frames[0, 0, 0] == corner).all()
    assert (fitted.frames[0, 32, 32] == 255).all()


@pytest.mark.parametrize("way", ["extend", "loop", "remix", "inpaint", "blend", "recut", "fill"])
def test_a_recipe_draws_the_same_canvas_again(tmp_path: Path, way: str) -> None:
    a, b, mask = (str(tmp_path / name) for name in ("a.mp4", "b.mp4", "mask.png"))
    clip(11).write(a)
    clip(30, 96, 60, 24.0).write(b)
    Clip(np.full((1, 60, 96, 3), 255, np.uint8), 1.0).write(mask)
    canvas = {
        "extend": lambda: extend(a, "x", native=NATIVE, seconds=1),
        "loop": lambda: loop(a, "x", native=NATIVE),
        "remix": lambda: remix(b, "x", native=NATIVE, fit="pad"),
        "inpaint": lambda: inpaint(b, "x", mask, native=NATIVE, fit="stretch"),
        "blend": lambda: blend(a, b, "x", native=NATIVE),
        "recut": lambda: recut(a, [(0.2, 1)], "x", native=NATIVE, to=2),
        "fill": lambda: fill([(0, a), (2, b)], "x", native=NATIVE),
    }[way]()
    back = Canvas.from_dict(canvas.to_dict())
    assert back.to_dict() == canvas.to_dict()
    one, other = back.hold_map(GRID), canvas.hold_map(GRID)
    assert np.array_equal(one.hold, other.hold)
    assert one.frames is not None and other.frames is not None
    assert np.array_equal(one.frames, other.frames)
