"""`yozora train captioner` at a tiny size: its three networks, in a folder that `yozora caption` takes."""

from pathlib import Path

import pytest

from yozora import train
from yozora.captions import learning, load_captioner
from yozora.captions.seeing import see
from yozora.captions.world import WorldCaptioner
from yozora.cli.train import EVERY as STAGES
from yozora.clip import Clip
from yozora.errors import ConfigError, ModelError
from yozora.evaluate.weighing import load_eyes
from yozora.train import run
from yozora.train.config import CaptionerStage
from yozora.train.settings import read_config
from yozora.world import render, sample_scene

ROOT = Path(__file__).parents[2]
RUN = '[run]\nout = "elsewhere"\nsteps = 2\nworkers = 0\n[optim]\nadamw = 1e-3\nwarmup = 1'
WORLD = 'mix = "simple"\nfps = 2\nbuckets = [{ width = 32, height = 32, frames = FRAMES, batch = 3 }]'


def _write(folder: Path) -> Path:
    one, five = WORLD.replace("FRAMES", "1"), WORLD.replace("FRAMES", "5")
    small = "[model]\nwidths = [4, 4]\nshape_widths = [4, 4]"
    (folder / "inspector.toml").write_text(f"{RUN}\n[world]\n{one}\n{small}")
    small = "[model]\nframes = 5\nside = 24\nwidths = [4, 6, 8]\nsurface_widths = [4, 6]"
    reader = f'inspector = "nowhere"\nfilmed = 2\n{RUN}\n[world]\n{five}\n[closeups]\n{one}\n{small}'
    (folder / "reader.toml").write_text(reader)
    small = "[model]\nmembers = 2\ntrack = 4\nthing = 4\nwidth = 8"
    weigher = f'inspector = "nowhere"\nreader = "nowhere"\nfilmed = 2\nbatch = 4\n{RUN}\n[world]\n{five}\n{small}'
    (folder / "weigher.toml").write_text(weigher)
    stage = folder / "captioner.toml"
    files = "".join(f'{name} = "{folder / name}.toml"\n' for name in ("inspector", "reader", "weigher"))
    stage.write_text(f'out = "{folder}/out"\ndevice = "cpu"\n{files}[changes]\nreader = ["run.steps=3"]')
    return stage


def test_both_networks_are_trained_and_read_with(tmp_path: Path) -> None:
    export = run("captioner", _write(tmp_path), stages=STAGES)
    assert export == tmp_path / "out" / "export"
    eyes = load_eyes(export)
    assert eyes.inspector.config.widths == (4, 4) and eyes.reader.config.frames == 5 and len(eyes.weigher.members) == 2
    captioner = load_captioner(str(export))
    assert isinstance(captioner, WorldCaptioner) and captioner.eyes is not None
    clip = Clip(render(sample_scene(1), 32, 32, 5, 4, threads=1).frames, 4)
    assert see(clip, eyes) == see(clip, captioner.eyes)
    assert run("captioner", tmp_path / "captioner.toml", stages=STAGES) == export  # what is done is not done again


def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    for name in ("weigher", "reader", "inspector"):
        stage = _write(tmp_path)
        (tmp_path / f"{name}.toml").write_text("filmed = 2")
        with pytest.raises(ConfigError, match=rf"{name}\.toml"):
            run("captioner", stage, stages=STAGES)
        assert not (tmp_path / "out").exists()
    with pytest.raises(ModelError, match="no language model in"):
        load_captioner(str(tmp_path))


def test_in_python_the_stages_of_captions_are_run_by_captions(tmp_path: Path) -> None:
    assert {**train.STAGES, **learning.STAGES} == STAGES  # the command line's, which names them without importing torch
    stage = _write(tmp_path)
    for name in ("captioner", "weigher"):
        with pytest.raises(ConfigError, match=rf"call yozora\.captions\.learning\.run\('{name}', CONFIG\)"):
            run(name, stage)
    with pytest.raises(ConfigError, match="unknown stage 'reader'; there are: weigher, captioner"):
        learning.run("reader", tmp_path / "reader.toml")
    for name in ("inspector", "reader"):
        made = run(
            name,
            tmp_path / f"{name}.toml",
            [f'run.out="{tmp_path}/{name}"', f'inspector="{tmp_path}/inspector/export"'][: 1 + (name == "reader")],
        )
        assert made == tmp_path / name / "export"
    eyes = [f'{name}="{tmp_path}/{name}/export"' for name in ("inspector", "reader")]
    assert learning.run("weigher", tmp_path / "weigher.toml", [f'run.out="{tmp_path}/weigher"', *eyes]).is_dir()


def test_the_shipped_configuration_names_files_that_are_there() -> None:
    config = read_config(CaptionerStage, ROOT / "configs" / "captioner.toml")
    assert all((ROOT / path).is_file() for path in (config.inspector, config.reader, config.weigher))
