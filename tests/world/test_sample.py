"""Sampled scenes: the same from the same seed, in view, apart, as the mix says, and held out where it says so."""

import copy
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yozora.errors import ConfigError
from yozora.world.cameras import project
from yozora.world.heldout import COLOUR_SHAPES, MOTION_CAMERAS
from yozora.world.sample import MIXES, SceneMix, is_held_out, sample_scene
from yozora.world.scene import (
    COLOURS,
    GROUNDS,
    MOTIONS,
    SHAPES,
    Body,
    Camera,
    Motion,
    Place,
    Scene,
)
from yozora.world.shapes import ROLLERS, reach
from yozora.world.simulate import simulate

TIMES = np.linspace(0.0, 2.0, 17)


@pytest.fixture(scope="module", params=sorted(MIXES))
def scenes(request: pytest.FixtureRequest) -> list[Scene]:
    return [sample_scene(seed, MIXES[request.param]) for seed in range(200)]


def test_same_seed_same_scene() -> None:
    again = SceneMix.from_dict(dict(reversed(MIXES["full"].to_dict().items())))
    for seed in range(20):
        assert sample_scene(seed, MIXES["full"]) == sample_scene(seed, again)
    assert len({sample_scene(seed, MIXES["simple"]) for seed in range(20)}) == 20


def test_a_seed_means_this_scene() -> None:
    """Pinned, so that a changed draw order, which changes every data set, is noticed."""
    scene = sample_scene(3, MIXES["simple"])
    body = scene.bodies[0]
    assert (body.size, body.colour, body.shape, body.motion.kind) == ("large", "pink", "sphere", "left")
    assert (scene.place.ground, scene.camera.kind) == ("grass", "still")


def test_bodies_are_in_view_and_visible(scenes: list[Scene]) -> None:
    inside, moved = [], []
    for scene in scenes:
        trajectory = simulate(scene, TIMES)
        screen, depth = project(trajectory, trajectory.position)
        bodies = len(scene.bodies)
        inside.append(((np.abs(screen) < 1).all(axis=-1) & (depth > 0.5))[:, :bodies].mean())
        heights = trajectory.half[:bodies].max(axis=1) / (np.tan(trajectory.fov[0] / 2) * depth[0, :bodies])
        assert heights.min() > 0.04
        for n, body in enumerate(scene.bodies):
            if body.motion.kind in ("left", "right") and scene.camera.kind == "still":
                moved.append(np.ptp(screen[:, n, 0]) / 2)
    assert np.mean(inside) > 0.97
    assert np.median(moved) > 0.4  # of the frame's width


def test_bodies_start_apart(scenes: list[Scene]) -> None:
    for scene in scenes:
        for i, first in enumerate(scene.bodies):
            for second in scene.bodies[i + 1 :]:
                apart = np.hypot(*np.subtract(first.position, second.position))
                stacked = first.motion.kind == "stack"
                assert stacked or apart > reach(first) + reach(second), scene.seed


def test_scenes_make_sense(scenes: list[Scene]) -> None:
    for scene in scenes:
        looks = [(body.shape, body.colour) for body in scene.bodies]
        assert len(set(looks)) == len(looks)
        for body in scene.bodies:
            kind = body.motion.kind
            assert kind != "roll" or body.shape in ROLLERS
            assert kind not in ("collide", "stack") or len(scene.bodies) > 1
            assert kind != "recolour" or body.motion.colour_to not in ("", body.colour)
            assert kind != "spin" or body.shape in ("box", "torus", "capsule") or body.material == "checkered"
        assert bool(scene.walls) == any(body.motion.kind == "hide" for body in scene.bodies)


def test_mixes_cover_everything_in_their_shares() -> None:
    mix = MIXES["simple"]
    scenes = [sample_scene(seed, mix) for seed in range(800)]
    counts = Counter(len(scene.bodies) for scene in scenes)
    assert 0.70 < counts[1] / 800 < 0.82 and set(counts) == {1, 2, 3}
    assert {scene.place.ground for scene in scenes} == set(GROUNDS)
    assert {body.shape for scene in scenes for body in scene.bodies} == set(SHAPES)
    assert {body.colour for scene in scenes for body in scene.bodies} == set(COLOURS)
    assert {body.motion.kind for scene in scenes for body in scene.bodies} == set(MOTIONS)
    assert 0.48 < np.mean([scene.camera.kind == "still" for scene in scenes]) < 0.62
    assert np.mean([scene.style == "realistic" for scene in scenes]) > 0.86


