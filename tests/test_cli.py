"""The command line: what it writes, and one line with the right exit code for everything a user can get wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yozora.cli import main
from yozora.clip import Clip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]):
    """Runs `yozora generate` with the tiny model: (exit code, stdout, stderr)."""

    def generate(*arguments: str) -> tuple[int, str, str]:
        code = main(["generate", "--model", str(tiny_model), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return generate


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_prompt_becomes_out_mp4(run, home: Path) -> None:
    code, out, err = run("a red ball", "--seed", "3")
    assert (code, err) == (0, "")
    assert out.startswith("out.mp4: 64x64, 9 frames, 1.12 s, seed 3, made in")
    assert out.count("\n") == 1
    clip = Clip.read("out.mp4")
    assert clip.frames.shape == (9, 64, 64, 3)
    assert clip.recipe is not None
    assert (clip.recipe.prompt, clip.recipe.seed) == ("a red ball", 3)
    assert names(home) == ["out.mp4"]


@pytest.mark.parametrize(
    "prompt", ["ein roter Ball hüpft", "赤いボール", "كرة حمراء", "🔴", "-", "a 'b' \"c\" [red]x[/red]"]
)
def test_a_prompt_in_any_script_just_works(run, prompt: str) -> None:
    code, _, err = run("--steps", "1", "-o", "o.gif", "--", prompt)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("ending", ["mp4", "gif", "webp"])
def test_the_ending_names_the_format(run, home: Path, ending: str) -> None:
    assert run("a red ball", "-o", f"o.{ending}", "--seconds", "0.6")[0] == 0
    assert len(Clip.read(home / f"o.{ending}").frames) == 5


def test_a_png_is_a_picture_and_with_a_length_a_contact_sheet(run, home: Path) -> None:
    code, out, _ = run("a red ball", "-o", "o.png")
    assert code == 0
    assert "a picture" in out
    assert Clip.read(home / "o.png").size == (64, 64)
    assert run("a red ball", "-o", "sheet.png", "--seconds", "1")[0] == 0
    width, height = Clip.read(home / "sheet.png").size
    assert width * height >= 9 * 64 * 64


def test_the_same_seed_is_the_same_file(run, home: Path) -> None:
    run("a red ball", "--seed", "1", "-o", "a.mp4")
    run("a red ball", "--seed", "1", "-o", "b.mp4")
    run("a red ball", "--seed", "2", "-o", "c.mp4")
    assert (home / "a.mp4").read_bytes() == (home / "b.mp4").read_bytes() != (home / "c.mp4").read_bytes()


def test_a_random_seed_is_printed_and_makes_it_again(run, home: Path) -> None:
    _, out, _ = run("a red ball", "-o", "a.mp4")
    seed = out.split("seed ")[1].split(",")[0]
    run("a red ball", "-o", "b.mp4", "--seed", seed)
    assert (home / "a.mp4").read_bytes() == (home / "b.mp4").read_bytes()


def test_variations_are_numbered_files_with_their_seeds(run, home: Path) -> None:
    code, out, _ = run("a red ball", "--variations", "2", "--seed", "5", "--sheet", "s.png")
    assert code == 0
    assert names(home) == ["out-1.mp4", "out-2.mp4", "s-1.png", "s-2.png"]
    assert [line.split(":")[0] for line in out.splitlines()] == ["out-1.mp4", "out-2.mp4"]
    recipes = [Clip.read(home / f"out-{i}.mp4").recipe for i in (1, 2)]
    assert [recipe.seed for recipe in recipes if recipe] == [5, 6]


def test_json_is_one_object_and_nothing_else(run) -> None:
    code, out, err = run("a red ball", "--json", "--seed", "1", "--sheet", "s.png", "--size", "96x64", "--seconds", "5")
    report = json.loads(out)
    assert (code, out.count("\n")) == (0, 1)
    assert err.startswith("warning: ")
    assert report["warnings"] == [line.removeprefix("warning: ") for line in err.splitlines()]
    (file,) = report["files"]
    assert (file["path"], file["sheet"], file["seed"], file["size"]) == ("out.mp4", "s.png", 1, [96, 64])
    assert file["recipe"]["canvas"]["frames"] == file["frames"] == 41
    assert set(report["timings"]) == {"load", "text", "sample", "decode", "write", "total"}
    parts = sum(seconds for stage, seconds in report["timings"].items() if stage != "total")
    assert parts <= report["timings"]["total"] + 0.01


def test_an_image_starts_the_video(run, home: Path) -> None:
    Clip(np.full((1, 90, 150, 3), 128, np.uint8), 1.0).write("start.png")
    code, _, _ = run("--image", "start.png", "--seed", "0")
    assert code == 0
    clip = Clip.read(home / "out.mp4")
    assert clip.size == (96, 64)
    assert clip.recipe is not None
    assert clip.recipe.canvas["anchors"][0]["source"] == "start.png"


def bad_files(folder: Path) -> None:
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.mp4").mkdir()
    Clip(np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8), 1.0).write(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:300])


BAD = {
    "no prompt": ([], "the prompt is empty"),
    "empty prompt": ([""], "the prompt is empty"),
    "blank prompt": ([" \n "], "the prompt is empty"),
    "long prompt": (["x" * 100_000], "100000 characters: at most 10000"),
    "long negative": (["a", "--negative", "x" * 10_001], "the negative prompt has 10001"),
    "size off the grid": (["a", "--size", "100x70"], "nearest that fit are 96x64 and 96x96"),
    "size zero": (["a", "--size", "0x64"], "width 0"),
    "size negative": (["a", "--size", "-64x64"], "width -64"),
    "size huge": (["a", "--size", "999999968x64"], "too large"),
    "size no size": (["a", "--size", "large"], "write WIDTHxHEIGHT"),
    "size and aspect": (["a", "--size", "64x64", "--aspect", "1:1"], "not both"),
    "aspect": (["a", "--aspect", "0:0"], "is not an aspect"),
    "resolution": (["a", "--resolution", "tall"], "is not a resolution"),
    "0 s": (["a", "--seconds", "0"], "0 s is not a length"),
    "-1 s": (["a", "--seconds", "-1"], "-1 s is not a length"),
    "10,000 s": (["a", "--seconds", "10000"], "10000 s is too long: at most 60 s"),
    "nan s": (["a", "--seconds", "nan"], "nan s is not a length"),
    "too much": (["a", "--seconds", "60", "--size", "4096x4096"], "smaller size or fewer seconds"),
    "steps": (["a", "--steps", "0"], "0 steps"),
    "guidance": (["a", "--guidance", "inf"], "guidance inf"),
    "seed": (["a", "--seed", "-1"], "seed -1"),
    "seed past the end": (["a", "--seed", str(2**63 - 1), "--variations", "2"], "out of range"),
    "no number": (["a", "--steps", "many"], "Invalid value for '--steps'"),
    "unknown option": (["a", "--stepz", "3"], "No such option"),
    "two prompts": (["a", "red", "ball"], "unexpected extra argument"),
    "variations": (["a", "--variations", "0"], "0 variations"),
    "missing image": (["a", "--image", "missing.png"], "missing.png"),
    "image of text": (["a", "--image", "text.png"], "text.png"),
    "empty image": (["a", "--image", "empty.png"], "empty.png"),
    "truncated image": (["a", "--image", "cut.png"], "cut.png"),
    "folder as image": (["a", "--image", "."], "."),
    "unknown ending": (["a", "-o", "o.xyz"], "o.xyz"),
    "no ending": (["a", "-o", "o"], "o"),
    "missing folder": (["a", "-o", "nowhere/o.mp4"], "nowhere"),
    "folder as output": (["a", "-o", "folder.mp4"], "folder.mp4"),
    "unwritable": (["a", "-o", "/proc/o.mp4"], "/proc"),
    "sheet ending": (["a", "--sheet", "s.mp4"], "a contact sheet is a .png"),
    "sheet is output": (["a", "-o", "o.png", "--sheet", "o.png"], "same file"),
    "sheet is output by another way": (["a", "-o", "o.png", "--sheet", "folder.mp4/../o.png"], "same file"),
    "far above the trained size": (["a", "--size", "4096x4096", "--seconds", "1"], "times the most this model was"),
    "outside the trained size and no seed": (["a", "--size", "256x256", "--seed", "-1"], "seed -1"),
    "size below the grid": (["a", "--size", "1x1"], "the nearest that fits is 32x32"),
    "missing model": (["a", "--model", "missing"], "missing"),
    "device": (["a", "--device", "banana"], "cannot be used here"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run, home: Path, case: str) -> None:
    arguments, said = BAD[case]
    bad_files(home)
    before = names(home)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) < 400
    assert said in err
    assert names(home) == before


def test_broken_models_are_one_line(tiny_model: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(change) -> str:
        import shutil

        folder = home / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tiny_model, folder)
        change(folder)
        assert main(["generate", "a", "--model", str(folder)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err

    weights = "transformer/model.safetensors"
    broken(lambda folder: (folder / "model.json").unlink())
    broken(lambda folder: (folder / "model.json").write_text("{"))
    broken(lambda folder: (folder / weights).unlink())
    broken(lambda folder: (folder / weights).write_bytes((folder / weights).read_bytes()[:-100]))
    broken(lambda folder: (folder / weights).write_bytes((folder / "autoencoder/model.safetensors").read_bytes()))
    pickled = broken(lambda folder: (folder / weights).rename(folder / "transformer/pytorch_model.bin"))
    assert "safetensors" in pickled
    assert names(home) == ["model"]


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The real command line in a process of its own."""
    command = [sys.executable, "-m", "yozora", *arguments]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=env, stdout=pipe, stderr=pipe, text=True, preexec_fn=_heed_ctrl_c)


