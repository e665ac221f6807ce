"""Several canvases in one batch: each video is what it is alone, and those that leave cost nothing more."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.clip import Clip
from yozora.create import Anchor, Canvas, Chunk, Cue, Generator, Progress, load, loop, text_to_video
from yozora.create.anchors import Mask
from yozora.create.prompted import Prompted
from yozora.create.sizes import Native
from yozora.create.windows import plan
from yozora.errors import CanvasError
from yozora.models.transformer import Transformer

WORDS = ("a red ball", "the grass bounces on a red ball on the grass", "a")


@pytest.fixture(scope="module")
def generator(tiny_model: Path) -> Generator:
    return load(tiny_model, "cpu", torch.float32)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many clips each pass of the transformer was of."""
    seen, forward = list[int](), Transformer.forward

    def noted(self: Transformer, latents: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        seen.append(len(latents))
        return forward(self, latents, *more)

    monkeypatch.setattr(Transformer, "forward", noted)
    yield seen


def held(words: str, seed: int, start: int, frames: int, length: int = 9) -> Canvas:
    noise = np.random.default_rng(seed).integers(0, 256, (frames, 64, 64, 3), np.uint8)
    return Canvas(64, 64, length, 8.0, (Cue(0.0, words),), (Anchor(Clip(noise, 8.0), start),))


def written(words: str, number: int, native: Native) -> Canvas:
    """With words of its own for what is not wanted, and for one of them a second prompt."""
    cues = (Cue(0.0, words), *((Cue(0.5, "a ball"),) if number == 1 else ()))
    return Canvas(64, 64, 9, 8.0, cues, negative=("", "grass", "the red grass")[number])


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")
@pytest.mark.parametrize(
    "draw",
    [
        written,
        lambda words, number, native: text_to_video(words, native=native, seconds=4),  # in windows
        lambda words, number, native: loop(None, words, native=native, seconds=3),
        lambda words, number, native: held(words, number, 0, 1),  # from a picture
        lambda words, number, native: held(words, number, 21, 12, 33),  # led up to
    ],
    ids=["words", "long", "loop", "picture", "lead"],
)
def test_each_is_what_it_is_alone(generator: Generator, draw) -> None:  # type: ignore[no-untyped-def]
    canvases = [draw(words, number, generator.native) for number, words in enumerate(WORDS)]
    together = generator.run_many(canvases, [5, 5, 7])
    for canvas, seed, clip in zip(canvases, (5, 5, 7), together, strict=True):
        (alone,) = generator.run_many(canvas, [seed])
        assert np.array_equal(clip.frames, alone.frames) and clip.recipe == alone.recipe
    assert len({clip.frames.tobytes() for clip in together}) == 3


def test_what_is_not_alike_is_refused(generator: Generator, tiny_model: Path) -> None:
    one = Canvas(64, 64, 9, 8.0, (Cue(0.0, "a"),))
    mask = Mask(np.ones((1, 64, 64), bool))
    masked = dataclasses.replace(held("a", 0, 0, 9).anchors[0], mask=mask)
    for other in (
        dataclasses.replace(one, width=96),
        dataclasses.replace(one, frames=5),
        dataclasses.replace(one, loop=True),
        held("a", 0, 0, 1),
        dataclasses.replace(one, anchors=(masked,)),
    ):
        with pytest.raises(CanvasError, match="canvases of one batch"):
            generator.stream([one, other], [1, 2])
    same = [held("a", n, 0, 1) for n in range(2)]
    assert same[0].layout == same[1].layout != held("a", 0, 5, 1).layout
    for canvases, seeds, reason in (
        ([one, one], [1], "2 canvases need as many seeds"),
        ([], [1], "no canvas to fill"),
    ):
        with pytest.raises(CanvasError, match=reason):
            generator.run_many(canvases, seeds)


def frames_of(events: Iterator[Progress | Chunk], left: set[int], when: int) -> dict[int, np.ndarray]:
    """The frames of each; number 1 leaves after `when` steps of sampling."""
    made: dict[int, list[np.ndarray]] = {}
    for event in events:
        if isinstance(event, Chunk):
            made.setdefault(event.index, []).append(event.frames)
        elif event.stage == "sample" and event.step == when:
            left.add(1)
    return {number: np.concatenate(each) for number, each in made.items()}


@pytest.mark.filterwarnings("ignore::yozora.create.YozoraWarning")
@pytest.mark.parametrize("when", [1, 3])
def test_who_leaves_costs_nothing_more(generator: Generator, rows: list[int], when: int) -> None:
    """In the first window of two steps, and in the second."""
    canvases = [text_to_video(words, native=generator.native, seconds=2.4) for words in WORDS]
    left: set[int] = set()
    made = frames_of(generator.stream(canvases, [1, 2, 3], left=left), left, when)
    assert made[0].shape == made[2].shape and len(made.get(1, ())) < len(made[0])
    # a CPU goes row by row, and each pass is of a clip with its prompt and without
    steps = 2 * len(plan(canvases[0], generator.native))
    assert rows == [2] * (3 * when + 2 * (steps - when)) and steps > when
    for number in (0, 2):
        (alone,) = generator.run_many(canvases[number], [number + 1])
        assert np.array_equal(made[number], alone.frames)


def test_where_all_have_left_nothing_is_made(generator: Generator, rows: list[int]) -> None:
    canvas = Canvas(64, 64, 9, 8.0, (Cue(0.0, "a"),))
    assert not any(isinstance(event, Chunk) for event in generator.stream(canvas, [1, 2], left={0, 1}))
    assert rows == []


def test_everyone_has_previews(generator: Generator) -> None:
    canvases = [Canvas(64, 64, 9, 8.0, (Cue(0.0, words),)) for words in WORDS]
    events = [each for each in generator.stream(canvases, [1, 2, 3], previews=True) if isinstance(each, Progress)]
    shown = [event for event in events if event.stage == "sample"]
    assert [(event.step, event.index) for event in shown] == [(step, row) for step in (1, 2) for row in range(3)]
    for row, canvas in enumerate(canvases):
        alone = next(
            each for each in generator.run(canvas, row + 1, previews=True) if getattr(each, "stage", "") == "sample"
        )
        mine = shown[row].preview
        assert isinstance(alone, Progress) and alone.preview is not None and mine is not None
        assert np.array_equal(mine, alone.preview)


def test_one_pass_of_all_is_what_each_is(generator: Generator, rows: list[int]) -> None:
    """As GPUs do it: prompts of different lengths, one of them of two cues, in one batch of the transformer."""
    canvases = [written(words, number, generator.native) for number, words in enumerate(WORDS)]
    prompted = Prompted(generator.bundle, generator.grid, canvases, generator.settings(), None)
    latents = torch.randn(3, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = torch.full((3, 3), 0.7)
    with torch.no_grad():
        together = prompted._pass(canvases)(latents, levels, levels)
        assert rows == [6]  # three clips, and as many without their prompts
        each = [
            prompted._pass([canvas])(latents[n : n + 1], levels[:1], levels[:1]) for n, canvas in enumerate(canvases)
        ]
    assert torch.allclose(together, torch.cat(each), atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)
