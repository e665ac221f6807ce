"""Enhancing: frames in, larger ones and more of them out, one at a time, so that memory does not grow with the length.

First time, then space: the frames between are drawn while frames are small. Why not by the diffusion model (`fill`)?
Its autoencoder has one latent for four frames, so what is held must be whole groups of four: single frames with
invented ones between them cannot be. And invented frames would not be those that the clip's own motion asks for. So a
small network, trained on true frames between two, draws them from the two (see `yozora.models.enhancer`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import lru_cache
from os import PathLike
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yozora import models
from yozora.clip import Clip, FrameWriter, Recipe
from yozora.create.given import Fit
from yozora.create.target import Target, choose_target
from yozora.errors import MediaError, ModelError
from yozora.models.enhancer import Between, Enhancer, Upscaler
from yozora.models.folder import CONFIG, load_module
from yozora.models.registry import quick_dtype

__all__ = ["Target", "choose_target", "enhance", "enhance_clip", "load_enhancer", "write_enhanced"]

WEIGHTS = Path(models.__file__).parent / "weights" / "enhancer"
AGAIN_PIXELS = 2**16  # of a frame that was enlarged once, for it to be enlarged once more: else it would take seconds
STRIP_PIXELS = 2**18  # enlarged at a time: the network's own frames are 16 times as deep as pictures
CUT = 0.16  # mean difference (frames are in 0..1) of two frames, of which the second begins another scene
SAME = Fraction(1, 64)  # of the time between two frames: nearer to one of them, it is that one


def load_enhancer(folder: str | Path | None = None, device: str | torch.device = "cpu") -> Enhancer:
    """The shipped enhancer, or that of a folder. Raises ModelError where it is missing or broken."""
    if folder is None and not (WEIGHTS / CONFIG).is_file():
        raise ModelError("this copy of yozora has no weights for enhancing: train them with configs/enhancer.toml")
    return _load(Path(folder or WEIGHTS), str(device))


@lru_cache(maxsize=2)
def _load(folder: Path, device: str) -> Enhancer:
    dtype = quick_dtype(torch.device(device))
    return load_module(Enhancer, folder, device, dtype).eval().requires_grad_(False)


def enhance(frames: Iterable[np.ndarray], target: Target, enhancer: Enhancer | None = None) -> Iterator[np.ndarray]:
    """Frames uint8 `[H, W, 3]` of `target.source` → frames of `target.size` at its rate, of the same length in seconds,
    as they are asked for: a few are held at a time. Raises MediaError for frames of another size, and
    ModelError, before any is taken, where there are no weights."""
    enhancer = enhancer or load_enhancer()
    return (enlarge(frame, target, enhancer.upscaler) for frame in retime(_cropped(frames, target), target, enhancer))


def enhance_clip(
    clip: Clip,
    size: str | tuple[int, int] = "1080p",
    fps: float | None = None,
    fit: Fit = "crop",
    enhancer: Enhancer | None = None,
) -> Clip:
    """A whole clip in memory; see `choose_target` for what may be asked. Raises CanvasError, ModelError."""
    target = choose_target(clip.size, clip.fps, size, fps, fit)
    return Clip(np.stack(list(enhance(clip.frames, target, enhancer))), target.fps, target.recipe(clip.recipe))


def write_enhanced(
    frames: Iterable[np.ndarray],
    target: Target,
    path: str | PathLike[str],
    recipe: Recipe | None = None,
    enhancer: Enhancer | None = None,
    done: Callable[[int], object] = lambda count: None,
    source: str = "",
) -> int:
    """Enhances frames into a file as they come, and says how many it wrote; `done(n)` is called after the n-th.
    `recipe` and `source` are those of the frames: see `Target.recipe`.
    Whatever is raised on the way, no part of a file is left. Raises MediaError, ModelError."""
    enhancer = enhancer or load_enhancer()
    with FrameWriter(path, target.size, target.fps, target.recipe(recipe, source)) as writer:
        for frame in enhance(frames, target, enhancer):
            writer.write(frame)
            done(writer.count)
        return writer.count


# ---- time ------------------------------------------------------------------------------------------------------------


def retime(frames: Iterable[np.ndarray], target: Target, enhancer: Enhancer) -> Iterator[np.ndarray]:
    """Frames at the source's rate → at the target's, of the same length: the first stays the first, and after the last
    moment that is known the last is repeated. Between two scenes nothing is drawn: the nearer frame stands."""
    place, seen, shown = Fraction(0), 0, 0  # where the next frame is among the given ones
    before: np.ndarray | None = None
    waiting: np.ndarray | None = None  # until it is known whether the clip is long enough for it
    for after in frames:
        seen += 1
        before = after if before is None else before
        cut: bool | None = None
        while place <= seen - 1:
            moment = place - max(0, seen - 2)
            if SAME < moment < 1 - SAME and cut is None:
                cut = is_cut(before, after)
            if waiting is not None:
                yield waiting
                shown += 1
            waiting = _at(before, after, moment, bool(cut), enhancer.between)
            place += target.step
        before = after
    left = target.count(seen) - shown
    if waiting is not None and before is not None and left > 0:
        yield waiting
        for _ in range(left - 1):
            yield before


def _at(before: np.ndarray, after: np.ndarray, moment: Fraction, cut: bool, between: Between) -> np.ndarray:
    """What is seen at `moment`, 0 (`before`) to 1."""
    if cut or not SAME < moment < 1 - SAME:
        return before if moment < Fraction(1, 2) else after
    device = next(between.parameters()).device
    with torch.inference_mode():
        frame = between(_signed(before, device), _signed(after, device), torch.tensor([float(moment)], device=device))
    return _bytes(frame)


def is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether a new scene begins: as seen from afar, everything has changed."""
    far = [F.adaptive_avg_pool2d(_signed(frame, torch.device("cpu")), 8) for frame in (before, after)]
    return float((far[0] - far[1]).abs().mean()) / 2 > CUT


