"""Arguments of the wrong type, from someone else's Python, are refused in one line before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yozora.clip import Clip, Recipe
from yozora.create import Canvas, Cue, Generator, load
from yozora.errors import CanvasError


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return load(tiny_model, "cpu")


@pytest.mark.parametrize(
    "asked, words",
    [
        ({"prompt": None}, "the prompt must be text, not None"),
        ({"prompt": 3}, "the prompt must be text"),
        ({"prompt": b"a ball"}, "the prompt must be text"),
        ({"prompt": ["a ball"]}, "the prompt must be text"),
        ({"negative": None}, "the negative prompt must be text"),
        ({"seed": None}, "a seed must be a whole number, not None"),
        ({"seed": "3"}, "a seed must be a whole number, not '3'"),
        ({"seed": 2.5}, "a seed must be a whole number"),
        ({"seed": True}, "a seed must be a whole number"),
        ({"seed": [1, 2]}, "a seed must be a whole number"),
        ({"steps": "3"}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": False}, "steps must be a whole number"),
        ({"guidance": "x"}, "guidance must be a number"),
        ({"guidance": True}, "guidance must be a number"),
        ({"guidance": [1.0]}, "guidance must be a number"),
        ({"seconds": "2"}, "seconds must be a number"),
        ({"seconds": True}, "seconds must be a number"),
        ({"size": (128,)}, "is not a size"),
        ({"size": 128}, "is not a size"),
        ({"size": (64.0, 64.0)}, "width must be a whole number"),
        ({"size": ("64", "64")}, "width must be a whole number"),
        ({"aspect": [16, 9]}, "aspect must be a number"),
        ({"resolution": 128.5}, "resolution must be a whole number"),
        ({"image": [1, 2]}, r"a picture is a file, a Clip or an array uint8 .*, not \[1, 2\]"),
        ({"image": 7}, "a picture is a file"),
        ({"image": np.zeros((4, 4, 3))}, "a picture is uint8"),
    ],
)
def test_wrong_types(generator: Generator, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(CanvasError, match=words) as caught:
        generator.generate(**{"prompt": "a red ball", **asked})
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_as_good_as_pythons(generator: Generator, tmp_path: Path) -> None:
    plain = generator.generate("a red ball", seconds=0.1, size=(64, 64), seed=3, steps=2, guidance=2.0)
    asked: dict[str, Any] = {
        "seconds": np.float32(0.1),
        "size": np.array([64, 64]),
        "seed": np.int64(3),
        "steps": np.int32(2),
        "guidance": np.float32(2),
    }
    clip = generator.generate("a red ball", **asked)
    assert np.array_equal(clip.frames, plain.frames) and clip.recipe == plain.recipe
    clip.write(tmp_path / "x.png")
    assert Clip.read(tmp_path / "x.png").recipe == plain.recipe
    assert isinstance(plain.recipe, Recipe) and type(clip.recipe.steps) is int  # type: ignore[union-attr]


def test_one_seed_of_numpy_gives_one_clip_and_several_give_several(generator: Generator) -> None:
    canvas = Canvas(64, 64, 1, 8.0, (Cue(0.0, "a red ball"),))
    *_, one = generator.run(canvas, np.int64(4))  # type: ignore[call-overload]
    *_, several = generator.run(canvas, np.array([4, 5]))  # type: ignore[call-overload]
    assert isinstance(one, Clip) and isinstance(several, tuple)
    assert np.array_equal(one.frames, several[0].frames)
    for seed in (None, "12", [], 1.5):
        with pytest.raises(CanvasError):
            generator.run(canvas, seed)  # type: ignore[call-overload]
    with pytest.raises(CanvasError, match="unknown solver"):
        generator.run(canvas, solver=["euler"])  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cue("0", "a"),  # type: ignore[arg-type]
        lambda: Cue(None, "a"),  # type: ignore[arg-type]
        lambda: Canvas("64", 64, 1, 8.0, (Cue(0.0, "a"),)),  # type: ignore[arg-type]
        lambda: Canvas(64, 64.5, 1, 8.0, (Cue(0.0, "a"),)),  # type: ignore[arg-type]
        lambda: Canvas(64, 64, 1, "8", (Cue(0.0, "a"),)),  # type: ignore[arg-type]
    ],
)
def test_canvases_of_wrong_types(make: Any) -> None:
    with pytest.raises(CanvasError) as caught:
        make()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
