"""Several processes learn what one learns: the same losses, whatever the number, and go on from one another's
checkpoints. Each test starts real ones, by torchrun over gloo."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torchrun import ROOT, figures, losses, torchrun

from yozora.errors import ConfigError
from yozora.models.folder import load_module
from yozora.models.transformer import Transformer
from yozora.train import run
from yozora.train.config import LatentsStage
from yozora.train.finetune import train_lora
from yozora.train.latents import build_pool
from yozora.train.mesh import meet

STEPS = 20
SETTINGS = """
pool = "{folder}/pool"
start_from = "{model}"
autoencoder = "{model}/autoencoder"
packed = 40
packs = 4
things = 1
model = {{ depth = 2 }}
[run]
out = "{folder}/alone"
steps = {steps}
device = "cpu"
precision = "fp32"
workers = 0
log_every = 1
[optim]
adamw = 0.003
muon = 0.01
warmup = 5
decay = 0
"""
SIZES = ((64, 64, 9), (96, 64, 5), (32, 64, 1), (64, 32, 9))


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings, and a pool of clips of several sizes and lengths."""
    folder = tmp_path_factory.mktemp("parallel")
    stage = {
        "autoencoder": tiny_model / "autoencoder",
        "mix": "simple",
        "buckets": [{"width": w, "height": h, "frames": f, "clips": 4} for w, h, f in SIZES],
        "run": {"out": folder / "pool", "device": "cpu", "precision": "fp32", "workers": 0},
    }
    build_pool(LatentsStage.model_validate(stage))
    (folder / "run.toml").write_text(SETTINGS.format(folder=folder, model=tiny_model, steps=STEPS))
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[int, float]:
    """What one process learns, some steps longer."""
    run("transformer", folder / "run.toml", [f"run.steps={STEPS + 5}"])
    return losses(folder / "alone")


def together(processes: int, folder: Path, out: Path, *settings: str) -> dict[int, float]:
    """The losses of a run of several processes."""
    changed = [part for setting in (f"run.out={out}", *settings) for part in ("--set", setting)]
    done = torchrun(processes, "-m", "yozora", "train", "transformer", str(folder / "run.toml"), *changed)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("transformer: written to") == 1  # one speaks for all
    return losses(out)


def check(told: dict[int, float], alone: dict[int, float], steps: range) -> None:
    assert set(steps) <= set(told)
    for step in steps:
        assert told[step] == pytest.approx(alone[step], abs=1e-4), step
    assert abs(alone[steps[0]] - alone[steps[-1]]) > 1e-3  # there was something to get wrong


@pytest.mark.parametrize("context", [1, 2])
def test_two_processes_learn_what_one_does(context: int, folder: Path, alone: dict[int, float], tmp_path: Path) -> None:
    """As two shares of the data, sharded; and on the same clips, of which each has half of the tokens. The former work
    out their blocks twice, which changes nothing."""
    told = together(
        2, folder, tmp_path, f"parallel.context={context}", f"parallel.checkpointing={['full', 'none'][context - 1]}"
    )
    check(told, alone, range(1, STEPS + 1))


def test_batches_of_one_size_are_shared_too(folder: Path, tmp_path: Path) -> None:
    """With the second task beside the flow, and a batch that does not divide evenly."""
    buckets = "buckets=[{width=64,height=64,frames=9,batch=3},{width=32,height=64,frames=1,batch=2}]"
    settings = (buckets, "packed=0", "packs=1", "layout=0.5", "run.steps=8", "model={depth=2}")
    run("transformer", folder / "run.toml", [f'run.out="{tmp_path / "one"}"', *settings])
    told = together(2, folder, tmp_path / "two", *settings)
    check(told, losses(tmp_path / "one"), range(1, 9))
    one, two = (figures(tmp_path / name, "gradient_norm") for name in ("one", "two"))
    assert len(one) == 8  # AdamW learns the same from gradients that are all too small, so that no loss shows them
    assert two == pytest.approx(one, rel=1e-3)


def test_four_processes_learn_what_one_does_and_two_or_one_go_on(
    folder: Path, alone: dict[int, float], tmp_path: Path
) -> None:
    four = tmp_path / "four"
    check(together(4, folder, four, "parallel.context=2"), alone, range(1, STEPS + 1))
    exported = load_module(Transformer, four / "export" / "transformer")
    assert all(torch.isfinite(parameter).all() for parameter in exported.parameters())
    more = range(STEPS + 1, STEPS + 6)
    for number in (1, 2):
        out = tmp_path / f"by {number}"
        shutil.copytree(four / "checkpoints", out / "checkpoints")
        if number == 1:
            run("transformer", folder / "run.toml", [f'run.out="{out}"', f"run.steps={more.stop - 1}"])
            told = losses(out)
        else:
            told = together(2, folder, out, f"run.steps={more.stop - 1}")
        assert min(told) == STEPS + 1
        check(told, alone, more)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from yozora.train import run
