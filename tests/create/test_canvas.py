"""The canvas: what it refuses, what it holds on the grid, and how it is written down."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yozora.clip import Clip
from yozora.create import Anchor, Canvas, Cue, Grid, Native, fit, image_to_video, inpaint, text_to_image, text_to_video
from yozora.create.canvas import MAX_PROMPT
from yozora.errors import CanvasError, MediaError

GRID = Grid()
NATIVE = Native(sizes=((64, 64), (96, 64)), frames_max=17, fps=8.0)


def clip(frames: int, width: int = 64, height: int = 64, value: int = 100) -> Clip:
    return Clip(np.full((frames, height, width, 3), value, np.uint8), 8.0)


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "x" * (MAX_PROMPT + 1), "x" * 100_000, "a \udcff b"])
def test_a_prompt_that_cannot_be_used_is_a_line(prompt: str) -> None:
    with pytest.raises(CanvasError) as error:
        text_to_video(prompt, native=NATIVE)
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("prompt", ["赤いボール", "красный шар", "كرة حمراء", "🔴⚽", "x" * MAX_PROMPT, "a\x00b"])
def test_a_prompt_in_any_script_is_fine(prompt: str) -> None:
    assert text_to_video(prompt, native=NATIVE).prompt == prompt


@pytest.mark.parametrize("fps", [0.0, -8.0, 0.5, 121.0, math.nan, math.inf])
def test_a_rate_out_of_range_is_refused(fps: float) -> None:
    with pytest.raises(CanvasError, match="not a rate"):
        Canvas(64, 64, 5, fps, (Cue(0.0, "a"),))


@pytest.mark.parametrize(
    ("width", "height", "frames"), [(0, 64, 5), (64, -64, 5), (64, 64, 0), (64, 64, 10_001), (4096, 4096, 401)]
)
def test_a_canvas_out_of_range_is_refused(width: int, height: int, frames: int) -> None:
    with pytest.raises(CanvasError):
        Canvas(width, height, frames, 8.0, (Cue(0.0, "a"),))


@pytest.mark.parametrize(
    "cues",
    [
        (Cue(1.0, "a"),),
        (Cue(0.0, "a"), Cue(0.0, "b")),
        (Cue(0.0, "a"), Cue(1.0, "b"), Cue(0.5, "c")),
        (Cue(0.0, "a"), Cue(99.0, "b")),
        (),
    ],
)
def test_cues_start_at_0_and_go_on_in_order_within_the_video(cues: tuple[Cue, ...]) -> None:
    with pytest.raises(CanvasError):
        Canvas(64, 64, 17, 8.0, cues)


def test_cues_own_the_latent_frames_of_their_time() -> None:
    canvas = Canvas(64, 64, 17, 8.0, (Cue(0.0, "a"), Cue(1.0, "b")))  # latent frames: 0, 1-4, 5-8, 9-12, 13-16
    assert canvas.cue_map(GRID).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("hold", [-0.1, 1.1, math.nan, (), (0.5, 2.0)])
def test_hold_is_between_0_and_1(hold: float | tuple[float, ...]) -> None:
    with pytest.raises(CanvasError, match="hold"):
        Anchor(clip(1), 0, hold)


def test_anchors_are_of_the_canvas_size_within_it_apart_and_on_the_grid() -> None:
    for anchors in ([Anchor(clip(1, 32))], [Anchor(clip(9), 13)], [Anchor(clip(5)), Anchor(clip(4), 1)]):
        with pytest.raises(CanvasError):
            Canvas(64, 64, 17, 8.0, anchors=tuple(anchors))
    for start, frames in ((0, 2), (3, 4), (5, 3)):
        with pytest.raises(CanvasError, match="whole latent frames"):
            Canvas(64, 64, 17, 8.0, anchors=(Anchor(clip(frames), start),)).check(GRID)


def test_hold_map_of_nothing() -> None:
    held = text_to_video("a", native=NATIVE).hold_map(GRID)
    assert held.frames is None
    assert held.hold.tolist() == [0, 0, 0, 0, 0]


def test_hold_map_places_anchors_and_fills_the_gap_calmly() -> None:
    anchors = (Anchor(clip(4, value=200), 9, (1.0, 0.0)), Anchor(clip(1, value=50), 0, 0.25))
    held = Canvas(64, 64, 17, 8.0, anchors=anchors).hold_map(GRID)
    assert held.hold.tolist() == [0.25, 0, 0, 1.0, 0]
    assert held.frames is not None
    assert held.frames[:, 0, 0, 0].tolist() == [50] * 5 + [200] * 8  # the encoder sees no jump at the second


def test_a_curve_is_spread_over_the_latent_frames_of_its_anchor() -> None:
    held = Canvas(64, 64, 17, 8.0, anchors=(Anchor(clip(17), 0, (1.0, 0.0)),)).hold_map(GRID)
    assert held.hold.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_an_image_is_cropped_about_its_centre_and_decides_the_aspect() -> None:
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 255
    canvas = image_to_video(image, "a", native=NATIVE, size="64x64")
    assert canvas.anchors[0].clip.frames.min() > 250
    assert image_to_video(image[:, :150], native=NATIVE).size == (96, 64)
    assert image_to_video(image[:, :100], native=NATIVE).size == (64, 64)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_what_is_no_picture(image: np.ndarray) -> None:
    with pytest.raises(CanvasError, match="a picture is uint8"):
        image_to_video(image, "a", native=NATIVE)


def test_fit_crops_to_the_aspect_then_resizes() -> None:
    fitted = fit(clip(3, 90, 31), 64, 32)
    assert fitted.size == (64, 32)
    assert len(fitted.frames) == 3


def test_a_canvas_is_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    clip(1, 80, 64).write(path)
    for canvas in (text_to_video("a", native=NATIVE, negative="b"), image_to_video(path, native=NATIVE, seconds=1)):
        back = Canvas.from_dict(json.loads(json.dumps(canvas.to_dict())))
        assert back.to_dict() == canvas.to_dict()
        for one, other in zip(back.anchors, canvas.anchors, strict=True):
            assert np.array_equal(one.clip.frames, other.clip.frames)


def test_a_canvas_whose_picture_is_gone_or_was_no_file_cannot_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "start.png"
    clip(1).write(path)
    raw = image_to_video(path, native=NATIVE).to_dict()
    path.unlink()
    with pytest.raises(MediaError):
        Canvas.from_dict(raw)
    with pytest.raises(CanvasError, match="did not come from a file"):
        Canvas.from_dict(image_to_video(clip(1), native=NATIVE).to_dict())


def test_what_was_replaced_since_is_noted(tmp_path: Path) -> None:
    path, mask = tmp_path / "start.png", tmp_path / "mask.png"
    clip(1).write(path)
    Clip(np.full_like(clip(1).frames, 255), 1).write(mask)
    for canvas, name in (
        (image_to_video(path, native=NATIVE), path),
        (inpaint(path, "a", mask, native=NATIVE), mask),
    ):
        raw = json.loads(json.dumps(canvas.to_dict()))
        assert not Canvas.from_dict(raw).notes
        kept = name.read_bytes()
        changed = Clip.read(name).frames.copy()
        changed[:, :20] = 0
        Clip(changed, 1).write(name)
        (line,) = Canvas.from_dict(raw).notes
        assert name.name in line and "not what it was" in line
        for anchor in raw["anchors"]:
            del anchor["sha256"]  # as in older recipes
        assert not Canvas.from_dict(raw).notes
        name.write_bytes(kept)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab1\0", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["start", "prompt", "source"]), inner, max_size=3)
    ),
    max_leaves=5,
)
keys = st.sampled_from(["width", "height", "frames", "fps", "cues", "anchors", "loop", "negative"])


@given(st.dictionaries(keys, json_values))
def test_anything_else_is_no_canvas(changed: dict[str, object]) -> None:
    raw = {**text_to_image("a", native=NATIVE).to_dict(), **changed}
    try:
        Canvas.from_dict(raw)
    except CanvasError as error:
        assert "\n" not in str(error)
