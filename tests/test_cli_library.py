"""`yozora library`, and `yozora generate --library`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from replies import replying

from yozora.cli import main
from yozora.clip import Clip
from yozora.models.folder import load_module, save_module
from yozora.models.registry import RETRIEVAL
from yozora.models.retrieval import RetrievalAdapter, RetrievalConfig
from yozora.models.transformer import Transformer
from yozora.prompts.library import open_library
from yozora.prompts.stock import load_coder

BALL = "A red ball bounces on the grass."


@pytest.fixture(scope="module")
def library(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A library of two clips of the tiny model's size, put in by the command."""
    clips = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for name, caption in (("ball", BALL), ("cube", "A large blue cube slides to the left on the sand.")):
        Clip(random.integers(0, 255, (9, 64, 64, 3), np.uint8), 8.0).write(clips / f"{name}.mp4")
        (clips / f"{name}.txt").write_text(caption)
    folder = str(tmp_path_factory.mktemp("shelf") / "library")
    assert main(["library", "add", str(clips), "--library", folder, "--model", str(tiny_model)]) == 0
    return folder


def _made(*arguments: str, model: Path, out: Path) -> Clip:
    assert main(["generate", *arguments, "--model", str(model), "--seed", "1", "-o", str(out), "--steps", "4"]) == 0
    return Clip.read(out)


