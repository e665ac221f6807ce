"""How a scene is filmed: where the camera is and where it looks at each time."""

from __future__ import annotations

import numpy as np

from yozora.world.scene import Camera, Scene, Trajectory

TARGET_HEIGHT = 0.75  # the camera looks at the point this far above the origin, in metres


def film(scene: Scene, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera centre [F, 3], view axes [F, 3, 3] (rows right, up, forward) and vertical field of view [F] at `times`.

    A pan, tilt, dolly or zoom is centred on the plain view half-way through the scene, so that the subject stays in
    frame; an orbit starts from the plain view, because directions are named as that view sees them.
    """
    camera = scene.camera
    done = _eased(times / scene.duration)
    sign = -1.0 if camera.direction in ("right", "down", "out") else 1.0
    swing = sign * camera.amount * (done - 0.5)
    turn, tilt, roll = np.zeros((3, len(times)))  # turn is to the left, tilt up, both in radians
    tilt = tilt - np.arctan2(camera.height - TARGET_HEIGHT, camera.distance)
    eye = np.tile([0.0, -camera.distance, camera.height], (len(times), 1))
    fov = np.full(len(times), camera.fov)
    if camera.kind == "pan":
        turn = swing
    elif camera.kind == "tilt":
        tilt = tilt + swing
    elif camera.kind == "orbit":
        angle = sign * camera.amount * done
        eye[:, :2] = -camera.distance * np.stack([np.sin(angle), np.cos(angle)], axis=1)
        turn = -angle
    elif camera.kind == "zoom":
        widths = max(camera.amount, 1e-3) ** (-sign * (done - 0.5))
        fov = 2 * np.arctan(np.tan(camera.fov / 2) * widths)
    elif camera.kind == "handheld":
        shake = _shake(scene.seed, times) * camera.amount
        turn, tilt, roll = shake[0], tilt + shake[1], 0.5 * shake[2]
        eye = eye + camera.distance * 0.25 * shake[3:6].T
    look = _axes(turn, tilt, roll)
    if camera.kind == "dolly":
        eye = eye + swing[:, None] * look[:, 2]
    return eye, look, fov


def project(trajectory: Trajectory, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Screen place [F, N, 2] and depth [F, N] (m) of world points [F, N, 3].

    x is to the right and y up; the frame's upper and lower edges are at y = 1 and -1, and a square frame's sides at
    x = 1 and -1. Points behind the camera have a depth below 0.
    """
    seen = np.einsum("fij,fnj->fni", trajectory.look, points - trajectory.eye[:, None])
    depth = seen[..., 2]
    scale = np.tan(trajectory.fov / 2)[:, None] * np.maximum(depth, 1e-6)
    return seen[..., :2] / scale[..., None], depth


def frame_half_height(camera: Camera) -> float:
    """Half of the plain view's height at the origin, in metres."""
    far = float(np.hypot(camera.distance, camera.height - TARGET_HEIGHT))
    return far * float(np.tan(camera.fov / 2))


def _eased(done: np.ndarray) -> np.ndarray:
    """0 to 1 over the scene, gently at both ends but moving from the first frame to the last."""
    done = np.clip(done, 0.0, 1.0)
    return 0.5 * done + 0.5 * done * done * (3 - 2 * done)


def _shake(seed: int, times: np.ndarray) -> np.ndarray:
    """Six smooth wobbles [6, F] of about unit size: three slow sines each, drawn from the scene's seed."""
    draw = np.random.default_rng([abs(seed), 0x5BA4E])
    rate = draw.uniform((0.4, 1.0, 2.0), (0.8, 1.8, 3.2), (6, 3))
    phase = draw.uniform(0, 2 * np.pi, (6, 3))
    waves = np.sin(2 * np.pi * rate[..., None] * times + phase[..., None])
    return np.einsum("ckf,k->cf", waves, np.array([0.6, 0.35, 0.15]))


def _axes(turn: np.ndarray, tilt: np.ndarray, roll: np.ndarray) -> np.ndarray:
    """View axes [F, 3, 3] of a camera that faces +y, turned left, tilted up, then rolled clockwise."""
    level = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=1)
    ahead = np.stack([-np.sin(turn) * np.cos(tilt), np.cos(turn) * np.cos(tilt), np.sin(tilt)], axis=1)
    upright = np.cross(level, ahead)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    return np.stack([c * level - s * upright, s * level + c * upright, ahead], axis=1)
