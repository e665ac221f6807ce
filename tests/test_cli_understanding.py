"""`yozora rewrite` and `caption`, and `--rewrite` on the ways."""

import json
import socket
from pathlib import Path

import pytest
import torch

from yozora.cli import main
from yozora.clip import Clip
from yozora.models.folder import load_module, save_module
from yozora.models.prompt_reader import PromptReader, PromptReaderConfig
from yozora.models.text import TextEncoder


@pytest.fixture(scope="module")
def reader(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader that reads a red ball in whatever it is given."""
    text = load_module(TextEncoder, tiny_model / "text_encoder")
    config = PromptReaderConfig({"shape": ("sphere",), "colour": ("red",)}, text.config)
    made = PromptReader(config, text.tokenizer, frozenset({"crimson", "orb"}))
    with torch.no_grad():
        for classify in made.classify:
            classify.bias[1] = 100.0  # type: ignore[index]
    folder = tmp_path_factory.mktemp("reader")
    save_module(made, folder)
    return folder


def _closed() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"openai:tiny@http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_a_prompt_is_shown_as_it_is_understood(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "crimson orb, 5 s", "--rewriter", str(reader)]) == 0
    assert capsys.readouterr().out.splitlines() == ["A red ball.", "  subject: red sphere", "  seconds: 5.0"]
    assert main(["rewrite", "crimson orb", "--rewriter", str(reader), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["prompt"], said["text"]) == ("crimson orb", "A red ball.")


def test_what_is_a_caption_already_stays(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "A blue box rolls to the left.", "--rewriter", str(reader)]) == 0
    assert capsys.readouterr().out == "A blue box rolls to the left.\n"


def test_both_texts_are_in_the_recipe_and_made_again(
    reader: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "a.mp4", tmp_path / "b.mp4"
    asked = ["generate", "crimson orb", "--model", str(tiny_model), "--seed", "1", "-o", str(out)]
    assert main([*asked, "--rewriter", str(reader)]) == 0
    assert "rewritten: A red ball." in capsys.readouterr().err
    recipe = Clip.read(out).recipe
    assert recipe is not None and recipe.prompt == "A red ball."
    assert recipe.canvas["cues"] == [{"start": 0.0, "prompt": "A red ball.", "asked": "crimson orb"}]
    assert main(["again", str(out), "--model", str(tiny_model), "-o", str(again)]) == 0
    assert "rewritten" not in capsys.readouterr().err
    made = Clip.read(again)
    assert made.recipe is not None and made.recipe.canvas["cues"] == recipe.canvas["cues"]
    assert (made.frames == Clip.read(out).frames).all()


@pytest.mark.parametrize("extra", [[], ["--no-rewrite", "--rewriter", "mini"]])
def test_other_models_prompts_stay_unless_asked(
    extra: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    assert main(["image", "crimson orb", "--model", str(tiny_model), "-o", str(out), *extra]) == 0
    assert "rewritten" not in capsys.readouterr().err
    recipe = Clip.read(out).recipe
    assert recipe is not None and recipe.canvas["cues"] == [{"start": 0.0, "prompt": "crimson orb"}]


def test_an_endpoint_that_is_down_leaves_the_prompt_and_warns(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    assert main(["image", "crimson orb", "--model", str(tiny_model), "-o", str(out), "--rewriter", _closed()]) == 0
    assert "warning: the prompt was not rewritten" in capsys.readouterr().err
    assert Clip.read(out).recipe.prompt == "crimson orb"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["clippy", "openai:x", "openai:m@ftp://h"])
def test_a_name_that_is_no_rewriter_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "a ball", "--rewriter", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_captions_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from yozora.world import Body, Motion, Place, Scene, render

    scene = Scene(1, (Body("box", "blue", "matte", "large", (0.0, 0.0), motion=Motion("still")),), Place("snow"))
    Clip(render(scene, 128, 128, 9, 12.0, threads=1).frames, 12.0).write(tmp_path / "a.mp4")
    assert main(["caption", str(tmp_path / "a.mp4")]) == 0
    assert "blue" in capsys.readouterr().out
    assert main(["caption", str(tmp_path)]) == 0
    line = json.loads((tmp_path / "captions.jsonl").read_text())
    assert line["file"] == "a.mp4" and "blue box" in line["dense"] and line["by"] == "world"
    assert main(["caption", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "0 captioned, 1 listed already" in out and not err
    assert main(["caption", str(tmp_path), "--language", "de"]) == 0
    assert "captions of 1 of these files by another captioner or in another language" in capsys.readouterr().err
    assert json.loads((tmp_path / "captions.jsonl").read_text()) == line
    assert main(["caption", str(tmp_path / "none")]) == 2
    board = tmp_path / "a.toml"
    assert main(["caption", str(tmp_path / "a.mp4"), "--board", str(board)]) == 0
    assert f"yozora storyboard {board}" in capsys.readouterr().out and "blue" in board.read_text()
    for arguments in ([str(tmp_path)], [str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.jsonl")]):
        assert main(["caption", *arguments, "--board", str(board)]) == 2
        assert "--board is for one clip" in capsys.readouterr().err


def test_a_folder_of_which_nothing_could_be_captioned_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"no video")
    assert main(["caption", str(tmp_path)]) == 2
    assert "error: none of the 2 in" in capsys.readouterr().err
    assert not (tmp_path / "captions.jsonl").exists()
    (tmp_path / "captions.jsonl").write_text('{"file": "a.mp4", "short": "A cow."}\n')
    assert main(["caption", str(tmp_path)]) == 0
    assert "0 captioned, 1 left out, 1 listed already" in capsys.readouterr().out
