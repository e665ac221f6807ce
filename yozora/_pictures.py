"""Pictures as arrays: resizing and contact sheets, with no file in sight."""

from __future__ import annotations

import numpy as np

SHEET_FRAMES = 12
_SHEET_COLOUR = (18, 18, 26)
_LARGE = 2**22  # pixels
_SHEET_ASPECT = 16 / 10  # what a sheet should come near to, so that it fills a screen


def resize(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 `[T, H, W, 3]` → `[T, height, width, 3]`; bicubic, with the area filter that shrinking needs."""
    import torch
    from torch.nn.functional import interpolate

    if frames.shape[1:3] == (height, width):
        return frames
    resized = np.empty((len(frames), height, width, 3), np.uint8)
    for index, frame in enumerate(frames):  # one at a time: the float copies of a long clip would not fit
        pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None]
        if pixels[0, 0].numel() <= _LARGE:  # above, whole numbers: 16 times as fast, and within 1 almost everywhere
            pixels = pixels.float()
        pixels = interpolate(pixels, (height, width), mode="bicubic", antialias=True).float()
        resized[index] = pixels[0].permute(1, 2, 0).round_().clamp_(0, 255).byte().numpy()
    return resized


def spread(count: int, wanted: int) -> list[int]:
    """Which of `count` frames stand for all: at most `wanted`, evenly spaced, the first and the last among them."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, wanted)).round()]


def contact_sheet(frames: np.ndarray, columns: int | None = None) -> np.ndarray:
    """uint8 `[T, H, W, 3]` → one picture `[H', W', 3]` of all frames in reading order, with thin gaps between."""
    count, height, width = frames.shape[:3]
    across = min(count, columns) if columns else _best_columns(count, width, height)
    rows = -(-count // across)
    gap = max(2, min(width, height) // 32)
    sheet = np.empty((rows * (height + gap) + gap, across * (width + gap) + gap, 3), np.uint8)
    sheet[:] = _SHEET_COLOUR
    for index, frame in enumerate(frames):
        top, left = gap + index // across * (height + gap), gap + index % across * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def _best_columns(count: int, width: int, height: int) -> int:
    def unsightliness(columns: int) -> float:
        rows = -(-count // columns)
        return abs(np.log(columns * width / (rows * height) / _SHEET_ASPECT)) + 0.5 * (rows * columns - count)

    return min(range(1, count + 1), key=unsightliness)
