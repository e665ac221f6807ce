"""Filling a canvas: text → sampling → latents → frames, window by window, with memory that does not grow with length.

The same seed, model, canvas and device give the same bytes: noise is drawn on the CPU in float32, from one generator a
seed and window, so that it depends neither on the device nor on what else is made in the same batch.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from yozora.create.anchors import HoldMap
from yozora.create.begin import Begin
from yozora.create.beside import Beside
from yozora.create.canvas import Canvas
from yozora.create.composite import composite
from yozora.create.deblock import deblock
from yozora.create.events import Chunk, Progress
from yozora.create.memory import advice, memory_errors
from yozora.create.pace import closing, even_pace, in_transition, leading_up, runs
from yozora.create.prompted import Prompted
from yozora.create.settings import Settings
from yozora.create.sizes import Native
from yozora.create.windows import (
    Decoded,
    Made,
    Past,
    Window,
    given_frames,
    part_before,
    part_of,
    plan,
    plan_leads,
    turn_of,
    window_seed,
)
from yozora.diffusion import SCHEDULES, begin_at, sample
from yozora.errors import ModelError
from yozora.models.registry import Bundle
from yozora.models.tiled import Tiled

CHUNK_LATENTS = 4  # latent frames encoded or decoded at a time


class Stream:
    """One run over one canvas, or over several of one layout, one a seed: iterate over it once. Progress, and every
    seed's Chunks in order. Seeds whose numbers are in `left`, which may grow, are not gone on with."""

    def __init__(
        self,
        bundle: Bundle,
        native: Native,
        canvases: Sequence[Canvas],
        seeds: Sequence[int],
        settings: Settings,
        previews: bool,
        begin: Begin | None = None,
        beside: Beside | None = None,
        left: AbstractSet[int] = frozenset(),
    ) -> None:
        self.bundle, self.native, self.grid = bundle, native, native.grid
        self.canvases, self.seeds, self.settings, self.previews = canvases, seeds, settings, previews
        self.canvas = canvas = canvases[0]  # whose layout all have
        self.left = left
        self.windows, self.leads = plan(canvas, native), plan_leads(canvas, native)
        self.begin, self.beside = begin, beside
        self.pasts = [Past(canvas, native) for _ in seeds]
        self.places = [0] * len(seeds)
        self.turned, self.turning = turn_of(canvas, native), in_transition(canvas, self.grid)
        self.sampled = self.decoded = 0
        self.chunk = self.grid.latent_frames(canvas.frames) if bundle.tile else CHUNK_LATENTS

    def __iter__(self) -> Generator[Progress | Chunk]:
        self.begun = time.perf_counter()
        canvas, bundle = self.canvas, self.bundle
        self.stage = "text"
        what = f"{canvas.frames} frames of {canvas.width}x{canvas.height}"
        with memory_errors(what, lambda: advice(self.stage, bundle.running, bundle.device, bundle.tile, bundle.large)):
            self.prompted = Prompted(bundle, self.grid, self.canvases, self.settings, self.beside)
            yield self._progress("text", 1, 1)
            yield from self._lead_up()
            index = len(self.leads)
            for window in self.windows:
                if not self._rows:
                    return
                if window.sampled:
                    yield from self._make(window, index)
                    index += 1
                else:
                    yield from self._pass_on(window)

    def _pass_on(self, window: Window) -> Iterator[Progress | Chunk]:
        """A window that is given in full."""
        rows = self._rows
        for past in self.pasts:
            past.made = None
        canvases = self.canvases if len(self.canvases) == 1 else [self.canvases[row] for row in rows]
        for given in zip(*(given_frames(each, window, self.grid) for each in canvases), strict=True):
            for place, row in enumerate(rows):
                yield from self._emit(row, given[place % len(given)])
        yield self._progress_decoded((window.end - window.fresh) * len(rows))

    def _lead_up(self) -> Iterator[Progress | Chunk]:
        """What comes before all that is given: made from there backward, and handed out in order of time. What was made
        waits in nameless files, so that memory does not grow with it; but for the first frames of a lead, which the one
        before it decodes once more: they go over from these to those, for no two decodings are quite the same."""
        began: list[np.ndarray | None] = [None] * len(self.seeds)
        ahead: dict[int, Tensor] = {}  # the same as latents
        loose = 0  # how many of those frames wait
        with ExitStack() as stack:
            files = []
            for index, lead in enumerate(self.leads):
                if not (rows := self._rows):
                    return
                parts = [
                    part_before(self._canvas(row), lead, began[row], self.grid)
                    for row in (rows if index or len(self.canvases) > 1 else rows[:1])
                ]

                def recall(row: int, known: Tensor, made: dict[int, Tensor] = ahead) -> Tensor:
                    return torch.cat([known[:, :, : -made[row].shape[2]], made[row]], dim=2) if made else known

                latents, maps, known = yield from self._sampled(rows, parts, index, recall)
                assert known is not None
                ahead, most = {}, self.grid.temporal * self.native.overlap
                first = lead.fresh - lead.start  # the first latent frame and, of frames, the first that is new, and
                begin = self.grid.first_frame(first)  # that from where on they exist
                exist = self.grid.first_frame(lead.until) - self.grid.temporal * lead.start
                waits = min(most, exist - begin + loose) if lead.start else 0
                for place, (row, latent) in enumerate(zip(rows, latents.split(1), strict=True)):
                    if row in self.left:
                        continue
                    held = maps[place % len(maps)]
                    frames = np.concatenate([each for each, _ in self._decode(latent)])
                    if (made := began[row]) is not None:
                        frames[exist:] = np.concatenate([_go_over(frames[exist:], made, loose), made[loose:]])
                    elif held.frames is not None:
                        frames, _ = composite(frames, held.frames, held.kept)
                    frames = even_pace(frames, [leading_up(exist)])
                    ahead[row] = latent[:, :, first : first + self.native.overlap]
                    files.append((row, stack.enter_context(tempfile.TemporaryFile())))
                    np.save(files[-1][1], frames[begin + waits : exist + loose])
                    began[row] = frames[begin : begin + most]
                    yield self._progress_decoded(lead.until - lead.fresh)
                loose = waits
            for row, file in reversed(files):
                file.seek(0)
                yield from self._emit(row, np.load(file))

    def _make(self, window: Window, index: int) -> Iterator[Progress | Chunk]:
        """A window that is sampled, the `index`-th."""
        rows, alone = self._rows, len(self.canvases) == 1
        shared = alone and window.start == window.fresh and window.end <= self.grid.latent_frames(self.canvas.frames)
        parts = [
            part_of(self._canvas(row), window, self.pasts[row], self.grid) for row in (rows[:1] if shared else rows)
        ]

        def recall(row: int, known: Tensor) -> Tensor:
            return self.pasts[row].recall(known, window.start)

        latents, maps, known = yield from self._sampled(rows, parts, index, recall)
        owns = [None] if known is None else list(map(self._own, maps, known.split(1)))
        for place, (row, latent) in enumerate(zip(rows, latents.split(1), strict=True)):
            if row not in self.left:
                which = place % len(maps)
                yield from self._finish(window, row, latent, maps[which], owns[which % len(owns)])

    def _sampled(
        self, rows: Sequence[int], parts: Sequence[Canvas], index: int, recall: Callable[[int, Tensor], Tensor]
    ) -> Generator[Progress, None, tuple[Tensor, list[HoldMap], Tensor | None]]:
        """Fills the `index`-th window of `rows`, whose canvases are `parts`, one a row or one for all: its latents
        [B, C, T, h, w], what is held, and the same as latents, of which `recall` puts in place, for one row, those
        that other windows made."""
        maps = [part.hold_map(self.grid) for part in parts]
        known, hold = None, None
        self.stage = "sample"
        if maps[0].frames is not None:
            hold = torch.from_numpy(maps[0].hold)[None].to(self.bundle.device)
            encoded = [self._known(held.frames, hold.shape[1]) for held in maps if held.frames is not None]
            known = torch.cat([recall(row, each) for row, each in zip(rows, encoded, strict=False)])
        latents = noise = self._noise(rows, parts[0], index)
        card = self.bundle.card
        levels = SCHEDULES[card.schedule](self.settings.steps, card.shift_for(self.canvas.size))
        if hold is not None:
            levels = begin_at(levels, 1 - float(hold.min()))
        velocity = self.prompted.velocity(parts, len(rows), lambda place: rows[place] not in self.left)
        begun = {"known": known, "hold": hold}
        if self.begin is not None:  # of which the canvas holds nothing
            levels, *start = self.begin.start(levels, noise.shape[2])
            begun = dict(zip(("known", "hold"), (each.to(noise.device) for each in start), strict=True))
        for step in sample(velocity, noise, levels, **begun, solver=self.settings.solver):
            latents = step.latents
            self.sampled += 1
            total = step.total * (len(self.leads) + sum(each.sampled for each in self.windows))
            if not self.previews:
                yield self._progress("sample", self.sampled, total)
                continue
            for row, estimate in zip(rows, step.estimate[:, :, :1].split(1), strict=True):
                if row not in self.left:
                    preview = next(self._decode(estimate))[0][0]
                    yield self._progress("sample", self.sampled, total, preview, row)
        if not latents.isfinite().all():
            raise ModelError("the model gave numbers that are not finite: lower the guidance, or check its weights")
        return latents, maps, known

    def _finish(
        self, window: Window, row: int, latents: Tensor, held: HoldMap, own: np.ndarray | None
    ) -> Iterator[Progress | Chunk]:
        """A window's latents become a video's next frames. Decoding goes on where the window before has stopped, or
        begins with what this one holds, where that was given."""
        self.stage = "decode"
        past, old = self.pasts[row], self._latents_of(window, window.fresh)
        done, decoded, left = 0, None, None
        if past.made is not None:
            done, decoded, left = old, past.made.decoded, past.made.left
        pieces, place = [], done
        more = window is not self.windows[-1]
        for piece, after in self._decode(latents[:, :, done:], decoded, more):
            pieces.append(piece)
            decoded = after
            before, place = place, min(place + self.chunk, self._latents_of(window, window.end))
            yield self._progress_decoded(max(place, old) - max(before, old))
        frames = np.concatenate(pieces)
        skipped = self.grid.first_frame(done)
        if held.frames is not None:
            own = None if own is None else own[skipped:]
            frames, left = composite(frames, held.frames[skipped:], self._kept(window, held)[skipped:], left, own)
        frames = self._paced(frames, window, done, old, past)
        first = 1 if window.start else 0
        if self.turned and not window.start:
            past.begun = latents[:, :, 1 : 1 + past.tail]
        assert decoded is not None
        past.made = Made(window.start + first, latents[:, :, first:], decoded, left)
        begin = self.grid.first_frame(old)
        yield from self._emit(row, frames[begin - skipped : self._count(window) - skipped])

    def _paced(self, frames: np.ndarray, window: Window, done: int, new: int, past: Past) -> np.ndarray:
        """A window's frames, from its latent frame `done` on, at an even pace where given clips turn into others, and
        where a loop closes or, if it turns, begins. Those from `new` on have not been shown."""
        first = self.grid.first_frame
        before = past.last(1) if done else frames[:0]
        skipped = first(done) - len(before)
        turning = np.flatnonzero(self.turning[window.start : window.end]).tolist()
        groups = [(first(a) - skipped, first(b) - skipped) for a, b in runs([k for k in turning if k >= max(1, done)])]
        if self.turned and not window.start:
            groups.append((1, min(2 * self.turned + 2, len(frames))))
        if window.end > self.grid.latent_frames(self.canvas.frames):
            start, stop = closing(self.canvas.frames - self.grid.temporal * window.start, self.turned)
            groups.append((max(start, first(new), 1) - skipped, stop - skipped))
        return even_pace(np.concatenate([before, frames]), groups)[len(before) :] if groups else frames

    def _own(self, held: HoldMap, known: Tensor) -> np.ndarray | None:
        """What the autoencoder makes of what is held by itself. Where that begins after something invented, the decoder
        takes a frame to leave what was before, which is no error of the autoencoder's. None where nothing does."""
        firm = held.hold.reshape(len(held.hold), -1).max(1) == 1
        if self.turned or held.frames is None or not (firm[1:] & ~firm[:-1]).any():
            return None
        return np.concatenate([frames for frames, _ in self._decode(known)])[: len(held.frames)]

    def _kept(self, window: Window, held: HoldMap) -> np.ndarray:
        """What comes back as it is held. Beyond the end of a loop that turns, that is only the frame with which the
        video ends: those before it are decoded once more and lead up to it."""
        if not self.turned or window.end <= self.grid.latent_frames(self.canvas.frames):
            return held.kept
        kept = held.kept.copy()
        kept[self.canvas.frames - self.grid.temporal * window.start :] = 0
        kept[self._count(window) - 1] = 1
        return kept

    def _latents_of(self, window: Window, latent: int) -> int:
        """Which of a window's latent frames a canvas's is; those beyond the end of a loop do not count."""
        return min(latent, self.grid.latent_frames(self.canvas.frames)) - window.start

    def _count(self, window: Window) -> int:
        """Frames of a window, without those beyond the end of a loop, unless it ends with them."""
        last = min(self.canvas.frames + self.turned, self.grid.first_frame(window.end))
        return last - self.grid.temporal * window.start

    def _emit(self, row: int, frames: np.ndarray) -> Iterator[Chunk]:
        """Hands out what of the next frames is not trimmed."""
        self.pasts[row].add(frames)
        begin, self.places[row] = self.places[row], self.places[row] + len(frames)
        head = self.canvas.trim[0] + self.canvas.turns + self.turned
        stop = self.canvas.frames - self.canvas.trim[1] + self.turned
        frames = frames[max(0, head - begin) : max(0, stop - begin)]
        if len(frames):
            yield Chunk(row, frames)

    @property
    def _rows(self) -> list[int]:
        """The numbers of the seeds that are gone on with."""
        return [row for row in range(len(self.seeds)) if row not in self.left]

    def _canvas(self, row: int) -> Canvas:
        """A seed's own."""
        return self.canvases[row if len(self.canvases) > 1 else 0]

    @torch.inference_mode()
    def _known(self, frames: np.ndarray, length: int) -> Tensor:
        """Pixel frames uint8 [F, H, W, 3] → clean latents float32 [1, C, length, h, w], zero after `frames`."""
        first = 1 + self.grid.temporal * (CHUNK_LATENTS - 1)
        starts = [0, *range(first, len(frames), self.grid.temporal * CHUNK_LATENTS), len(frames)]
        chunks = (self._pixels(frames[a:b]) for a, b in pairwise(starts))
        latents = torch.cat([each.float() for each in self.bundle.autoencoder.encode_stream(chunks)], dim=2)
        known = latents.new_zeros((*latents.shape[:2], length, *latents.shape[3:]))
        known[:, :, : latents.shape[2]] = latents
        return known

    def _pixels(self, frames: np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.array(frames)).permute(3, 0, 1, 2)[None].to(self.bundle.device)
        return (pixels.float() / 127.5 - 1).to(torch.float32 if self.bundle.large else self.bundle.dtype)

    def _noise(self, rows: Sequence[int], part: Canvas, index: int) -> Tensor:
        """Standard normal float32 [B, C, T, h, w] on the model's device, one CPU generator a seed."""
        shape = (self.bundle.autoencoder.config.channels, *self.grid.latent_shape(*part.size, part.frames))
        seeds = [window_seed(self.seeds[row], index) for row in rows]
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.stack(draws).to(self.bundle.device)

    @torch.inference_mode()
    def _decode(
        self, latents: Tensor, before: Decoded | None = None, more: bool = False
    ) -> Iterator[tuple[np.ndarray, Decoded]]:
        """Latents [1, C, T, h, w] → uint8 frames [n, H, W, 3], a few at a time, and where decoding stands after them;
        `before` is where it stood, `more` whether it will go on after these."""
        autoencoder = self.bundle.autoencoder
        if not self.bundle.large:  # whose autoencoders have ends of float32
            latents = latents.to(self.bundle.dtype)
        for chunk in latents.split(self.chunk, dim=2):
            state, last = (before.state, before.last) if before else (None, None)
            if isinstance(autoencoder, Tiled):
                frames, state = autoencoder.decode_chunk(chunk, state, keep=more)
            else:
                frames, state = autoencoder.decode_chunk(chunk, state)
            frames = frames.float()
            if not frames.isfinite().all():
                raise ModelError("the decoder gave numbers that are not finite: check the autoencoder's weights")
            if self.bundle.card.deblock:
                frames = deblock(frames, last, self.grid.temporal)
            before = Decoded(state, frames[:, :, -1])
            yield _to_uint8(frames), before

    def _progress(
        self, stage: str, step: int, total: int, preview: np.ndarray | None = None, row: int | None = None
    ) -> Progress:
        return Progress(stage, step, total, time.perf_counter() - self.begun, preview, row)

    def _progress_decoded(self, latents: int) -> Progress:
        self.decoded += latents
        total = self.grid.latent_frames(self.canvas.frames) * len(self.seeds)
        return self._progress("decode", self.decoded, total)


def _go_over(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """The first `count` frames uint8 [n, H, W, 3] of both, from the `one` to the `other` by even steps."""
    share = (np.arange(1, count + 1, dtype=np.float32) / (count + 1))[:, None, None, None]
    return (one[:count] + (other[:count] - one[:count].astype(np.float32)) * share).round().astype(np.uint8)


def _to_uint8(frames: Tensor) -> np.ndarray:
    """[1, 3, n, H, W] in -1..1 → uint8 [n, H, W, 3]."""
    pixels = (frames[0].float() * 127.5 + 127.5).round_().clamp_(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).cpu().numpy()
