"""The report: what it holds, that it is one whole or nothing, and what it may replace."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import yozora
from yozora.clip import Clip
from yozora.errors import MediaError
from yozora.evaluate import Section, Shown
from yozora.evaluate.report import Stamp, check_report, show_sections, stamp_of, took, write_report

EVIL = '<script>alert("x")</script> & "quotes" \'too\' [red]夜空[/red]'
STAMP = Stamp("world", "tiny", "random weights <b>", "cpu", {"steps": 2, "guidance": 2.0, "clip": None}, 12.34)


def clip(frames: int = 3) -> Clip:
    return Clip(np.full((frames, 32, 48, 3), 90, np.uint8), 8)


def section(**changes) -> Section:
    given = {
        "title": "Quality " + EVIL,
        "about": "About " + EVIL,
        "columns": ("", "model", "floor " + EVIL),
        "rows": (("first " + EVIL, "1.0", EVIL), ("second", "", "2")),
        "figures": {"nan": float("nan"), "inf": float("inf"), "array": np.arange(2), "one": np.float32(0.5), 3: (1, 2)},
        "notes": ("Note " + EVIL,),
        "clips": (Shown(clip(), "a good " + EVIL, True), Shown(clip(), "bad", False), Shown(clip(1), "plain")),
    }
    return Section(**(given | changes))


class Reader(HTMLParser):
    """Counts a page's tags, collects what they point to, and checks that they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_report_is_a_page_figures_and_clips(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(folder, [section(), section(title="Second", clips=(), notes=())], STAMP)
    assert names(tmp_path) == ["report"]
    assert names(folder) == ["clips", "index.html", "report.json"]
    assert names(folder / "clips") == ["0-000.mp4", "0-001.mp4", "0-002.mp4"]
    assert Clip.read(folder / "clips" / "0-001.mp4").size == (48, 32)
    said = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (said["made_by"], said["model"], said["seconds"], said["suite"]) == (
        "yozora evaluate",
        "tiny",
        12.34,
        "world",
    )
    assert said["versions"]["yozora"] == yozora.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", said["date"])
    first = said["sections"][0]
    assert first["figures"] == {"nan": None, "inf": None, "array": [0, 1], "one": 0.5, "3": [1, 2]}
    assert first["rows"][0] == ["first " + EVIL, "1.0", EVIL]
    assert first["clips"][0] == {"caption": "a good " + EVIL, "good": True, "file": "clips/0-000.mp4"}


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    write_report(tmp_path / "report", [section()], STAMP)
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    page = Reader(text)
    assert page.open == []
    assert page.tags.count("video") == page.tags.count("figure") == 3
    assert "script" not in page.tags and "link" not in page.tags
    for link in page.links:
        assert link.startswith("#") or (tmp_path / "report" / link).is_file()
    assert "http" not in text and "@import" not in text and "url(" not in text
    assert "guidance 2<" in text and "clip None" not in text


def test_everything_is_escaped(tmp_path: Path) -> None:
    write_report(tmp_path / "report", [section()], STAMP)
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 8  # the link, title, about, column, two cells, note, caption
    assert "[red]夜空[/red]" in text
    assert "random weights &lt;b&gt;" in text


def test_right_and_wrong_are_marked(tmp_path: Path) -> None:
    write_report(tmp_path / "report", [section()], STAMP)
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert text.count('<figure class="good">') == text.count('<figure class="bad">') == 1
    assert text.count("✓ as asked") == text.count("✗ not as asked") == 1


def test_a_report_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(folder, [section()], STAMP)
    write_report(folder, [section(title="New", clips=())], STAMP)
    assert names(folder / "clips") == []
    assert json.loads((folder / "report.json").read_text())["sections"][0]["title"] == "New"
    assert names(tmp_path) == ["report"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    write_report(tmp_path / "report", [section()], STAMP)
    assert names(tmp_path) == ["report"]


@pytest.mark.parametrize("there", ["notes.txt", "report.json", "index.html"])
def test_another_folder_is_left_alone(tmp_path: Path, there: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / there).write_text("{}")
    for attempt in (lambda: check_report(folder), lambda: write_report(folder, [section()], STAMP)):
        with pytest.raises(MediaError, match="is not empty and holds no report"):
            attempt()
    assert names(tmp_path) == ["mine"] and names(folder) == [there]


def test_a_report_with_something_of_the_users_in_it_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_report(folder, [section()], STAMP)
    (folder / "thoughts.txt").write_text("mine")
    with pytest.raises(MediaError, match="name another folder"):
        write_report(folder, [section()], STAMP)
    assert (folder / "thoughts.txt").exists()


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for path, reason in ((tmp_path / "file", "is a file"), (tmp_path / "a" / "b", "does not exist")):
        with pytest.raises(MediaError, match=reason):
            check_report(path)
    for path in (tmp_path / "file" / "x", tmp_path / "link", Path("/"), tmp_path / "x\0y", tmp_path / ("x" * 300)):
        with pytest.raises(MediaError):
            check_report(path)
    assert names(tmp_path) == ["file", "link"]


class Interrupts:
    """Stands for Ctrl-C while its figures are written."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize("before", [False, True])
def test_an_interruption_leaves_nothing(tmp_path: Path, before: bool) -> None:
    folder = tmp_path / "report"
    if before:
        write_report(folder, [section(title="Old")], STAMP)
    with pytest.raises(KeyboardInterrupt):
        write_report(folder, [section(figures={"x": Interrupts()})], STAMP)
    assert names(tmp_path) == (["report"] if before else [])
    if before:
        assert "Old" in (folder / "index.html").read_text(encoding="utf-8")


def test_a_clip_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    huge = Clip(np.zeros((1, 8, 20000, 3), np.uint8), 8)
    with pytest.raises(MediaError):
        write_report(tmp_path / "report", [section(clips=(Shown(huge, "too wide"),))], STAMP)
    assert names(tmp_path) == []


def test_tables_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    show_sections([section(title="[b]Title[/b]", columns=("", "model"), rows=(("row [red]x[/red]", "5"),))])
    out = capsys.readouterr().out
    assert "[b]Title[/b]" in out and "row [red]x[/red]" in out and "- Note" in out


def test_a_stamp_says_what_was_run(tiny_model: Path) -> None:
    stamp = stamp_of(yozora.load(tiny_model), "world", {"prompts a category": 3}, 1.26)
    sampled = {"steps": 2, "guidance": 2.0, "solver": "euler", "projected": False}
    assert stamp.settings == {**sampled, "prompts a category": 3}
    assert stamp.facts()["model"] == "tiny: random weights, for tests"
    assert stamp.device.startswith("cpu")
    assert str(tiny_model.parent) not in str(stamp)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (90, "90.0 s"), (119.7, "2 min 0 s"), (3725, "62 min 5 s")]
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert took(seconds) == words
