"""The Generator: a loaded model that fills canvases. `run` gives whole clips, `stream` frames as they are made."""

from __future__ import annotations

import warnings
from collections import abc
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import torch.distributed as dist

from yozora.clip import Clip, Recipe
from yozora.create.begin import Begin
from yozora.create.beside import Beside
from yozora.create.canvas import Canvas
from yozora.create.events import Chunk, Progress
from yozora.create.given import Fit, Picture, held_smaller
from yozora.create.limits import as_seeds, check_interval, check_reuse, check_seeds, check_tile
from yozora.create.memory import advice, memory_errors
from yozora.create.one_level import check_one_level
from yozora.create.settings import Settings
from yozora.create.sizes import Grid, Native, check_fps
from yozora.create.streaming import Stream
from yozora.create.verbs import Verbs
from yozora.create.ways import image_to_video, text_to_video
from yozora.diffusion import FLOW_MAP, SCHEDULES
from yozora.errors import CanvasError, ModelError, YozoraWarning
from yozora.models.autoencoder import AutoencoderConfig
from yozora.models.lora import parse_lora
from yozora.models.registry import CARD, Bundle, ModelInfo, find_model, load_bundle, read_parts
from yozora.models.running import Running
from yozora.models.tiled import Tiled
from yozora.models.transformer import TransformerConfig
from yozora.models.wan_autoencoder import WanAutoencoderConfig

FULL = "multistep"  # the solver of the full weights, where the card's is that of the few-step ones
DEVICES = ("cpu", "cuda", "mps", "xpu")


def load(
    name_or_folder: str | Path = "mini",
    device: str = "auto",
    dtype: torch.dtype | None = None,
    lora: str | Path | Sequence[str | Path] = (),
    reuse: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
    weights: str | None = None,
    offload: str | None = None,
    compiled: bool = False,
    tile: int | None = None,
    team: dist.ProcessGroup | None = None,
) -> Generator:
    """The Generator of a shipped model or a folder. `device` "auto" is the GPU where there is one; `dtype` None is
    bfloat16 where the device is quick at it, else float32. `lora`: one or several LoRA files, "FILE" or "FILE:SCALE".
    `reuse`: up to how large a change of what the first block says, relative to its size, a step's answer is
    carried on from the last two (see `yozora.diffusion.reuse`); 0 is off, and exact.
    `interval`: guidance is at these noise levels only, and elsewhere a step is one pass instead of two.
    Of open weights, `weights` ("int8", "fp8") stores matrices in eight bits, `offload` ("cpu", "disk") says where those
    of a block wait until it runs, and `compiled` compiles blocks. `tile`: frames are decoded in tiles of so many pixels
    a side. `team`: processes that share the tokens of each clip, all of which must run the same.
    Raises ModelError, CanvasError, ConfigError."""
    files = [lora] if isinstance(lora, (str, Path)) else lora
    uses = [parse_lora(str(file)) for file in files]
    check_reuse(reuse)
    check_interval(interval)
    if tile is not None:
        check_tile(tile)
    running = Running(weights, offload, compiled)
    with memory_errors("the model's weights", lambda: advice("load", running, choose_device(device), tile or 0)):
        bundle = load_bundle(name_or_folder, choose_device(device), dtype, uses, running)
    bundle = replace(bundle, reuse=float(reuse), interval=interval, tile=tile or 0, team=team)
    return Generator(replace(bundle, autoencoder=Tiled(bundle.autoencoder, tile)) if tile else bundle)


def read_native(name_or_folder: str | Path = "mini") -> Native:
    """What a model makes, from its folder, without loading it. Raises ModelError."""
    card, autoencoder, transformer = read_parts(find_model(name_or_folder))
    return native_of(card, grid_of(autoencoder, transformer))


def grid_of(autoencoder: AutoencoderConfig | WanAutoencoderConfig, transformer: TransformerConfig) -> Grid:
    """The grid of tokens that two networks make."""
    return Grid(autoencoder.spatial, autoencoder.temporal, transformer.patch[1])


