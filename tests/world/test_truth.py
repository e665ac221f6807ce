"""The ground truth against closed forms and against itself one frame later."""

from __future__ import annotations

import math

import numpy as np
import pytest

from yozora.world.render import render
from yozora.world.scene import Body, Camera, Motion, Place, Scene, Wall
from yozora.world.truth import Truth

SIZE = 96


def truth_for(scene: Scene, frames: int = 3, fps: float = 8.0, width: int = SIZE) -> Truth:
    truth = render(scene, width, SIZE, frames, fps, truth=True, threads=1).truth
    assert truth is not None
    return truth


def ball(position: tuple[float, float] = (0.0, 0.0), **motion: object) -> Body:
    return Body("sphere", "red", "matte", "large", position, motion=Motion(**motion))  # type: ignore[arg-type]


def test_a_still_ball() -> None:
    truth = truth_for(Scene(0, (ball(),)))
    x, y = truth.tracks[0, 0]
    assert x == pytest.approx(SIZE / 2, abs=0.01)  # straight ahead
    centre = np.array([0, 0, 0.62])
    ray = centre - truth.eye[0]
    ahead = ray @ truth.look[0, 2]
    focal = SIZE / 2 / math.tan(truth.fov[0] / 2)
    assert y == pytest.approx(SIZE / 2 - focal * (ray @ truth.look[0, 1]) / ahead, abs=0.01)
    distance = np.linalg.norm(ray)
    assert truth.depth[0, int(y), int(x)] == pytest.approx(ahead * (distance - 0.62) / distance, abs=0.01)
    x0, y0, x1, y1 = truth.boxes[0, 0]
    across = 2 * focal * math.tan(math.asin(0.62 / distance))
    assert x1 - x0 == pytest.approx(across, abs=2.5) and y1 - y0 == pytest.approx(across, abs=2.5)
    mask = truth.ids[0] == 1
    assert mask[y0:y1, x0:x1].sum() == mask.sum() == pytest.approx(math.pi / 4 * across**2, rel=0.05)
    assert truth.visible[0, 0] == 1
    assert np.abs(truth.flow[:-1]).max() < 1e-3  # nothing moves, the camera neither
    assert np.isnan(truth.flow[-1]).all()
    assert np.isinf(truth.depth[0, 0]).all() and np.isfinite(truth.depth[0, -1]).all()  # sky above, ground below


def test_ground_depth_is_the_plane_s() -> None:
    truth = truth_for(Scene(0, (), camera=Camera(height=2.0)), frames=1)
    focal = SIZE / 2 / math.tan(truth.fov[0] / 2)
    down = (SIZE - 0.5 - SIZE / 2) / focal
    drop = truth.look[0, 2, 2] - down * truth.look[0, 1, 2]
    assert truth.depth[0, -1, 10] == pytest.approx(-2.0 / drop, rel=1e-4)


def test_flow_of_a_sliding_box_is_its_track_s_step() -> None:
    box = Body("box", "red", "matte", "large", (0.0, 0.0), motion=Motion("right", speed=1.0))
    truth = truth_for(Scene(0, (box,)), frames=4)
    for frame in range(3):
        x, y = truth.tracks[frame, 0]
        step = truth.tracks[frame + 1, 0] - truth.tracks[frame, 0]
        here = truth.flow[frame, int(y), int(x)]
        assert here[0] == pytest.approx(step[0] * 1.1, rel=0.12)  # its front is nearer than its centre
        assert here[1] == pytest.approx(step[1], abs=0.3)


@pytest.mark.parametrize("kind,direction", [("pan", "left"), ("orbit", "right"), ("dolly", "in"), ("zoom", "in")])
def test_flow_leads_to_the_same_thing_in_the_next_frame(kind: str, direction: str) -> None:
    bodies = (
        ball((-0.8, 0.0), kind="spin", speed=2.0),
        Body("box", "blue", "matte", "large", (0.9, 0.6), motion=Motion("grow", speed=0.8)),
    )
    camera = Camera(kind, direction, amount=1.5 if kind in ("zoom", "dolly") else 0.5)
    truth = truth_for(Scene(5, bodies, Place("grass"), camera), frames=5)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    right = total = 0
    for frame in range(4):
        x = np.floor(columns + 0.5 + truth.flow[frame, ..., 0]).astype(int)
        y = np.floor(rows + 0.5 + truth.flow[frame, ..., 1]).astype(int)
        inside = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
        landed = truth.ids[frame + 1][y[inside], x[inside]]
        right += (landed == truth.ids[frame][inside]).sum()
        total += inside.sum()
    assert np.abs(truth.flow[:-1]).max() > 0.5
    assert right / total > 0.97  # the rest is edges and what comes to cover


def test_a_wall_hides_a_ball() -> None:
    wall = Wall((0.6, -0.9), (0.6, 0.05, 0.9))
    truth = truth_for(Scene(0, (ball(),), walls=(wall,)))
    assert truth.boxes.shape == (3, 2, 4)
    assert 0.3 < truth.visible[0, 0] < 0.7 and truth.visible[0, 1] == 1
    wide = truth_for(Scene(0, (ball(),), walls=(Wall((0.0, -0.9), (1.5, 0.05, 1.2)),)))
    assert wide.visible[0, 0] == 0
    assert (wide.boxes[0, 0] == -1).all()
    assert np.isfinite(wide.tracks[0, 0]).all()  # hidden, but still somewhere


def test_types_and_shapes() -> None:
    truth = truth_for(Scene(0, (ball(),)), frames=2, width=64)
    assert truth.ids.dtype == np.int16 and truth.ids.shape == (2, SIZE, 64)
    assert truth.depth.dtype == np.float32 and truth.flow.shape == (2, SIZE, 64, 2)
    assert truth.tracks.shape == (2, 1, 2) and truth.visible.shape == (2, 1)
    assert truth.look.shape == (2, 3, 3) and truth.fov.shape == (2,)
