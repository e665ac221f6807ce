"""The renderer against independent geometry, and its behaviour: repeatable, thread-safe, fork-safe, any size."""

from __future__ import annotations

import colorsys
import dataclasses
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from yozora.errors import SceneError
from yozora.world.pack import pack_bodies
from yozora.world.rays import FAR, meet, normal
from yozora.world.render import draw, render
from yozora.world.scene import (
    COLOURS,
    GROUNDS,
    MATERIALS,
    SHAPES,
    STYLES,
    TIMES,
    WEATHERS,
    Body,
    Place,
    Scene,
    Trajectory,
)
from yozora.world.simulate import simulate

HALF = {
    "sphere": (0.5, 0.5, 0.5),
    "box": (0.3, 0.4, 0.5),
    "cylinder": (0.4, 0.4, 0.5),
    "cone": (0.45, 0.45, 0.5),
    "capsule": (0.25, 0.25, 0.3),
    "torus": (0.4, 0.4, 0.15),
}
INSIDE: dict[str, Callable[[np.ndarray, tuple[float, float, float]], Any]] = {  # [..., 3] -> bool
    "sphere": lambda p, h: np.linalg.norm(p, axis=-1) < h[0],
    "box": lambda p, h: (np.abs(p) < np.array(h)).all(axis=-1),
    "cylinder": lambda p, h: (np.hypot(p[..., 0], p[..., 1]) < h[0]) & (np.abs(p[..., 2]) < h[2]),
    "cone": lambda p, h: (
        (np.hypot(p[..., 0], p[..., 1]) < h[0] * (h[2] - p[..., 2]) / (2 * h[2])) & (np.abs(p[..., 2]) < h[2])
    ),
    "capsule": lambda p, h: (
        np.sqrt(p[..., 0] ** 2 + p[..., 1] ** 2 + np.maximum(np.abs(p[..., 2]) - h[2], 0) ** 2) < h[0]
    ),
    "torus": lambda p, h: np.hypot(np.hypot(p[..., 0], p[..., 1]) - h[0], p[..., 2]) < h[2],
}


def one_body(shape: str, rotation: np.ndarray, position: tuple[float, float, float], scale: float) -> Trajectory:
    return Trajectory(
        times=np.zeros(1),
        shape=np.array([SHAPES.index(shape)]),
        material=np.zeros(1, int),
        half=np.array([HALF[shape]]),
        position=np.array([[position]]),
        rotation=rotation[None, None],
        scale=np.full((1, 1), scale),
        colour=np.full((1, 1, 3), 0.5),
        eye=np.array([[0.0, -6.0, 1.8]]),
        look=np.array([[[1.0, 0, 0], [0, 0, 1.0], [0, 1.0, 0]]]),
        fov=np.array([0.7]),
    )


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_meet_shapes_where_dense_sampling_finds_them(shape: str) -> None:
    rng = np.random.default_rng(SHAPES.index(shape))
    steps = np.linspace(0, 6, 6001)
    for _ in range(60):
        rotation, position, scale = random_rotation(rng), tuple(rng.normal(size=3)), float(rng.uniform(0.5, 2))
        trajectory = one_body(shape, rotation, position, scale)
        bodies = pack_bodies(trajectory, 64, 64)[0]
        start = np.array(position) + 3 * random_rotation(rng)[0]
        direction = np.array(position) + rng.normal(size=3) * 0.25 * scale - start
        direction /= np.linalg.norm(direction)
        path = (start + steps[:, None] * direction - np.array(position)) @ rotation / scale
        hits = INSIDE[shape](path, HALF[shape])
        t, face = meet(bodies, 0, *start, *direction)
        if hits.sum() > 5:  # a graze of a few millimetres may go either way
            assert t == pytest.approx(steps[hits.argmax()], abs=4e-3)
            point = start + t * direction
            n = np.array(normal(bodies, 0, face, *point))
            assert np.linalg.norm(n) == pytest.approx(1, abs=1e-6)
            assert n @ direction < 0.02
            for side, expected in ((1e-2, False), (-1e-2, True)):
                local = (point + side * scale * n - np.array(position)) @ rotation / scale
                assert bool(INSIDE[shape](local, HALF[shape])) == expected or abs(n @ direction) < 0.2
        elif not hits.any():
            assert t == FAR or shape == "torus"


def scene_of(ground: str = "studio", style: str = "realistic", **place: object) -> Scene:
    bodies = tuple(
        Body(shape, colour, material, "small", (x, 0.3 * (n % 2)), yaw=0.4)
        for n, (shape, colour, material, x) in enumerate(
            zip(SHAPES, COLOURS, MATERIALS, np.linspace(-1.8, 1.8, 6).tolist(), strict=False)
        )
    )
    return Scene(3, bodies, Place(ground=ground, **place), style=style)  # type: ignore[arg-type]


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_place_and_style_makes_a_picture(ground: str) -> None:
    for n, (time, weather) in enumerate((t, w) for t in TIMES for w in WEATHERS):
        style = STYLES[n % len(STYLES)]
        frames = render(scene_of(ground, style, time=time, weather=weather), 40, 32, 2, 8.0, threads=1).frames
        assert frames.shape == (2, 32, 40, 3) and frames.dtype == np.uint8
        assert frames.std() > 6, (ground, time, weather, style)
        assert frames.mean() > 6, "too dark to see anything"


