"""Small transformers trained from nothing, beside each other, for the benchmarks that compare ways to train.

They read with the shipped text encoder and draw with the shipped autoencoder. A run that was stopped goes on, and one
that is done is not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flow_loss import FIRST_SEED, losses

from yozora.models.registry import SHIPPED, load_bundle, read_card
from yozora.train import run
from yozora.train.config import Bucket, TransformerStage
from yozora.train.settings import read_config

ROOT = Path(__file__).parents[1]
LESSONS = ROOT / "configs" / "mini" / "pictures.toml"
POINTS = 64  # of a curve


@dataclass(frozen=True)
class Trained:
    """A run, and what came of it: a model folder, the loss by step, and the held-out flow loss."""

    name: str
    steps: int
    model: Path
    curve: list[tuple[int, float]]
    minutes: float
    loss: float


@dataclass(frozen=True)
class Bench:
    """Runs of one configuration, kept in one folder, on one pool of `clips` rendered clips."""

    runs: Path
    config: Path = LESSONS
    overrides: Sequence[str] = ()
    clips: int = 4096
    held_out: int = 32

    @property
    def base(self) -> list[str]:
        """Overrides with which a run takes the shipped parts and this bench's pool."""
        mini = SHIPPED / "mini"
        parts = {"pool": self.runs / "pool", "autoencoder": mini / "autoencoder", "text_encoder": mini / "text_encoder"}
        return [*self.overrides, *(f'{key}="{path}"' for key, path in parts.items())]

    @property
    def buckets(self) -> Sequence[Bucket]:
        return read_config(TransformerStage, self.config, self.base).buckets

    def build_pool(self) -> None:
        """Clips of each size that the runs draw, as many as its weight says."""
        longest: dict[tuple[int, int], int] = {}
        for bucket in self.buckets:
            longest[bucket.width, bucket.height] = max(bucket.frames, longest.get((bucket.width, bucket.height), 0))
        weight = {size: sum(b.weight for b in self.buckets if (b.width, b.height) == size) for size in longest}
        lines = [
            f"{{ width = {w}, height = {h}, frames = {frames}, clips = {clips} }},"
            for (w, h), frames in longest.items()
            if (clips := round(self.clips * weight[w, h] / sum(weight.values())))
        ]
        self.runs.mkdir(parents=True, exist_ok=True)
        path = self.runs / "pool.toml"
        head = f'autoencoder = "{SHIPPED / "mini" / "autoencoder"}"\nmix = "simple"\nfps = 12\nbuckets = [\n'
        path.write_text(head + "\n".join(lines) + f'\n]\n[run]\nout = "{self.runs / "pool"}"\nseed = 3\n')
        run("latents", path)

    def train(self, name: str, steps: int, own: Sequence[str] = ()) -> Trained:
        """A run with overrides of its own, trained or gone on with, and measured."""
        out = self.runs / name
        model, note = out / "model", out / "minutes.json"
        if not (model / "model.json").exists():
            config = self.runs / f"{name}.toml"
            lines = self.config.read_text(encoding="utf-8").splitlines()
            config.write_text("\n".join(line for line in lines if not line.startswith("start_from")), encoding="utf-8")
            log = [f"run.log_every={max(1, steps // POINTS)}", "run.sample_every=0"]
            schedule = [f"optim.warmup={max(1, steps // 10)}", "optim.decay=0.5"]  # a run's own: each ends at rest
            minutes, started = read_minutes(note), time.monotonic()
            try:
                run(
                    "transformer", config, [*self.base, f'run.out="{out}"', f"run.steps={steps}", *log, *schedule, *own]
                )
            finally:  # a run that was stopped has taken its time, too
                note.write_text(json.dumps(minutes + (time.monotonic() - started) / 60))
            self._write_bundle(out, model)
        bundle = load_bundle(model)
        loss = float(losses(bundle, "simple", FIRST_SEED, self.held_out)[0].mean())
        return Trained(name, steps, model, curve_of(out), read_minutes(note), loss)

    def _write_bundle(self, out: Path, model: Path) -> None:
        """The run's networks beside the shipped autoencoder, as a model folder that makes what the run drew."""
        card, config = read_card(SHIPPED / "mini"), out / "bundle.toml"
        sizes = sorted({(bucket.width, bucket.height) for bucket in self.buckets})
        longest = max(bucket.frames for bucket in self.buckets)
        config.write_text(
            f'out = "{model}"\ntransformer = "{out / "export"}"\nautoencoder = "{SHIPPED / "mini" / "autoencoder"}"\n'
            f'[card]\nname = "{out.name}"\ndescription = "trained from nothing"\nfps = {card.fps}\n'
            f"sizes = {[list(size) for size in sizes]}\nframes_min = 1\nframes_max = {longest}\n"
            f"steps = {card.steps}\nguidance = {card.guidance}\nshift = {card.shift}\n"
        )
        run("bundle", config)


def read_minutes(note: Path) -> float:
    """How long a run has taken so far."""
    return float(json.loads(note.read_text())) if note.exists() else 0.0


def curve_of(out: Path) -> list[tuple[int, float]]:
    """(step, training loss of clips in which nothing was held) from the run's TensorBoard log."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(out / "tensorboard"))
    log.Reload()
    return [(event.step, event.value) for event in log.Scalars("loss_unanchored")]
