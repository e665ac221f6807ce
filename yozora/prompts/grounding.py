"""What a prompt leaves open, filled in by a caption of a library that agrees with all that the prompt states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from yozora.prompts.agree import differs, disagreement, way_of, with_count
from yozora.prompts.rewriting import Similar


def complete(facts: Mapping[str, str], similar: Sequence[Similar]) -> tuple[dict[str, str], str, str]:
    """Facts that a prompt states, and what it leaves open as the first similar clip has it that agrees with them; what
    was taken, in words, and the clip's source. Style, camera, time and weather that are unsaid are meant as usual."""
    asked = with_count(facts, "")
    for one in similar:
        if disagreement(asked, one.facts) or differs(asked, one.facts):
            continue
        taken = dict(_open(facts, one.facts))
        if taken:
            return {**facts, **taken}, ", ".join(dict.fromkeys(taken.values())), one.source
    return dict(facts), "", ""


def _open(facts: Mapping[str, str], shown: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The facts of a clip that a prompt leaves open."""
    names = ["ground", "colour", "size", "material"]
    if "second_shape" in facts:
        names += ["second_colour", "second_size", "second_material"]
    if way_of(facts) is None and shown.get("motion", "still") != "still":
        names += ["motion", "direction", "colour_to"]
    for name in names:
        if name not in facts and name in shown:
            yield name, shown[name]