from yozora.train.transformer import TransformerTask

settings, out, mark = sys.argv[1], sys.argv[2], Path(sys.argv[3])
write, loss = FileSystemWriter.write_data, TransformerTask.loss

def die(self, plan, planner):
    if os.environ["RANK"] == "1" and not mark.exists() and list(Path(out, "checkpoints").glob("step-*[0-9]")):
        mark.write_text(str(self.path))
        os.kill(os.getpid(), signal.SIGKILL)  # the other process has written its part, or is about to
    return write(self, plan, planner)

def slowly(self, batch, generator):
    time.sleep(0.06)  # so that there is time for some checkpoints
    return loss(self, batch, generator)

FileSystemWriter.write_data, TransformerTask.loss = die, slowly
more = ["run.steps=50", "run.checkpoint_seconds=1", "packs=2"]
run("transformer", Path(settings), [f"run.out={out}", *more], resume=False)
"""


def test_a_process_that_is_killed_while_it_saves_costs_what_came_after_the_checkpoint_before(
    folder: Path, tmp_path: Path
) -> None:
    """And torchrun starts all of them again, which go on from there, also where they had begun anew."""
    script, mark, out = tmp_path / "killed.py", tmp_path / "mark", tmp_path / "run"
    script.write_text(KILLED)
    run("transformer", folder / "run.toml", [f"run.out={out}", "run.steps=60", "packs=2"])  # another, which is given up
    done = torchrun(2, str(script), str(folder / "run.toml"), str(out), str(mark), restarts=1)
    assert done.returncode == 0, done.stdout
    partial = Path(mark.read_text())
    assert partial.suffix == ".partial" and not partial.exists()
    begun = int(done.stdout.split("resumed from step ")[1].split()[0])
    assert 0 < begun < int(partial.stem.removeprefix("step-"))
    assert sorted(losses(out)) == list(range(1, 51))
    assert not list(out.glob("checkpoints/*.partial"))


def test_what_cannot_be_shared_is_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    refused = {
        ("packs=3",): "packs = 3 cannot be shared by 2",
        ("parallel.context=3",): "parallel.context = 3 needs a multiple of 3 processes, not 2",
    }
    for settings, message in refused.items():
        changed = [part for setting in (f"run.out={tmp_path}", *settings) for part in ("--set", setting)]
        done = torchrun(2, "-m", "yozora", "train", "transformer", str(folder / "run.toml"), *changed)
        assert done.returncode != 0
        assert done.stdout.count(f"error: {message}") == 1, done.stdout  # and not once by each
        assert "Traceback" not in done.stdout.split("error: ")[0]
    with pytest.raises(ConfigError, match="needs a multiple of 2 processes, not 1"), meet(2, "cpu"):
        pass


UNLIKE = """
import os, sys
from pathlib import Path
from yozora.errors import ConfigError
from yozora.train import run

own = sys.argv[3:] if os.environ["RANK"] == "1" else []
try:
    run("transformer", Path(sys.argv[1]), [f"run.out={sys.argv[2]}", "packs=2", *own])
except ConfigError as error:
    sys.exit(f"error: {error}")
"""


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (("run.seed=4", "run.steps=4", "optim.adamw=0.1"), "(optim.adamw, run.seed, run.steps)"),
        (("parallel.context=2",), "(run.device, parallel.context), or only some have GPUs"),
    ],
)
def test_processes_that_were_given_different_settings_do_not_begin(
    folder: Path, tmp_path: Path, own: tuple[str, ...], told: str
) -> None:
    """As where a second machine has another file: they would each do another run's work, or wait for one another."""
    (tmp_path / "unlike.py").write_text(UNLIKE)
    done = torchrun(2, str(tmp_path / "unlike.py"), str(folder / "run.toml"), str(tmp_path / "run"), *own)
    assert done.returncode != 0
    assert f"the processes were given different settings {told}: give all the same" in done.stdout, done.stdout
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_other_stages_are_for_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="yozora train latents is done by one process, not 2"):
        run("latents", ROOT / "configs" / "mini" / "latents.toml")
    with pytest.raises(ConfigError, match="fine-tuning is done by one process, not 2"):
        train_lora(ROOT, ROOT / "none.safetensors")
    with pytest.raises(ConfigError, match="each process needs its own"), meet(1, "cuda:0"):
        pass