# ---- space -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def enlarge(frame: np.ndarray, target: Target, upscaler: Upscaler, again: int = AGAIN_PIXELS) -> np.ndarray:
    """A cropped frame uint8 `[H, W, 3]` at the target's size. Where that is larger, the network enlarges it, and once
    more if it is then still smaller and of at most `again` pixels; a plain resize does the rest, and the padding."""
    width, height = target.inner
    picture = _signed(frame, next(upscaler.parameters()).device)
    first = True
    while (width > picture.shape[-1] or height > picture.shape[-2]) and (
        first or picture.shape[-1] * picture.shape[-2] <= again
    ):
        twice = width <= 2 * picture.shape[-1] and height <= 2 * picture.shape[-2]
        picture = upscale(picture, upscaler, 2 if twice else upscaler.factor)
        first = False
    if picture.shape[-2:] != (height, width):
        picture = F.interpolate(picture, size=(height, width), mode="bicubic", antialias=True)
    pixels = _bytes(picture)
    if target.inner == target.size:
        return pixels
    padded = np.zeros((target.size[1], target.size[0], 3), np.uint8)
    left, top = (target.size[0] - width) // 2, (target.size[1] - height) // 2
    padded[top : top + height, left : left + width] = pixels
    return padded


def upscale(picture: Tensor, upscaler: Upscaler, factor: int) -> Tensor:
    """`[1, 3, H, W]` → `[1, 3, factor * H, factor * W]`, where the network's own factor is a multiple of `factor`. Done
    in strips of rows that overlap by as much as the network looks around: the same as in one piece, in less memory."""
    height, width = picture.shape[-2:]
    rows, halo = max(1, STRIP_PIXELS // width), upscaler.halo
    full = upscaler.factor
    large = picture.new_empty(1, 3, factor * height, factor * width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        above, below = max(0, top - halo), min(height, bottom + halo)
        strip = upscaler(picture[:, :, above:below])[:, :, full * (top - above) : full * (bottom - above)]
        large[:, :, factor * top : factor * bottom] = F.avg_pool2d(strip, full // factor) if factor < full else strip
    return large.clamp_(-1, 1)


def _cropped(frames: Iterable[np.ndarray], target: Target) -> Iterator[np.ndarray]:
    left, top, width, height = target.crop
    for frame in frames:
        if frame.dtype != np.uint8 or frame.shape != (target.source[1], target.source[0], 3):
            expected = f"[{target.source[1]}, {target.source[0]}, 3]"
            raise MediaError(f"a frame to enhance must be uint8 {expected}, not {frame.dtype} {list(frame.shape)}")
        yield frame[top : top + height, left : left + width]


def _signed(frame: np.ndarray, device: torch.device) -> Tensor:
    """uint8 `[H, W, 3]` → float32 `[1, 3, H, W]` in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(frame)).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1


def _bytes(picture: Tensor) -> np.ndarray:
    """`[1, 3, H, W]` in -1..1 → uint8 `[H, W, 3]`."""
    return (picture[0] * 127.5 + 127.5).round_().clamp_(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()
