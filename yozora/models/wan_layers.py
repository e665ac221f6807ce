"""The layers of Wan's autoencoders: causal convolutions and what they remember, residual blocks, halving and doubling.

Each takes the frames at hand and what it remembers of those before (None: a video begins), and returns both anew.
Tensors [B, C, T, h, w] lie channels last. The stream that residual blocks add to is float32, and so are norms, whatever
the type of the convolutions' weights: what a convolution is given is rounded once, and its answer once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yozora.models import winograd
from yozora.models.attention import attend

LAST = torch.channels_last_3d
PIECE = 2**17  # numbers normed at a time on a CPU
NARROW = 16  # channels
STRIP = 2**13  # cells of a frame that a flat convolution makes at a time

Memory = list[Any]
"""What a part remembers of the frames before: tensors, in lists nested as the parts are. A part that is given its own
empties it as it goes (see `taken`), so that the old is gone before there is more of the new."""


class CausalConv(nn.Conv3d):
    """3×3×3, of which the frames are the one at hand and the two before it."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out, 3, padding=(0, 0, 1))

    def forward(self, seen: Tensor, missing: int) -> tuple[Tensor, Tensor]:
        """What `remember` or `activate` made of T frames → T frames, and the memory for the next ones.

        A video's first two frames miss what would be before them: zeros, with which nothing is multiplied."""
        clips = seen.permute(0, 2, 3, 4, 1)
        if is_flat(self, seen.device):
            made = self.flat(seen, missing)
        elif winograd.pays(clips[0], self.weight):
            assert self.bias is not None
            made = torch.stack([winograd.convolve(clip, self.weight, self.bias, missing) for clip in clips])
            made = made.permute(0, 4, 1, 2, 3)
        else:
            made = self.volumes(seen, missing)
        return made, seen[:, :, -2:].clone(memory_format=torch.preserve_format)

    def volumes(self, seen: Tensor, missing: int) -> Tensor:
        """The same as torch does it."""
        parts = []
        for frame in range(min(missing, seen.shape[2])):  # fewer frames than the kernel has
            weight = self.weight[:, :, missing - frame :]
            parts.append(F.conv3d(seen[:, :, : frame + 3 - missing], weight, self.bias, padding=self.padding))
        if seen.shape[2] > 2:
            parts.append(F.conv3d(seen, self.weight, self.bias, padding=self.padding))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def flat(self, seen: Tensor, missing: int) -> Tensor:
        """The same as convolutions of pictures, whose channels are those of three frames, some rows at a time: in
        bfloat16, oneDNN takes half as long for it as for volumes (96 channels of 256² pixels), and nowhere longer."""
        whole = self.weight.transpose(1, 2).flatten(1, 2)  # of what `lay` laid, a view
        batch, width, frames, rows, columns = seen.shape
        made = seen.new_empty(batch, frames + missing - 2, rows - 2, columns, whole.shape[0])
        strip = max(1, STRIP // columns)
        for frame in range(frames + missing - 2):
            begin, end = max(frame - missing, 0), frame - missing + 3
            weight = whole[:, (begin - end) * width :].contiguous(memory_format=torch.channels_last)
            for row in range(0, rows - 2, strip):
                part = seen[:, :, begin:end, row : row + strip + 2].permute(0, 3, 4, 2, 1)  # [B, r, w, up to 3, C]
                answer = F.conv2d(part.flatten(3).permute(0, 3, 1, 2), weight, self.bias, padding=(0, 1))
                made[:, frame, row : row + strip] = answer.permute(0, 2, 3, 1)
        return made.permute(0, 4, 1, 2, 3)


class ResidualBlock(nn.Module):
    """Twice norm, SiLU and convolution, and a shortcut."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1 = nn.Parameter(torch.ones(width))
        self.conv1 = CausalConv(width, out)
        self.norm2 = nn.Parameter(torch.ones(out))
        self.conv2 = CausalConv(out, out)
        self.shortcut = nn.Conv3d(width, out, 1) if width != out else None

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        first, second = taken(memory, 2)
        h, first = self.conv1(*activate(x, self.norm1, first, self.conv1.weight.dtype))
        h, second = self.conv2(*activate(h, self.norm2, second, self.conv2.weight.dtype))
        return (x if self.shortcut is None else stream(self.shortcut, x)) + h, [first, second]


class Attention(nn.Module):
    """Every cell of a frame looks at every other of it; one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.Parameter(torch.ones(width))
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        images = as_images(x)
        normed = F.rms_norm(images.permute(0, 2, 3, 1), self.norm.shape, self.norm.float(), 1e-24).permute(0, 3, 1, 2)
        qkv = self.qkv(normed.to(self.qkv.weight.dtype)).flatten(2).transpose(1, 2)[:, None]  # [B·T, 1, h·w, 3·width]
        q, k, v = qkv.chunk(3, dim=-1)
        attended = attend(q, k, v)[:, 0].transpose(1, 2).unflatten(2, images.shape[2:])
        return x + as_video(self.out(attended), x.shape[0])


class Down(nn.Module):
    """Half the rows and columns; with `halves`, the frames after the first in pairs, each seen with the one before."""

    def __init__(self, width: int, halves: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 3, stride=2)
        self.time = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if halves else None

    def forward(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        x = as_video(stream(self.space, F.pad(as_images(x), (0, 1, 0, 1))), x.shape[0])
        if self.time is None:
            return x, x.new_empty(0)
        seen = x if memory is None else torch.cat((memory, x), dim=2)
        parts = ([x[:, :, :1]] if memory is None else []) + ([stream(self.time, seen)] if seen.shape[2] > 2 else [])
        return torch.cat(parts, dim=2), x[:, :, -1:].clone(memory_format=torch.preserve_format)


class Up(nn.Module):
    """Twice the rows and columns; with `doubles`, two frames of each but the first, which later ones do not see."""

    def __init__(self, width: int, out: int, doubles: bool) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, out, 3, padding=1)
        self.time = nn.Conv3d(width, 2 * width, (3, 1, 1)) if doubles else None

    def forward(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        batch, after = x.shape[0], x.new_empty(0)
        if self.time is not None:
            head, rest = (x[:, :, :1], x[:, :, 1:]) if memory is None else (x[:, :, :0], x)
            rest = rest.to(self.time.weight.dtype)
            before = rest.new_zeros(*rest.shape[:2], 2, *rest.shape[3:]) if memory is None else memory
            seen = torch.cat((before, rest), dim=2).contiguous(memory_format=LAST)
            if rest.shape[2]:
                pairs = self.time(seen).permute(0, 2, 3, 4, 1).unflatten(-1, (2, -1))  # [B, T, h, w, 2, width]
                doubled = pairs.permute(0, 1, 4, 2, 3, 5).flatten(1, 2).permute(0, 4, 1, 2, 3)
                x = torch.cat((head, doubled.to(x.dtype)), dim=2) if head.shape[2] else doubled
            after = seen[:, :, -2:].clone(memory_format=torch.preserve_format)
        images = as_images(x.to(self.space.weight.dtype))
        if images.device.type == "cpu":
            return as_video(self.spread(images), batch), after
        images = F.interpolate(images, scale_factor=2.0, mode="nearest-exact")
        return as_video(stream(self.space, images), batch), after

    def spread(self, images: Tensor) -> Tensor:
        """Twice the rows and columns of images [N, C, h, w], float32. Of three cells that the convolution sees along a
        side, two are the same one: so every other row and column of the answer is a convolution of 2×2."""
        count, _, rows, columns = images.shape
        seen, weight = F.pad(images, (1, 1, 1, 1)), self.space.weight.float()
        made = images.new_empty(count, 2 * rows, 2 * columns, len(weight), dtype=torch.float32)
        for row, down in enumerate(halves(weight, 2)):
            for column, both in enumerate(halves(down, 3)):
                part = seen[:, :, row : row + rows + 1, column : column + columns + 1]
                answer = F.conv2d(part, both.to(images.dtype), self.space.bias)
                made[:, row::2, column::2] = answer.permute(0, 2, 3, 1)
        return made.permute(0, 3, 1, 2)


def halves(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What three weights along a side are for the first and the second of two cells that are made of one: it, and the
    one before or after."""
    before, here, after = weight.unbind(dim)
    return torch.stack((before, here + after), dim), torch.stack((before + here, after), dim)


# ---- types and layouts -----------------------------------------------------------------------------------------------


def stream(convolution: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution in its weights' type, of x and for the stream, which are float32."""
    return convolution(x.to(convolution.weight.dtype)).float()


def is_flat(convolution: CausalConv, device: torch.device) -> bool:
    """Whether a causal convolution is worked out as one of pictures: on a CPU, those of bfloat16, and those to few
    channels, for which oneDNN would copy all that each of their answers sees, 27 times the frames."""
    narrow = convolution.out_channels < NARROW
    return device.type == "cpu" and (narrow or convolution.weight.dtype == torch.bfloat16)


def lay(module: nn.Module, device: torch.device) -> None:
    """Lays the weights of convolutions as they are run on a device: channels last, and where they are flat, the frames
    just before them."""
    for part in module.modules():
        if isinstance(part, CausalConv) and is_flat(part, device):
            part.weight.data = part.weight.data.permute(0, 3, 4, 2, 1).contiguous().permute(0, 4, 3, 1, 2)
        elif isinstance(part, CausalConv) and device.type == "cpu":
            part.weight.data = winograd.lay_weight(part.weight.data)
        elif isinstance(part, nn.Conv3d):
            part.weight.data = part.weight.data.contiguous(memory_format=LAST)
        elif isinstance(part, nn.Conv2d):
            part.weight.data = part.weight.data.contiguous(memory_format=torch.channels_last)


# ---- memory ----------------------------------------------------------------------------------------------------------


def taken(memory: Memory | None, count: int) -> Memory:
    """A memory's `count` parts (None each, where a video begins), of which it keeps none."""
    parts = list(memory or [None] * count)
    if memory:
        memory.clear()
    return parts


def opened(state: Any) -> Any:
    """A stream's state, which is nested tuples and stays as it is, as a memory."""
    return [opened(part) for part in state] if isinstance(state, tuple) else state


def closed(memory: Any) -> Any:
    """The inverse of `opened`."""
    return tuple(closed(part) for part in memory) if isinstance(memory, list) else memory


def give_back() -> None:
    """Gives the system what was freed and kept for later. glibc keeps all that lies below something which is still in
    use, and of tensors as large as these, of many sizes, that grows to hundreds of megabytes."""
    if (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim, where it is what allocates."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):
        return None


# ---- shapes, norms ---------------------------------------------------------------------------------------------------


def remember(x: Tensor, memory: Tensor | None) -> tuple[Tensor, int]:
    """The two frames of memory (fewer, or None, where a video begins), then the frames of x [B, C, T, h, w]; all with
    an empty row above and below, [B, C, up to T + 2, h + 2, w]; and how many frames of memory there are not."""
    return place_frames(x, x.dtype, memory, lambda place, frames: place.copy_(frames))


def activate(x: Tensor, scale: Tensor, memory: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, int]:
    """As `remember`, of x divided by its root mean square over channels, scaled, and through SiLU, as `dtype`."""
    scale, width = scale.float(), x.shape[1]
    size = max(1, PIECE // width) if x.device.type == "cpu" else x.shape[2:].numel()

    def norm(place: Tensor, frame: Tensor) -> None:
        for into, piece in zip(place.view(-1, width).split(size), frame.reshape(-1, width).split(size), strict=True):
            into.copy_(F.silu(F.rms_norm(piece.float(), scale.shape, scale, 1e-24), inplace=True))

    return place_frames(x, dtype, memory, norm)


def place_frames(
    x: Tensor, dtype: torch.dtype, memory: Tensor | None, put: Callable[[Tensor, Tensor], object]
) -> tuple[Tensor, int]:
    """As `remember`, where `put` fills the place of each frame [h, w, C]."""
    batch, width, frames, rows, columns = x.shape
    known = 0 if memory is None else memory.shape[2]
    seen = torch.empty((batch, known + frames, rows + 2, columns, width), dtype=dtype, device=x.device)
    if memory is not None:
        seen[:, :known] = memory.permute(0, 2, 3, 4, 1)
    seen[:, known:, 0] = seen[:, known:, -1] = 0
    for clip, given in zip(seen, x.permute(0, 2, 3, 4, 1), strict=True):
        for place, frame in zip(clip[known:, 1:-1], given, strict=True):
            put(place, frame)
    return seen.permute(0, 4, 1, 2, 3), 2 - known


def as_images(x: Tensor) -> Tensor:
    """[B, C, T, h, w] → [B·T, C, h, w]."""
    return x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def as_video(images: Tensor, batch: int) -> Tensor:
    """The inverse of `as_images`."""
    return images.unflatten(0, (batch, -1)).transpose(1, 2)


def fold(x: Tensor, patch: int) -> Tensor:
    """[B, C, T, H, W] → [B, C·patch², T, H/patch, W/patch]; within a channel, columns come before rows."""
    x = x.unflatten(4, (-1, patch)).unflatten(3, (-1, patch))  # [B, C, T, h, p, w, q]
    return x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)


def unfold(x: Tensor, patch: int) -> Tensor:
    """The inverse of `fold`."""
    x = x.unflatten(1, (-1, patch, patch))  # [B, C, q, p, T, h, w]
    return x.permute(0, 1, 4, 5, 3, 6, 2).flatten(5, 6).flatten(3, 4)


def average(x: Tensor, out: int, space: int, time: int) -> Tensor:
    """The shortcut of a narrowing stage: time × space × space cells folded into channels, and groups of these averaged.
    An odd number of frames, of which the first is a video's, begins with an empty one."""
    x = F.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    x = x.unflatten(4, (-1, space)).unflatten(3, (-1, space)).unflatten(2, (-1, time))  # [B, C, T, t, h, p, w, q]
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4).unflatten(1, (out, -1)).mean(2)


def repeat(x: Tensor, out: int, time: int, begins: bool) -> Tensor:
    """The shortcut of a widening stage: channels repeated, and spread over time × 2 × 2 cells; of a video's first frame
    only the last of these times."""
    x = x.repeat_interleave(out * time * 4 // x.shape[1], dim=1).unflatten(1, (out, time, 2, 2))
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
    return x[:, :, time - 1 :] if begins else x
