"""One training run by Ray Train: python deploy/ray_train.py CONFIG.toml --workers 16 [--set KEY=VALUE ...]

Ray starts the processes, one a GPU, and starts them again where one dies; they go on from the last checkpoint. run.out
must lie where every machine sees it. Needs `pip install 'ray[train]'` beside yozora, on all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def main() -> None:
    """Reads the arguments, and waits for the run."""
    parser = argparse.ArgumentParser(description="A training run of the transformer by Ray Train.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="processes in all")
    parser.add_argument("--cpu", action="store_true", help="without GPUs")
    parser.add_argument("--failures", type=int, default=3, help="after which it gives up")
    parser.add_argument("--set", dest="settings", metavar="KEY=VALUE", action="append", default=[])
    options = parser.parse_args()

    from ray.train import FailureConfig, RunConfig, ScalingConfig  # pyright: ignore[reportMissingImports]
    from ray.train.torch import TorchTrainer  # pyright: ignore[reportMissingImports]

    given = {"config": str(options.config.resolve()), "settings": options.settings}
    TorchTrainer(
        learn,
        train_loop_config=given,
        scaling_config=ScalingConfig(num_workers=options.workers, use_gpu=not options.cpu),
        run_config=RunConfig(name="yozora", failure_config=FailureConfig(max_failures=options.failures)),
    ).fit()


def learn(given: dict[str, Any]) -> None:
    """One process, which Ray has introduced to the others."""
    from yozora.train import run

    run("transformer", Path(given["config"]), given["settings"])


if __name__ == "__main__":
    main()
