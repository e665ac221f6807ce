"""Convolutions of 3×3 cells in float32 on a CPU by Winograd's algorithm F(4×4, 3×3) (Lavin and Gray 2016): a quarter of
the multiplications, in matrix products, for the same numbers but for the order in which float32 rounds (some 1e-6)."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 4  # cells of an answer that a tile makes along one side, of SIDE + 2 that it sees
STRIP = 2**22  # numbers of a strip of tiles that are worked on at once
WIDE = 64  # channels below which its matrices are too narrow
FEW = 256  # tiles below which a weight's own transform would cost more than it saves


def _squared(rows: list[list[float]]) -> Tensor:
    """What a matrix does along both sides of a tile."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix).float()


_SEEN = _squared(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
_WEIGHT = _squared(
    [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
     [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
)  # fmt: skip
_ANSWER = _squared([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_POINTS = len(_SEEN)  # of a tile, at each of which there is one matrix product


def pays(seen: Tensor, weight: Tensor) -> bool:
    """Whether `convolve` is quicker than what torch has, for `seen` and `weight` as it takes them."""
    frames, rows, columns, _ = seen.shape
    plain = seen.device.type == "cpu" and weight.dtype == torch.float32 and not torch.is_grad_enabled()
    return plain and min(weight.shape[:2]) >= WIDE and frames * rows * columns >= FEW * SIDE**2


def lay_weight(weight: Tensor) -> Tensor:
    """A weight [out, width, frames, 3, 3] as it is, laid in memory as `convolve` wants it."""
    return weight.permute(3, 4, 2, 1, 0).contiguous().permute(4, 3, 2, 0, 1)


def convolve(seen: Tensor, weight: Tensor, bias: Tensor, missing: int = 0) -> Tensor:
    """The convolution of each `frames` frames that follow one another.

    `seen` [T, rows + 2, columns, width] has an empty row above and below; before its first frame there are so many
    `missing` ones, of zeros. `weight` [out, width, frames, 3, 3] (see `lay_weight`), both
    float32. Returns [T + missing - frames + 1, rows, columns, out]."""
    out, width, frames = weight.shape[:3]
    points = torch.mm(_WEIGHT, weight.permute(3, 4, 2, 1, 0).reshape(9, -1)).view(_POINTS, frames * width, out)
    known, rows, columns = seen.shape[0], seen.shape[1] - 2, seen.shape[2]
    made = seen.new_empty(known + missing - frames + 1, rows, columns, out)
    across = -(-columns // SIDE)
    down = max(1, STRIP // (_POINTS * across * known * width))
    for top in range(0, rows, down * SIDE):
        part = seen[:, top : top + down * SIDE + 2]
        made[:, top : top + down * SIDE] = _strip(part, points, bias, missing, len(made))
    return made


def _strip(seen: Tensor, points: Tensor, bias: Tensor, missing: int, count: int) -> Tensor:
    """`convolve` of some rows; `points` are the weight's [36, frames·width, out], `count` frames are made."""
    known, rows, columns, width = seen.shape[0], seen.shape[1] - 2, *seen.shape[2:]
    down, across, out = -(-rows // SIDE), -(-columns // SIDE), points.shape[2]
    whole = seen.new_zeros(known, down * SIDE + 2, across * SIDE + 2, width)
    whole[:, : rows + 2, 1 : columns + 1] = seen
    frame, row, column, _ = whole.stride()
    view = whole.as_strided(
        (SIDE + 2, SIDE + 2, down, across, known, width), (row, column, SIDE * row, SIDE * column, frame, 1)
    )
    tiles = torch.mm(_SEEN, view.reshape(_POINTS, -1)).view(_POINTS, down * across, known * width)
    sums = seen.new_empty(_POINTS, count, down * across, out)
    frames = points.shape[1] // width
    for tile, weight, total in zip(tiles, points, sums, strict=True):
        for n, answer in enumerate(total):
            begin, end = max(n - missing, 0), n - missing + frames
            torch.mm(tile[:, begin * width : end * width], weight[(begin - end) * width :], out=answer)
    answers = torch.mm(_ANSWER, sums.view(_POINTS, -1)).view(SIDE, SIDE, count, down, across, out)
    answers = answers.permute(2, 3, 0, 4, 1, 5).reshape(count, down * SIDE, across * SIDE, out)
    return answers[:, :rows, :columns].add_(bias)
