"""Real processes for tests, started as a user starts them: by torchrun, on this machine, over gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 900  # seconds; a busy machine is no failure


def torchrun(processes: int, *command: str, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs `command` in so many processes, which end with it, whatever happens."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(
        [*start, "--max-restarts", str(restarts), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(timeout=PATIENCE)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    return subprocess.CompletedProcess(command, running.returncode, said, "")


def losses(out: Path) -> dict[int, float]:
    """The loss of each step that a run has told TensorBoard."""
    return figures(out, "loss")


def figures(out: Path, name: str) -> dict[int, float]:
    """A figure of each step that a run has told TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard")).Reload()
    return {event.step: event.value for event in events.Scalars(name)}
