"""Recorded courses: that they are what sampling gives, what is kept of them, and that a student learns from them."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pytest
import torch

from yozora.diffusion import guided, sample, schedule
from yozora.errors import ConfigError
from yozora.train import run
from yozora.train.config import DistillStage
from yozora.train.courses import Recorded, batches, state_at
from yozora.train.distill import DistillTask


@pytest.fixture(scope="module")
def pool(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 5 frames of 32x32."""
    folder = tmp_path_factory.mktemp("pool")
    config = folder / "latents.toml"
    config.write_text(
        f'autoencoder = "{tiny_model}/autoencoder"\nmix = "simple"\n'
        "buckets = [{ width = 32, height = 32, frames = 5, clips = 6 }]\n"
        f'[run]\nout = "{folder}/latents"\nworkers = 0\ndevice = "cpu"\n'
    )
    return run("latents", config)


def config_of(base: Path, pool: Path, out: Path, **settings: object) -> DistillStage:
    asked: dict[str, object] = {
        "run": {"out": out, "steps": 8, "device": "cpu", "precision": "fp32", "workers": 0},
        "optim": {"adamw": 0.01},
        "pool": pool,
        "start_from": base,
        "autoencoder": base / "autoencoder",
        "buckets": [{"width": 32, "height": 32, "frames": 5, "batch": 4}],
        "anchored": 0.5,
        "guidance": 2.0,
        "shift": 2.0,
        "drop_prompt": 0.0,
        "step_counts": {"2": 1, "3": 1, "4": 1},
        "courses": {"clips": 8, "steps": 8, "share": 1.0},
        "model": {"rank": 8},
    }
    return DistillStage.model_validate(asked | settings)