def native_of(card: ModelInfo, grid: Grid) -> Native:
    """What a model makes, by its card."""
    return Native(card.sizes, card.frames_min, card.frames_max, card.fps, grid)


class Generator(Verbs):
    """A loaded model; see `load`. Raises ModelError where its card asks for what no run can do."""

    def __init__(self, bundle: Bundle):
        card = bundle.card
        self.bundle = bundle
        self.grid = grid_of(bundle.autoencoder.config, bundle.transformer.config)
        self.native = native_of(card, self.grid)
        try:
            if card.schedule not in SCHEDULES:
                raise CanvasError(f"unknown schedule {card.schedule[:40]!r}; known: {', '.join(SCHEDULES)}")
            check_fps(card.fps)
            self.settings()
            self.settings(guidance=card.guidance)  # both ways of sampling, where there are two
        except CanvasError as error:
            raise ModelError(f"the model {card.name!r} cannot be used ({error}): correct its {CARD}") from None

    def generate(
        self,
        prompt: str,
        image: Picture | None = None,
        *,
        seconds: float | None = None,
        size: str | tuple[int, int] | None = None,
        aspect: str | float | None = None,
        resolution: str | int | None = None,
        fit: Fit = "crop",
        negative: str = "",
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        projected: bool | None = None,
        preset: str | None = None,
        begin: Begin | None = None,
        beside: Beside | None = None,
    ) -> Clip:
        """A video of `prompt`, starting from `image` where given, in the style of `preset`; with `begin`, sampling
        starts late, from another clip; with `beside`, the model is shown clips beside the prompt. What is None is as
        the preset says, else as the model was trained. Raises CanvasError, ConfigError, MediaError; warns
        (YozoraWarning) outside the trained range."""
        options: dict[str, Any] = {"seconds": seconds, "size": size, "aspect": aspect, "resolution": resolution}
        options |= {"fit": fit, "negative": negative, "preset": preset}
        options |= {"seed": seed, "steps": steps, "guidance": guidance, "solver": solver}
        options |= {"projected": projected, "begin": begin, "beside": beside}
        if image is None:
            return self.make(text_to_video, prompt, **options)
        return self.make(image_to_video, image, prompt, **options)

    def run_many(
        self,
        canvas: Canvas | Sequence[Canvas],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        projected: bool | None = None,
        begin: Begin | None = None,
        beside: Beside | None = None,
    ) -> tuple[Clip, ...]:
        """One clip a seed, sampled in one batch, of one canvas or one each; as `run`, without the progress."""
        sampling = {"steps": steps, "guidance": guidance, "solver": solver, "projected": projected}
        *_, clips = self.run(canvas, seeds, **sampling, begin=begin, beside=beside)
        assert isinstance(clips, tuple)
        return clips

    @overload
    def run(
        self, canvas: Canvas, seed: int = 0, *, steps: int | None = ..., guidance: float | None = ...,
        solver: str | None = ..., projected: bool | None = ..., previews: bool = ..., begin: Begin | None = ...,
        beside: Beside | None = ...,
    ) -> Iterator[Progress | Clip]: ...  # fmt: skip
    @overload
    def run(
        self, canvas: Canvas | Sequence[Canvas], seed: Sequence[int], *, steps: int | None = ...,
        guidance: float | None = ..., solver: str | None = ..., projected: bool | None = ..., previews: bool = ...,
        begin: Begin | None = ..., beside: Beside | None = ...,
    ) -> Iterator[Progress | tuple[Clip, ...]]: ...  # fmt: skip
    def run(
        self,
        canvas: Canvas | Sequence[Canvas],
        seed: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        projected: bool | None = None,
        previews: bool = False,
        begin: Begin | None = None,
        beside: Beside | None = None,
    ) -> Iterator[Progress | Clip | tuple[Clip, ...]]:
        """Fills the canvas: yields Progress and at the end a Clip, or with several seeds (variations, sampled in one
        batch) a tuple of Clips. A batch may be of several canvases, one a seed, of the same layout (see `Canvas`).
        Sampling starts late where there is a clip to `begin` from, and the model is shown those that are `beside` the
        prompt. Stop early by closing the iterator. Raises CanvasError before any work."""
        sampling = {"steps": steps, "guidance": guidance, "solver": solver, "projected": projected}
        stream = self.stream(canvas, seed, **sampling, previews=previews, begin=begin, beside=beside)
        seeds, canvases = as_seeds(seed), _as_canvases(canvas)
        settings = self.settings(**sampling, negative=canvases[0].negative)
        several = canvases if len(canvases) > 1 else [canvases[0] for _ in seeds]
        recipes = [self.recipes(of, [one], settings, begin, beside)[0] for of, one in zip(several, seeds, strict=True)]
        return _collect(stream, canvases[0], recipes, single=isinstance(seed, Integral))

    def stream(
        self,
        canvas: Canvas | Sequence[Canvas],
        seed: int | Sequence[int] = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        projected: bool | None = None,
        previews: bool = False,
        begin: Begin | None = None,
        beside: Beside | None = None,
        left: AbstractSet[int] = frozenset(),
    ) -> abc.Generator[Progress | Chunk]:
        """As `run`, but yields each video's frames in Chunks as soon as they are made and keeps none: memory does not
        grow with the length. `left`: numbers of seeds whose videos nobody waits for any more; it may grow meanwhile,
        and they are no longer worked at. Raises CanvasError before any work."""
        seeds, canvases = as_seeds(seed), _as_canvases(canvas)
        settings = self.settings(steps, guidance, solver, canvases[0].negative, projected)
        _check_batch(canvases, seeds)
        if any(self.settings(steps, guidance, solver, each.negative, projected) != settings for each in canvases):
            raise CanvasError("a negative prompt needs guidance, which the others of its batch have not: say how much")
        for each in canvases:
            self.check(each, seeds)
            if begin is not None:
                begin.check(each, self.native, self.bundle.autoencoder.config.channels)
            if beside is not None:
                beside.check(each, self.bundle, settings)
        for line in dict.fromkeys(line for each in canvases for line in self.cautions(each, settings)):
            warnings.warn(line, YozoraWarning, stacklevel=3)
        return iter(Stream(self.bundle, self.native, canvases, seeds, settings, previews, begin, beside, left))

    def settings(
        self,
        steps: int | None = None,
        guidance: float | None = None,
        solver: str | None = None,
        negative: str = "",
        projected: bool | None = None,
    ) -> Settings:
        """The settings of a run: what is None is as the model card says. Few-step weights are used where the solver is
        "flow-map": asked for, or the card's, unless guidance or a negative prompt is asked for. Raises CanvasError."""
        card = self.bundle.card
        few = card.solver == FLOW_MAP
        if few and solver is None and guidance is None and not negative and not projected:
            solver = FLOW_MAP
        if solver == FLOW_MAP:
            if card.few_steps is None:
                raise CanvasError(f"the model {card.name!r} has no few-step weights, which {FLOW_MAP} needs")
            if guidance not in (None, 1) or negative or projected:
                what = "neither guidance nor a negative prompt, and a preset may bring them"
                raise CanvasError(f"{FLOW_MAP} takes {what}: leave the solver out, or that")
            return Settings(card.few_steps if steps is None else steps, 1.0, FLOW_MAP)
        return Settings(
            card.steps if steps is None else steps,
            card.guidance if guidance is None else guidance,
            solver if solver is not None else FULL if few else card.solver,
            card.projected if projected is None else projected,
        )

    def cautions(self, canvas: Canvas, settings: Settings | None = None) -> list[str]:
        """One line for each way in which the canvas, and how it is sampled, are not what one may think, such as outside
        of what the model was trained on; usually none."""
        size, frames = canvas.size, canvas.frames
        lines = [*canvas.notes, *self.native.cautions(*size, frames, canvas.fps, canvas.shown)]
        sources = dict.fromkeys(anchor.source for anchor in canvas.anchors if len(anchor.clip.frames) > 1)
        lines += [line for source in sources if source for line in held_smaller(source, canvas.size, canvas.fps)]
        if any(self.bundle.text_encoder.is_cut(cue.prompt) for cue in canvas.cues):
            most = self.bundle.text_encoder.config.max_tokens
            lines.append(f"the prompt is longer than this model reads ({most} tokens): its end is left out")
        if canvas.negative and settings is not None and settings.guidance == 1:
            lines.append("the negative prompt does nothing where guidance is 1")
        return lines

    def check(self, canvas: Canvas, seeds: Sequence[int]) -> None:
        """Raises CanvasError for a canvas that this model cannot fill, and for seeds that are none."""
        canvas.check(self.grid)
        if self.bundle.card.one_level:
            check_one_level(canvas, self.native, self.bundle.name)
        self.native.check_tokens(canvas.width, canvas.height, min(canvas.frames, self.native.frames_max))
        check_seeds(seeds)

    def recipes(
        self,
        canvas: Canvas,
        seeds: Sequence[int],
        settings: Settings,
        begin: Begin | None = None,
        beside: Beside | None = None,
    ) -> list[Recipe]:
        """What each seed's video is made from."""
        looked_up = ({} if begin is None else begin.to_dict(settings.steps)) | (beside.to_dict() if beside else {})
        return [
            Recipe(
                prompt=canvas.prompt,
                negative=canvas.negative,
                seed=seed,
                model=self.bundle.name,
                steps=settings.steps,
                guidance=settings.guidance,
                solver=settings.solver,
                projected=settings.projected,
                lora=[str(use) for use in self.bundle.loras],
                lora_sha256=[use.sha256 for use in self.bundle.loras],
                reuse=self.bundle.reuse,
                interval="" if self.bundle.interval == (0, 1) else "{:g}:{:g}".format(*self.bundle.interval),
                weights=self.bundle.running.weights or "",
                tile=self.bundle.tile,
                canvas=canvas.to_dict(),
                library=looked_up,
            )
            for seed in seeds
        ]


