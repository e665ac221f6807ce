"""What a training run is: one frozen, checked object per stage, read from a TOML file.

Values can be overridden from the command line as `section.key=value`; the value is read as TOML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """Frozen, and unknown keys are errors: a misspelt setting must not pass in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _some_weight(weights: dict[str, float]) -> dict[str, float]:
    if not weights or min(weights.values()) < 0 or not 0 < sum(weights.values()) < float("inf"):
        raise ValueError("needs weights of at least 0, and one above 0")
    return weights


Weights = Annotated[dict[str, float], AfterValidator(_some_weight)]


def _whole_counts(counts: dict[str, float]) -> dict[str, float]:
    if not all(count.isdecimal() and int(count) > 0 for count in counts):
        raise ValueError("are whole numbers above 0, with their weights")
    return counts


StepCounts = Annotated[Weights, AfterValidator(_whole_counts)]


class Job(Section):
    """Where it is written, and what it runs on. `workers` are processes that prepare data."""

    out: Path
    seed: int = Field(default=0, ge=0, lt=2**31)
    device: str = "auto"
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    workers: int = Field(default=1, ge=0)


class Run(Job):
    """How long. `steps` may be changed on resume: the learning rate decays over the run's last part."""

    steps: int = Field(gt=0)
    checkpoint_seconds: float = Field(default=45.0, ge=1, le=3600)
    log_every: int = Field(default=20, gt=0)
    sample_every: int = Field(default=0, ge=0)
    wandb: str = ""  # the project on Weights & Biases that is told, too; none: none is


class Optim(Section):
    """AdamW, with Muon on hidden matrices when `muon` > 0; warmup, a constant stretch, a linear decay to zero."""

    adamw: float = Field(gt=0, le=1)
    muon: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=100, ge=0)
    decay: float = Field(default=0.2, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    spike: float = Field(default=10.0, gt=1)  # a gradient so many times as large as lately changes nothing
    ema: float = Field(default=0.999, ge=0, lt=1)


class Size(Section):
    """A size and length of clip that the models take: sides in multiples of 32 pixels, 1, 5, 9, ... frames."""

    width: int = Field(gt=0, le=4096, multiple_of=32)
    height: int = Field(gt=0, le=4096, multiple_of=32)
    frames: int = Field(gt=0, le=10_000)

    @field_validator("frames")
    @classmethod
    def _check_frames(cls, frames: int) -> int:
        if frames % 4 != 1:
            raise ValueError(f"must be 1, 5, 9, ..., not {frames}")
        return frames


class Bucket(Size):
    """One size and length of clip, the batch it is trained with, and how often it is drawn. Longer clips of a pool are
    cut to it, unless it is `exact`."""

    batch: int = Field(gt=0)
    weight: float = Field(default=1.0, gt=0)
    exact: bool = False


class World(Section):
    """What is rendered: a mix of scenes by name or by its weights, at `fps` frames a second."""

    mix: str | dict[str, Any] = "full"
    fps: float = Field(default=12.0, gt=0, le=240)
    buckets: tuple[Bucket, ...] = Field(min_length=1)


class Perceptual(Section):
    """How alike reconstructions look (see `yozora.train.perceptual`), by the `features` of an inspector, in its folder,
    or by LPIPS, in a file of the package `lpips`; and how much that counts."""

    weight: float = Field(default=0.1, gt=0)
    features: Path | None = None
    lpips: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.features is None) == (self.lpips is None):
            raise ValueError("give features, an inspector's folder, or lpips, a file of weights")
        return self


class Adversarial(Section):
    """A critic that learns to tell reconstructions from true frames (see `yozora.train.critic`): how much what it says
    counts, and its width on its finest grid. Best for a run that goes on from an autoencoder (`start_from`)."""

    weight: float = Field(default=0.02, gt=0)
    width: int = Field(default=32, ge=8, le=512, multiple_of=8)


