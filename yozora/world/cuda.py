"""Draws on a CUDA device with the same scalar functions as the CPU: a thread a pixel, three launches a frame."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import cuda

from yozora.world.light import noise_texture, pack_place
from yozora.world.pack import pack_bodies, pack_cameras
from yozora.world.render import block_side, check_size, paint
from yozora.world.scene import STYLES, Scene, Trajectory
from yozora.world.styles import finish, srgb_curve

TILE = (16, 16)  # threads a block


def draw_cuda(trajectory: Trajectory, scene: Scene, width: int, height: int) -> np.ndarray:
    """What `render.draw` draws, on the current CUDA device: uint8 [F, H, W, 3], equal to the CPU's within rounding."""
    check_size(width, height)
    paint_kernel, finish_kernel = _kernels()
    block, style = block_side(scene.style, width, height), STYLES.index(scene.style)
    rows, columns = -(-height // block), -(-width // block)
    bodies, cameras = cuda.to_device(pack_bodies(trajectory, width, height)), cuda.to_device(pack_cameras(trajectory))
    place, texture, curve = (cuda.to_device(x) for x in (pack_place(scene), noise_texture(), srgb_curve()))
    colour = cuda.device_array((rows, columns, 3), np.float32)
    key = cuda.device_array((rows, columns), np.int16)
    depth = cuda.device_array((rows, columns), np.float32)
    out = cuda.device_array((len(trajectory.times), height, width, 3), np.uint8)
    small = (-(-columns // TILE[0]), -(-rows // TILE[1]))
    full = (-(-width // TILE[0]), -(-height // TILE[1]))
    for f in range(len(out)):
        for turn in range(2 if block == 1 else 1):
            paint_kernel[small, TILE](turn, bodies, cameras, place, texture, out, f, block, colour, key, depth)
        finish_kernel[full, TILE](style, cameras, place, curve, colour, key, out, f, block)
    return out.copy_to_host()


@lru_cache(maxsize=1)
def _kernels():
    @cuda.jit(fastmath=True)
    def paint_kernel(turn, bodies, cameras, place, texture, out, f, block, colour, key, depth):
        column, row = cuda.grid(2)  # type: ignore[misc]
        if row < key.shape[0] and column < key.shape[1]:
            paint(turn, bodies[f], cameras[f], place, texture, out[f], block, row, column, colour, key, depth)

    @cuda.jit(fastmath=True)
    def finish_kernel(style, cameras, place, curve, colour, key, out, f, block):
        column, row = cuda.grid(2)  # type: ignore[misc]
        if row < out.shape[1] and column < out.shape[2]:
            finish(style, cameras[f], place, curve, colour, key, out[f], row, column, block)

    return paint_kernel, finish_kernel
