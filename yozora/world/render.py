"""Draws a scene: rays meet bodies in closed form, so that a frame takes a millisecond or two."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from yozora.errors import SceneError
from yozora.world.compiled import entry, scalar, source_stamp
from yozora.world.light import noise_texture, pack_place
from yozora.world.pack import ACROSS, AHEAD, SPAN, UP, pack_bodies, pack_cameras
from yozora.world.scene import STYLES, Scene, Trajectory
from yozora.world.shade import look
from yozora.world.styles import PIXEL_ART, finish, srgb_curve, tone
from yozora.world.truth import Truth, truth_of

MAX_SIDE = 8192


@dataclass(frozen=True, eq=False)
class Rendering:
    """A filmed scene: `frames` uint8 [T, H, W, 3] at `fps`, and what was filmed."""

    frames: np.ndarray
    fps: float
    scene: Scene
    trajectory: Trajectory
    truth: Truth | None = None


def render(
    scene: Scene,
    width: int,
    height: int,
    frames: int,
    fps: float,
    start: float = 0.0,
    truth: bool = False,
    threads: int | None = None,
) -> Rendering:
    """Films `scene` from `start` seconds on; with `truth`, also says what every pixel shows and where it goes.

    `threads` is how many frames are drawn at once (default: as many as there are cores). Raises SceneError for sizes,
    lengths and rates that cannot be."""
    from yozora.world.simulate import simulate

    if frames < 1 or not (fps > 0 and math.isfinite(fps) and math.isfinite(start)):
        raise SceneError(
            f"cannot film {frames} frames at {fps} a second from {start} s: all must be finite, and above 0"
        )
    trajectory = simulate(scene, start + np.arange(frames) / fps)
    pictures = draw(trajectory, scene, width, height, threads)
    return Rendering(pictures, fps, scene, trajectory, truth_of(trajectory, width, height) if truth else None)


def draw(trajectory: Trajectory, scene: Scene, width: int, height: int, threads: int | None = None) -> np.ndarray:
    """Frames uint8 [F, H, W, 3] of a trajectory in the place and style of `scene`."""
    check_size(width, height)
    style = STYLES.index(scene.style)
    bodies, cameras, place = pack_bodies(trajectory, width, height), pack_cameras(trajectory), pack_place(scene)
    out = np.empty((len(cameras), height, width, 3), dtype=np.uint8)
    kernel, texture, curve = _kernel(), noise_texture(), srgb_curve()
    block = block_side(scene.style, width, height)

    def some(first: int, last: int) -> None:
        kernel(bodies[first:last], cameras[first:last], place, texture, curve, style, block, out[first:last])

    workers = min(threads or len(os.sched_getaffinity(0)), len(cameras))
    if workers <= 1:
        some(0, len(cameras))
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda frame: some(frame, frame + 1), range(len(cameras))))
    return out


def check_size(width: int, height: int) -> None:
    """Raises SceneError for pictures that cannot be."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise SceneError(f"cannot draw {width}x{height} pixels: sides go from 1 to {MAX_SIDE}")


def block_side(style: str, width: int, height: int) -> int:
    """Side of the squares that a style paints with, pixels."""
    return max(2, round(min(width, height) / 42)) if STYLES.index(style) == PIXEL_ART else 1


@lru_cache(maxsize=1)
def _kernel():
    stamp = source_stamp()  # in the closure, so that it is part of the disk cache's key

    def draw_frames(bodies, cameras, place, texture, curve, style, block, out):
        if stamp == "":
            return
        height, width = (out.shape[1] + block - 1) // block, (out.shape[2] + block - 1) // block
        colour = np.empty((height, width, 3), dtype=np.float32)
        key = np.empty((height, width), dtype=np.int16)
        depth = np.empty((height, width), dtype=np.float32)
        for f in range(out.shape[0]):
            for turn in range(2 if block == 1 else 1):
                for row in range(height):
                    for column in range(width):
                        paint(
                            turn, bodies[f], cameras[f], place, texture, out[f], block, row, column, colour, key, depth
                        )
            for row in range(out.shape[1]):
                for column in range(out.shape[2]):
                    finish(style, cameras[f], place, curve, colour, key, out[f], row, column, block)

    return entry(draw_frames)


@scalar
def sample(bodies, camera, place, texture, out, x, y):
    """What is seen at the picture point (x, y) pixels: display-linear (r, g, b), key, distance."""
    height, width = out.shape[0], out.shape[1]
    pixel = 2.0 * camera[SPAN] / height
    right, down = (x - 0.5 * width) * pixel, (0.5 * height - y) * pixel
    dx = camera[AHEAD] + right * camera[ACROSS] + down * camera[UP]
    dy = camera[AHEAD + 1] + right * camera[ACROSS + 1] + down * camera[UP + 1]
    dz = camera[AHEAD + 2] + right * camera[ACROSS + 2] + down * camera[UP + 2]
    scale = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    r, g, b, key, t = look(bodies, camera, place, texture, x, y, dx * scale, dy * scale, dz * scale, pixel)
    return tone(r), tone(g), tone(b), key, t


@scalar
def paint(turn, bodies, camera, place, texture, out, block, row, column, colour, key, depth):
    """The first turn sends one ray through the middle of a pixel (or of a block of them); the second sends four, on a
    turned grid, where the first found an edge. One function for both, since each call of `sample` is compiled anew."""
    if turn == 1 and not on_edge(key, depth, row, column):
        return
    count = 1 if turn == 0 else 4
    r, g, b = 0.0, 0.0, 0.0
    for i in range(count):
        x, y = 0.5, 0.5
        if turn == 1:
            x, y = 0.125 + 0.25 * i, 0.125 + 0.25 * ((2 * i + 1) % 5)  # one in each row and each column of a 4 x 4 grid
        p, q, s, k, t = sample(bodies, camera, place, texture, out, (column + x) * block, (row + y) * block)
        r, g, b = r + p, g + q, b + s
        if turn == 0:
            key[row, column], depth[row, column] = k, t
    share = 1.0 / count
    colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = share * r, share * g, share * b


@scalar
def on_edge(key, depth, row, column):
    """Whether a neighbour shows another body or face, or the same one a step behind."""
    here, at = key[row, column], depth[row, column]
    for i in range(4):
        y = min(max(row + (-1, 1, 0, 0)[i], 0), key.shape[0] - 1)
        x = min(max(column + (0, 0, -1, 1)[i], 0), key.shape[1] - 1)
        if key[y, x] != here or (here > 0 and abs(depth[y, x] - at) > 0.25):
            return True
    return False
