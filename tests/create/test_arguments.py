"""Arguments of the wrong type, from someone else's Python, are refused in one line before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yozora.clip import Clip, Recipe
from yozora.create import Canvas, Cue, Generator, Preset, load, presets
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


@pytest.mark.parametrize(
    "draw, words",
    [
        (lambda g, p: g.fill([("0", p)]), "a time must be a number"),
        (lambda g, p: g.fill([(None, p)]), "a time must be a number"),
        (lambda g, p: g.fill([(10**400, p)]), "a time must be a number"),
        (lambda g, p: g.fill({0: p}), "a card is"),
        (lambda g, p: g.fill("0=a.png"), "a card is"),
        (lambda g, p: g.recut(p, (0, 1)), "a piece is"),
        (lambda g, p: g.recut(p, ["0-1"]), "a piece is"),
        (lambda g, p: g.recut(p, [(0, None)]), "a time must be a number"),
        (lambda g, p: g.remix(p, "x", strength=None), "no strength"),
        (lambda g, p: g.remix(p, "x", strength=[1]), "no strength"),
        (lambda g, p: g.blend(p, p, curve=None), "a curve is text"),
        (lambda g, p: g.storyboard(None), "a storyboard is"),
        (lambda g, p: g.storyboard({"card": []}), "a storyboard is"),
    ],
)
def test_ways_of_wrong_types(generator: Generator, draw: Any, words: str) -> None:
    with pytest.raises(CanvasError, match=words) as caught:
        draw(generator, np.zeros((64, 64, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_options_of_the_methods(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a style and a solver; a misspelt option is no option."""
    picture = np.zeros((64, 64, 3), np.uint8)
    monkeypatch.setattr(presets, "load_presets", lambda: {"m": Preset("m", suffix=", in fog", steps=3, aspect="3:2")})
    clip = generator.animate(picture, "a ball", seconds=0.1, preset="m", solver="dpm++", fit="pad", seed=2)
    assert clip.recipe is not None and clip.size == (64, 64)
    recipe = clip.recipe
    assert (recipe.prompt, recipe.steps, recipe.solver, recipe.seed) == ("a ball, in fog", 3, "dpm++", 2)
    assert generator.image("a ball", preset="m", steps=1).size == (96, 64)
    assert generator.generate("a ball", picture, fit="stretch", seconds=0.1, solver="dpm++", steps=1).recipe is not None
    for misspelt in (
        lambda: generator.animate(picture, "a ball", sed=7),  # type: ignore[call-arg]
        lambda: generator.extend(picture, "a ball", second=5),  # type: ignore[call-arg]
        lambda: generator.image("x", prest="m"),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match=r"has no option '(sed|second|prest)'; there are"):
            misspelt()


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
