"""Every stage, end to end, at a tiny size: from nothing to a folder that generates."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import yozora
from yozora.errors import ConfigError
from yozora.evaluate.inspector import WEIGHTS as INSPECTOR
from yozora.models.autoencoder import Autoencoder
from yozora.models.folder import load_module, save_module
from yozora.train import STAGES, run
from yozora.train.autoencoder import change, near
from yozora.train.config import Bucket, TransformerStage
from yozora.train.data import LatentPool, RenderedClips, stream
from yozora.train.flow import draw_levels
from yozora.train.reward import RewardStage
from yozora.train.settings import read_config

ROOT = Path(__file__).parents[2]
BUCKET = "buckets = [{ width = 32, height = 32, frames = 5, batch = 2 }]"
OPTIM = "[optim]\nadamw = 1e-3\nmuon = 0.01\nwarmup = 1\n"
CONFIGS = {
    "autoencoder": f"""
        [run]\nout = "{{out}}/autoencoder"\nsteps = 3\nworkers = 0\nsample_every = 3\ndevice = "cpu"
        {OPTIM}
        [world]\nmix = "simple"\n{BUCKET}
        [model]\nchannels = 4\nencoder_widths = [8, 8, 8]\nencoder_depths = [1, 1, 1]
        decoder_widths = [8, 8, 8]\ndecoder_depths = [1, 1, 1]""",
    "text": f"""
        mix = "simple"\nbatch = 4\nvocabulary = 300
        [run]\nout = "{{out}}/text"\nsteps = 2\nworkers = 0\nsample_every = 2\ndevice = "cpu"
        {OPTIM}
        [model]\nwidth = 16\ndepth = 1\nheads = 2""",
    "latents": """
        autoencoder = "{out}/autoencoder/export"\nmix = "simple"\nshard = 3
        buckets = [{{ width = 32, height = 32, frames = 5, clips = 5 }}]
        [run]\nout = "{out}/latents"\nworkers = 1\ndevice = "cpu" """,
    "transformer": f"""
        layout = 0.5
        pool = "{{out}}/latents"\nautoencoder = "{{out}}/autoencoder/export"\ntext_encoder = "{{out}}/text/export"
        buckets = [
            {{{{ width = 32, height = 32, frames = 5, batch = 2 }}}},
            {{{{ width = 32, height = 32, frames = 1, batch = 2 }}}},
        ]
        [run]\nout = "{{out}}/transformer"\nsteps = 4\nworkers = 1\nsample_every = 4\ndevice = "cpu"
        {OPTIM}
        [model]\nwidth = 24\ndepth = 1\nheads = 2\nabsolute = true""",
    "distill": """
        start_from = "{out}/transformer/export"\npool = "{out}/latents"\nautoencoder = "{out}/autoencoder/export"
        things = 1\nstep_counts = {{ 2 = 1 }}\nsubsteps = 2
        buckets = [{{ width = 32, height = 32, frames = 5, batch = 2 }}]
        [run]\nout = "{out}/distill"\nsteps = 2\nworkers = 0\nsample_every = 2\ndevice = "cpu"
        [optim]\nadamw = 1e-3\nwarmup = 1
        [model]\nrank = 2""",
    "reward": f"""
        start_from = "{{out}}/transformer/export"\nautoencoder = "{{out}}/autoencoder/export"
        adapter = "{{out}}/distill/export/few_steps"\ninspector = "{INSPECTOR}"\nstep_counts = {{{{ 2 = 1 }}}}
        buckets = [{{{{ width = 32, height = 32, frames = 5, batch = 2 }}}}]
        [run]\nout = "{{out}}/reward"\nsteps = 2\nworkers = 0\nsample_every = 2\ndevice = "cpu"
        [optim]\nadamw = 1e-3\nwarmup = 1""",
    "bundle": """
        out = "{out}/bundle"\ntransformer = "{out}/transformer/export"\nautoencoder = "{out}/autoencoder/export"
        few_steps = "{out}/reward/export"
        [card]\nname = "tiny"\ndescription = "a test"\nfps = 12\nsizes = [[32, 32]]\nframes_min = 1\nframes_max = 5
        steps = 3\nguidance = 2\nshift = 1\nfew_steps = 2""",
}


def write(stage: str, out: Path) -> Path:
    text = "\n".join(
        line.strip()
        for line in CONFIGS[stage]
        .replace(BUCKET, BUCKET.replace("{", "{{").replace("}", "}}"))
        .format(out=out)
        .splitlines()
    )
    path = out / f"{stage}.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    for stage in CONFIGS:
        run(stage, write(stage, out))
    return out


def test_the_stages_make_a_model_that_generates(trained: Path) -> None:
    generator = yozora.load(trained / "bundle", device="cpu")
    for solver, steps in (("multistep", 3), ("flow-map", 2)):
        clip = generator.generate("a red ball bounces", seed=1, solver=solver)
        assert clip.frames.shape == (5, 32, 32, 3)
        assert clip.recipe is not None and clip.recipe.steps == steps
    for stage in ("autoencoder", "text", "transformer", "distill", "reward"):
        assert list((trained / stage / "samples").iterdir()), stage


def test_every_shipped_configuration_is_valid() -> None:
    from yozora.train import config as configs

    folders = [ROOT / "configs" / name for name in ("mini", "mini-gpu")]
    for folder in folders:
        for stage in ("autoencoder", "text", "latents", "transformer", "bundle"):
            read_config(getattr(configs, STAGES[stage][2]), folder / f"{stage}.toml")
    for name in ("pictures", "fine"):
        read_config(TransformerStage, ROOT / "configs" / "mini" / f"{name}.toml")
    read_config(configs.DistillStage, ROOT / "configs" / "mini" / "few_steps.toml")
    read_config(RewardStage, ROOT / "configs" / "mini" / "reward.toml")
    read_config(configs.InspectorStage, ROOT / "configs" / "mini" / "reward_inspector.toml")
    read_config(configs.AutoencoderStage, ROOT / "configs" / "mini" / "decoder.toml")


def test_a_decoder_that_goes_on_alone_leaves_the_latents_as_they_are(trained: Path, tmp_path: Path) -> None:
    start = trained / "autoencoder" / "export"
    run(
        "autoencoder",
        trained / "autoencoder.toml",
        [f'run.out="{tmp_path}"', f'start_from="{start}"', "decoder_only=true"],
    )
    before, after = load_module(Autoencoder, start), load_module(Autoencoder, tmp_path / "export")
    frames = torch.rand(1, 3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents = before.encode(frames)
        assert torch.equal(after.encode(frames), latents)
        assert not torch.equal(after.decode(latents), before.decode(latents))
    with pytest.raises(ConfigError, match="decoder_only needs start_from"):
        run("autoencoder", trained / "autoencoder.toml", ["decoder_only=true"])


def test_a_pool_keeps_its_shards_and_knows_its_scenes(trained: Path) -> None:
    pool = trained / "latents"
    shards = {path: path.stat().st_mtime_ns for path in pool.glob("*.safetensors")}
    assert len(shards) == 2
    run("latents", trained / "latents.toml")
    assert shards == {path: path.stat().st_mtime_ns for path in pool.glob("*.safetensors")}
    bucket = Bucket(width=32, height=32, frames=5, batch=1)
    clip = LatentPool(pool).draw(bucket, np.random.default_rng(0))
    assert clip.latents.shape == (4, 2, 2, 2)
    assert clip.bodies is not None and clip.bodies.shape == (2, 4, 4)
    assert clip.scene is not None and clip.scene.bodies


def test_a_pool_draws_all_its_clips_equally_whatever_their_length(trained: Path, tmp_path: Path) -> None:
    buckets = "buckets=[{width=32, height=32, frames=1, clips=6}, {width=32, height=32, frames=5, clips=2}]"
    run("latents", trained / "latents.toml", [f'run.out="{tmp_path}/pool"', buckets, "run.workers=0"])
    pool, random = LatentPool(tmp_path / "pool"), np.random.default_rng(0)
    still, moving = (Bucket(width=32, height=32, frames=frames, batch=1) for frames in (1, 5))
    drawn = [pool.draw(still, random) for _ in range(400)]
    assert {clip.latents.shape for clip in drawn} == {(4, 1, 2, 2)}
    counts = Counter(clip.scene.seed for clip in drawn if clip.scene)
    assert len(counts) == 8 and min(counts.values()) > 20
    assert {pool.draw(moving, random).latents.shape for _ in range(20)} == {(4, 2, 2, 2)}


def test_a_pool_of_other_settings_is_not_gone_on_with(trained: Path, tmp_path: Path) -> None:
    config, out = trained / "latents.toml", f'run.out="{tmp_path}/pool"'
    small = [out, "buckets=[{width=32, height=32, frames=5, clips=1}]"]
    run("latents", config, small)
    before = next((tmp_path / "pool").glob("*.safetensors")).read_bytes()
    other = load_module(Autoencoder, trained / "autoencoder" / "export")
    other.decoder.head.bias.data += 1  # type: ignore[union-attr]
    save_module(other, tmp_path / "other")
    for setting in ("run.seed=99", "fps=24", 'mix="full"', f'autoencoder="{tmp_path}/other"'):
        with pytest.raises(ConfigError, match="other settings"):
            run("latents", config, [*small, setting])
    run("latents", config, [*small, "run.seed=99"], resume=False)
    assert next((tmp_path / "pool").glob("*.safetensors")).read_bytes() != before


def test_latents_are_those_of_the_scene(trained: Path) -> None:
    from yozora.train.data import clip_tensor, to_signed
    from yozora.train.latents import clip_start

    bucket = Bucket(width=32, height=32, frames=5, batch=1)
    latents, scene, *_ = LatentPool(trained / "latents").draw(bucket, np.random.default_rng(3))
    assert scene is not None
    autoencoder = load_module(Autoencoder, trained / "autoencoder" / "export")
    start = clip_start(scene, 5, 12.0)
    assert 0 < start < scene.duration - 5 / 12
    frames = to_signed(clip_tensor(scene, bucket, 12.0, start))[None]
    with torch.no_grad():
        expected = autoencoder.encode(frames)[0]
    torch.testing.assert_close(latents.float(), expected, atol=0.05, rtol=0.05)


def test_a_pool_that_is_not_there(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ConfigError, match="no latents in"):
        LatentPool(tmp_path)
    bucket = Bucket(width=64, height=32, frames=5, batch=1)
    with pytest.raises(ConfigError, match="no clips of 64x32"):
        LatentPool(trained / "latents").draw(bucket, np.random.default_rng(0))


def test_a_damaged_shard_is_named(tmp_path: Path, trained: Path) -> None:
    for path in (trained / "latents").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match="safetensors cannot be read"):
        LatentPool(tmp_path).draw(Bucket(width=32, height=32, frames=5, batch=1), np.random.default_rng(0))


def test_batches_depend_on_the_step_alone() -> None:
    from yozora.train.config import World

    world = World.model_validate({"mix": "simple", "buckets": [{"width": 32, "height": 32, "frames": 5, "batch": 2}]})
    source = RenderedClips(world, seed=5)
    alone = [source.batch(step) for step in (2, 3)]
    for workers in (0, 2):
        for batch, expected in zip(stream(source, 2, 4, workers), alone, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))


def test_levels_follow_the_sampler_s_rule() -> None:
    config = TransformerStage.model_validate(
        {
            "run": {"out": "x", "steps": 1},
            "optim": {"adamw": 1},
            "pool": "x",
            "text_encoder": "x",
            "autoencoder": "x",
            "buckets": [{"width": 32, "height": 32, "frames": 5, "batch": 1}],
            "anchored": 0.5,
        }
    )
    levels = draw_levels(4000, 6, config, torch.Generator().manual_seed(0))
    assert levels.shape == (4000, 6)
    assert levels.min() >= 0 and levels.max() <= 1
    plain = (levels == levels[:, :1]).all(1)
    assert 0.4 < plain.float().mean() < 0.65  # a hold that is too weak to show leaves a clip plain
    anchored = levels[~plain]
    assert (anchored.amax(1) > 0).all()
    assert (anchored == 0).any(1).float().mean() > 0.7
    assert (anchored[:, 0] < anchored[:, -1]).float().mean() > 0.5  # the first frame is the usual anchor
    ends = (anchored[:, 0] == 0) & (anchored[:, -1] == 0)
    assert 0.08 < ends.float().mean() < 0.3 and (anchored[ends].amax(1) > 0).all()  # loops and blends hold both ends
    assert draw_levels(3, 1, config, torch.Generator()).shape == (3, 1)


def test_the_command_line_trains(tmp_path: Path) -> None:
    path = write("autoencoder", tmp_path)
    command = [sys.executable, "-m", "yozora", "train", "autoencoder", str(path), "--set", "run.steps=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "autoencoder" / "export" / "config.json").read_text())["class"] == "Autoencoder"
    command[-1] = "run.steps=none"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stage", "override", "message"),
    [
        ("autoencoder", "model.depth=3", "unknown setting model.depth"),
        ("autoencoder", "model.channels='many'", "model.channels"),
        ("transformer", "model.heads=5", "width 24 over 5 heads"),
        ("bundle", "card.colour='red'", "unknown setting card.colour"),
        ("bundle", "card.fps=0", "must be positive"),
        ("latents", "mix='dreams'", "unknown mix"),
        ("latents", "run.device='tpu9'", "cannot be used"),
        ("autoencoder", "model.channels=-1", "between 1 and"),
        ("autoencoder", "model.channels=3", "multiple"),
        ("autoencoder", "model.encoder_widths=[1,2,3]", "multiple"),
        ("autoencoder", "run.seed=-1", "run.seed"),
        ("autoencoder", "run.out='/proc/none'", "cannot make the folder"),
        ("autoencoder", f"run.out='{__file__}'", "cannot make the folder"),
        ("autoencoder", "optim.adamw=1e30", "optim.adamw"),
        ("autoencoder", "world.fps=1e9", "world.fps"),
        ("autoencoder", "world.buckets=[{width=30, height=32, frames=5, batch=1}]", "multiple of 32"),
        ("autoencoder", "world.buckets=[{width=32, height=32, frames=4, batch=1}]", "1, 5, 9"),
        ("transformer", "languages={}", "one above 0"),
        ("transformer", "languages={en=0}", "one above 0"),
        ("transformer", "languages={en=-1, de=2}", "one above 0"),
        ("transformer", "run.out='/proc/none'", "cannot make the folder"),
    ],
)
def test_settings_that_no_network_takes(trained: Path, stage: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        elsewhere = f'{"out" if stage == "bundle" else "run.out"}="{trained}/no"'
        run(stage, trained / f"{stage}.toml", [elsewhere, override])
    assert "\n" not in str(caught.value)


def test_a_transformer_that_goes_on_keeps_its_heads_and_says_what_else_changed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "transformer", tmp_path / "transformer")
    file, free = (
        write("transformer", trained),
        [f'run.out="{tmp_path / "transformer"}"', "run.steps=5", "run.workers=0"],
    )
    with pytest.raises(ConfigError, match=r"transformer\.heads is 2 in the checkpoint and 1 here"):
        run("transformer", file, [*free, "model.heads=1"])
    capsys.readouterr()
    run("transformer", file, [*free, "anchored=0.25", "run.seed=3"])
    assert "what was learned by other settings (anchored, run.seed) stays" in capsys.readouterr().out


def test_unknown_stage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown stage"):
        run("dreaming", tmp_path / "x.toml")


def test_what_moves_too_little_and_errors_where_a_body_is_count() -> None:
    still, moving = torch.zeros(1, 3, 3, 16, 16), torch.zeros(1, 3, 3, 16, 16)
    moving[:, :, 1, :8, :8] = 0.5
    expected = torch.zeros(1, 2, 2, 2)
    expected[..., 0, 0] = 0.5
    assert torch.equal(change(moving) - change(still), expected)
    bodies = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    bodies[..., 2, 2] = True
    weight = near(bodies)
    assert weight.shape == (1, 1, 1, 32, 32)
    assert weight[..., 4:16, 4:16].all() and weight.sum() == 12 * 12  # its cell and those next to it


def test_clips_come_with_where_their_bodies_are() -> None:
    from yozora.train.config import World

    world = World.model_validate({"mix": "simple", "buckets": [{"width": 64, "height": 32, "frames": 5, "batch": 8}]})
    frames, bodies = RenderedClips(world, seed=5).batch(0)
    assert frames.shape == (8, 3, 5, 32, 64) and bodies.shape == (8, 5, 8, 16) and bodies.dtype == torch.bool
    assert 0 < bodies.float().mean() < 0.5
