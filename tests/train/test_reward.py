"""Reward: what is asked for, how pictures of it are judged, and that few steps learn from the judgement."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yozora.diffusion import FLOW_MAP, add_noise, flow_map, sample, schedule
from yozora.errors import ConfigError, ModelError
from yozora.evaluate.inspector import WEIGHTS, load_inspector
from yozora.models.adapter import Adapter, AdapterConfig
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Cells, Inspector, InspectorConfig
from yozora.models.transformer import Transformer
from yozora.prompts.lexicon import LexiconReader
from yozora.train.config import Bucket
from yozora.train.data import load_mix
from yozora.train.reward import Asked, RewardStage, RewardTask, Seen, Wishes, judged, one_thing
from yozora.world import Body, Camera, Place, Scene, SceneMix, render, sample_scene
from yozora.world.scene import COLOURS, SHAPES

BUCKET = Bucket(width=32, height=32, frames=5, batch=3)
RED, BLUE = list(COLOURS).index("red"), list(COLOURS).index("blue")


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    """Few-step weights of the tiny model that are not silent."""
    base = load_module(Transformer, tiny_model / "transformer")
    made = Adapter(AdapterConfig(rank=4, base=base.config))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    save_module(made, tmp_path / "few_steps", torch.float32)
    return tmp_path / "few_steps"


def config_of(base: Path, adapter: Path, **settings: object) -> RewardStage:
    asked: dict[str, object] = {
        "run": {"out": base / "run", "steps": 1, "device": "cpu", "precision": "fp32"},
        "optim": {"adamw": 0.01},
        "start_from": base,
        "autoencoder": base / "autoencoder",
        "adapter": adapter,
        "inspector": WEIGHTS,
        "buckets": [BUCKET.model_dump()],
        "step_counts": {"2": 1, "3": 1},
    }
    return RewardStage.model_validate(asked | settings)


def test_scenes_have_one_thing_in_plain_sight() -> None:
    mix = one_thing(load_mix("full"))
    for seed in range(60):
        scene = sample_scene(seed, mix)
        assert len(scene.bodies) == 1 and not scene.walls and not scene.bodies[0].motion.colour_to
    with pytest.raises(ConfigError, match="motions"):
        one_thing(SceneMix(motions={"hide": 1.0}))


def test_captions_name_what_is_judged_by(tiny_model: Path, adapter: Path) -> None:
    wishes = Wishes(config_of(tiny_model, adapter, mix="full", languages={"en": 1}))
    batch = wishes.batch(3)
    assert len(batch.captions) == len(batch.shapes) == 3 and batch.bucket == BUCKET
    reader, shapes, colours = LexiconReader(), [], []
    for asked in map(wishes.batch, range(20)):
        for caption, shape, colour in zip(asked.captions, asked.shapes, asked.colours, strict=True):
            told = reader.read(caption)
            shapes.append(told.get("shape", SHAPES[int(shape)]) == SHAPES[int(shape)])
            colours.append(told.get("colour") == list(COLOURS)[int(colour)])
    assert all(shapes) and all(colours)
    assert wishes.batch(3).captions == batch.captions != wishes.batch(4).captions


def _pictures(*bodies: Body, camera: Camera | None = None) -> Tensor:
    scene = Scene(1, bodies, Place("grass"), camera or Camera())
    frames = render(scene, 128, 128, 5, 12.0, threads=1).frames
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def _judge(pictures: Tensor, shape: str, colour: int = RED) -> Seen:
    names = torch.full((len(pictures),), SHAPES.index(shape)), torch.full((len(pictures),), colour)
    return judged(load_inspector(), pictures, *names, torch.Generator().manual_seed(0))


BALL = Body("sphere", "red", "matte", "large", (-0.8, 0.0))


def test_what_is_seen_is_what_is_rewarded() -> None:
    ball, cone = _pictures(BALL), _pictures(Body("cone", "red", "matte", "large", (-0.8, 0.0)))
    assert _judge(ball, "sphere").right == 1 and _judge(cone, "sphere").right == 0
    assert _judge(ball, "sphere").shape < 0.3 < 2 < _judge(cone, "sphere").shape
    assert _judge(ball, "sphere", RED).colour < 0.5 < 2 < _judge(ball, "sphere", BLUE).colour
    two = _pictures(BALL, Body("box", "red", "matte", "small", (1.2, 0.0)))
    assert _judge(ball, "sphere").alone < 0.05 < 0.15 < _judge(two, "sphere").alone
    assert _judge(ball, "sphere").there < 0.05


def test_what_is_cut_off_or_not_there_is_not_judged_by_its_shape() -> None:
    grey = torch.zeros(4, 3, 64, 64)
    nothing = _judge(grey, "torus")
    assert nothing.shape == nothing.colour == nothing.alone == 0 and nothing.there > 1 and math.isnan(nothing.right)
    near = _pictures(Body("box", "red", "matte", "huge", (0.0, 0.0)), camera=Camera(distance=1.5))
    part = _judge(near, "torus")
    assert part.shape == 0 and math.isnan(part.right) and part.colour > 0 and part.there < 0.05


def test_each_picture_is_judged_by_its_own_names() -> None:
    ball, cone = _pictures(BALL), _pictures(Body("cone", "blue", "matte", "large", (-0.8, 0.0)))
    names = [SHAPES.index("sphere")] * 5 + [SHAPES.index("cone")] * 5, [RED] * 5 + [BLUE] * 5
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        shapes, colours = (torch.tensor(each) for each in names)
        seen = judged(load_inspector(), torch.cat((ball, cone)), shapes, colours, generator)
        assert seen.right == 1 and seen.shape < 0.5 and seen.colour < 0.5


def test_it_begins_where_the_weights_are_and_stays_near(tiny_model: Path, adapter: Path) -> None:
    task = RewardTask(config_of(tiny_model, adapter))
    batch = next(task.batches(0))
    _, figures = task.loss(batch, torch.Generator().manual_seed(0))
    assert figures["near"] == 0 and task.size(batch) == 3
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.05)
    moved, figures = task.loss(batch, torch.Generator().manual_seed(0))
    assert figures["near"] > 0
    free = RewardTask(config_of(tiny_model, adapter, near=0.0))
    free.model.load_state_dict(task.model.state_dict())
    without, _ = free.loss(batch, torch.Generator().manual_seed(0))
    assert moved.item() == pytest.approx(without.item() + 2 * figures["near"], rel=1e-3)


def test_the_loss_is_what_it_says(tiny_model: Path, adapter: Path) -> None:
    weights = {"colour": 0.7, "there": 0.2, "alone": 0.4, "near": 3.0}
    task = RewardTask(config_of(tiny_model, adapter, anchored=0.0, **weights))
    before = {name: weight.clone() for name, weight in task.before.items()}
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.05)
    assert all(torch.equal(weight, before[name]) for name, weight in task.before.items())
    loss, figures = task.loss(next(task.batches(0)), torch.Generator().manual_seed(0))
    assert all(figures[name] > 0 for name in ("there", "near"))
    assert loss.item() == pytest.approx(figures["shape"] + sum(w * figures[name] for name, w in weights.items()))


def test_it_goes_in_as_many_steps_as_are_practised(
    tiny_model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = RewardTask(config_of(tiny_model, adapter, shift=3.0, step_counts={"1": 0, "2": 1, "4": 1}))
    batch, ways = next(task.batches(0)), []
    walk = task._walk

    def recorded(weights: dict, latents: Tensor, levels: list[float], highest: Tensor, text: tuple) -> Tensor:
        ways.append(levels)
        return walk(weights, latents, levels, highest, text)

    monkeypatch.setattr(task, "_walk", recorded)
    for seed in range(12):
        task.loss(batch, torch.Generator().manual_seed(seed))
    assert {len(way) for way in ways} == {3, 5}
    assert all(way == schedule(len(way) - 1, 3.0).tolist() for way in ways)


def test_each_video_is_judged_by_its_own_names(
    tiny_model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, given = RewardTask(config_of(tiny_model, adapter, pictures=2)), []
    monkeypatch.setattr("yozora.train.reward.judged", lambda *each: given.append(each))
    lengths = []

    def decode(latents: Tensor) -> Tensor:
        lengths.append(latents.shape[2])
        return latents[:, :1, :1, :1, :1].expand(-1, 3, 4 * latents.shape[2] - 3, 32, 32)

    monkeypatch.setattr(task.autoencoder, "decode", decode)
    latents = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 4, 6, 2, 2)
    batch = Asked(["a", "b", "c"], torch.tensor([3, 4, 5]), torch.tensor([6, 7, 8]), BUCKET)
    for seed in range(30):
        task._look(latents, batch, torch.tensor([True, False, True]), torch.Generator().manual_seed(seed))
    for _, pictures, shapes, colours, _ in given:
        assert pictures.shape == (4, 3, 32, 32) and pictures.mean((1, 2, 3)).tolist() == [0, 0, 2, 2]
        assert shapes.tolist() == [3, 3, 5, 5] and colours.tolist() == [6, 6, 8, 8]
    assert set(lengths) == {3, 4, 5, 6}


class Drawn(nn.Module):
    """In place of an inspector: sees what it was given, whatever the pictures are."""

    def __init__(self, thing: Tensor) -> None:
        super().__init__()
        self.config, self.thing = InspectorConfig(), thing

    def forward(self, frames: Tensor) -> Cells:
        thing = self.thing.expand(len(frames), -1, -1)
        return Cells(thing, torch.zeros(len(frames), len(COLOURS), *thing.shape[1:]))

    def shapes(self, frames: Tensor, _thing: Tensor, _boxes: Tensor) -> Tensor:
        return torch.zeros(len(frames), len(SHAPES))


def _look(thing: Tensor) -> Seen:
    names = torch.zeros(1, dtype=torch.int64)
    drawn: Any = Drawn(thing)
    return judged(drawn, torch.zeros(1, 3, 64, 64), names, names, torch.Generator().manual_seed(0))


def test_what_is_hardly_there_is_pulled_in_not_pushed_away() -> None:
    for size, logit in ((9, -1.0), (9, -2.0), (5, -0.5)):
        thing = torch.full((32, 32), -8.0)
        thing[10 : 10 + size, 10 : 10 + size] = logit
        thing.requires_grad_()
        seen = _look(thing)
        (0.1 * seen.there + 0.3 * seen.alone).backward()
        assert thing.grad is not None and thing.grad[10 : 10 + size, 10 : 10 + size].sum() < 0


def test_the_edge_of_a_thing_is_not_beside_it() -> None:
    thing = torch.full((32, 32), -20.0)
    thing[8:22, 8:22] = -0.5
    thing[10:20, 10:20] = 3.0
    assert _look(thing).alone < 1e-3
    thing[8:22, 24:28] = -0.5
    assert 0.15 < _look(thing).alone < 0.3


class Brightness(nn.Module):
    """In place of an inspector: sees a thing in the middle, whose shape it tells by how bright that is."""

    def __init__(self) -> None:
        super().__init__()
        self.config = InspectorConfig()

    def forward(self, frames: Tensor) -> Cells:
        count, height, width = len(frames), frames.shape[2] // 2, frames.shape[3] // 2
        thing = -torch.ones(count, height, width)
        thing[:, 4:-4, 4:-4] = 1
        return Cells(thing, torch.zeros(count, len(COLOURS), height, width))

    def shapes(self, frames: Tensor, _thing: Tensor, _boxes: Tensor) -> Tensor:
        light = frames[:, :, 8:-8, 8:-8].mean((1, 2, 3))
        return torch.stack([4 * light, *[torch.zeros_like(light)] * (len(SHAPES) - 1)], dim=1)


def test_few_steps_learn_what_is_rewarded(tiny_model: Path, adapter: Path) -> None:
    settings = {"near": 0.0, "alone": 0.0, "there": 0.0, "colour": 0.0, "step_counts": {"2": 1}}
    task = RewardTask(config_of(tiny_model, adapter, **settings))
    task.inspector = Brightness()  # pyright: ignore[reportAttributeAccessIssue]
    batch = Asked(["a red ball"] * 3, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), BUCKET)
    optimiser = torch.optim.Adam(task.model.parameters(), lr=0.02)
    losses = []
    for step in range(40):
        optimiser.zero_grad()
        loss, _ = task.loss(batch, torch.Generator().manual_seed(step % 4))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


def test_what_is_held_is_gone_on_with_as_before_and_not_judged(
    tiny_model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = RewardTask(config_of(tiny_model, adapter, anchored=1.0))
    batch = next(task.batches(0))
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(task._shape(batch), generator=torch.Generator().manual_seed(0))
    text = task.text(batch.captions)
    hold = torch.tensor([[1.0, 0.0]] * 3)
    with torch.no_grad():
        clean = task._walk(task.before, noise, [1.0, 0.6, 0.0], torch.ones(3, 2), text)
        again = task._walk(task.before, add_noise(clean, noise, 1 - hold), [1.0, 0.6, 0.0], 1 - hold, text)
        velocity = flow_map(load_module(Adapter, adapter).onto(task.teacher), text)
        levels = torch.tensor([1.0, 0.6, 0.0], dtype=torch.float64)
        *_, last = sample(velocity, noise, levels, known=clean, hold=hold, solver=FLOW_MAP)
    assert torch.equal(again[:, :, 0], clean[:, :, 0]) and not torch.equal(again, clean)
    torch.testing.assert_close(again, last.latents)  # as the sampler does it
    monkeypatch.setattr("yozora.train.reward.draw_hold", lambda *_: hold)
    _, figures = task.loss(batch, generator)
    assert figures == {"near": 0}
    monkeypatch.setattr("yozora.train.reward.draw_hold", lambda *_: torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    _, figures = task.loss(batch, generator)
    assert figures["near"] == pytest.approx(0, abs=1e-10) and figures["there"] > 0


@pytest.mark.parametrize("way", [0.25, 1.0])
def test_a_part_of_the_way_is_written(tiny_model: Path, adapter: Path, tmp_path: Path, way: float) -> None:
    task = RewardTask(config_of(tiny_model, adapter, way=way))
    before = {name: weight.clone() for name, weight in task.model.state_dict().items()}
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.add_(0.5)
    task.export(task.model, tmp_path)
    for name, weight in load_module(Adapter, tmp_path / "few_steps").float().state_dict().items():
        torch.testing.assert_close(weight, before[name] + 0.5 * way, atol=0.01, rtol=0.01)


def test_what_does_not_fit_is_refused(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    save_module(Inspector(InspectorConfig(shapes=("egg",))), tmp_path / "other", torch.float32)
    with pytest.raises(ConfigError, match="other shapes or colours"):
        RewardTask(config_of(tiny_model, adapter, inspector=tmp_path / "other"))
    base = load_module(Adapter, adapter).config.base
    other = Adapter(AdapterConfig(rank=2, base=type(base)(**{**vars(base), "depth": base.depth + 1})))
    save_module(other, tmp_path / "deeper", torch.float32)
    with pytest.raises(ModelError):
        RewardTask(config_of(tiny_model, tmp_path / "deeper"))
    with pytest.raises(ConfigError, match="motions"):
        RewardTask(config_of(tiny_model, adapter, mix={"motions": {"hide": 1}}))
    task = RewardTask(config_of(tiny_model, adapter))
    wide = Autoencoder(replace(task.autoencoder.config, channels=task.autoencoder.config.channels + 4))
    save_module(wide, tmp_path / "wide", torch.float32)
    with pytest.raises(ConfigError, match="other latents"):
        RewardTask(config_of(tiny_model, adapter, autoencoder=tmp_path / "wide"))
    with pytest.raises(ValueError, match="whole numbers above 0"):
        config_of(tiny_model, adapter, step_counts={"0": 1})
