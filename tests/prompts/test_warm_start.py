"""A clip that is begun from stands on the ground that is asked for."""

import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from yozora.cli.generate import generate
from yozora.create.begin import SHARE
from yozora.errors import ConfigError
from yozora.prompts.agree import other_ground
from yozora.prompts.library import Entry, Library, create_library
from yozora.prompts.retrieval import ON_GROUND, begun_from, find_close, warm_start

GRASS, SAND = (torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(n)) for n in (1, 2))


def thing(number: int) -> torch.Tensor:
    """What a clip has besides its ground."""
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(10 + number))


def entry(number: int, colour: str, ground: str, camera: str = "still") -> Entry:
    look = {"grass": GRASS, "sand": SAND, "snow": 0 * SAND}[ground]
    facts = {"count": "1", "shape": "sphere", "colour": colour, "motion": "bounce", "ground": ground, "camera": camera}
    text = f"A {colour} ball bounces on the {ground}."
    name = f"{ground} {number}"
    return Entry(name, name, "1", text, (thing(number) + look).half(), (64, 64), 9, 8.0, facts)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    made = create_library(tmp_path / "library", "tiny", "v1", 4)
    few = ON_GROUND[0]
    entries = [entry(0, "red", "grass")]
    entries += [entry(n, "blue", ground) for ground in ("grass", "sand") for n in range(1, 6 * few)]
    entries += [entry(n, "blue", "sand", "orbit") for n in range(900, 940)]  # filmed otherwise: no measure
    entries += [entry(n, "blue", "snow") for n in range(few - 1)]
    made.add(entries)
    return made


def test_what_clips_on_a_ground_have_in_common_is_exchanged(library: Library) -> None:
    assert torch.equal(begun_from(library, "grass 0"), library.latents("grass 0"))
    moved = begun_from(library, "grass 0", "sand").float()
    before = (library.latents("grass 0").float() - thing(0) - SAND).square().mean()
    assert (moved - thing(0) - SAND).square().mean() < 0.1 * before
    assert torch.equal(moved, begun_from(library, "grass 0", "sand").float())
    assert moved.dtype == torch.float32 and moved.shape == (4, 3, 4, 4)


def test_of_a_ground_that_few_clips_show_nothing_is_known(library: Library) -> None:
    with pytest.raises(ConfigError, match=r"too few clips .* \(snow\)"):
        begun_from(library, "grass 0", "snow")
    with pytest.raises(ConfigError, match="no clip 'grass 99999'"):
        begun_from(library, "grass 99999", "sand")


def test_a_clip_whose_ground_is_not_known_is_begun_from_as_it_is(library: Library) -> None:
    told = {"count": "1", "shape": "sphere", "colour": "pink", "motion": "bounce"}
    odd = replace(entry(7000, "pink", "grass"), facts=told, caption="A pink ball bounces.")
    library.add([odd])
    found = find_close(library, "A pink ball bounces on the sand.", (64, 64), 9)
    assert found.match is not None and found.match.source == odd.source
    assert other_ground({"ground": "sand"}, found.match.facts) == ""


def test_the_same_ground_goes_before_all_else_that_may_differ(library: Library) -> None:
    library.add([entry(9000, "red", "sand")])
    for ground in ("sand", "grass"):
        found = find_close(library, f"A red ball bounces on the {ground}.", (64, 64), 9)
        assert found.match is not None and found.match.facts["ground"] == ground


def test_the_command_line_skips_what_the_api_does() -> None:
    assert inspect.signature(generate).parameters["warm"].default == SHARE
    assert inspect.signature(warm_start).parameters["share"].default == SHARE
