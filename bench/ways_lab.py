"""What the measure of the ways is made with: the model, held-out scenes whose true course is known, and its figures."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.progress import track

import yozora
from yozora.clip import Clip
from yozora.create import Canvas, Generator
from yozora.create.events import Chunk
from yozora.create.streaming import Stream
from yozora.create.windows import Decoded
from yozora.evaluate import Finding, Prompt, following_prompts, inspect_clip, load_inspector, psnr, reconstruct
from yozora.models.autoencoder import Streams
from yozora.models.inspector import largest_part
from yozora.world import render

STILL = 0.1  # of 255: a median step below it is taken for this much
MOST = 60.0  # dB: equal frames leave a mean finite
FACTS = ("colour", "shape")
T = TypeVar("T")


@dataclass
class Filmed:
    """A scene's prompt, its true clip, and where its thing truly is: bool [F, H, W]."""

    prompt: Prompt
    clip: Clip
    thing: np.ndarray
    autoencoder: Streams

    @cached_property
    def through(self) -> np.ndarray:
        """The true frames as the autoencoder gives them back."""
        return reconstruct(self.autoencoder, self.clip).frames


class Watched(Stream):
    """Keeps what is decoded, before given frames are laid over it."""

    decoded_frames: list[np.ndarray]

    def _decode(
        self, latents: torch.Tensor, before: Decoded | None = None, more: bool = False
    ) -> Iterator[tuple[np.ndarray, Decoded]]:
        self.decoded_frames = []
        for frames, after in super()._decode(latents, before, more):
            self.decoded_frames.append(frames)
            yield frames, after


class Lab:
    """The model that is measured, and what it is measured on: `movers`, in which something travels before a still
    camera, and `mixed` scenes, at least two."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.generator: Generator = yozora.load(options.model, device=options.device)
        self.native, self.inspector = self.generator.native, load_inspector()
        self.sampling: dict[str, Any] = {"steps": options.steps}
        films = [self._film(prompt) for prompt in following_prompts(2 * options.scenes)]
        self.movers = [film for film in films if film.prompt.direction]
        self.mixed = films[: max(2, options.scenes)]

    def _film(self, prompt: Prompt) -> Filmed:
        native = self.native
        filmed = render(prompt.scene, *native.size, native.frames_max, native.fps, truth=True)
        assert filmed.truth is not None
        return Filmed(prompt, Clip(filmed.frames, native.fps), filmed.truth.ids > 0, self.generator.bundle.autoencoder)

    def each(self, what: Iterable[T], name: str) -> Iterable[T]:
        """What is measured, one after another, with progress."""
        return track(list(what), description=name)

    def part(self, film: Filmed, start: int, end: int) -> Clip:
        """The true frames start ≤ f < end."""
        return Clip(film.clip.frames[start:end], film.clip.fps)

    def first(self, latent: int) -> int:
        """The first frame of a latent frame; negative ones count from the end."""
        length = self.native.grid.latent_frames(self.native.frames_max)
        return self.native.grid.first_frame(latent if latent >= 0 else length + latent)

    @cached_property
    def alone(self) -> list[Finding]:
        """What a video of each mixed scene's prompt shows."""
        films = self.each(self.mixed, "videos of a prompt")
        made = (self.generator.generate(film.prompt.text, seed=film.prompt.seed, **self.sampling) for film in films)
        return [inspect_clip(clip, self.inspector) for clip in made]

    def watch(self, canvas: Canvas, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """A canvas of one window filled: its frames, and the same before given ones were laid over them."""
        settings = self.generator.settings(self.options.steps)
        stream = Watched(self.generator.bundle, self.native, [canvas], [seed], settings, False)
        made = np.concatenate([event.frames for event in stream if isinstance(event, Chunk)])
        decoded = np.concatenate(stream.decoded_frames)
        assert len(made) == len(decoded) == self.native.frames_max
        return made, decoded

    @torch.no_grad()
    def overlap(self, frames: np.ndarray, thing: np.ndarray) -> float:
        """Mean IoU of where the inspector sees the thing and where it truly is (bool [F, H, W])."""
        pictures = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        found = largest_part(self.inspector(pictures).thing > 0).numpy()
        count, height, width = found.shape
        cells = thing.reshape(count, height, thing.shape[1] // height, width, thing.shape[2] // width)
        true = cells.mean((2, 4)) >= 0.5
        seen = true.any((1, 2))
        ious = (found & true).sum((1, 2)) / np.maximum((found | true).sum((1, 2)), 1)
        return float(ious[seen].mean()) if seen.any() else float("nan")


# ---- figures --------------------------------------------------------------------------------------------------------


def steps(frames: np.ndarray) -> np.ndarray:
    """How far each frame is from the one before, float [F - 1]."""
    return np.array([distance(one, other) for one, other in pairwise(frames)])


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean absolute difference of pixels, of 255."""
    return float(np.abs(one.astype(np.int16) - other).mean())


def median_step(frames: np.ndarray) -> float:
    return max(STILL, float(np.median(steps(frames))))


def seam_of(frames: np.ndarray, meets: int) -> float:
    """The step from the last frame to the first, or onto frame `meets` where that is larger (0: there is none), by the
    median step."""
    seam = distance(frames[-1], frames[0])
    if meets:
        seam = max(seam, distance(frames[meets - 1], frames[meets]))
    return seam / median_step(frames)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """PSNR in dB, at most MOST."""
    return min(MOST, psnr(one, other))


def through_file(clip: Clip) -> Clip:
    """The clip as an MP4 gives it back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        clip.write(path)
        return Clip.read(path)


def baselines(true: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each frame as the nearest given one, and as a linear cross-fade of those before and after it. Beyond the first or
    the last given frame there is nothing to fade to, so that both are the same."""
    given, frames = np.flatnonzero(held), np.arange(len(held))
    before = given[np.maximum(np.searchsorted(given, frames, "right") - 1, 0)]
    after = given[np.minimum(np.searchsorted(given, frames), len(given) - 1)]
    nearest = np.where(frames - before <= after - frames, before, after)
    share = np.clip((frames - before) / np.maximum(after - before, 1), 0, 1)[:, None, None, None]
    faded = np.round((1 - share) * true[before] + share * true[after]).astype(np.uint8)
    return true[nearest], faded


def count_right(prompts: Sequence[Prompt], findings: Sequence[Finding]) -> dict[str, int]:
    """In how many of them colour and shape are as the prompt says."""
    pairs = list(zip(prompts, findings, strict=False))
    return {fact: sum(getattr(finding, fact) == prompt.facts[fact] for prompt, finding in pairs) for fact in FACTS}


def box_around(thing: np.ndarray, margin: int) -> np.ndarray:
    """bool [H, W]: the box around all that is True in any frame of bool [F, H, W], and some pixels more."""
    rows, columns = (np.flatnonzero(thing.any(axes)) for axes in ((0, 2), (0, 1)))
    box = np.zeros(thing.shape[1:], bool)
    box[max(0, rows[0] - margin) : rows[-1] + 1 + margin, max(0, columns[0] - margin) : columns[-1] + 1 + margin] = True
    return box
