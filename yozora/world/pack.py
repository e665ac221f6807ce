"""Packs a trajectory for the kernels: one flat row of floats a body, one a frame's camera.

The kernels are plain scalar functions that must compile for CPU and CUDA alike, so they read numbers from float64
arrays by the column names below instead of taking Python objects.
"""

from __future__ import annotations

import numpy as np

from yozora.world.scene import MATERIALS, SHAPES, Trajectory

# A body's row (N rows a frame).
CENTRE, ROTATION, HALF = 0, 3, 12  # 3, 9 (row-major, body axes to world) and 3 columns
REACH = 15  # radius of the bounding sphere, metres
COLOUR, TONE = 16, 19  # the named colour and the second tone of checks and stripes
SHAPE, MATERIAL = 22, 23
LEFT, TOP, RIGHT, BOTTOM = 24, 25, 26, 27  # pixels that can show the body: [LEFT, RIGHT) x [TOP, BOTTOM)
BODY_COLUMNS = 28

# A camera's row (one a frame).
EYE, ACROSS, UP, AHEAD = 0, 3, 6, 9
SPAN = 12  # tan(fov / 2)
CLOCK = 13  # seconds
HEADING = 14  # azimuth of the view, radians
GLOWS = 15  # how many bodies glow
CAMERA_COLUMNS = 16

SPHERE, BOX, CYLINDER, CONE, CAPSULE, TORUS = range(len(SHAPES))
MATTE, RUBBER, METAL, CHECKERED, STRIPED, GLOWING = range(len(MATERIALS))


def pack_bodies(trajectory: Trajectory, width: int, height: int) -> np.ndarray:
    """Body rows for pictures of `width` x `height` pixels: float64 [F, N, BODY_COLUMNS]."""
    frames, count = trajectory.scale.shape
    rows = np.zeros((frames, count, BODY_COLUMNS))
    half = trajectory.half[None] * trajectory.scale[..., None]
    rows[..., CENTRE : CENTRE + 3] = trajectory.position
    rows[..., ROTATION : ROTATION + 9] = trajectory.rotation.reshape(frames, count, 9)
    rows[..., HALF : HALF + 3] = half
    rows[..., REACH] = _reach(trajectory.shape, half)
    rows[..., COLOUR : COLOUR + 3] = trajectory.colour
    rows[..., TONE : TONE + 3] = _second_tone(np.asarray(trajectory.colour, float))
    rows[..., SHAPE] = trajectory.shape
    rows[..., MATERIAL] = trajectory.material
    rows[..., LEFT : BOTTOM + 1] = _screen_bounds(trajectory, rows[..., REACH], width, height)
    return rows


def pack_cameras(trajectory: Trajectory) -> np.ndarray:
    """Camera rows: float64 [F, CAMERA_COLUMNS]."""
    frames = len(trajectory.times)
    rows = np.zeros((frames, CAMERA_COLUMNS))
    rows[:, EYE : EYE + 3] = trajectory.eye
    rows[:, ACROSS : AHEAD + 3] = trajectory.look.reshape(frames, 9)
    rows[:, SPAN] = np.tan(np.asarray(trajectory.fov) / 2)
    rows[:, CLOCK] = trajectory.times
    rows[:, HEADING] = np.arctan2(trajectory.look[:, 2, 0], trajectory.look[:, 2, 1])
    rows[:, GLOWS] = np.count_nonzero(trajectory.material == GLOWING)
    return rows


def _reach(shape: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Bounding radius [F, N] of bodies with half extents [F, N, 3]."""
    radius, height = half[..., 0], half[..., 2]
    ways = {
        SPHERE: radius,
        BOX: np.linalg.norm(half, axis=-1),
        CYLINDER: np.hypot(radius, height),
        CONE: np.hypot(radius, height),
        CAPSULE: radius + height,
        TORUS: radius + height,
    }
    return np.choose(np.broadcast_to(shape, radius.shape), [ways[kind] for kind in range(len(SHAPES))])


def _second_tone(colour: np.ndarray) -> np.ndarray:
    """The second tone of checks and stripes [..., 3]: darker for dark colours, paler for bright ones, grey for white.

    Darkening orange would make brown and paling red would make pink, so each goes the way that keeps its name."""
    luma = colour @ np.array([0.2126, 0.7152, 0.0722])
    chroma = colour.max(axis=-1) - colour.min(axis=-1)
    pale = np.clip((luma - 0.28) / 0.08, 0, 1) * np.clip(chroma / 0.2, 0, 1)
    return colour * 0.3 * (1 - pale)[..., None] + (colour * 0.35 + 0.6) * pale[..., None]


def _screen_bounds(trajectory: Trajectory, reach: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixel bounds [F, N, 4] of the bounding spheres, a pixel too wide; the whole picture where one nears the eye."""
    seen = np.einsum("fij,fnj->fni", trajectory.look, trajectory.position - trajectory.eye[:, None])
    focal = height / 2 / np.tan(np.asarray(trajectory.fov) / 2)[:, None]
    bounds = np.empty((*reach.shape, 4))
    for axis, size, sign in ((0, width, 1.0), (1, height, -1.0)):
        distance = np.hypot(seen[..., axis], seen[..., 2])
        near = distance <= reach * 1.01
        half = np.arcsin(np.clip(reach / np.maximum(distance, 1e-9), 0, 1))
        middle = np.arctan2(sign * seen[..., axis], seen[..., 2])
        low, high = middle - half, middle + half
        first = size / 2 + focal * np.tan(np.clip(low, -1.5, 1.5)) - 2
        last = size / 2 + focal * np.tan(np.clip(high, -1.5, 1.5)) + 2
        bounds[..., axis] = np.where(near, 0, np.clip(np.floor(first), 0, size))
        bounds[..., axis + 2] = np.where(near, size, np.clip(np.ceil(last), 0, size))
    return bounds
