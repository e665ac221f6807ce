"""`yozora rewrite`: what a prompt is understood as; and the rewriting of the prompts that the ways are given."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from yozora.cli.options import DEFAULT_MODEL, Options, Prompt

if TYPE_CHECKING:
    from yozora.create import Canvas
    from yozora.prompts import Rewriting
    from yozora.prompts.library import Library

RewriterName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="mini, openai:MODEL@URL (its key in OPENAI_API_KEY), or a model folder."),
]


def rewrite(
    prompt: Prompt,
    rewriter: RewriterName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what PROMPT is understood as: the caption that the video model is given, and the facts in it."""
    from yozora.create.canvas import check_prompt
    from yozora.prompts import DEFAULT, load_rewriter

    check_prompt(prompt, needed=True)
    _quietly()
    made = load_rewriter(rewriter or DEFAULT).rewrite(prompt)
    if made.warning:
        print(f"warning: {made.warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(made.model_dump() | {"text": made.text}, ensure_ascii=False))
        return
    print(made.text)
    for line in _facts(made):
        print(f"  {line}")


def understand(canvas: Canvas, options: Options, library: Library | None = None) -> Canvas:
    """The canvas with its prompts rewritten, where that is asked for, or nothing is said and the model is the shipped
    one as it ships: another, or one with a LoRA, may know other words. What they leave open is as in captions of
    `library`, where one is given. What was changed is said on stderr. Raises ConfigError, ModelError."""
    shipped = options.model in (None, DEFAULT_MODEL)
    usual = options.rewriter is not None or (shipped and not options.lora)
    if not (usual if options.rewrite is None else options.rewrite):
        return canvas
    from yozora.prompts import DEFAULT, load_rewriter

    _quietly()
    rewriter = load_rewriter(options.rewriter or DEFAULT, world=shipped, library=library)
    cues = []
    for cue in canvas.cues:
        made = rewriter.rewrite(cue.prompt)
        if made.warning:
            print(f"warning: {made.warning}", file=sys.stderr)
        if made.changed:
            print(f"rewritten: {made.text}", file=sys.stderr)
            cue = replace(cue, prompt=made.text, asked=made.prompt)
        for note in made.understood.notes if made.understood else ():
            print(f"note: {note}", file=sys.stderr)
        cues.append(cue)
    return replace(canvas, cues=tuple(cues))


def _facts(made: Rewriting) -> list[str]:
    """The facts that were understood, a line each."""
    if made.understood is None:
        return []
    lines = []
    for subject in made.understood.subjects:
        look = " ".join((*subject.attributes, subject.what))
        lines.append(f"subject: {look}{', ' + subject.motion if subject.motion else ''}")
    for name in ("setting", "camera", "style", "seconds"):
        if value := getattr(made.understood, name):
            lines.append(f"{name}: {value}")
    return [*lines, *(f"note: {note}" for note in made.understood.notes)]


def _quietly() -> None:
    """What is logged, the command says."""
    logging.getLogger("yozora").addHandler(logging.NullHandler())