class AutoencoderStage(Section):
    """`yozora train autoencoder`."""

    run: Run
    optim: Optim
    world: World
    model: dict[str, Any] = {}
    gradient_weight: float = Field(default=0.5, ge=0)  # of the error's differences in space
    motion_weight: float = Field(default=0.5, ge=0)  # and of those in time
    pace_weight: float = Field(default=0.0, ge=0)  # of how much more or less moves, from frame to frame, than should
    things: float = Field(default=0.0, ge=0)  # how much more an error counts where a body is
    kl_weight: float = Field(default=0.0, ge=0)  # of what latents carry beyond a normal distribution, as of a VAE
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None
    start_from: Path | None = None  # an exported autoencoder to go on from, with fresh optimisers; [model] is not read
    decoder_only: bool = False  # the latents stay as they are, so that pools and transformers made with them stay good

    @model_validator(mode="after")
    def _check_start(self) -> Self:
        if self.decoder_only and self.start_from is None:
            raise ValueError("decoder_only needs start_from: an encoder that has learnt")
        return self


class PoolBucket(Size):
    """One size and length of clip, and how many of them the pool holds."""

    clips: int = Field(gt=0)


class Footage(Section):
    """Clips and pictures with captions: a folder, or WebDataset shards (see `yozora.train.footage`). Of each clip up to
    `pieces` of `frames` frames are taken, at `fps`, and in that of `sizes` whose shape is nearest; without sizes in its
    own shape, of at most `area` pixels. Of what has no caption of its own is said what the list `listed` says, as
    `yozora caption` writes it, by names within the folder; or else `caption`."""

    path: Path
    listed: Path | None = None
    caption: str = Field(default="", max_length=10_000)
    frames: int = Field(default=25, gt=0, le=10_000)
    fps: float = Field(default=12.0, gt=0, le=240)
    sizes: tuple[tuple[int, int], ...] = ()
    area: int = Field(default=128 * 128, ge=32 * 32)
    pieces: int = Field(default=8, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for width, height in self.sizes:
            Size(width=width, height=height, frames=self.frames)
        Size(width=32, height=32, frames=self.frames)
        return self


class LatentsStage(Section):
    """`yozora train latents`: encodes a pool of clips for the transformer, rendered (`buckets`), from `footage`, or
    both."""

    run: Job
    autoencoder: Path
    mix: str | dict[str, Any] = "full"
    fps: float = Field(default=12.0, gt=0, le=240)
    buckets: tuple[PoolBucket, ...] = ()
    footage: Footage | None = None
    shard: int = Field(default=256, gt=0)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.buckets and self.footage is None:
            raise ValueError("give buckets of rendered clips, or footage")
        return self


class TextStage(Section):
    """`yozora train text`: the text encoder learns to read facts out of captions, before it meets any picture."""

    run: Run
    optim: Optim
    mix: str | dict[str, Any] = "full"
    batch: int = Field(default=128, gt=0)
    languages: Weights = {"en": 0.7, "de": 0.1, "fr": 0.1, "es": 0.1}
    details: Weights = {"short": 0.7, "dense": 0.2, "timed": 0.1}
    vocabulary: int = Field(default=2048, ge=300)
    model: dict[str, Any] = {}


class Lessons(Section):
    """What is drawn from a pool of latents, and with which captions, noise levels and held frames it is shown."""

    pool: Path
    autoencoder: Path  # draws the sample videos
    buckets: tuple[Bucket, ...] = ()  # none: every size and length of the pool, as often as there are clips of it
    packed: int = Field(default=0, ge=0)  # tokens of a sequence of clips of all sizes; 0: batches of one size
    languages: Weights = {"en": 0.7, "de": 0.1, "fr": 0.1, "es": 0.1}
    details: Weights = {"short": 0.7, "dense": 0.2, "timed": 0.1}
    drop_prompt: float = Field(default=0.1, ge=0, le=1)
    anchored: float = Field(default=0.5, ge=0, le=1)
    shift: float = Field(default=2.0, gt=0, le=100)
    layout: float = Field(default=0.0, ge=0)  # weight of the second task: see yozora.train.layout
    things: float = Field(default=0.0, ge=0)  # how much more what is near a body counts in the loss
    world: Path | None = None  # a second pool: for each clip of a batch, `prior` of it are added (see train.finetune)
    prior: float = Field(default=0.0, ge=0, le=8)
    compile: bool = False  # the blocks by torch.compile, which needs a C++ compiler
    run: Run
    optim: Optim

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if not (self.buckets or self.packed):
            raise ValueError("give buckets, or packed")
        if self.packed and (self.layout or self.compile):
            raise ValueError("layout and compile are for batches of one size: leave packed out")
        if self.prior and (self.packed or not self.world):
            raise ValueError("prior needs world, a second pool, and batches of one size: leave packed out")
        return self


Checkpointing = Literal["none", "selective", "full"]


class Parallel(Section):
    """How the processes that torchrun starts share the work, and what is given for memory. Parameters are sharded over
    all of them; `context` processes share the tokens of each pack. `checkpointing` works out again in the backward pass
    what it then needs: everything but matrix products and attention (selective), or whole blocks (full). `float8`: the
    blocks' matrix products in eight bits, on GPUs that have them."""

    context: int = Field(default=1, ge=1)
    checkpointing: Checkpointing = "none"
    float8: bool = False


class FlowLessons(Lessons):
    """Lessons in the flow from noise to latents; `level_std` is the spread of the noise levels."""

    level_std: float = Field(default=1.0, gt=0, le=10)


class TransformerStage(FlowLessons):
    """`yozora train transformer`: learns the flow from noise to the latents of a pool, given captions."""

    text_encoder: Path | None = None
    text_rate: float = Field(default=0.3, ge=0)
    start_from: Path | None = None  # an exported run to go on from, with fresh optimisers
    packs: int = Field(default=1, ge=1)  # of `packed` tokens that a step is made of, by all processes together
    parallel: Parallel = Parallel()
    model: dict[str, Any] = {}

    @model_validator(mode="after")
    def _reads(self) -> Self:
        if self.text_encoder is None and self.start_from is None:
            raise ValueError("give a text_encoder, or start_from a run that has one")
        if self.packs > 1 and not self.packed:
            raise ValueError("packs is for packed: give larger batches instead")
        if self.parallel.context > 1 and (self.layout or self.compile):
            raise ValueError("layout and compile are for processes with whole clips: leave parallel.context at 1")
        return self


class Courses(Section):
    """How a trained transformer samples, recorded once (see `yozora.train.courses`): `clips` courses of `steps` steps,
    as many of each bucket as its weight and batch say. A `share` of the batches learns from them."""

    clips: int = Field(gt=0)
    steps: int = Field(default=16, ge=1, le=256)
    share: float = Field(default=0.75, ge=0, le=1)


class DistillStage(Lessons):
    """`yozora train distill`: learns where a trained transformer's steps and guidance lead, as an adapter for it.

    `start_from` is a model folder, or an exported run. A step is as long as in one of `step_counts` (by weight), and is
    what the transformer makes of it in `substeps` steps of its own with `guidance`, or has made of it in recorded
    `courses`. A share `own` of the batches begins where the student's own steps have led from noise, the others from
    renders, or on the courses. [model] is the adapter's `rank`.
    """

    start_from: Path
    adapter: Path | None = None  # exported few-step weights to go on from, with fresh optimisers
    own: float = Field(default=0.0, ge=0, le=1)
    courses: Courses | None = None
    guidance: float = Field(default=2.5, ge=0, le=100)
    projected: bool = False
    step_counts: StepCounts = {"4": 1.0, "6": 1.0, "8": 1.0, "12": 0.5}
    substeps: int = Field(default=3, ge=1, le=64)
    drop_prompt: float = Field(default=0.05, ge=0, le=1)
    model: dict[str, Any] = {}

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if self.layout or self.packed:
            raise ValueError("layout and packed are for `yozora train transformer` only")
        if self.courses and self.courses.steps < max(map(int, self.step_counts)):
            raise ValueError("courses.steps: no fewer than the most of step_counts, or there is nothing to make up for")
        return self


class BundleStage(Section):
    """`yozora train bundle`: the exported networks become one model folder."""

    out: Path
    transformer: Path
    autoencoder: Path
    few_steps: Path | None = None  # an exported run of `yozora train distill` or `reward`
    retrieval: Path | None = None  # an exported run of `yozora train retrieval`
    card: dict[str, Any]


class InspectorStage(Section):
    """`yozora train inspector`: the network that says which colour and shape a frame shows, for evaluation."""

    run: Run
    optim: Optim
    world: World
    model: dict[str, Any] = {}


class ReaderStage(Section):
    """`yozora train reader`: the network that says what a clip shows besides colours and shapes, for evaluation.

    `world.buckets` and `world.fps` film a scene from its start to its end in the few frames that are read; `closeups`
    are single frames in which a thing's material shows. `filmed` is how many batches are made; after that many steps
    the same come again.
    """

    run: Run
    optim: Optim
    world: World
    closeups: World
    inspector: Path  # finds the things whose names are read
    filmed: int = Field(default=240, gt=0)
    start_from: Path | None = None  # an exported reader to go on from, with fresh optimisers; [model] is not read
    materials_only: bool = (
        False  # what names materials is made anew, of [model]'s surface_widths; the rest stays as it is
    )
    model: dict[str, Any] = {}

    @model_validator(mode="after")
    def _has_a_rest(self) -> ReaderStage:
        if self.materials_only and self.start_from is None:
            raise ValueError("materials_only leaves the rest of a reader as it is: name one with start_from")
        return self


class WeigherStage(Section):
    """`yozora train weigher`: the network that weighs what the inspector, the reader and geometry say of a clip, for
    captions.

    `filmed` batches of clips of `world` are filmed, a share of them `softened` as generated clips are, and what is said
    of them is kept in the run's folder; a step learns from `batch` of all of them.
    """

    run: Run
    optim: Optim
    world: World
    inspector: Path
    reader: Path
    filmed: int = Field(default=60, gt=0)
    softened: float = Field(default=0.4, ge=0, le=1)
    batch: int = Field(default=128, gt=0)
    model: dict[str, Any] = {}


class CaptionerStage(Section):
    """`yozora train captioner`: the inspector, the reader and the weigher, each by its own TOML file, into one folder.
    `changes` are settings of theirs, by their names, as `--set` takes them: ["run.steps=100"]."""

    out: Path
    inspector: Path
    reader: Path
    weigher: Path
    device: str = "auto"
    changes: dict[Literal["inspector", "reader", "weigher"], tuple[str, ...]] = {}


class Media(Section):
    """A folder of videos and pictures to learn from besides the world, and the share of the batches it gives."""

    folder: Path
    share: float = Field(default=1.0, gt=0, le=1)


class EnhancerStage(Section):
    """`yozora train enhancer`: the network that makes frames larger and draws those between. `world.buckets` say the
    size of what it is given; `crop` is the side of the square that is enlarged, in pixels of that.

    `coded` is the share of clips that pass through the autoencoder first, as generated ones do.
    """

    run: Run
    optim: Optim
    world: World
    media: Media | None = None
    autoencoder: Path | None = None
    coded: float = Field(default=0.5, ge=0, le=1)
    crop: int = Field(default=64, ge=8)
    gradient_weight: float = Field(default=0.5, ge=0)
    between_weight: float = Field(default=1.0, ge=0)
    model: dict[str, Any] = {}
