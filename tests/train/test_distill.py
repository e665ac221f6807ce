"""Distillation to few steps: the paths that are practised, where the teacher leads, and that the student learns it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from yozora.diffusion import FLOW_MAP, flow_map, sample, schedule
from yozora.errors import ConfigError
from yozora.models.folder import save_module
from yozora.train import run
from yozora.train.config import DistillStage
from yozora.train.distill import DistillTask, Practice, follow
from yozora.train.lessons import Captioned

MEAN, SPREAD = 0.7, 0.4


def gaussian(latents: Tensor, levels: Tensor, _: Tensor) -> Tensor:
    """The exact velocity where pictures are normal with MEAN and SPREAD."""
    t = levels[:, None, :, None, None]
    variance = (1 - t) ** 2 * SPREAD**2 + t**2
    noise = t * (latents - (1 - t) * MEAN) / variance
    picture = MEAN + (1 - t) * SPREAD**2 * (latents - (1 - t) * MEAN) / variance
    return noise - picture


def map_of(latents: Tensor, levels: Tensor, reach: Tensor) -> Tensor:
    """The exact mean velocity on the way from `levels` to `reach`, for the same pictures."""
    t, s = (each.double()[:, None, :, None, None] for each in (levels, reach))
    scale = (((1 - s) ** 2 * SPREAD**2 + s**2) / ((1 - t) ** 2 * SPREAD**2 + t**2)).sqrt()
    there = (1 - s) * MEAN + scale * (latents - (1 - t) * MEAN)
    return torch.where(t > s, (latents - there) / (t - s).clamp_min(1e-12), 0.0).float()


def config_of(base: Path, **settings: object) -> DistillStage:
    asked: dict[str, object] = {
        "run": {"out": base / "run", "steps": 1, "device": "cpu", "precision": "fp32"},
        "optim": {"adamw": 0.01},
        "pool": base,
        "start_from": base,
        "autoencoder": base / "autoencoder",
        "buckets": [{"width": 32, "height": 32, "frames": 5, "batch": 1}],
        "anchored": 0.5,
        "step_counts": {"4": 1, "8": 1},
        "model": {"rank": 4},
    }
    return DistillStage.model_validate(asked | settings)


def test_an_exact_flow_map_needs_one_step_or_any_number() -> None:
    noise = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    for steps in (1, 3, 8):
        *_, last = sample(map_of, noise, schedule(steps, 2.0), solver=FLOW_MAP)
        torch.testing.assert_close(last.latents, MEAN + SPREAD * noise, atol=1e-4, rtol=0)
    known, hold = torch.zeros(1, 3, 2, 4, 4), torch.tensor([[1.0, 0.6]])
    *_, held = sample(map_of, noise, schedule(5), known=known, hold=hold, solver=FLOW_MAP)
    assert torch.equal(held.latents[:, :, 0], known.expand_as(noise)[:, :, 0])  # and frames that join on the way
    scale = SPREAD / math.sqrt(0.6**2 * SPREAD**2 + 0.4**2)
    expected = MEAN + scale * (0.4 * noise[:, :, 1] - 0.6 * MEAN)
    torch.testing.assert_close(held.latents[:, :, 1], expected, atol=1e-4, rtol=0)


def test_following_a_path_is_sampling_along_it() -> None:
    noise = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    times = schedule(6, 2.0)
    *_, last = sample(gaussian, noise, times)
    torch.testing.assert_close(follow(gaussian, noise, times[:, None, None].expand(-1, 2, 2)), last.latents)


def test_paths_are_steps_of_the_schedules_and_leave_held_frames(tiny_model: Path) -> None:
    task = DistillTask(config_of(tiny_model, substeps=2, shift=3.0))
    way, path, _ = task._draw(3000, 6, torch.Generator().manual_seed(0))
    assert way.shape == (1, 3000, 6) and torch.equal(way[0], path[0])
    assert path.shape == (3, 3000, 6) and path.dtype == torch.float64
    assert path.min() >= 0 and path.max() <= 1 and (path.diff(dim=0) <= 0).all()
    plain = (path[0] == path[0, :, :1]).all(1) & (path[2] == path[2, :, :1]).all(1)
    assert 0.45 < plain.float().mean() < 0.75
    steps = {(round(float(a), 6), round(float(b), 6)) for a, b in path[::2, plain, 0].T}
    allowed = {
        (round(float(a), 6), round(float(b), 6))
        for count in (4, 8)
        for a, b in zip(schedule(count, 3.0)[:-1], schedule(count, 3.0)[1:], strict=True)
    }
    firm = {(a, b) for a, b in steps if (a, b) in allowed}
    assert firm == allowed and len(steps - allowed) < 200  # the others are clips of which every frame is held a little
    assert (path[0] == 0).any() and (path[0].amax(1) > 0).all()


def test_own_ways_are_whole_steps_from_noise_to_where_the_teacher_begins(tiny_model: Path) -> None:
    task = DistillTask(config_of(tiny_model, own=1.0, anchored=0.0, shift=3.0))
    lengths = set()
    for seed in range(100):
        way, path, _ = task._draw(3, 2, torch.Generator().manual_seed(seed))
        assert torch.equal(way[-1], path[0]) and (way[0] == 1).all()
        grids = [schedule(count, 3.0) for count in (4, 8)]
        assert any(len(way) < len(grid) and torch.allclose(way[:, 0, 0], grid[: len(way)]) for grid in grids)
        lengths.add(len(way))
    assert lengths == set(range(1, 9))


def test_on_its_own_way_the_student_is_taught_from_where_its_steps_have_led(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = DistillTask(config_of(tiny_model, own=1.0, anchored=0.0, drop_prompt=0.0))
    levels = torch.tensor([1.0, 0.7, 0.5], dtype=torch.float64)[:, None, None].expand(-1, 1, 2)
    path = torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64)[:, None, None].expand(-1, 1, 2)
    monkeypatch.setattr(task, "_draw", lambda *_: Practice(levels, path, torch.zeros(2, 1)))
    latents, seen = torch.randn(1, 4, 2, 2, 2), []
    task.student.register_forward_hook(lambda _, given, __: seen.append(given[0].detach()))
    task.loss(Captioned(latents, ["a red ball"], None), torch.Generator().manual_seed(0))
    with torch.no_grad():
        velocity = flow_map(task.model.onto(task.teacher), task.text(["a red ball"]))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    *_, last = sample(velocity, noise, levels[:, 0, 0], solver=FLOW_MAP)
    torch.testing.assert_close(seen[-1], last.latents)


def test_an_adapter_goes_on_with_a_larger_rank(tiny_model: Path, tmp_path: Path) -> None:
    first = DistillTask(config_of(tiny_model)).model
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_(std=0.02)
    save_module(first, tmp_path / "few_steps", torch.float32)
    task = DistillTask(config_of(tiny_model, adapter=tmp_path / "few_steps", model={"rank": 6}))
    assert task.model.config.rank == 6 and all(p.requires_grad for p in task.model.parameters())
    for name, weight in first.changed(task.teacher).items():
        torch.testing.assert_close(task.model.changed(task.teacher)[name], weight)
    assert DistillTask(config_of(tiny_model, adapter=tmp_path / "few_steps", model={})).model.config.rank == 4
    with pytest.raises(ConfigError, match="rank: 2 is less"):
        DistillTask(config_of(tiny_model, adapter=tmp_path / "few_steps", model={"rank": 2}))


def test_the_student_learns_where_the_teacher_leads(tiny_model: Path) -> None:
    task = DistillTask(config_of(tiny_model))
    optimiser = torch.optim.Adam(task.model.parameters(), lr=0.02)
    latents = torch.randn(8, 4, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    batch = Captioned(latents, ["a red ball"] * 8, None)
    errors = []
    for step in range(60):
        loss, figures = task.loss(batch, torch.Generator().manual_seed(step % 4))
        errors.append(figures["relative"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(errors[-4:]) < 0.5 * sum(errors[:4])
    assert all(parameter.grad is None for parameter in task.teacher.parameters())


def test_a_student_is_not_asked_about_what_does_not_move(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a held frame's answer is, it counts for nothing; a moving one's does."""
    task = DistillTask(config_of(tiny_model))
    path = torch.tensor([1.0, 0.8, 0.6, 0.5], dtype=torch.float64)[:, None, None] * torch.tensor([1.0, 0.0])
    monkeypatch.setattr(task, "_draw", lambda *_: Practice(path[:1], path, torch.zeros(2, 1)))
    batch = Captioned(torch.randn(1, 4, 2, 2, 2), ["a red ball"], None)

    def loss_with(frame: int) -> float:
        def spoil(_: object, __: object, said: Tensor) -> Tensor:
            said = said.clone()
            said[:, :, frame] += 10
            return said

        handle = task.student.register_forward_hook(spoil)
        loss = task.loss(batch, torch.Generator().manual_seed(0))[0].item()
        handle.remove()
        return loss

    right = task.loss(batch, torch.Generator().manual_seed(0))[0].item()
    assert loss_with(1) == right and loss_with(0) > right + 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_counts": {"0": 1}}, "whole numbers above 0"),
        ({"step_counts": {"four": 1}}, "whole numbers above 0"),
        ({"layout": 0.3}, "only"),
        ({"substeps": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense(tiny_model: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(tiny_model, **settings)


def test_unknown_settings_of_the_adapter(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting model\.width"):
        DistillTask(config_of(tiny_model, model={"width": 3}))
    path = tmp_path / "distill.toml"
    path.write_text("[run]\nout='x'\nsteps=1\n[optim]\nadamw=1\n")
    with pytest.raises(ConfigError, match=r"start_from|pool"):
        run("distill", path)
