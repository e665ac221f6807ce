"""A library of clips: put in, found, taken out, and refused where it does not fit."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from yozora.errors import ConfigError
from yozora.prompts import library as libraries
from yozora.prompts.library import Entry, Library, copy_distance, create_library, embed_texts, open_library
from yozora.world.scene import COLOURS as COLOURS10
from yozora.world.scene import SHAPES

TEXTS = ("A red ball bounces on the grass.", "A blue cube slides to the left.", "A yellow cone spins at night.")
COLOURS = ("red", "blue", "yellow")


def entry(number: int, text: str, colour: str = "", mark: str = "1", origin: str = "") -> Entry:
    latents = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(number)).half()
    facts = {"colour": colour} if colour else {}
    return Entry(f"clip {number}", origin or f"file {number}", mark, text, latents, (64, 64), 9, 8.0, facts)


def entries(texts: Sequence[str] = TEXTS) -> list[Entry]:
    return [entry(n, text, colour) for n, (text, colour) in enumerate(zip(texts, COLOURS, strict=False))]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    made = create_library(tmp_path / "library", "tiny", "v1", 4)
    made.add(entries())
    return made


def test_the_nearest_in_meaning_comes_first(library: Library) -> None:
    found = library.search("a crimson sphere hops on a lawn", 3)
    assert found[0].source == "clip 0"
    assert found[0].similarity > found[1].similarity >= found[2].similarity
    assert found[0].facts == {"colour": "red"} and found[0].size == (64, 64) and found[0].frames == 9


def test_search_may_be_by_facts(library: Library) -> None:
    assert [match.source for match in library.search(TEXTS[0], 3, {"colour": "blue"})] == ["clip 1"]
    assert library.search(TEXTS[0], 3, {"colour": "it's"}) == []
    with pytest.raises(ConfigError, match="no fact 'taste'"):
        library.search(TEXTS[0], 3, {"taste": "sweet"})
    with pytest.raises(ConfigError, match="use 1 or more"):
        library.search(TEXTS[0], 0)


def test_latents_come_back_and_the_library_is_found_again(library: Library) -> None:
    again = open_library(library.folder)
    assert len(again) == 3 and again.marks() == {f"file {n}": "1" for n in range(3)}
    assert torch.equal(again.latents("clip 1"), entries()[1].latents)
    with pytest.raises(ConfigError, match="no clip 'clip 9'"):
        again.latents("clip 9")


def test_what_is_put_in_again_replaces_what_was_there(library: Library) -> None:
    library.add([entry(0, "A green torus.", mark="2")])
    assert len(library) == 3 and library.marks()["file 0"] == "2"
    library.add([entry(7, "A green torus.", mark="3", origin="file 0")])  # its file has other pieces now
    assert len(library) == 3 and {m.source for m in library.search("x", 9)} == {"clip 1", "clip 2", "clip 7"}


def test_what_is_taken_out_is_gone_from_the_disk(library: Library) -> None:
    secret = entry(8, "clip of somebody", "pink")
    library.add([secret])
    bytes_of = secret.latents.numpy().tobytes()[:64]

    def on_disk() -> bool:
        return any(path.is_file() and bytes_of in path.read_bytes() for path in library.folder.rglob("*"))

    assert on_disk()
    assert library.remove("clip 8") == 1 and library.remove("clip 8") == 0
    assert not on_disk()
    assert len(library) == 3 and library.remove("clip *") == 3 and len(library) == 0
    assert library.search("a red ball") == [] and library.nearest_copy(secret.latents) is None


def test_one_of_many_that_is_taken_out_is_gone_from_the_disk(library: Library) -> None:
    library.add([entry(n, f"A red ball, the {n}th of many.") for n in range(60)])
    library.tidy()
    secret = entry(7, "").latents.numpy().tobytes()
    written = [path for path in library.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert written, "the test must find what it looks for while it is there"
    assert library.remove("clip 7") == 1 and len(library) == 59
    assert not [path for path in library.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert torch.equal(library.latents("clip 59"), entry(59, "").latents)


def test_one_of_an_indexed_library_is_gone_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "INDEX_FROM", 512)
    library = create_library(tmp_path / "library", "tiny", "v1", 4)
    library.add([entry(n, f"A ball, the {n}th of many.") for n in range(600)])
    library.tidy()
    assert library.stats().indexed
    for number in (10, 300, 599):  # the first of these among the rows that are written elsewhere
        secret = entry(number, "").latents.numpy().tobytes()
        assert [path for path in library.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
        assert library.remove(f"clip {number}") == 1
        assert not [path for path in library.folder.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert len(library) == 597 and torch.equal(library.latents("clip 11"), entry(11, "").latents)


def test_only_stars_and_question_marks_stand_for_others(library: Library) -> None:
    library.add([replace(entry(n, "A red ball."), source=source) for n, source in enumerate(("a [1]/x", "a 1/x"), 5)])
    assert library.remove("a [1]/*") == 1
    assert library.marks().keys() == {"file 0", "file 1", "file 2", "file 6"}


def test_whoever_has_it_open_goes_on_when_another_takes_clips_out(library: Library) -> None:
    other = open_library(library.folder)
    assert library.remove("clip 1") == 1
    assert len(other) == 2 and [match.source for match in other.search(TEXTS[0], 1)] == ["clip 0"]
    other.add([entry(4, "A green cone.")])
    assert library.marks().keys() == {"file 0", "file 2", "file 4"}


def test_clips_come_and_go_at_the_same_time(library: Library) -> None:
    def come(first: int) -> None:
        own = open_library(library.folder)
        for number in range(first, first + 8):
            own.add([entry(number, "A green cone.")])

    def go() -> None:
        own, left = open_library(library.folder), {f"clip {n}" for n in range(3)}
        while left:
            left -= {source for source in left if own.remove(source)}

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(come, 100), pool.submit(go), pool.submit(come, 200)]:
            done.result()
    numbers = [*range(100, 108), *range(200, 208)]
    assert library.marks().keys() == {f"file {n}" for n in numbers}
    assert all(torch.equal(library.latents(f"clip {n}"), entry(n, "").latents) for n in numbers)


def test_what_two_put_in_at_once_is_there_once(library: Library) -> None:
    added = [entry(n, "A green cone.") for n in range(10, 14)]

    def come() -> None:
        own = open_library(library.folder)
        for _ in range(3):
            own.add(added)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(come), pool.submit(come)]:
            done.result()
    assert len(library) == 7


def test_several_that_make_a_library_at_once_have_one(tmp_path: Path) -> None:
    def begin(number: int) -> None:
        create_library(tmp_path / "new", "tiny", "v1", 4).add([entry(number, "A red ball.")])

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(begin, number) for number in range(4)]:
            done.result()
    assert open_library(tmp_path / "new").marks().keys() == {f"file {n}" for n in range(4)}


def test_a_copy_is_no_distance_away(library: Library) -> None:
    own = entries()[2].latents
    copy = library.nearest_copy(own + 0.01 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0)).half())
    assert copy is not None and copy.source == "clip 2" and copy.distance < 0.05
    assert copy_distance(entries()[0].latents, own) == pytest.approx(2**0.5, abs=0.3)
    assert library.nearest_copy(own[:, :1]) is None  # none is of that length


def test_latents_of_another_version_are_of_no_use(library: Library) -> None:
    assert library.check_latents("v1") == ""
    assert "another version" in library.check_latents("v2") and "tiny" in library.check_latents("v2")


def test_stats(library: Library) -> None:
    said = library.stats()
    assert (said.clips, said.model, said.version, said.sizes) == (3, "tiny", "v1", {"64x64, 9 frames": 3})
    assert not said.indexed and said.bytes > 1000


def test_a_large_library_is_searched_by_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "INDEX_FROM", 300)
    acts = ("bounces", "falls", "spins", "grows", "rolls", "slides", "shrinks")
    texts = [f"A {colour} {shape} {act}." for colour in COLOURS10 for shape in SHAPES for act in acts]
    library = create_library(tmp_path / "many", "tiny", "v1", 4)
    library.add([entry(n, text) for n, text in enumerate(texts[:290])])
    library.tidy()
    assert not library.stats().indexed
    library.add([entry(n, text) for n, text in enumerate(texts[290:], start=290)])
    library.tidy()
    assert library.stats().indexed
    asked = [(n, embed_texts([texts[n].lower().rstrip(".")])[0]) for n in range(0, len(texts), 40)]
    assert [library.search_vector(vector, 1)[0].source for _, vector in asked] == [f"clip {n}" for n, _ in asked]
    for _, vector in asked:
        assert library.search_vector(vector, 1) == library.search_vector(vector, 1, exact=True)
    copy = library.nearest_copy(entry(5, "").latents)
    assert copy is not None and (copy.source, copy.distance) == ("clip 5", 0.0)


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no library at"):
        open_library(tmp_path / "nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").write_text("dear diary")
    with pytest.raises(ConfigError, match="no library: name another"):
        create_library(tmp_path / "other", "tiny", "v1", 4)
    made = create_library(tmp_path / "made", "tiny", "v1", 4)
    for note in ('{"format": 99}', '{"format": 1, "model": "tiny", "version": "v1", "look": "wide"}'):
        (made.folder / "library.json").write_text(note)
        with pytest.raises(ConfigError, match="no library that this version reads"):
            open_library(made.folder)


def test_clips_without_their_note_are_not_written_over(library: Library) -> None:
    (library.folder / "library.json").unlink()
    with pytest.raises(ConfigError, match=r"holds clips, but no library\.json"):
        create_library(library.folder, "tiny", "v1", 4)
    (library.folder / "library.json").write_text('{"format": 1, "model": "tiny", "version": "v1", "look": 32}')
    assert len(open_library(library.folder)) == 3


def test_what_was_made_half_is_made_whole(library: Library) -> None:
    library.remove("*")
    (library.folder / "library.json").unlink()
    assert len(create_library(library.folder, "tiny", "v1", 4)) == 0


def test_a_damaged_library_is_one_line(library: Library) -> None:
    for path in (library.folder / "clips.lance").rglob("*.manifest"):
        path.write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match="cannot be used"):
        open_library(library.folder).search("a red ball")
