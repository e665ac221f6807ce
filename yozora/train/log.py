"""What is said of a run while it goes on: a line from time to time, and everything to TensorBoard."""

from __future__ import annotations

import math
import resource
import sys
import time
from functools import cache

import torch

from yozora.errors import ConfigError
from yozora.models.registry import quick_dtype
from yozora.train.config import Run

AMOUNTS = ("tokens", "flops")  # figures of which a second's sum is told, not a step's mean
QUIET = ("loss", "samples_per_second")  # of the line, since it says them already


class Log:
    """One line every `log_every` steps with loss, samples/s and time left, and everything to TensorBoard.

    Figures are means over the steps that have them. Of `tokens` and `flops` (of all passes of a step) it tells how many
    a second, and which part of what the device reaches in matrix products alone (MFU)."""

    def __init__(self, run: Run, device: torch.device):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError("training logs need TensorBoard: pip install 'yozora[train]'") from None
        self.run, self.device = run, device
        self.writer = SummaryWriter(str(run.out / "tensorboard"))
        self.started = self.since = time.monotonic()
        self.steps = self.total_steps = self.samples = 0
        self.sums: dict[str, tuple[float, int]] = {}

    def step(self, step: int, samples: int, figures: dict[str, float]) -> None:
        """Takes note of a step's figures; those that are not finite do not count."""
        self.steps += 1
        self.samples += samples
        for name, value in figures.items():
            if math.isfinite(value):
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + value, count + 1)
        if step % self.run.log_every and step != self.run.steps:
            return
        now = time.monotonic()
        self.total_steps += self.steps
        means = self._means(now - self.since)
        for name, value in means.items():
            self.writer.add_scalar(name, value, step)
        left = (self.run.steps - step) * (now - self.started) / self.total_steps
        extra = "  ".join(f"{n} {v:.4g}" for n, v in means.items() if n not in QUIET and "/" not in n)
        print(
            f"step {step}/{self.run.steps}  loss {means.get('loss', math.nan):.4f}  "
            f"{means['samples_per_second']:.1f} samples/s  {int(left // 60)}:{int(left % 60):02d} left  {extra}",
            flush=True,
        )
        self.since, self.steps, self.samples, self.sums = now, 0, 0, {}

    def close(self) -> None:
        """Ends it."""
        self.writer.close()

    def _means(self, seconds: float) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self.sums.items() if name not in AMOUNTS}
        means["samples_per_second"] = self.samples / seconds
        for name in AMOUNTS:
            if name in self.sums:
                means[f"{name}_per_second"] = self.sums[name][0] / seconds
        if "flops_per_second" in means:
            means["mfu"] = means["flops_per_second"] / matmul_rate(self.device, self.run.precision)
        means["memory_mib"] = memory(self.device)
        return means


def memory(device: torch.device) -> float:
    """The most memory that was held so far, MiB: the GPU's, or the process's own."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@cache
def matmul_rate(device: torch.device, precision: str) -> float:
    """Operations a second that the device reaches in plain matrix products, in the type that is trained in."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16 if precision == "bf16" else quick_dtype(device)
    side = 8192 if device.type == "cuda" else 1024
    one = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(4):
        begun = time.perf_counter()
        other = one @ one
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    del other
    return best