def test_a_library_is_searched_counted_and_thinned(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "library")
    asked = ["--library", folder]
    assert main(["library", "add", "--world", "2", *asked, "--model", str(tiny_model)]) == 0
    assert f"{folder}: 2 clips put in, 2 in all" in capsys.readouterr().out
    assert main(["library", "add", "--world", "3", *asked, "--model", str(tiny_model)]) == 0
    said = capsys.readouterr()
    assert "1 clips put in, 3 in all" in said.out and "2 were there already" in said.err
    assert main(["library", "search", "a thing", *asked, "-n", "2", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 and lines[0]["source"].startswith("world/simple/") and lines[0]["size"] == [64, 64]
    assert main(["library", "stats", *asked]) == 0
    assert "3 clips" in (out := capsys.readouterr().out) and "3 of 64x64, 9 frames" in out and "exact" in out
    assert main(["library", "remove", "world/simple/0", "world/simple/1", "nothing", *asked]) == 0
    said = capsys.readouterr()
    assert "2 clips taken out, 1 left" in said.out and "no clip nothing" in said.err


def test_a_close_clip_saves_steps_and_is_made_again(
    library: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _made(BALL, "--library", library, model=tiny_model, out=tmp_path / "a.mp4")
    said = capsys.readouterr()
    assert "ball.mp4@0" in said.err and "2 of 4 steps skipped" in said.err and "nearest clip of the library" in said.out
    assert made.recipe is not None
    noted = made.recipe.library
    assert noted["skipped"] == 2 and noted["begin"].endswith("ball.mp4@0") and noted["path"] == library
    assert noted["nearest"].endswith(".mp4@0") and noted["distance"] > 0 and noted["similarity"] > 0.99
    assert main(["again", str(tmp_path / "a.mp4"), "--model", str(tiny_model), "-o", str(tmp_path / "b.mp4")]) == 0
    again = Clip.read(tmp_path / "b.mp4")
    assert np.array_equal(made.frames, again.frames)
    cold = _made(BALL, "--library", library, "--warm", "0", model=tiny_model, out=tmp_path / "c.mp4")
    plain = _made(BALL, model=tiny_model, out=tmp_path / "d.mp4")
    assert np.array_equal(cold.frames, plain.frames) and not np.array_equal(made.frames, plain.frames)
    assert cold.recipe is not None and "begin" not in cold.recipe.library and "nearest" in cold.recipe.library


@pytest.fixture(scope="module")
def shown_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with what shows it clips: every weight drawn, so that each clip matters."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_model, folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = RetrievalConfig(
            rank=2, clips=2, moments=2, base=load_module(Transformer, folder / "transformer").config
        )
        adapter = RetrievalAdapter(config)
        for parameter in adapter.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
    save_module(adapter, folder / RETRIEVAL)
    return folder


def test_clips_are_shown_to_a_model_that_knows_them_and_again(
    library: str, shown_model: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = ("--library", library, "--warm", "0")
    made = _made(BALL, *cold, model=shown_model, out=tmp_path / "a.mp4")
    assert "shown beside the prompt" in (said := capsys.readouterr().err) and "ball.mp4@0" in said
    assert made.recipe is not None and made.recipe.library["retrieval_guidance"] == 1.0
    assert [source.rsplit("/", 1)[1] for source in made.recipe.library["beside"]] == ["ball.mp4@0"]
    assert main(["again", str(tmp_path / "a.mp4"), "--model", str(shown_model), "-o", str(tmp_path / "b.mp4")]) == 0
    assert np.array_equal(Clip.read(tmp_path / "b.mp4").frames, made.frames)
    strong = _made(BALL, *cold, "--retrieval-guidance", "3", model=shown_model, out=tmp_path / "c.mp4")
    none = _made(BALL, *cold, "--retrieval-guidance", "0", model=shown_model, out=tmp_path / "d.mp4")
    plain = _made(BALL, model=shown_model, out=tmp_path / "e.mp4")
    assert np.array_equal(none.frames, plain.frames)
    assert not np.array_equal(made.frames, plain.frames) and not np.array_equal(made.frames, strong.frames)
    both = _made(BALL, "--library", library, model=shown_model, out=tmp_path / "f.mp4")
    assert both.recipe is not None and {"begin", "beside"} <= both.recipe.library.keys()
    assert main(["again", str(tmp_path / "f.mp4"), "--model", str(shown_model), "-o", str(tmp_path / "g.mp4")]) == 0
    assert np.array_equal(Clip.read(tmp_path / "g.mp4").frames, both.frames)
    capsys.readouterr()
    _made("A green ball bounces.", *cold, model=shown_model, out=tmp_path / "h.mp4")
    assert "no clip of the library shows what the prompt states" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--retrieval-guidance", "2"], "name one with --library"),
        (["--library", "LIBRARY", "--retrieval-guidance", "2"], "was not trained to be shown clips"),
        (["--library", "LIBRARY", "--retrieval-guidance", "21"], "from 0 (none) to 20"),
    ],
)
def test_clips_that_cannot_be_shown(
    arguments: list[str],
    reason: str,
    library: str,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a.mp4"
    asked = [library if part == "LIBRARY" else part for part in arguments]
    assert main(["generate", BALL, *asked, "--model", str(tiny_model), "-o", str(out)]) == 2
    assert reason in capsys.readouterr().err and not out.exists()


def test_the_distance_is_that_of_what_was_made(library: str, tiny_model: Path, tmp_path: Path) -> None:
    made = _made(BALL, "--library", library, model=tiny_model, out=tmp_path / "a.png.mp4")
    assert made.recipe is not None
    coder, shelf = load_coder(tiny_model, "cpu"), open_library(library)
    near = shelf.nearest_copy(coder.encode(made.frames))  # its file is lossy
    assert near is not None and near.source == made.recipe.library["nearest"]
    assert near.distance == pytest.approx(made.recipe.library["distance"], rel=0.2)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("A green ball bounces on the grass.", "colour: green, not red"),
        ("A red ball falls.", "motion: fall, not bounce"),
        ("Two red balls bounce on the grass.", "count: 2, not 1"),
        ("It is a fine day.", "nothing in the prompt"),
    ],
)
def test_a_clip_that_disagrees_is_not_begun_from(
    prompt: str, reason: str, library: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = _made(prompt, "--library", library, model=tiny_model, out=tmp_path / "a.mp4")
    assert f"begun from noise: {reason}" in capsys.readouterr().err.replace("the nearest clip disagrees in ", "")
    assert made.recipe is not None and "begin" not in made.recipe.library


def test_another_length_or_way_begins_from_noise(
    library: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _made(BALL, "--library", library, "--seconds", "3", model=tiny_model, out=tmp_path / "a.mp4")
    said = capsys.readouterr()
    assert "begun from noise" in said.err and "not compared with the library" in said.out


def test_a_library_of_another_version_gives_only_its_captions(
    library: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    arguments = ["generate", "a red ball bounces", "--library", library, "--solver", "flow-map", "--steps", "1"]
    assert main([*arguments, "--seed", "1", "-o", str(out), "--seconds", "0.4"]) == 0  # mini, not tiny
    said = capsys.readouterr().err
    assert "warning" in said and "another version of an autoencoder" in said and "only its captions" in said
    assert "rewritten: A red ball bounces on the grass." in said and "from the library: grass" in said
    recipe = Clip.read(out).recipe
    assert recipe is not None and recipe.prompt == "A red ball bounces on the grass."
    assert "begin" not in recipe.library and "nearest" not in recipe.library


def test_a_language_model_is_shown_like_captions(
    library: str, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = json.dumps({"caption": BALL, "subjects": [{"what": "ball"}]})
    with replying(answer) as server:
        rewriter = f"openai:tiny@{server.url}"
        _made(
            "a red ball", "--rewriter", rewriter, "--library", library, model=tiny_model, out=tmp_path / "a.mp4"
        )  # fmt: skip
        given = json.loads(server.asked[0]["messages"][1]["content"])
    assert given == {"prompt": "a red ball", "similar": [BALL]}
    assert '"similar"' in server.asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["library", "add"], "name a folder"),
        (["library", "add", "clips", "--world", "3"], "name a folder"),
        (["library", "add", "nowhere"], "no folder or .tar"),
        (["library", "add", "--world", "0"], "cannot be added"),
        (["library", "search", "a ball"], "no library at library"),
        (["library", "search", " "], "empty"),
        (["library", "stats", "--library", "nowhere"], "no library at nowhere"),
        (["library", "remove", "x"], "no library at"),
        (["generate", "a ball", "--library", "nowhere"], "no library at nowhere"),
        (["generate", "a ball", "--library", "nowhere", "--warm", "1"], "share of 0 to below 1"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and reason in said[-1]
    assert not any(path.suffix == ".mp4" for path in tmp_path.iterdir())


def test_a_library_of_another_model_takes_no_clips(library: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "add", "--world", "1", "--library", library]) == 2
    assert "another version of an autoencoder" in capsys.readouterr().err
