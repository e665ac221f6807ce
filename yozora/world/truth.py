"""What every pixel of a filmed scene shows and where it goes next: the ground truth of the simulated world."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from yozora.world.compiled import entry, scalar, source_stamp
from yozora.world.pack import (
    ACROSS,
    AHEAD,
    BOTTOM,
    CENTRE,
    EYE,
    HALF,
    LEFT,
    RIGHT,
    SPAN,
    TOP,
    UP,
    pack_bodies,
    pack_cameras,
)
from yozora.world.rays import FAR, meet, to_body, to_world
from yozora.world.scene import Trajectory


@dataclass(frozen=True, eq=False)
class Truth:
    """The truth about T frames of N bodies (walls are the last ones), sampled at pixel centres.

    Shadows, reflections, rain and styles are not followed: all of it is about the surfaces themselves. x runs to the
    right and y down; the top left corner of the picture is (0, 0) and the first pixel's centre (0.5, 0.5)."""

    ids: np.ndarray  # int16 [T, H, W]: 0 ground or sky, n + 1 body n
    depth: np.ndarray  # float32 [T, H, W]: metres along the camera's forward axis; inf for sky
    flow: np.ndarray  # float32 [T, H, W, 2]: pixels (x, y) that the shown point moves until the next frame; NaN in the
    # last frame, and for points that pass behind the camera
    boxes: np.ndarray  # int32 [T, N, 4]: x0, y0, x1, y1 of the visible pixels, the end exclusive; -1 if none is visible
    tracks: np.ndarray  # float32 [T, N, 2]: where the bodies' centres are in the picture, hidden or not, inside or not;
    # NaN behind the camera
    visible: np.ndarray  # float32 [T, N]: visible pixels / pixels in the picture if the body were alone; 0 if none
    eye: np.ndarray  # float64 [T, 3]: the camera, metres
    look: np.ndarray  # float64 [T, 3, 3]: rows right, up, forward
    fov: np.ndarray  # float64 [T]: vertical, radians


def truth_of(trajectory: Trajectory, width: int, height: int) -> Truth:
    """The truth about pictures of `width` x `height` pixels of a trajectory."""
    bodies, cameras = pack_bodies(trajectory, width, height), pack_cameras(trajectory)
    frames, count = bodies.shape[:2]
    ids = np.empty((frames, height, width), np.int16)
    depth = np.empty((frames, height, width), np.float32)
    flow = np.empty((frames, height, width, 2), np.float32)
    alone = np.zeros((frames, count), np.int64)
    _kernel()(bodies, cameras, ids, depth, flow, alone)
    boxes, shown = _boxes(ids, count)
    return Truth(
        ids=ids,
        depth=depth,
        flow=flow,
        boxes=boxes,
        tracks=_tracks(trajectory, width, height),
        visible=(shown / np.maximum(alone, 1)).astype(np.float32),
        eye=np.asarray(trajectory.eye, float),
        look=np.asarray(trajectory.look, float),
        fov=np.asarray(trajectory.fov, float),
    )


