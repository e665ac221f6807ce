"""The Generator: reproducible, true to what is held, and of the shape that was asked for."""

import dataclasses
import hashlib
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from yozora.clip import Clip
from yozora.create import (
    Anchor,
    Canvas,
    Cue,
    Generator,
    Preset,
    Progress,
    YozoraWarning,
    extend,
    image_to_video,
    load,
    presets,
    text_to_image,
    text_to_video,
)
from yozora.diffusion import FLOW_MAP
from yozora.errors import CanvasError, ModelError
from yozora.models.adapter import Adapter, AdapterConfig
from yozora.models.folder import load_module, read_json, save_module, write_json
from yozora.models.registry import CARD
from yozora.models.transformer import Transformer


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return load(tiny_model, "cpu", torch.float32)


@pytest.fixture(scope="module")
def quick(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """The tiny model with few-step weights, which are as random as the others."""
    folder = tmp_path_factory.mktemp("models") / "quick"
    shutil.copytree(tiny_model, folder)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        adapter = Adapter(AdapterConfig(2, load_module(Transformer, folder / "transformer").config))
        for parameter in adapter.parameters():
            parameter.data.normal_(std=0.2)
    save_module(adapter, folder / "few_steps")
    write_json(folder / CARD, read_json(folder / CARD) | {"name": "quick", "few_steps": 3, "solver": FLOW_MAP})
    return load(folder, "cpu", torch.float32)


def picture(width: int = 64, height: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_generate_makes_what_the_model_was_trained_on_unless_told(generator: Generator) -> None:
    clip = generator.generate("a red ball")
    assert clip.frames.shape == (9, 64, 64, 3)
    assert clip.fps == 8
    assert generator.generate("a red ball", seconds=0.6, aspect="3:2").frames.shape == (5, 64, 96, 3)


def test_a_preset_is_what_was_not_asked_for(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    preset = Preset("mine", suffix=", in fog", negative="sun", steps=1, guidance=3.0, aspect="3:2")
    monkeypatch.setattr(presets, "load_presets", lambda: {"mine": preset})
    clip = generator.generate("a ball", preset="mine", seconds=0.1, guidance=2)
    assert clip.recipe is not None and clip.size == (96, 64)
    assert (clip.recipe.prompt, clip.recipe.negative, clip.recipe.steps) == ("a ball, in fog", "sun", 1)
    assert clip.recipe.guidance == 2
    assert generator.generate("a ball", picture(), preset="mine", seconds=0.1).size == (64, 64)


def test_the_recipe_says_all_that_is_needed_to_make_it_again(generator: Generator) -> None:
    clip = generator.generate("a red ball", negative="blue", seed=3, steps=1, size=(96, 64))
    recipe = clip.recipe
    assert recipe is not None
    assert (recipe.prompt, recipe.negative, recipe.seed, recipe.steps, recipe.guidance) == (
        "a red ball",
        "blue",
        3,
        1,
        2.0,
    )
    assert recipe.seed is not None
    again = generator.run_many(
        Canvas.from_dict(recipe.canvas),
        [recipe.seed],
        steps=recipe.steps,
        guidance=recipe.guidance,
        solver=recipe.solver,
        projected=recipe.projected,
    )
    assert np.array_equal(again[0].frames, clip.frames)


def test_projected_guidance_is_the_cards_or_as_asked_for_and_in_the_recipe(generator: Generator) -> None:
    card = dataclasses.replace(generator.bundle.card, projected=True)
    projected = Generator(dataclasses.replace(generator.bundle, card=card))
    plain, pushed = generator.generate("a red ball", seed=5), projected.generate("a red ball", seed=5)
    assert plain.recipe is not None and not plain.recipe.projected
    assert pushed.recipe is not None and pushed.recipe.projected
    assert not np.array_equal(plain.frames, pushed.frames)
    assert np.array_equal(generator.generate("a red ball", seed=5, projected=True).frames, pushed.frames)
    assert np.array_equal(projected.generate("a red ball", seed=5, projected=False).frames, plain.frames)


def test_the_same_seed_is_the_same_bytes_and_every_input_matters(generator: Generator) -> None:
    frames = generator.generate("a red ball", seed=5).frames
    assert np.array_equal(frames, generator.generate("a red ball", seed=5).frames)
    for other in (
        generator.generate("a red ball", seed=6),
        generator.generate("a ball on grass", seed=5),
        generator.generate("a red ball", seed=5, guidance=7),
        generator.generate("a red ball", seed=5, steps=5),
        generator.generate("a red ball", seed=5, negative="grass"),
    ):
        assert not np.array_equal(frames, other.frames)


def test_another_process_gives_the_same_bytes(generator: Generator, tiny_model: Path) -> None:
    script = (
        "import sys, hashlib, torch; torch.set_num_threads(int(sys.argv[2])); from yozora.create import load; "
        "frames = load(sys.argv[1], 'cpu', torch.float32).generate('a red ball', seed=5).frames; "
        "print(hashlib.sha256(frames.tobytes()).hexdigest())"
    )
    command = [sys.executable, "-c", script, str(tiny_model), str(torch.get_num_threads())]
    other = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert other == hashlib.sha256(generator.generate("a red ball", seed=5).frames.tobytes()).hexdigest()


def test_variations_in_one_batch_equal_single_runs(generator: Generator) -> None:
    canvas = text_to_video("a red ball", native=generator.native)
    batch = generator.run_many(canvas, [7, 8, 9])
    for seed, clip in zip((7, 8, 9), batch, strict=True):
        single = generator.run_many(canvas, [seed])[0]
        assert clip.recipe is not None
        assert clip.recipe.seed == seed
        assert np.array_equal(clip.frames, single.frames)


def test_progress_runs_through_the_stages_and_ends_with_the_clip(generator: Generator) -> None:
    canvas = text_to_video("a red ball", native=generator.native)
    *events, clip = generator.run(canvas, steps=3, previews=True)
    assert isinstance(clip, Clip)
    assert all(isinstance(event, Progress) for event in events)
    stages = [(event.stage, event.step, event.total) for event in events if isinstance(event, Progress)]
    assert stages[:4] == [("text", 1, 1), ("sample", 1, 3), ("sample", 2, 3), ("sample", 3, 3)]
    assert stages[-1] == ("decode", 3, 3)
    seconds = [event.seconds for event in events if isinstance(event, Progress)]
    assert seconds == sorted(seconds)
    previews = [event.preview for event in events if isinstance(event, Progress) and event.stage == "sample"]
    assert all(preview is not None and preview.shape == (64, 64, 3) for preview in previews)


def test_a_picture_comes_back_as_it_is(generator: Generator) -> None:
    canvas = image_to_video(picture(), "a red ball", native=generator.native)
    assert canvas.hold_map(generator.grid).hold.tolist() == [1, 0, 0]
    clip = generator.run_many(canvas, [0])[0]
    assert np.array_equal(clip.frames[0], picture())
    other = generator.run_many(image_to_video(picture(seed=1), "a red ball", native=generator.native), [0])[0]
    assert not np.array_equal(clip.frames[1:], other.frames[1:])


def test_an_anchor_in_the_middle_and_several_cues(generator: Generator) -> None:
    anchor = Anchor(Clip(np.repeat(picture()[None], 4, 0), 8.0), 5, (1.0, 0.5))
    cues = (Cue(0.0, "a red ball"), Cue(0.1, "grass"))
    canvas = Canvas(64, 64, 9, 8.0, cues, (anchor,))
    frames = generator.run_many(canvas, [0])[0].frames
    one = generator.run_many(Canvas(64, 64, 9, 8.0, cues[:1], (anchor,)), [0])[0].frames
    assert frames.shape == one.shape
    assert not np.array_equal(frames, one)


def test_an_empty_prompt_is_fine_with_a_picture(generator: Generator) -> None:
    assert len(generator.generate("", picture(), seconds=0.1).frames) == 1
    with pytest.raises(CanvasError, match="empty"):
        generator.generate(" ")


def test_outside_the_trained_range_there_is_a_warning_and_a_video(generator: Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator.generate("a red ball", seconds=1)
    with pytest.warns(YozoraWarning, match="outside the lengths"):
        assert len(generator.generate("a red ball", seconds=2).frames) == 17
    trimmed = Canvas(64, 64, 17, 8.0, (Cue(0, "a red ball"),), trim=(0, 4))
    assert generator.cautions(trimmed, generator.settings())[0].startswith("1.62 s is outside the lengths")
    with pytest.warns(YozoraWarning, match="outside the sizes"):
        assert generator.generate("a red ball", size="128x32", seconds=0.1).size == (128, 32)


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 0},
        {"steps": 1001},
        {"guidance": float("nan")},
        {"guidance": -1.0},
        {"guidance": 1e9},
        {"seed": -1},
        {"seed": 2**63},
        {"size": "100x100"},
        {"size": "64x64", "aspect": "1:1"},
        {"seconds": 0},
        {"prompt": "x" * 100_000},
    ],
)
def test_bad_settings_are_refused_before_any_work(generator: Generator, asked: dict) -> None:
    with pytest.raises(CanvasError):
        generator.generate(**{"prompt": "a red ball", **asked})


def test_bad_runs_are_refused_when_called(generator: Generator) -> None:
    canvas = text_to_image("a red ball", native=generator.native)
    for seeds in ([], list(range(65))):
        with pytest.raises(CanvasError):
            generator.run(canvas, seeds)
    with pytest.raises(CanvasError, match="solver"):
        generator.run(canvas, solver="none")
    with pytest.raises(CanvasError, match="loop"):
        generator.run(Canvas(64, 64, 1, 8.0, (Cue(0.0, "a"),), loop=True))
    with pytest.raises(CanvasError, match="multiple of 32"):
        generator.run(Canvas(64, 50, 9, 8.0, (Cue(0.0, "a"),)))
    with pytest.raises(CanvasError, match="times the most this model was trained on"):
        generator.run(Canvas(4096, 4096, 9, 8.0, (Cue(0.0, "a"),)))


def test_few_steps_may_be_there_for_the_asking(quick: Generator) -> None:
    asked = Generator(dataclasses.replace(quick.bundle, card=dataclasses.replace(quick.bundle.card, solver="euler")))
    assert vars(asked.settings()) == {"steps": 2, "guidance": 2.0, "solver": "euler", "projected": False}
    assert asked.settings(solver=FLOW_MAP) == quick.settings()
    few = asked.generate("a red ball", seed=4, solver=FLOW_MAP)
    assert np.array_equal(few.frames, quick.generate("a red ball", seed=4).frames)


def test_few_steps_are_taken_unless_guidance_is_asked_for(quick: Generator, generator: Generator) -> None:
    assert vars(quick.settings()) == {"steps": 3, "guidance": 1.0, "solver": FLOW_MAP, "projected": False}
    assert vars(quick.settings(steps=8)) == {"steps": 8, "guidance": 1.0, "solver": FLOW_MAP, "projected": False}
    full = {"steps": 2, "guidance": 2.0, "solver": "multistep", "projected": False}
    assert vars(quick.settings(guidance=2)) == vars(quick.settings(negative="fog")) == full
    assert vars(quick.settings(projected=True)) == full | {"projected": True}
    assert vars(quick.settings(solver="dpm++")) == full | {"solver": "dpm++"}
    assert vars(generator.settings()) == full | {"solver": "euler"}
    few = quick.generate("a red ball", picture(), seed=4)
    assert few.recipe is not None and few.recipe.solver == FLOW_MAP
    assert np.array_equal(few.frames[0], picture())
    asked = {"seed": 4, "guidance": 2.0, "solver": "euler"}
    full_way = [each.generate("a red ball", picture(), **asked).frames for each in (quick, generator)]
    assert np.array_equal(full_way[0], full_way[1]) and not np.array_equal(few.frames, full_way[0])
    few = quick.generate("a red ball", seed=4)
    assert few.recipe is not None
    canvas = Canvas.from_dict(few.recipe.canvas)
    settings = {"steps": few.recipe.steps, "guidance": few.recipe.guidance, "solver": few.recipe.solver}
    assert np.array_equal(quick.run_many(canvas, [4], **settings)[0].frames, few.frames)


def test_what_is_held_smaller_than_it_is_is_said(generator: Generator, tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 256, (20, 128, 192, 3), np.uint8)
    Clip(film, 16.0).write(tmp_path / "large.mp4")
    Clip(film[:6, :64, :64], 8.0).write(tmp_path / "small.mp4")
    Clip(film[:1], 1.0).write(tmp_path / "large.png")
    said = generator.cautions(extend(tmp_path / "large.mp4", native=generator.native, seconds=0.5))
    assert len([line for line in said if "is 192x128 at 16 frames a second and becomes 96x64 at 8" in line]) == 1
    for canvas in (
        extend(tmp_path / "small.mp4", native=generator.native, seconds=0.5),
        image_to_video(tmp_path / "large.png", native=generator.native),
    ):
        assert not any("becomes" in line for line in generator.cautions(canvas))


def test_a_negative_prompt_without_guidance_is_said(generator: Generator) -> None:
    canvas = text_to_image("a red ball", native=generator.native, negative="fog")
    assert "does nothing" in generator.cautions(canvas, generator.settings(guidance=1))[-1]
    assert not generator.cautions(canvas, generator.settings(guidance=2))


def test_few_steps_that_cannot_be(quick: Generator, generator: Generator) -> None:
    with pytest.raises(CanvasError, match="has no few-step weights"):
        generator.settings(solver=FLOW_MAP)
    with pytest.raises(CanvasError, match="unknown solver"):
        generator.settings(solver="")
    with pytest.raises(CanvasError, match="neither guidance nor a negative prompt"):
        quick.settings(solver=FLOW_MAP, guidance=3.0)
    with pytest.raises(CanvasError, match="neither guidance nor a negative prompt"):
        quick.settings(solver=FLOW_MAP, negative="fog")
    with pytest.raises(ModelError, match=r"correct its model\.json"):
        Generator(dataclasses.replace(quick.bundle, card=dataclasses.replace(quick.bundle.card, few_steps=1001)))


@pytest.mark.parametrize("change", [{"solver": "none"}, {"steps": 1001}, {"guidance": 51.0}, {"fps": 1000.0}])
def test_a_card_that_asks_for_what_no_run_can_do(generator: Generator, change: dict) -> None:
    card = dataclasses.replace(generator.bundle.card, **change)
    with pytest.raises(ModelError, match=r"correct its model\.json"):
        Generator(dataclasses.replace(generator.bundle, card=card))


@pytest.mark.parametrize("device", ["cuda:99", "banana", "meta", ""])
def test_a_device_that_is_not_there(tiny_model: Path, device: str) -> None:
    with pytest.raises(ModelError, match="cannot be used here"):
        load(tiny_model, device)


sides = st.integers(1, 4).map(lambda tokens: 32 * tokens)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    width=sides,
    height=sides,
    blocks=st.integers(0, 4),
    fps=st.floats(1, 120),
    seed=st.integers(0, 2**63 - 1),
    guidance=st.floats(0, 50),
    prompt=st.text(max_size=30).filter(str.strip),
    hold=st.none() | st.floats(0, 1),
)
def test_any_valid_canvas_gives_frames_of_its_shape(
    generator: Generator,
    width: int,
    height: int,
    blocks: int,
    fps: float,
    seed: int,
    guidance: float,
    prompt: str,
    hold: float | None,
) -> None:
    anchors = () if hold is None else (Anchor(Clip(picture(width, height)[None], fps), 0, hold),)
    canvas = Canvas(width, height, 1 + 4 * blocks, fps, (Cue(0.0, prompt),), anchors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", YozoraWarning)
        clip = generator.run_many(canvas, [seed], steps=1, guidance=guidance)[0]
    assert clip.frames.shape == (1 + 4 * blocks, height, width, 3)
    assert clip.fps == fps
