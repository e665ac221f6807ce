"""The reader's stage at a tiny size: what a clip's names are, batches that come again, and a run to the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from yozora.clip import Clip
from yozora.errors import ConfigError, ModelError
from yozora.evaluate.reading import load_reader, said_of, shown_to
from yozora.models.folder import load_module, save_module
from yozora.models.inspector import Inspector, InspectorConfig
from yozora.train import run
from yozora.train.config import ReaderStage
from yozora.train.inspector import UNNAMED
from yozora.train.reader import HEADS, FilmedScenes, ReaderTask, kind_of_motion, names_of, numbers, soften_clips
from yozora.train.settings import read_config
from yozora.world import Body, Camera, Motion, Place, Scene, render, sample_scene
from yozora.world.scene import MATERIALS

ROOT = Path(__file__).parents[2]
BALL = Body("sphere", "red", "metal", "large", (0.0, 0.0), motion=Motion("bounce", height=1.0))
CAN = Body("cylinder", "blue", "matte", "small", (1.2, 0.3))


def write(folder: Path, **extra: str) -> Path:
    """A configuration in which everything is as small as can be."""
    torch.manual_seed(0)
    save_module(Inspector(InspectorConfig(widths=(4, 4), shape_widths=(4, 4))), folder / "inspector")
    settings = {"inspector": f'"{folder}/inspector"', "filmed": "2"} | extra
    lines = [
        *(f"{key} = {value}" for key, value in settings.items()),
        f'[run]\nout = "{folder}/out"\nsteps = 3\nworkers = 0\nsample_every = 3\ndevice = "cpu"',
        "[optim]\nadamw = 1e-3\nmuon = 0.01\nwarmup = 1",
        '[world]\nmix = "simple"\nfps = 2\nbuckets = [{ width = 32, height = 32, frames = 5, batch = 4 }]',
        '[closeups]\nmix = "simple"\nbuckets = [{ width = 32, height = 32, frames = 1, batch = 3 }]',
        "[model]\nframes = 5\nside = 24\nwidths = [4, 6, 8]\nsurface_widths = [4, 6]",
    ]
    path = folder / "reader.toml"
    path.write_text("\n".join(lines))
    return path


def test_a_run_makes_weights_that_read(tmp_path: Path) -> None:
    export = run("reader", write(tmp_path))
    (table,) = (tmp_path / "out" / "samples").iterdir()
    assert [line.split()[0] for line in table.read_text().splitlines()] == [*HEADS, "material"]
    clip = Clip(render(sample_scene(1), 32, 32, 3, 12, threads=1).frames, 12)
    inspector = load_module(Inspector, tmp_path / "inspector")
    reader = load_reader(export)
    said = said_of(shown_to(reader, clip, inspector), reader)
    assert {head: len(logs) for head, logs in said.items()} == {head: len(names) for head, names in HEADS.items()}
    assert list(said) == list(HEADS)
    task = ReaderTask(read_config(ReaderStage, write(tmp_path), [f"start_from={export}"]))
    exported = load_reader(export).state_dict()
    assert all(torch.equal(value, exported[name]) for name, value in task.model.state_dict().items())


def test_materials_alone_are_learned_anew(tmp_path: Path) -> None:
    export = run("reader", write(tmp_path))
    before = load_reader(export)
    more = [f'start_from="{export}"', "materials_only=true", "model.surface_widths=[4, 8]"]
    made = run("reader", write(tmp_path), [*more, f'run.out="{tmp_path}/materials"'])
    after = load_reader(made)
    assert after.config.surface_widths == (4, 8) and after.config.widths == before.config.widths
    for name, value in after.state_dict().items():
        assert name.startswith("surface.") or torch.equal(value, before.state_dict()[name]), name
    (table,) = (tmp_path / "materials" / "samples").iterdir()
    assert [line.split()[0] for line in table.read_text().splitlines()] == ["material"]
    with pytest.raises(ConfigError, match="name one with start_from"):
        run("reader", write(tmp_path), ["materials_only=true"])
    read_config(ReaderStage, ROOT / "configs" / "materials.toml")


def test_the_same_batches_come_again(tmp_path: Path) -> None:
    config = read_config(ReaderStage, write(tmp_path))
    task = ReaderTask(config)
    source = FilmedScenes(config, task.network, task.inspector)
    first, second, third = (source.batch(step) for step in range(3))
    assert third is first and second is not first
    again = FilmedScenes(config, task.network, task.inspector).batch(0)
    assert torch.equal(first.clips, again.clips) and torch.equal(first.names, again.names)
    assert first.clips.shape == (4, 5, 4, 24, 24) and first.clips.dtype == torch.uint8
    assert first.names.shape == (4, len(HEADS))
    assert first.squares.shape == (3, 4, 32, 32) and first.squares.dtype == torch.uint8
    assert set(first.materials.tolist()) <= {UNNAMED, *range(len(MATERIALS))}


def test_the_shipped_configuration_is_valid() -> None:
    config = read_config(ReaderStage, ROOT / "configs" / "reader.toml")
    assert (ROOT / config.inspector / "config.json").is_file()
    assert all(bucket.frames == 9 for bucket in config.world.buckets)


def test_names_are_what_can_be_read() -> None:
    scene = Scene(1, (BALL,), Place("grass", "sunset", "rain"), Camera("zoom", "in"), "cartoon")
    assert names_of(scene) == {
        "size": "large",
        "motion": "bounce",
        "camera": "zoom",
        "ground": "grass",
        "time": "sunset",
        "weather": "rain",
        "style": "cartoon",
    }
    two = names_of(replace(scene, bodies=(BALL, CAN), place=Place("studio")))
    assert not {"size", "time", "weather"} & set(two)


@pytest.mark.parametrize(
    ("shape", "motion", "kind"),
    [
        ("sphere", Motion("left", speed=1.0), "roll"),
        ("box", Motion("left", speed=1.0), "slide"),
        ("torus", Motion("roll", "left", 1.0), "roll"),
        ("cone", Motion("slide", "right", 1.0), "slide"),
        ("box", Motion("recolour", colour_to="blue"), "recolour"),
        ("box", Motion("still"), "still"),
    ],
)
def test_kinds_of_motion(shape: str, motion: Motion, kind: str) -> None:
    assert kind_of_motion(Scene(1, (replace(BALL, shape=shape, motion=motion),))) == kind


def test_no_kind_of_motion_where_two_move_or_no_colour_shows() -> None:
    assert kind_of_motion(Scene(1, (BALL, replace(CAN, motion=Motion("spin", speed=2.0))))) == ""
    turning = replace(BALL, motion=Motion("recolour", colour_to="blue"))
    assert kind_of_motion(Scene(1, (turning,), style="sketch")) == ""


def test_what_has_no_name_is_left_out() -> None:
    assert numbers({"time": "night"}, {"time": ("day", "night"), "size": ("small",)}) == [1, UNNAMED]


def test_every_second_clip_is_left_sharp_and_all_masks() -> None:
    clips = 2 * torch.rand(16, 3, 4, 24, 24) - 1
    soft = soften_clips(clips, torch.Generator().manual_seed(0))
    assert torch.equal(soft[1::2], clips[1::2])
    assert torch.equal(soft[:, :, 3], clips[:, :, 3])
    assert (soft[::2, :, :3] - clips[::2, :, :3]).abs().mean() > 0.02


@pytest.mark.parametrize(
    ("extra", "error", "match"),
    [
        ({"inspector": '"nowhere"'}, ModelError, "no model folder"),
        ({"filmed": "0"}, ConfigError, "filmed"),
        ({"colours": "3"}, ConfigError, "colours"),
    ],
)
def test_mistakes_are_found_at_the_start(
    tmp_path: Path, extra: dict[str, str], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        run("reader", write(tmp_path, **extra))


def test_unknown_settings_of_the_network(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.depth"):
        run("reader", write(tmp_path), ["model.depth=3"])
