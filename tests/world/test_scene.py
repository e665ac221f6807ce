"""A scene is checked when it is made and survives JSON unchanged."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yozora.errors import SceneError
from yozora.world.sample import MIXES, sample_scene
from yozora.world.scene import Body, Camera, Motion, Place, Scene

RED_BALL = Body("sphere", "red", "matte", "large", (0.0, 0.0))


@given(seed=st.integers(0, 2**40), name=st.sampled_from(sorted(MIXES)))
@settings(max_examples=30, deadline=None)
def test_sampled_scenes_survive_json(seed: int, name: str) -> None:
    scene = sample_scene(seed, MIXES[name])
    assert Scene.from_json(scene.to_json()) == scene
    assert hash(Scene.from_json(scene.to_json())) == hash(scene)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Scene(0, (Body("ball", "red", "matte", "large", (0, 0)),)), "ball"),
        (lambda: Scene(0, (Body("sphere", "mauve", "matte", "large", (0, 0)),)), "mauve"),
        (lambda: Scene(0, (Body("sphere", "red", "silk", "large", (0, 0)),)), "silk"),
        (lambda: Scene(0, (Body("sphere", "red", "matte", "vast", (0, 0)),)), "vast"),
        (lambda: Scene(0, (Body("sphere", "red", "matte", "large", (0, 0), 0, Motion("teleport")),)), "teleport"),
        (lambda: Scene(0, (Body("sphere", "red", "matte", "large", (0, 0), 0, Motion("roll", "up")),)), "up"),
        (lambda: Scene(0, (RED_BALL,), Place("moon")), "moon"),
        (lambda: Scene(0, (RED_BALL,), camera=Camera("crane")), "crane"),
        (lambda: Scene(0, (RED_BALL,), camera=Camera("pan", "up")), "up"),
        (lambda: Scene(0, (RED_BALL,), style="cubist"), "cubist"),
        (lambda: Scene(0, (RED_BALL,), duration=0.0), "0.0"),
    ],
)
def test_bad_scenes_are_refused_by_name(make, named: str) -> None:
    with pytest.raises(SceneError, match=named):
        make()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"seed": 1}', "null", '{"seed": 1, "bodies": [3]}'])
def test_what_is_not_a_scene_is_refused(text: str) -> None:
    with pytest.raises(SceneError):
        Scene.from_json(text)


def test_unknown_fields_are_refused() -> None:
    raw = json.loads(Scene(0, (RED_BALL,)).to_json())
    raw["bodies"][0]["weight"] = 3
    with pytest.raises(SceneError, match="weight"):
        Scene.from_json(json.dumps(raw))