def test_threads_do_not_change_the_pixels_and_start_is_a_shift() -> None:
    scene = scene_of("water", weather="rain")
    one = render(scene, 48, 48, 4, 8.0, threads=1).frames
    assert (render(scene, 48, 48, 4, 8.0, threads=3).frames == one).all()
    assert (render(scene, 48, 48, 2, 8.0, start=0.25, threads=1).frames == one[2:]).all()


@pytest.mark.parametrize("size", [(1, 1), (17, 5), (5, 33)])
def test_any_size(size: tuple[int, int]) -> None:
    for style in STYLES:
        assert render(scene_of(style=style), *size, 1, 8.0, threads=1).frames.shape == (1, size[1], size[0], 3)


def test_a_scene_without_bodies_is_a_landscape() -> None:
    rendering = render(Scene(1, ()), 32, 24, 2, 8.0, truth=True, threads=1)
    assert rendering.frames.std() > 2
    assert rendering.truth is not None and not rendering.truth.ids.any()


@pytest.mark.parametrize(
    "bad", [(0, 32, 2, 8.0), (32, -1, 2, 8.0), (99999, 32, 2, 8.0), (32, 32, 0, 8.0), (32, 32, 2, 0.0)]
)
def test_impossible_pictures_are_refused(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(SceneError):
        render(scene_of(), *bad)


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("material", ["matte", "metal", "checkered", "glowing"])
def test_colours_keep_their_names(time: str, material: str) -> None:
    """The mean hue over the body is nearest to the named colour's, by day, at sunset and by night."""
    hues = {name: colorsys.rgb_to_hsv(*COLOURS[name])[0] for name in ("red", "yellow", "green", "cyan", "blue")}
    for name in hues:
        scene = Scene(0, (Body("sphere", name, material, "huge", (0, 0)),), Place("sand", time, "clear", -1.2))
        rendering = render(scene, 48, 48, 1, 8.0, truth=True, threads=1)
        assert rendering.truth is not None
        mean = rendering.frames[rendering.truth.ids == 1].mean(axis=0) / 255
        hue = colorsys.rgb_to_hsv(*mean)[0]
        nearest = min(hues, key=lambda other: abs((hue - hues[other] + 0.5) % 1 - 0.5))
        assert nearest == name, (name, mean)


def test_bodies_cast_shadows_away_from_the_sun() -> None:
    scene = Scene(0, (Body("sphere", "red", "matte", "large", (0, 0)),), Place("sand", "day", "clear", -0.01))
    empty = dataclasses.replace(scene, bodies=())
    lit = render(empty, 96, 96, 1, 8.0, threads=1).frames[0].astype(int)
    shaded = render(scene, 96, 96, 1, 8.0, truth=True, threads=1)
    assert shaded.truth is not None
    darker = (lit - shaded.frames[0]).sum(axis=-1) * (shaded.truth.ids[0] == 0)
    columns = np.arange(96)[None] * np.ones((96, 1))
    assert darker.max() > 60
    assert np.average(columns, weights=darker.clip(0)) < 46  # the sun is on the right


def _render_mean(seed: int) -> float:
    return float(render(dataclasses.replace(scene_of(), seed=seed), 32, 32, 1, 8.0, threads=1).frames.mean())


def test_a_forked_process_can_render() -> None:
    here = _render_mean(3)
    render(scene_of(), 32, 32, 4, 8.0, threads=2)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(_render_mean, [3, 3]).get(timeout=60) == [here, here]


CUDA_PROGRAM = """
import sys, numpy as np
from yozora.world.cuda import draw_cuda
from yozora.world.scene import Scene
from yozora.world.simulate import simulate
scene = Scene.from_json(sys.stdin.read())
np.save(sys.stdout.buffer, draw_cuda(simulate(scene, np.array([0.5])), scene, 24, 16))
"""


@pytest.mark.parametrize("style", ["cartoon", "pixel art"])
def test_cuda_kernels_draw_what_the_cpu_draws(style: str, tmp_path: object) -> None:
    """Numba's CUDA simulator runs the kernels' indexing; the device's own arithmetic needs a GPU."""
    scene = scene_of("water", style, weather="snow")
    ran = subprocess.run(
        [sys.executable, "-c", CUDA_PROGRAM],
        input=scene.to_json().encode(),
        capture_output=True,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        timeout=170,
    )
    assert ran.returncode == 0, ran.stderr.decode()[-2000:]
    path = f"{tmp_path}/frames.npy"
    with open(path, "wb") as file:
        file.write(ran.stdout)
    there = np.load(path).astype(int)
    here = draw(simulate(scene, np.array([0.5])), scene, 24, 16, threads=1).astype(int)
    assert np.abs(there - here).max() <= 1