def _boxes(ids: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes int32 [T, N, 4] around the visible pixels, and how many there are, int64 [T, N]."""
    boxes = np.full((len(ids), count, 4), -1, np.int32)
    shown = np.zeros((len(ids), count), np.int64)
    for frame, picture in enumerate(ids):
        for n in range(count):
            mask = picture == n + 1
            shown[frame, n] = np.count_nonzero(mask)
            if shown[frame, n]:
                columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
                boxes[frame, n] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes, shown


def _tracks(trajectory: Trajectory, width: int, height: int) -> np.ndarray:
    """Pixel positions float32 [T, N, 2] of the bodies' centres."""
    seen = np.einsum("fij,fnj->fni", trajectory.look, trajectory.position - trajectory.eye[:, None])
    focal = height / 2 / np.tan(np.asarray(trajectory.fov) / 2)[:, None]
    ahead = np.where(seen[..., 2] > 1e-6, seen[..., 2], np.nan)
    x = width / 2 + focal * seen[..., 0] / ahead
    y = height / 2 - focal * seen[..., 1] / ahead
    return np.stack([x, y], axis=-1).astype(np.float32)


@lru_cache(maxsize=1)
def _kernel():
    stamp = source_stamp()  # in the closure, so that it is part of the disk cache's key

    def survey_frames(bodies, cameras, ids, depth, flow, alone):
        if stamp == "":
            return
        last = len(ids) - 1
        for f in range(len(ids)):
            g = min(f + 1, last)
            for row in range(ids.shape[1]):
                for column in range(ids.shape[2]):
                    survey(
                        bodies[f], bodies[g], cameras[f], cameras[g], ids[f], depth[f], flow[f], alone[f], row, column
                    )
        flow[last] = math.nan

    return entry(survey_frames)


@scalar
def survey(bodies, later, camera, camera_later, ids, depth, flow, alone, row, column):
    """Fills in the truth about one pixel."""
    height, width = ids.shape
    x, y = column + 0.5, row + 0.5
    dx, dy, dz, forward = direction(camera, x, y, width, height)
    ox, oy, oz = camera[EYE], camera[EYE + 1], camera[EYE + 2]
    best, body = FAR, -1
    for n in range(bodies.shape[0]):
        if x < bodies[n, LEFT] or x >= bodies[n, RIGHT] or y < bodies[n, TOP] or y >= bodies[n, BOTTOM]:
            continue
        t, _ = meet(bodies, n, ox, oy, oz, dx, dy, dz)
        if t < FAR:
            alone[n] += 1
        if t < best:
            best, body = t, n
    if dz < 0.0 and -oz / dz < best:
        best, body = -oz / dz, -1
    ids[row, column] = body + 1
    if best >= FAR:  # the sky is infinitely far: only the camera's turning moves it
        depth[row, column] = math.inf
        px, py, pz = dx, dy, dz
    else:
        depth[row, column] = best * forward
        px, py, pz = ox + best * dx, oy + best * dy, oz + best * dz
        if body >= 0:
            px, py, pz = carried(bodies, later, body, px, py, pz)
        px, py, pz = px - camera_later[EYE], py - camera_later[EYE + 1], pz - camera_later[EYE + 2]
    u, v = projected(camera_later, px, py, pz, width, height)
    flow[row, column, 0], flow[row, column, 1] = u - x, v - y


@scalar
def direction(camera, x, y, width, height):
    """Unit direction of the ray through (x, y) pixels, and its cosine with the forward axis."""
    pixel = 2.0 * camera[SPAN] / height
    right, up = (x - 0.5 * width) * pixel, (0.5 * height - y) * pixel
    scale = 1.0 / math.sqrt(1.0 + right * right + up * up)
    return (
        scale * (camera[AHEAD] + right * camera[ACROSS] + up * camera[UP]),
        scale * (camera[AHEAD + 1] + right * camera[ACROSS + 1] + up * camera[UP + 1]),
        scale * (camera[AHEAD + 2] + right * camera[ACROSS + 2] + up * camera[UP + 2]),
        scale,
    )


@scalar
def carried(bodies, later, n, x, y, z):
    """Where the world point (x, y, z) of body n is later: moved, turned and scaled with it."""
    x, y, z = to_body(bodies, n, x - bodies[n, CENTRE], y - bodies[n, CENTRE + 1], z - bodies[n, CENTRE + 2])
    grown = later[n, HALF] / bodies[n, HALF]
    x, y, z = to_world(later, n, grown * x, grown * y, grown * z)
    return x + later[n, CENTRE], y + later[n, CENTRE + 1], z + later[n, CENTRE + 2]


@scalar
def projected(camera, x, y, z, width, height):
    """Pixel position of a vector from the eye; NaN behind the camera."""
    ahead = x * camera[AHEAD] + y * camera[AHEAD + 1] + z * camera[AHEAD + 2]
    if ahead <= 1e-6:
        return math.nan, math.nan
    focal = 0.5 * height / (camera[SPAN] * ahead)
    u = x * camera[ACROSS] + y * camera[ACROSS + 1] + z * camera[ACROSS + 2]
    v = x * camera[UP] + y * camera[UP + 1] + z * camera[UP + 2]
    return 0.5 * width + focal * u, 0.5 * height - focal * v
