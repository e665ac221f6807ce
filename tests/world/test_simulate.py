"""Motion that looks right: physics against textbook formulas, directions as the camera sees them, cameras."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yozora.errors import SceneError
from yozora.world.cameras import project
from yozora.world.sample import MIXES, sample_scene
from yozora.world.scene import COLOURS, SHAPES, SIZES, Body, Camera, Motion, Scene, Trajectory, Wall
from yozora.world.shapes import mass, rest_height, rolling_radius
from yozora.world.simulate import simulate

TIMES = np.linspace(0.0, 2.0, 33)


def one(shape: str = "sphere", motion: Motion | None = None, **more) -> Body:
    return Body(shape, "red", "matte", "large", more.pop("position", (0.0, 0.0)), motion=motion or Motion(), **more)


def run(*bodies: Body, camera: Camera | None = None, times: np.ndarray = TIMES, walls=(), duration=2.0) -> Trajectory:
    return simulate(Scene(3, bodies, camera=camera or Camera(), walls=walls, duration=duration), times)


@given(seed=st.integers(0, 10**6), shift=st.floats(0.0, 1.5))
@settings(max_examples=40, deadline=None)
def test_state_depends_on_the_time_alone(seed: int, shift: float) -> None:
    scene = sample_scene(seed, MIXES["full"])
    together = simulate(scene, np.array([0.0, shift, shift + 0.1, 5.0]))
    alone = simulate(scene, np.array([shift]))
    for field in dataclasses.fields(Trajectory):
        both = getattr(together, field.name), getattr(alone, field.name)
        if len(both[0]) == 4 and field.name not in ("shape", "material", "half"):
            np.testing.assert_allclose(both[0][1], both[1][0], rtol=0, atol=1e-12, err_msg=field.name)


def lowest(trajectory: Trajectory) -> np.ndarray:
    """[F, N] height of each body's lowest point, from its shape's support function downwards."""
    down = -trajectory.rotation[:, :, 2, :]  # world's down in body axes, up to sign
    x, y, z = (np.abs(down[..., i]) for i in range(3))
    level = np.hypot(x, y)
    a, b, c = (trajectory.half[:, i] for i in range(3))
    support = np.select(
        [trajectory.shape == SHAPES.index(name) for name in ("sphere", "box", "capsule", "torus")],
        [a + 0 * x, a * x + b * y + c * z, a + c * z, a * level + c],
        a * level + c * z,  # cylinder; a cone that stands upright
    )
    return trajectory.position[..., 2] - support * trajectory.scale


@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(MIXES)))
@settings(max_examples=60, deadline=None)
def test_nothing_sinks_and_all_is_finite(seed: int, name: str) -> None:
    trajectory = simulate(sample_scene(seed, MIXES[name]), TIMES)
    assert lowest(trajectory).min() > -1e-6
    for field in dataclasses.fields(Trajectory):
        assert np.isfinite(getattr(trajectory, field.name)).all()
    for axes in (trajectory.rotation, trajectory.look):
        np.testing.assert_allclose(axes @ axes.swapaxes(-1, -2), np.broadcast_to(np.eye(3), axes.shape), atol=1e-9)
        determinant = np.linalg.det(axes)
        expected = 1.0 if axes is trajectory.rotation else -1.0  # right, up, forward is left-handed
        np.testing.assert_allclose(determinant, expected, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_bodies_rest_on_the_ground(shape: str) -> None:
    for kind in ("still", "roll", "spin", "slide"):
        trajectory = run(one(shape, Motion(kind, "right", 1.0)))
        np.testing.assert_allclose(lowest(trajectory), 0.0, atol=1e-9)


def test_a_fall_is_free_and_ends_at_rest() -> None:
    body = one("box", Motion("fall", height=1.2))
    fall_time = np.sqrt(2 * 1.2 / 9.81)
    heights = run(body, times=np.array([0.0, 0.5 * fall_time, fall_time, 1.9])).position[:, 0, 2] - rest_height(body)
    np.testing.assert_allclose(heights, [1.2, 0.9, 0.0, 0.0], atol=1e-6)


def test_bounces_repeat_and_lose_height() -> None:
    body = one(motion=Motion("bounce", height=1.0))
    heights = run(body, times=np.linspace(0, 3, 3001)).position[:, 0, 2] - rest_height(body)
    tops = [heights[k] for k in range(1, 3000) if heights[k - 1] < heights[k] >= heights[k + 1]]
    np.testing.assert_allclose(tops[:3], [0.64, 0.64**2, 0.64**3], rtol=1e-3)


@pytest.mark.parametrize("shape", ["sphere", "cylinder", "capsule", "torus"])
@pytest.mark.parametrize("direction", ["left", "right", "towards", "away"])
def test_rolling_does_not_slip(shape: str, direction: str) -> None:
    body = one(shape, Motion("roll", direction, 1.3))
    step = 1e-4
    trajectory = run(body, times=np.array([0.7, 0.7 + step]))
    velocity = np.diff(trajectory.position[:, 0], axis=0)[0] / step
    turn = trajectory.rotation[1, 0] @ trajectory.rotation[0, 0].T
    spin = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / (2 * step)
    contact = velocity + np.cross(spin, [0.0, 0.0, -rolling_radius(body)])
    assert np.linalg.norm(velocity) > 1.0
    np.testing.assert_allclose(contact, 0.0, atol=1e-3)


def test_a_slide_slows_down_and_stays_flat() -> None:
    trajectory = run(one("box", Motion("slide", "right", 2.0)), times=np.linspace(0, 3, 31))
    steps = np.diff(trajectory.position[:, 0, 0])
    assert (np.diff(steps) < 1e-9).all() and steps[0] > 0.1 and steps[-1] == 0.0
    np.testing.assert_array_equal(trajectory.rotation[:, 0], trajectory.rotation[:1, 0].repeat(31, axis=0))


@pytest.mark.parametrize(("shapes"), [("sphere", "sphere"), ("box", "sphere"), ("sphere", "box"), ("cone", "cylinder")])
def test_a_collision_keeps_momentum_and_does_not_overlap(shapes: tuple[str, str]) -> None:
    striker = one(shapes[0], Motion("collide", "right", 3.0), position=(-1.5, 0.0))
    struck = dataclasses.replace(one(shapes[1], position=(0.3, 0.05)), size="small")
    times = np.linspace(0, 2, 4001)
    place = run(striker, struck, times=times).position[..., :2]
    speed = np.diff(place, axis=0) / (times[1] - times[0])
    jump = np.flatnonzero(speed[:, 1].any(axis=1))[0]  # the step in which the struck body first moves
    momentum = mass(striker) * speed[:, 0] + mass(struck) * speed[:, 1]
    np.testing.assert_allclose(momentum[jump - 1], momentum[jump + 1], atol=0.02 * np.abs(momentum).max())
    assert speed[jump + 1, 1, 0] > speed[jump + 1, 0, 0]
    assert speed[jump + 1, 1, 0] - speed[jump + 1, 0, 0] <= speed[jump - 1, 0, 0]
    if shapes == ("sphere", "sphere"):
        centres = run(striker, struck, times=times).position
        apart = np.linalg.norm(centres[:, 0] - centres[:, 1], axis=1)
        assert apart.min() == pytest.approx(SIZES["large"] + SIZES["small"], abs=5e-3)


def test_equal_balls_trade_places_in_a_row() -> None:
    row = [one(motion=Motion("collide", "right", 2.5), position=(-3.0, 0.0)), one(), one(position=(1.5, 0.0))]
    place = run(*row, times=np.array([0.0, 3.0])).position[:, :, 0]
    assert place[1, 2] > place[0, 2] + 1.0
    assert (np.diff(place[1]) > 2 * SIZES["large"] - 1e-3).all()


def test_stacking_ends_on_top() -> None:
    below, above = one("box"), one("cylinder", Motion("stack", height=0.8))
    for order in ((above, below), (below, above)):
        trajectory = run(*order, times=np.array([0.0, 2.0]))
        n = order.index(above)
        rest = 2 * rest_height(below) + rest_height(above)
        np.testing.assert_allclose(trajectory.position[:, n, 2], [rest + 0.8, rest], atol=1e-9)


def test_a_hider_passes_behind_its_wall() -> None:
    scene = next(s for s in map(sample_scene, range(200)) if s.walls and s.camera.kind == "still")
    n = next(n for n, body in enumerate(scene.bodies) if body.motion.kind == "hide")
    trajectory = simulate(scene, np.linspace(scene.bodies[n].motion.start, 2.0, 61))
    screen, depth = project(trajectory, trajectory.position)
    wall = len(scene.bodies)
    wide = trajectory.half[wall, 0] / (np.tan(trajectory.fov / 2) * depth[:, wall])
    beside = np.abs(screen[:, n, 0] - screen[:, wall, 0]) > wide
    assert beside[0] and beside[-1] and not beside[30]
    assert (depth[:, n] > depth[:, wall]).all()


@pytest.mark.parametrize(
    ("kind", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("towards", 2, -1), ("away", 2, 1)]
)
def test_directions_are_the_cameras(kind: str, axis: int, sign: int) -> None:
    trajectory = run(one(motion=Motion(kind, speed=1.0)))
    screen, depth = project(trajectory, trajectory.position)
    seen = np.concatenate([screen[:, 0], depth], axis=1)[:, axis]
    assert (sign * np.diff(seen) > 0.005).all()


def test_scripted_changes() -> None:
    grown = run(one(motion=Motion("grow", speed=0.5)))
    assert grown.scale[-1, 0] == pytest.approx(2.0) and grown.position[-1, 0, 2] == pytest.approx(2 * SIZES["large"])
    assert run(one(motion=Motion("shrink", speed=0.5))).scale[-1, 0] == pytest.approx(0.5)
    painted = run(one(motion=Motion("recolour", colour_to="blue"))).colour[:, 0]
    np.testing.assert_allclose(painted[[0, -1]], [COLOURS["red"], COLOURS["blue"]])
    circling = run(one(motion=Motion("circle", speed=np.pi), position=(1.2, 0.0))).position[:, 0]
    np.testing.assert_allclose(np.hypot(circling[:, 0], circling[:, 1]), 1.2)
    np.testing.assert_allclose(circling[0], circling[-1], atol=1e-9)
    turned = run(one("box", Motion("spin", speed=np.pi / 2)), times=np.array([0.0, 1.0])).rotation[:, 0]
    np.testing.assert_allclose(turned[1] @ [1, 0, 0], [0, 1, 0], atol=1e-9)
    waiting = run(one(motion=Motion("left", speed=1.0, start=1.0))).position[:, 0, 0]
    assert not waiting[TIMES <= 1.0].any() and waiting[-1] == pytest.approx(-1.0)


def seen_origin(kind: str, direction: str, amount: float) -> tuple[np.ndarray, np.ndarray, Trajectory]:
    trajectory = run(one(), camera=Camera(kind, direction, amount))
    screen, depth = project(trajectory, trajectory.position)
    return screen[:, 0], depth[:, 0], trajectory


def test_cameras_move_as_they_are_named() -> None:
    left, right = seen_origin("pan", "left", 0.4)[0][:, 0], seen_origin("pan", "right", 0.4)[0][:, 0]
    assert (np.diff(left) > 0).all() and (np.diff(right) < 0).all()  # turning left moves the picture right
    up, down = seen_origin("tilt", "up", 0.3)[0][:, 1], seen_origin("tilt", "down", 0.3)[0][:, 1]
    assert (np.diff(up) < 0).all() and (np.diff(down) > 0).all()
    near, far = seen_origin("dolly", "in", 2.0)[1], seen_origin("dolly", "out", 2.0)[1]
    assert (np.diff(near) < 0).all() and (np.diff(far) > 0).all() and np.ptp(near) > 1.9
    narrow, wide = seen_origin("zoom", "in", 1.6)[2].fov, seen_origin("zoom", "out", 1.6)[2].fov
    assert np.tan(narrow[0] / 2) / np.tan(narrow[-1] / 2) == pytest.approx(1.6) and (np.diff(wide) > 0).all()
    for direction, sign in (("left", -1), ("right", 1)):
        screen, depth, trajectory = seen_origin("orbit", direction, 1.0)
        assert (sign * np.diff(trajectory.eye[:, 0]) > 0).all() and np.ptp(depth) < 1e-9
        np.testing.assert_allclose(screen[:, 0], 0.0, atol=1e-9)
    shake = seen_origin("handheld", "", 0.02)[0]
    assert 0.005 < np.ptp(shake[:, 0]) < 0.4 and np.abs(np.diff(shake, axis=0)).max() < 0.1


def test_walls_come_after_bodies() -> None:
    trajectory = run(one(), walls=(Wall((0.5, -1.0), (0.7, 0.1, 0.9), "blue"),))
    assert trajectory.shape.tolist() == [SHAPES.index("sphere"), SHAPES.index("box")]
    np.testing.assert_allclose(trajectory.position[0, 1], [0.5, -1.0, 0.9])
    np.testing.assert_allclose(trajectory.colour[0, 1], COLOURS["blue"])
    assert run().position.shape == (33, 0, 3)


@pytest.mark.parametrize("times", [np.array([-1.0]), np.array([np.nan]), np.zeros((2, 2)), np.array([np.inf])])
def test_bad_times_are_refused(times: np.ndarray) -> None:
    with pytest.raises(SceneError, match="times"):
        run(one(), times=times)
