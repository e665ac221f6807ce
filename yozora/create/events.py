"""What a run tells as it goes: how far it is, and the frames that are made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Progress:
    """`step` of `total` is done in `stage` ("text", "sample", "decode"), `seconds` after the start of the run.
    `preview` uint8 [H, W, 3], where asked for, is the window's first frame as the model sees it at this step, of the
    video of seed number `index`; then every video has its own Progress. `index` None is of all videos."""

    stage: str
    step: int
    total: int
    seconds: float
    preview: np.ndarray | None = None
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Chunk:
    """The next frames, uint8 [n, H, W, 3], of the video of seed number `index`."""

    index: int
    frames: np.ndarray