@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(MIXES)))
@settings(max_examples=25, deadline=None)
def test_held_out_is_respected(seed: int, name: str) -> None:
    raw = MIXES[name].to_dict()
    assert not is_held_out(sample_scene(seed, SceneMix.from_dict(raw | {"held_out": "exclude"})))
    assert is_held_out(sample_scene(seed, SceneMix.from_dict(raw | {"held_out": "only"})))


def test_held_out_tables() -> None:
    def scene(shape: str, colour: str, motion: Motion, camera: Camera, twice: bool = False) -> Scene:
        body = Body(shape, colour, "matte", "large", (0.0, 0.0), motion=motion)
        return Scene(0, (body, body) if twice else (body,), Place("grass"), camera)

    orbit = Camera("orbit", "left", 0.8)
    assert not is_held_out(scene("sphere", "red", Motion("bounce", height=1.0), orbit))  # the README's prompt
    assert is_held_out(scene("sphere", "red", Motion("fall", height=1.0), orbit))
    assert is_held_out(scene("sphere", "cyan", Motion(), Camera()))
    assert is_held_out(scene("sphere", "red", Motion("recolour", colour_to="cyan"), Camera()))
    assert is_held_out(scene("torus", "red", Motion(), Camera(), twice=True))
    assert not is_held_out(scene("torus", "red", Motion(), Camera()))
    assert all(colour in COLOURS and shape in SHAPES for colour, shape in COLOUR_SHAPES)
    assert all(motion in MOTIONS and camera != "still" for motion, camera in MOTION_CAMERAS)


def test_duration_sets_the_pace() -> None:
    mix = SceneMix(count={1: 1}, motions={"left": 1}, cameras={"still": 1}, duration=6.0)  # type: ignore[dict-item]
    scene = sample_scene(5, mix)
    place = simulate(scene, np.array([0.0, 6.0])).position[:, 0, 0]
    assert scene.duration == 6.0 and place[0] > 0 > place[1]


@pytest.mark.parametrize("duration", [1.5, 2.0, 8.0])
def test_collisions_happen(duration: float) -> None:
    mix = SceneMix.from_dict({"count": {"2": 1}, "motions": {"collide": 1}, "duration": duration})
    for seed in range(20):
        place = simulate(sample_scene(seed, mix), np.array([0.0, duration])).position
        assert np.linalg.norm(place[1, 1] - place[0, 1]) > 0.2, seed


def test_mixes_copy_and_pickle() -> None:
    for mix in MIXES.values():
        assert pickle.loads(pickle.dumps(mix)) == copy.deepcopy(mix) == mix


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ({"shape": {"sphere": 1}}, "shape"),
        ({"shapes": {"ball": 1}}, "ball"),
        ({"shapes": {"sphere": -1}}, "sphere"),
        ({"shapes": {"sphere": float("nan")}}, "sphere"),
        ({"shapes": {"sphere": "often"}}, "often"),
        ({"shapes": {"sphere": 0}}, "shapes"),
        ({"shapes": {}}, "shapes"),
        ({"shapes": ["sphere"]}, "table"),
        ({"count": {"6": 1}}, "6"),
        ({"duration": 0}, "duration"),
        ({"duration": "long"}, "duration"),
        ({"held_out": True}, "held_out"),
        ({"count": {"1": 1}, "motions": {"collide": 1}}, "two bodies"),
    ],
)
def test_bad_mixes_are_refused(raw: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        SceneMix.from_dict(raw)


def test_mixes_with_nothing_to_draw_are_refused() -> None:
    only_red_balls = {"shapes": {"sphere": 1}, "colours": {"red": 1}, "motions": {"still": 1}}
    with pytest.raises(ConfigError, match="held_out"):
        sample_scene(0, SceneMix.from_dict(only_red_balls | {"held_out": "only", "count": {"1": 1}}))
    with pytest.raises(ConfigError, match="nothing to choose"):
        sample_scene(0, SceneMix.from_dict(only_red_balls | {"count": {"2": 1}}))
    with pytest.raises(ConfigError, match="seed"):
        sample_scene(-1)