def test_a_course_is_what_sampling_with_guidance_gives(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    task = DistillTask(config_of(tiny_model, pool, tmp_path))
    held = 0
    for batch in islice(task.batches(0), 8):
        assert isinstance(batch, Recorded) and batch.states.shape == (4, 9, 4, 2, 2, 2)
        text = task.text(batch.captions)
        velocity = guided(task.teacher, text, task.text([""]), 2.0)
        # what is held firmly does not move: its last state is what was known
        known, first = batch.states[:, -1], batch.states[:, 0]
        firm = batch.hold == 1
        held += int(firm.sum())
        for clip, frame in firm.nonzero():
            assert torch.equal(first[clip, :, frame], known[clip, :, frame])
        soft = ((batch.hold > 0) & ~firm).any(1)  # their noise cannot be told from the first state
        *_, last = sample(velocity, first, schedule(8, 2.0), known=known, hold=batch.hold.round())
        torch.testing.assert_close(last.latents[~soft], batch.states[~soft, -1], atol=5e-3, rtol=0)  # float16
    assert held


def test_states_between_the_recorded_ones() -> None:
    places = torch.linspace(0, 8, 9)
    curve = (places**2 / 3 - places)[None, :, None, None, None, None].expand(6, -1, 1, 1, 1, 1)
    at = torch.tensor([0.0, 2.0, 8.0, 3.2, 6.4, 5.5])
    torch.testing.assert_close(state_at(curve, at).flatten(), at**2 / 3 - at)
    line = places[None, :, None, None, None, None].expand(2, -1, 1, 1, 1, 1)
    ends = torch.tensor([0.3, 7.9])
    torch.testing.assert_close(state_at(line, ends).flatten(), ends)  # also where there is but one neighbour


def test_a_student_learns_the_courses(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = DistillTask(config_of(tiny_model, pool, tmp_path, own=0.3))
    optimiser = torch.optim.Adam(task.model.parameters(), lr=0.01)
    batch = next(iter(task.batches(0)))
    errors = []
    for step in range(80):
        loss, figures = task.loss(batch, torch.Generator().manual_seed(step % 8))
        errors.append(figures["relative"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert sum(errors[-8:]) < 0.5 * sum(errors[:8])


def test_lessons_are_the_same_for_the_same_step_and_some_are_of_the_pool(
    tiny_model: Path, pool: Path, tmp_path: Path
) -> None:
    config = config_of(tiny_model, pool, tmp_path, courses={"clips": 8, "steps": 8, "share": 0.5})
    folder = DistillTask(config).courses
    drawn, again = list(batches(config, folder, 0)), list(batches(config, folder, 4))
    kinds = {type(each).__name__ for each in drawn}
    assert kinds == {"Recorded", "Captioned"}
    for one, other in zip(drawn[4:], again, strict=True):
        assert one.captions == other.captions and torch.equal(one[0], other[0])


def test_courses_are_kept_and_not_mixed(
    tiny_model: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tiny_model, pool, tmp_path)
    DistillTask(config)
    folder = tmp_path / "courses"
    shards = sorted(folder.glob("*.safetensors"))
    before = [path.read_bytes() for path in shards]
    assert len(before) == 2 and "2/2" in capsys.readouterr().out
    shards[1].with_suffix(".jsonl").unlink()  # as a kill between both leaves it
    DistillTask(config)
    assert [path.read_bytes() for path in shards] == before
    assert "-00001  2/2" in capsys.readouterr().out
    DistillTask(config_of(tiny_model, pool, tmp_path, courses={"clips": 12, "steps": 8}))  # more of the same
    assert len(list(folder.glob("*.jsonl"))) == 3 and [path.read_bytes() for path in shards] == before
    with pytest.raises(ConfigError, match="recorded with other settings or weights"):
        DistillTask(config_of(tiny_model, pool, tmp_path, guidance=3.0))
    for part in ("transformer", "text_encoder"):
        other = tmp_path / part
        shutil.copytree(tiny_model, other)
        weights = next((other / part).glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
        with pytest.raises(ConfigError, match="recorded with other settings or weights"):
            DistillTask(config_of(tiny_model, pool, tmp_path, start_from=other))
    moved = tmp_path / "moved"
    shutil.copytree(pool, moved)
    DistillTask(config_of(tiny_model, moved, tmp_path, courses={"clips": 12, "steps": 8}))  # the same elsewhere
    said = json.loads((moved / "pool.json").read_text())
    (moved / "pool.json").write_text(json.dumps(said | {"mix": "full"}))
    with pytest.raises(ConfigError, match="recorded with other settings or weights"):
        DistillTask(config_of(tiny_model, moved, tmp_path))
    DistillTask(config, resume=False)  # the same again would be the same
    assert len(list(folder.glob("*.jsonl"))) == 3 and [path.read_bytes() for path in shards] == before
    manifest = (folder / "courses.json").read_text()
    for broken in (None, "{"):
        (folder / "courses.json").unlink() if broken is None else (folder / "courses.json").write_text(broken)
        with pytest.raises(ConfigError, match="recorded with other settings or weights"):
            DistillTask(config)
    (folder / "courses.json").write_text(manifest)
    DistillTask(config_of(tiny_model, pool, tmp_path, guidance=3.0), resume=False)
    assert json.loads((folder / "courses.json").read_text())["guidance"] == 3.0


def test_a_damaged_course_is_named(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    config = config_of(tiny_model, pool, tmp_path)
    task = DistillTask(config)
    for path in (tmp_path / "courses").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"32x32x5-0000. cannot be read .*; delete its files"):
        list(task.batches(0))


def test_courses_shorter_than_what_is_learned(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"courses.steps: no fewer than the most of step_counts"):
        config_of(tiny_model, pool, tmp_path, courses={"clips": 8, "steps": 3})


def test_what_is_learned_of_a_course(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where on it, at which levels, over which step, and where to: by hand, for a step of a course of straight
    ways, in which every frame goes at its own pace."""
    task = DistillTask(config_of(tiny_model, pool, tmp_path, step_counts={"4": 1}))
    first, last = torch.randn(2, 1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    places = torch.linspace(0, 1, 9)[None, :, None, None, None, None]
    states, hold = torch.lerp(first[:, None], last[:, None], places), torch.tensor([[0.0, 0.5]])
    said: list[tuple[torch.Tensor, ...]] = []
    task.student.register_forward_hook(lambda _, given, out: said.append((given[0], given[1], given[4], out.detach())))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.full((1,), 0.3))  # the second of four steps
    loss, _ = task.loss(Recorded(states, hold, ["a red ball"]), torch.Generator().manual_seed(0))
    (begin, levels, spans, mean), grid = said[0], schedule(4, 2.0).float()
    torch.testing.assert_close(begin, states[:, 2])
    wanted = torch.stack((grid[1], grid[1].clamp(max=0.5)))[None], torch.stack((grid[2], grid[2].clamp(max=0.5)))[None]
    torch.testing.assert_close(levels, wanted[0])
    torch.testing.assert_close(spans, wanted[0] - wanted[1])
    moves = spans > 0
    target = (states[:, 2] - states[:, 4]) / spans.clamp_min(1e-6)[:, None, :, None, None]
    error = ((mean - target) ** 2).mean((1, 3, 4))[moves].mean()
    torch.testing.assert_close(loss.detach(), error)


def test_back_onto_a_course_counts_by_how_far_that_is(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = DistillTask(config_of(tiny_model, pool, tmp_path, own=1.0, step_counts={"4": 1}))
    states = torch.randn(1, 9, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    said: list[tuple[torch.Tensor, ...]] = []
    task.student.register_forward_hook(lambda _, given, out: said.append((given[0], given[4], out.detach())))
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.full((1,), 0.3))
    hold = torch.tensor([[0.0, 0.2]])
    loss, _ = task.loss(Recorded(states, hold, ["a red ball"]), torch.Generator().manual_seed(0))
    assert len(said) == 2 and torch.equal(
        said[0][0], states[:, 0]
    )  # alone over the first step, and then what it learns
    begin, spans, mean = said[1]
    target = (begin - states[:, 4]) / spans[:, None, :, None, None]
    error, far = ((mean - target) ** 2).mean((1, 3, 4)), (4 * spans) ** 2
    torch.testing.assert_close(loss.detach(), (error * far).sum() / far.sum())
