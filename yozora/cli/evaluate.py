"""`yozora evaluate`: how good a model is, as a page with tables and clips."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yozora.cli.bars import bars
from yozora.cli.options import DEFAULT_MODEL
from yozora.errors import CanvasError, ConfigError, needing

if TYPE_CHECKING:
    from yozora.create import Generator
    from yozora.evaluate.section import Section

    Progress = Callable[[int, int, str], object]
    Measure = Callable[[Generator, Progress], Section]

SUITES = ("world", "media")
PARTS = ("following", "quality", "consistency")
PROMPTS, SECONDS = 16, 20.0
QUICK_PROMPTS, QUICK_SECONDS = 2, 4.0
QUALITY = 4  # prompts for the section on quality, for each one a category: its distances need many
MOST_PROMPTS = 1000


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a folder.")] = DEFAULT_MODEL,
    folder: Annotated[
        Path | None, typer.Argument(help="With --suite media: clips, a .txt beside each one its prompt.")
    ] = None,
    suite: Annotated[str, typer.Option(help="world: scenes whose truth is known; media: your own footage.")] = "world",
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to write the report to.")] = Path("report"),
    prompts: Annotated[int | None, typer.Option(help=f"Prompts a category; else {PROMPTS}.")] = None,
    seconds: Annotated[float | None, typer.Option(help=f"Length of the long videos; else {SECONDS:g}.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help=f"A first look: {QUICK_PROMPTS} prompts a category, {QUICK_SECONDS:g} s.")
    ] = False,
    only: Annotated[str, typer.Option(help=f"Some of {','.join(PARTS)}.")] = ",".join(PARTS),
    steps: Annotated[int | None, typer.Option(help="Sampling steps; else the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow prompts; else the model's own.")] = None,
    solver: Annotated[
        str | None, typer.Option(help="How steps are taken; else the model's own. flow-map: its few-step weights.")
    ] = None,
    clip: Annotated[
        Path | None, typer.Option("--clip", help="With --suite media: a CLIP model's folder (needs transformers).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps …")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
) -> None:
    """Measure MODEL and write a report: how it follows prompts, how good its videos are, how consistent their world."""
    if suite == "media" and folder is None and Path(model).is_dir() and not (Path(model) / "model.json").exists():
        model, folder = DEFAULT_MODEL, Path(model)
    asked = Asked(suite, folder, only, prompts, seconds, quick, clip)
    asked.check(steps, guidance, solver)
    with needing("evaluating needs", "evaluate"):
        from yozora.create import YozoraWarning
        from yozora.evaluate.report import check_report, figures, show_sections, stamp_of, took, write_report
    check_report(output)
    if folder:
        from yozora.evaluate.media import media_files

        media_files(folder)
    start, parts = time.perf_counter(), asked.measures()
    generator = loaded(model, device, steps, guidance, solver)
    with bars(list(parts), together=False) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", YozoraWarning)  # long videos are meant to be longer than the model's window
        sections = [measure(generator, _watched(show, part)) for part, measure in parts.items()]
    stamp = stamp_of(generator, suite, asked.settings, time.perf_counter() - start)
    write_report(output, sections, stamp)
    if as_json:
        print(json.dumps({"path": str(output)} | figures(sections, stamp), ensure_ascii=False))
    else:
        show_sections(sections)
        print(f"{output / 'index.html'}: {generator.bundle.name}, {suite} suite, measured in {took(stamp.seconds)}")


@dataclass(frozen=True)
class Asked:
    """What is to be measured, as it was asked for."""

    suite: str
    folder: Path | None
    only: str
    prompts: int | None
    seconds: float | None
    quick: bool
    clip: Path | None

    @property
    def parts(self) -> list[str]:
        """The sections of the suite."""
        if self.suite == "media":
            return ["media"]
        wanted = {part.strip() for part in self.only.split(",")}
        return [part for part in PARTS if part in wanted]

    @property
    def count(self) -> int:
        """Prompts a category."""
        return self.prompts or (QUICK_PROMPTS if self.quick else PROMPTS)

    @property
    def length(self) -> float:
        """Seconds of the long videos."""
        return self.seconds or (QUICK_SECONDS if self.quick else SECONDS)

    @property
    def settings(self) -> dict[str, Any]:
        """What of this the report names."""
        if self.suite == "media":
            return {"folder": self.folder.name if self.folder else None, "clip": self.clip.name if self.clip else None}
        long = {"seconds": self.length} if "consistency" in self.parts else {}
        return {"prompts a category": self.count, **long, "measured": ",".join(self.parts)}

    def check(self, steps: int | None, guidance: float | None, solver: str | None) -> None:
        """Raises CanvasError, ConfigError for what cannot be measured. Needs no torch, so it is quick."""
        from yozora.create.limits import check_guidance, check_steps
        from yozora.create.sizes import check_seconds

        if self.suite not in SUITES:
            raise ConfigError(f"unknown suite {self.suite[:40]!r}; known: {', '.join(SUITES)}")
        if unknown := {part.strip() for part in self.only.split(",")} - set(PARTS):
            raise ConfigError(f"cannot measure {', '.join(sorted(unknown))[:80]!r}; known: {', '.join(PARTS)}")
        if self.prompts is not None and not 1 <= self.prompts <= MOST_PROMPTS:
            raise ConfigError(f"{self.prompts} prompts a category cannot be used: use 1 to {MOST_PROMPTS}")
        if self.seconds is not None:
            check_seconds(self.seconds)
            if self.seconds < 2:
                raise CanvasError(f"a long video lasts at least 2 s, not {self.seconds:g}")
        if steps is not None:
            check_steps(steps)
        if guidance is not None:
            check_guidance(guidance)
        if solver is not None:
            from yozora.create.settings import check_solver

            check_solver(solver)
        if self.suite == "world" and (self.folder or self.clip):
            raise ConfigError(f"{'a folder' if self.folder else '--clip'} is measured with --suite media")
        if self.suite == "media" and self.folder is None:
            raise ConfigError("--suite media needs a folder with clips: yozora evaluate MODEL FOLDER --suite media")

    def measures(self) -> dict[str, Measure]:
        """What measures each part, all of it imported, so that what is missing is known before the work."""
        with needing("evaluating needs", "evaluate"):
            return {part: self._measure(part) for part in self.parts}

    def _measure(self, part: str) -> Measure:
        if part == "following":
            from yozora.evaluate.categories import follow

            return lambda generator, progress: follow(generator, self.count, progress)
        if part == "quality":
            from yozora.evaluate.quality import quality

            return lambda generator, progress: quality(generator, QUALITY * self.count, progress)
        if part == "consistency":
            from yozora.evaluate.consistency import consistency

            return lambda generator, progress: consistency(generator, self.length, progress, self.count)
        from yozora.evaluate.media import media

        assert self.folder is not None
        folder = self.folder
        return lambda generator, progress: media(generator, folder, progress, self.clip)


def loaded(model: str, device: str, steps: int | None, guidance: float | None, solver: str | None) -> Generator:
    """The model, whose card then says what was asked for. Raises CanvasError, ModelError."""
    from yozora.create.generator import Generator, load
    from yozora.diffusion import FLOW_MAP

    generator = load(model, device)
    settings, bundle = generator.settings(steps, guidance, solver), generator.bundle
    card = replace(bundle.card, solver=settings.solver)
    if settings.solver == FLOW_MAP:
        card = replace(card, few_steps=settings.steps)
    else:
        card = replace(card, steps=settings.steps, guidance=settings.guidance, projected=settings.projected)
    return Generator(replace(bundle, card=card))


def _watched(show: Callable[[str, int, int], object], part: str) -> Progress:
    return lambda done, total, what: show(part, done, total)