def _heed_ctrl_c() -> None:
    """A test run in the background of a shell ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_process_exits_with_2_and_one_line(tiny_model: Path, home: Path) -> None:
    process = start("generate", "a", "--size", "33x33", "--model", str(tiny_model), cwd=home)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: size 33x33")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_during_sampling_is_130_and_leaves_nothing(
    tiny_model: Path, home: Path, number: signal.Signals, code: int
) -> None:
    # a size outside the trained range makes it say a warning just before it starts to sample
    arguments = ["generate", "a", "--model", str(tiny_model), "--steps", "1000", "--size", "256x256", "--seconds", "8"]
    process = start(*arguments, cwd=home)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("warning: ")
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code
    assert out == ""
    if number == signal.SIGINT:
        assert err.strip().splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    assert names(home) == []


def test_ctrl_c_while_it_is_imported_is_130_and_one_line(home: Path) -> None:
    script = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'yozora.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from yozora.__main__ import run\n"
        "sys.exit(run())"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_what_no_model_could_do_is_said_without_torch(home: Path) -> None:
    script = (
        "import sys; from yozora.cli import main; "
        "assert all(main(['generate', 'a', *wrong.split()]) == 2 for wrong in sys.argv[1:]); "
        "assert 'torch' not in sys.modules"
    )
    wrong = [
        "--size large", "--size 0x0", "--size 64x64 --aspect 1:1", "--aspect 0:0", "--resolution tall", "--seconds 0",
        "--seed -1", "--steps 0", "--guidance nan", "--variations 65", "--image missing.png", "-o o.xyz",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", script, *wrong]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == done.stderr.count("error: ") == len(wrong)


def test_a_reader_that_goes_away_is_no_traceback(home: Path) -> None:
    with start("--help", cwd=home) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_help_is_quick_and_names_every_option(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = (
        "import sys; from yozora.cli import main; main(['--help']); "
        "assert not {'torch', 'numba', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=Path(__file__).parents[1])
    assert main(["generate", "--help"]) == 0
    help_text = capsys.readouterr().out
    options = ("image", "seconds", "size", "aspect", "resolution", "steps", "guidance", "seed", "variations", "json")
    for option in (*options, "output", "negative", "model", "device", "sheet"):
        assert f"--{option}" in help_text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("yozora ")


def test_models_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out


def test_doctor_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor", "--no-measure", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert code == (0 if report["ok"] else 1)
    states = {finding["what"]: finding["state"] for finding in report["findings"]}
    assert states["python"] == states["torch"] == states["media"] == "ok"
    assert {"cpu", "memory", "gpu", "world", "logs", "models"} <= set(states)


def test_world_sample_that_is_interrupted_has_captions_for_what_is_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from yozora import world

    def render(scene: world.Scene, *settings: Any, real: Any = world.render) -> Any:
        if scene.seed == 7:
            raise KeyboardInterrupt
        return real(scene, *settings)

    monkeypatch.setattr(world, "render", render)
    arguments = ["-n", "9", "-o", "w", "--seed", "5", "--size", "64x48", "--seconds", "0.5"]
    with pytest.raises(KeyboardInterrupt):
        main(["world", "sample", *arguments])
    assert names(home / "w") == ["000.mp4", "001.mp4", "captions.jsonl", "scenes.jsonl", "sheet.png"]
    assert len((home / "w/captions.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_world_sample_writes_clips_captions_scenes_and_a_sheet(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["world", "sample", "-n", "2", "-o", "w", "--size", "64x48", "--seconds", "0.5", "--language", "de"])
    assert (code, capsys.readouterr().err) == (0, "")
    assert names(home / "w") == ["000.mp4", "001.mp4", "captions.jsonl", "scenes.jsonl", "sheet.png"]
    captions = [json.loads(line) for line in (home / "w/captions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [caption["file"] for caption in captions] == ["000.mp4", "001.mp4"]
    assert all(caption["short"] and caption["dense"] and caption["timed"] for caption in captions)
    assert Clip.read(home / "w/000.mp4").frames.shape == (8, 48, 64, 3)
    scenes = [json.loads(line) for line in (home / "w/scenes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [scene["duration"] for scene in scenes] == [0.5, 0.5]  # a clip shows all that its captions tell


@pytest.mark.parametrize(
    "arguments",
    [
        ["-n", "0"],
        ["--size", "63x64"],
        ["--size", "0x0"],
        ["--seconds", "0"],
        ["--seconds", "inf"],
        ["--size", "4096x4096", "--seconds", "60"],
        ["--fps", "0"],
        ["--seed", "-1"],
        ["--language", "xx"],
        ["--mix", "none"],
        ["-o", "/proc/w"],
    ],
)
def test_world_sample_bad_input(home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(["world", "sample", "-o", "w", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "model" not in err
    assert names(home) == []


def test_train_bad_input(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bad.toml").write_text("[run\n")
    for arguments in (["autoencoder", "missing.toml"], ["transformer", "bad.toml"], ["banana", "bad.toml"], ["text"]):
        assert main(["train", *arguments]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
