"""What an order is given, by id: brought into a run's scratch folder, and named in the recipe of what came out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from yozora.clip import Recipe
from yozora.errors import YozoraError
from yozora.serve.database import persist
from yozora.serve.orders import sources_of
from yozora.serve.runs import Run
from yozora.serve.tables import Character, Job, Upload

__all__ = ["fetch", "portable"]


def fetch(run: Run) -> dict[str, Path]:
    """Everything the order is given, as files in scratch, by id. Raises YozoraError for what is gone."""
    given = {found for _, found in sources_of(run.order)}
    run.scratch.mkdir(parents=True, exist_ok=True)
    files = {name: run.scratch / name for name in given}
    for name, path in files.items():
        if not path.exists():
            key = persist(lambda name=name: _key_of(run, name))
            if key is None:
                raise YozoraError(f"{name}, which this video was to be made from, is not there any more")
            part = path.with_suffix(".part")
            run.service.storage.fetch(key, part)
            part.rename(path)
    return files


def _key_of(run: Run, name: str) -> str | None:
    with run.service.database.reading() as session:
        if name.startswith("video_"):
            job = session.get(Job, name)
            return job.files["video"]["key"] if job is not None and "video" in job.files else None
        table = Upload if name.startswith("file_") else Character
        return session.scalar(sa.select(table.key).where(table.id == name))


def portable(recipe: Recipe, files: dict[str, Path]) -> Recipe:
    """The recipe with ids in the place of this machine's paths, which are nobody's business."""
    names = {str(path): name for name, path in files.items()}
    anchors = [
        anchor | {key: names.get(str(anchor[key]), "") for key in ("source", "mask") if anchor.get(key)}
        for anchor in recipe.canvas.get("anchors", ())
    ]
    return replace(recipe, canvas=recipe.canvas | {"anchors": anchors})
