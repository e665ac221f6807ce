"""The steps of a video, in their order: STEPS is the whole of it. Each takes a run and says what comes next.

check → rewrite → generate → encode → store → notify. A step leaves what it makes in the run's scratch folder for the
next one. Where that is gone, because the worker that had it is, the step says that what is needed must be made again.
What is to look at an order before anything is generated has its place after `rewrite`, what changes frames after
`generate`, and what looks at the finished file before `store`.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yozora.clip import Clip, FrameWriter, Recipe, minding
from yozora.create.canvas import Canvas
from yozora.create.events import Progress
from yozora.create.sizes import Native
from yozora.errors import YozoraError
from yozora.serve.batches import Apart, Begin, Event, Video
from yozora.serve.database import persist
from yozora.serve.metrics import PASS_VIDEOS
from yozora.serve.orders import draw, target_of
from yozora.serve.runs import LOAD, Run
from yozora.serve.sources import fetch, portable
from yozora.serve.webhooks import announce

if TYPE_CHECKING:
    from yozora.serve.pool import Models

__all__ = ["AGAIN", "NEXT", "STEPS", "Step", "Verdict"]

_log = logging.getLogger(__name__)

Verdict = tuple[str, ...]
Company = Callable[[Callable[[], bool], Begin], Generator[Event]]
NEXT: Verdict = ("next",)
AGAIN = "again"  # followed by the name of the step to go back to
MEDIA = {".mp4": "video/mp4", ".png": "image/png", ".webp": "image/webp", ".jpg": "image/jpeg"}
THUMBNAIL = 512  # pixels of its longer side, at most


@dataclass(frozen=True)
class Step:
    """A step by its name; the shares are where a run stands, 0 to 1, when it begins and ends."""

    name: str
    act: Callable[[Run, Models, Step], Verdict]
    begins: float = 0.0
    ends: float = 0.0
    recorded: bool = True
    """Whether its verdict is kept. What takes no time and can be left out is done again in every run instead, and fails
    no video: so a worker can go on with what another version, which knew no such step, has begun."""

    def report(self, run: Run, share: float, always: bool = False) -> None:
        """Tells that `share` of this step is done."""
        run.report(self.name, self.begins + (self.ends - self.begins) * share, always)


def check(run: Run, models: Models, step: Step) -> Verdict:
    """What could not be said when it was ordered: whether what is given can be read, the canvas made, and the plan lets
    what comes of it."""
    step.report(run, 0, always=True)
    native = models.native(run.order.model)
    canvas = _drawn(run, native)
    canvas.check(native.grid)
    native.check_tokens(canvas.width, canvas.height, min(canvas.frames, native.frames_max))
    target = target_of(run.order, canvas.size, canvas.fps, canvas.shown)
    run.measure(target.size if target else canvas.size, _seconds(run, canvas.shown / canvas.fps))
    return NEXT


def rewrite(run: Run, models: Models, step: Step) -> Verdict:
    """Prompts are put into the words that the model learned, where that is wanted."""
    step.report(run, 0, always=True)
    rewriter = models.rewriter(run.order.model, run.service.settings.rewriter, run.order.rewrite)
    words: dict[str, str] = {}
    if rewriter is not None:
        canvas = _drawn(run, models.native(run.order.model))
        words = {cue.prompt: rewriter.rewrite(cue.prompt).text for cue in canvas.cues}
    run.scratch.mkdir(parents=True, exist_ok=True)
    _write(run.scratch / "words.json", words)
    return NEXT


def generate(run: Run, models: Models, step: Step) -> Verdict:
    """Samples the frames into scratch."""
    files, words = fetch(run), _read(run.scratch / "words.json") or {}
    with models.using(run.order.model, lambda: run.report(LOAD, step.begins)) as generator:
        canvas = _in_words(_drawn(run, generator.native), words)
        video = Video(run.job_id, canvas, run.order.seed or 0)
        settings = generator.settings(**run.order.sampling, negative=canvas.negative)
        recipe = portable(generator.recipes(canvas, [video.seed], settings)[0], files)
        asked = asdict(settings) | {"previews": run.order.previews}

        def begin(canvases: Sequence[Canvas], seeds: Sequence[int], left: AbstractSet[int]) -> Generator[Event]:
            return models.stream(run.order.model, canvases, seeds, left, **asked)

        most = _at_once(run, generator.native, canvas)
        kind = (run.order.model, canvas.layout, settings, run.order.previews)
        _sample(run, step, video, begin, None if most == 1 else partial(models.batches.events, kind, video, most))
    run.drawn = None  # what was given has been seen
    _describe(run, canvas, recipe)
    return NEXT


def encode(run: Run, models: Models, step: Step) -> Verdict:
    """The frames in scratch become the video, its thumbnail and its sheet."""
    if (made := _made(run)) is None:
        return (AGAIN, "generate")
    frames, fps, recipe = made
    picture = len(frames) == 1 and run.order.way == "image"
    size = (frames.shape[2], frames.shape[1])
    target = target_of(run.order, size, fps, len(frames))
    coming: Iterator[np.ndarray] = iter(frames)
    total = len(frames)
    if target is not None:
        from yozora.create.enhance import enhance

        total, size, fps, recipe = target.count(total), target.size, target.fps, target.recipe(recipe)
        coming = enhance(coming, target, models.enhancer())
    path = run.scratch / ("video.png" if picture else "video.mp4")
    kept = _Kept(total)
    with FrameWriter(path, size, fps, recipe) as writer:
        for frame in coming:
            writer.write(frame)
            kept.add(frame)
            step.report(run, writer.count / total)
    sample = np.stack(kept.frames)
    _small(sample[:1]).write(run.scratch / "thumbnail.webp")
    Clip(Clip(sample, fps).contact_sheet()[None], fps).write(run.scratch / "spritesheet.jpg")
    facts = {"width": size[0], "height": size[1], "frames": writer.count, "fps": fps, "recipe": asdict(recipe)}
    _write(run.scratch / "encoded.json", facts | {"video": path.name})
    return NEXT


def store(run: Run, models: Models, step: Step) -> Verdict:
    """The files are kept and the job is completed, in this order; what an earlier run may have left is removed."""
    facts = _read(run.scratch / "encoded.json")
    if facts is None:
        return (AGAIN, "generate")
    step.report(run, 0, always=True)
    storage, folder = run.service.storage, f"{run.service.folder}/videos/{run.job_id}"
    files: dict[str, dict[str, object]] = {}
    try:
        names = {"video": facts["video"], "thumbnail": "thumbnail.webp", "spritesheet": "spritesheet.jpg"}
        for variant, name in names.items():
            path = run.scratch / name
            key = f"{folder}/{run.attempt}-{variant}{path.suffix}"
            files[variant] = {"key": key, "type": MEDIA[path.suffix], "bytes": storage.put(key, path)}
        made: dict[str, object] = {name: facts[name] for name in ("width", "height", "recipe")}
        made["seconds"] = _seconds(run, facts["frames"] / facts["fps"])
        if not run.finish(files, made):
            raise YozoraError("another run has this job")
        _log.info("a video is completed", extra={"job_id": run.job_id, "attempt": run.attempt})
    except BaseException:
        if run.state() != "completed":  # the row may have been written although we were not told
            with contextlib.suppress(YozoraError):
                storage.delete([str(each["key"]) for each in files.values()])
        raise
    kept = {each["key"] for each in files.values()}
    storage.delete([key for key in storage.keys(folder) if key not in kept])
    return NEXT


def notify(run: Run, models: Models, step: Step) -> Verdict:
    """Those who asked to be told are told."""
    persist(lambda: announce(run.service, run.job_id))
    return NEXT


STEPS: tuple[Step, ...] = (
    Step("check", check, 0.0, 0.01),
    Step("rewrite", rewrite, 0.01, 0.02, recorded=False),
    Step("generate", generate, 0.02, 0.85),
    Step("encode", encode, 0.85, 0.97),
    Step("store", store, 0.97, 0.99),
    Step("notify", notify),
)


# ---- what is made ----------------------------------------------------------------------------------------------------


def _drawn(run: Run, native: Native) -> Canvas:
    """The canvas, for whose sake what is given is read once a run; that ends where the run is to stop."""
    if run.drawn is None or run.drawn[0] != native:
        files = fetch(run)
        with minding(run.heed):
            run.drawn = native, draw(run.order, native, files)
    return run.drawn[1]


def _at_once(run: Run, native: Native, canvas: Canvas) -> int:
    """How many videos like this one are sampled in one batch, at most. What a worker has died of is made by itself."""
    settings = run.service.settings
    return 1 if run.lost else min(settings.slots, native.at_once(*canvas.size, canvas.frames, settings.batch))


def _sample(run: Run, step: Step, video: Video, begin: Begin, company: Company | None) -> None:
    """The frames of one video into scratch: sampled in `company`, unless there is none or that fails."""

    def coming() -> bool:
        step.report(run, 0)  # it is here, and no more on its way
        return run.awaits()

    def alone() -> Generator[Event]:
        return begin([video.canvas], [video.seed], frozenset())

    if company is None:
        PASS_VIDEOS.observe(1)
        return _keep(run, step, video, alone)
    try:
        _keep(run, step, video, partial(company, coming, begin))
    except Apart as apart:
        about = {"job_id": run.job_id, "reason": str(apart)}
        _log.warning("videos that were sampled together are made one by one", extra=about)
        with apart.turn(lambda: step.report(run, 0)):
            _keep(run, step, video, alone)


def _keep(run: Run, step: Step, video: Video, sampled: Callable[[], Generator[Event]]) -> None:
    """The frames of one video, as they come, into scratch; what is told of them, to the table."""
    shares, missing = _Shares(), video.canvas.shown
    with (run.scratch / "frames.part").open("wb") as out, contextlib.closing(sampled()) as events:
        for event in events:
            if isinstance(event, Progress):
                if event.preview is not None:
                    run.show(event.step, _jpeg(run, event.preview))
                step.report(run, shares.after(event), always=event.stage != "decode")
                continue
            out.write(event.frames.tobytes())
            missing -= len(event.frames)
            if not missing:  # others of the same batch may take longer
                return


class _Shares:
    """How much of generating is done: nine tenths are sampling, the rest is decoding."""

    def __init__(self) -> None:
        self.sampled = self.decoded = 0.0

    def after(self, event: Progress) -> float:
        """0 to 1, after an event."""
        if event.stage == "sample":
            self.sampled = event.step / event.total
        elif event.stage == "decode":
            self.decoded = event.step / event.total
        return 0.9 * self.sampled + 0.1 * self.decoded


class _Kept:
    """Up to twelve of `total` frames, evenly spaced, for the pictures of a video."""

    def __init__(self, total: int) -> None:
        self.wanted = set(np.linspace(0, total - 1, min(total, 12)).round().astype(int).tolist())
        self.seen, self.frames = 0, list[np.ndarray]()

    def add(self, frame: np.ndarray) -> None:
        if self.seen in self.wanted:
            self.frames.append(np.array(frame))
        self.seen += 1


def _in_words(canvas: Canvas, words: dict[str, str]) -> Canvas:
    """The canvas with its prompts as they were rewritten; its cues know what was asked."""
    cues = [
        replace(cue, prompt=words[cue.prompt], asked=cue.prompt)
        if words.get(cue.prompt, cue.prompt) != cue.prompt
        else cue
        for cue in canvas.cues
    ]
    return replace(canvas, cues=tuple(cues))


def _describe(run: Run, canvas: Canvas, recipe: Recipe) -> None:
    """The frames are complete: their shape and rate go beside them, last."""
    (run.scratch / "frames.part").rename(run.scratch / "frames.raw")
    shape = [canvas.shown, canvas.height, canvas.width, 3]
    _write(run.scratch / "frames.json", {"shape": shape, "fps": canvas.fps, "recipe": recipe.to_json()})


def _made(run: Run) -> tuple[np.ndarray, float, Recipe] | None:
    """Frames uint8 [T, H, W, 3], which stay on disk, their rate and recipe; None where they are gone."""
    facts = _read(run.scratch / "frames.json")
    if facts is None:
        return None
    # copied where it is written to, which nobody does: torch warns of arrays that cannot be
    frames = np.memmap(run.scratch / "frames.raw", np.uint8, "c", shape=tuple(facts["shape"]))
    return frames, facts["fps"], Recipe.from_json(facts["recipe"])


def _seconds(run: Run, real: float) -> float:
    """How long a video is said to be: as was asked, where that is what came out but for the nearest that fits."""
    asked = run.order.seconds
    whole = run.order.way in ("generate", "animate", "storyboard", "fill", "blend")
    return asked if asked is not None and whole and abs(asked - real) < 0.5 else round(real, 3)


def _small(frames: np.ndarray) -> Clip:
    clip = Clip(frames, 1.0)
    width, height = clip.size
    scale = min(1.0, THUMBNAIL / max(width, height))
    return clip if scale == 1 else clip.resized(max(1, round(width * scale)), max(1, round(height * scale)))


def _jpeg(run: Run, frame: np.ndarray) -> bytes:
    path = run.scratch / "preview.jpg"
    Clip(np.ascontiguousarray(frame)[None], 1.0).write(path)
    return path.read_bytes()


def _write(path: Path, facts: dict[str, Any]) -> None:
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(facts))
    part.rename(path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