def _check_batch(canvases: Sequence[Canvas], seeds: Sequence[int]) -> None:
    """Raises CanvasError where one batch cannot be of all of these."""
    if len(canvases) not in (1, len(seeds)):
        raise CanvasError(f"{len(canvases)} canvases need as many seeds, not {len(seeds)}: one canvas does for all")
    if len({each.layout for each in canvases}) > 1:
        raise CanvasError(
            "canvases of one batch must have the same size, length, rate and things held at the same times: "
            "make those that have not one after another"
        )


def _as_canvases(canvas: Canvas | Sequence[Canvas]) -> Sequence[Canvas]:
    """One canvas, or several, as a sequence. Raises CanvasError for none."""
    canvases = [canvas] if isinstance(canvas, Canvas) else list(canvas)
    if not canvases:
        raise CanvasError("there is no canvas to fill")
    return canvases


def _collect(
    stream: Iterator[Progress | Chunk], canvas: Canvas, recipes: Sequence[Recipe], *, single: bool
) -> Iterator[Progress | Clip | tuple[Clip, ...]]:
    """Passes Progress on, and at the end the whole clips."""
    try:
        videos = [np.empty((canvas.shown, canvas.height, canvas.width, 3), np.uint8) for _ in recipes]
    except MemoryError:
        raise CanvasError(f"not enough memory for {canvas.shown} frames of {canvas.width}x{canvas.height}") from None
    filled = [0] * len(videos)
    for event in stream:
        if isinstance(event, Progress):
            yield event
            continue
        place = filled[event.index]
        videos[event.index][place : place + len(event.frames)] = event.frames
        filled[event.index] += len(event.frames)
    clips = tuple(Clip(video, canvas.fps, recipe) for video, recipe in zip(videos, recipes, strict=True))
    yield clips[0] if single else clips


def choose_device(name: str = "auto") -> torch.device:
    """A device by name; "auto" is the GPU where there is one. Raises ModelError for one that this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type in DEVICES:
            torch.empty(1, device=device)
            return device
    except (RuntimeError, AssertionError, ImportError, NotImplementedError):
        pass
    raise ModelError(f"device {name[:40]!r} cannot be used here: try auto or cpu; `yozora doctor` lists what there is")
