"""Fine-tuning on one's own clips, in one command: a LoRA, or the whole transformer, of Yozora's own models or of Wan.

The clips are cut and encoded once, into a pool beside what is made; then the transformer learns from it as it did from
the pools that it was trained with. A model that has learned from the simulated world goes over scenes of it meanwhile,
so that it does not forget what it knows (rehearsal: Robins 1995).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from yozora.diffusion import FLOW_MAP
from yozora.errors import ConfigError
from yozora.models.folder import load_module, read_config, read_json, weights_digest, write_json
from yozora.models.lora import LoraConfig
from yozora.models.registry import CARD
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.models.wan_folder import is_wan
from yozora.train.base import Base, find_base
from yozora.train.bundle import make_bundle
from yozora.train.claim import claimed
from yozora.train.config import (
    BundleStage,
    Job,
    LatentsStage,
    Parallel,
    PoolBucket,
    TransformerStage,
)
from yozora.train.data import LatentPool, load_mix
from yozora.train.finetune_config import Finetune, LoraStage, TuneStage
from yozora.train.footage import refuse_nothing
from yozora.train.latents import build_pool
from yozora.train.loop import fit, make_folder, pick_device
from yozora.train.mesh import refuse_several
from yozora.train.outputs import check_lora_file
from yozora.train.resumed import settings_of
from yozora.train.settings import build, check_config
from yozora.train.transformer import grow, train_transformer
from yozora.train.tuning import LORA_FILE, LoraTask, OpenTask, make_open_folder

PRIOR = 0.5  # scenes of the simulated world for each clip, where the model has learned from there
SCENES = 128  # of the world that it goes over again, and at least so many of each size
LEAST = 16
GRID = 32  # pixels that the sides of what is learned from are multiples of
LISTED = "captioned.jsonl"  # what a captioner has said of clips, in the run's folder
Defaults = dict[str, Any]
Describe = Callable[[Path, Path], None]
"""Captions the clips in a folder that have no caption of their own, into a list (see `yozora.captions`)."""
LORA: Defaults = {
    "run": {"steps": 400, "sample_every": 200},
    "optim": {"adamw": 1e-3, "warmup": 20, "decay": 0.7, "ema": 0.98},
}
FULL: Defaults = LORA | {"optim": LORA["optim"] | {"adamw": 1e-4}}
OPEN: Defaults = {"batch": 1, "checkpointing": "full"}  # one clip of an open model fills a GPU
OPEN_LORA: Defaults = OPEN | {
    "run": {"steps": 1000},
    "optim": {"adamw": 1e-4, "warmup": 50, "decay": 0.5, "ema": 0.98},
    "model": {"blocks": True},
}
OPEN_FULL: Defaults = OPEN | {
    "run": {"steps": 1000},
    "optim": {"adamw": 1e-5, "warmup": 50, "decay": 0.5, "ema": 0.98},
}


def train_lora(
    folder: Path,
    output: Path,
    model: str = "mini",
    settings: Sequence[str] = (),
    resume: bool = True,
    describe: Describe | None = None,
) -> Path:
    """A LoRA of `model` from the clips in a folder (see `yozora.train.footage`), written to the file `output`; what it
    is made with lies in OUTPUT.run. `settings` are overrides of Finetune, `section.key=value`; `describe` captions what
    has no caption. Raises ConfigError, ModelError, KeyboardInterrupt."""
    refuse_several("fine-tuning")
    base = find_base(model)
    check_lora_file(output, base.folder)
    config = _read(folder, output, base, OPEN_LORA if base.wan else LORA, _with_list(settings, output, describe))
    if config.compile:
        raise ConfigError("compile is for `yozora train finetune`: a LoRA is trained beside the blocks as they are")
    build(LoraConfig, config.model)
    _make_run(config, output, describe)
    with claimed(config.run.out):
        _describe(config, describe)
        lessons = _prepare(config, base, resume)
        stage = LoraStage(**lessons, **_tuned(config, base), model=config.model)
        made = fit(LoraTask(stage), stage.run, stage.optim, resume, settings=_asked(config)) / LORA_FILE
        partial = output.with_name(f"{output.name}.part")
        try:
            shutil.copyfile(made, partial)
            os.replace(partial, output)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ConfigError(f"cannot write {output} ({error.strerror}); the LoRA is in {made}") from None
    return output


def finetune(
    folder: Path,
    output: Path,
    model: str = "mini",
    settings: Sequence[str] = (),
    resume: bool = True,
    describe: Describe | None = None,
) -> Path:
    """As `train_lora`, but all weights learn and the folder `output` becomes a model of its own, in place of one that
    was there. It has no few-step weights: those of its base lead where that one led."""
    refuse_several("fine-tuning")
    base = find_base(model)
    if output.is_file() or not output.name:
        raise ConfigError(f"{output} cannot be written: name a folder with -o")
    if output.is_dir() and any(output.iterdir()) and not ((output / CARD).exists() or is_wan(output)):
        raise ConfigError(f"{output} holds something that is no model: name another folder with -o")
    if base.folder.resolve() in (output.resolve(), *output.resolve().parents):
        raise ConfigError(f"{output} is the model that is learned from, or in it: name another folder with -o")
    config = _read(folder, output, base, OPEN_FULL if base.wan else FULL, _with_list(settings, output, describe))
    if base.wan:
        return _finetune_open(config, base, output, resume, describe)
    return _finetune_own(config, base, output, resume, describe)


def _finetune_own(config: Finetune, base: Base, output: Path, resume: bool, describe: Describe | None) -> Path:
    """All of a transformer of Yozora's own. Its folder is made of the same parts as any other's."""
    build(TransformerConfig, dataclasses.asdict(read_config(Transformer, base.weights)) | config.model)
    if config.model:
        grow(load_module(Transformer, base.weights), config.model)  # what does not fit is said before any work
    _make_run(config, output, describe)
    with claimed(config.run.out):
        _describe(config, describe)
        return _put(_own_folder(config, base, output, resume), output)


def _own_folder(config: Finetune, base: Base, output: Path, resume: bool) -> Path:
    """Trains, and makes the model folder, which will be called as `output`. Returns where it is."""
    card = base.card
    lessons = _prepare(config, base, resume)
    stage = TransformerStage(
        **lessons,
        start_from=base.folder,
        text_rate=0.0,
        parallel=Parallel(checkpointing=config.checkpointing),
        compile=config.compile,
        model=config.model,
    )
    trained = train_transformer(stage, resume, _asked(config))
    said = dataclasses.asdict(card) | {"name": output.name, "few_steps": None}
    if card.solver == FLOW_MAP:
        del said["solver"]  # the one that a card has without saying so is for full weights
    made = make_bundle(
        BundleStage(out=config.run.out / "model", transformer=trained, autoencoder=base.autoencoder, card=said)
    )
    if card.few_steps:
        print(f"{output.name} has no few-step weights: those of {card.name} are for its own; see yozora train distill")
    return made


def _finetune_open(config: Finetune, base: Base, output: Path, resume: bool, describe: Describe | None) -> Path:
    """All of an open model's transformer. Its folder has the other parts as they are."""
    if config.compile or config.model:
        raise ConfigError("compile and model are for models of Yozora's own: leave them out")
    _make_run(config, output, describe)
    with claimed(config.run.out):
        _describe(config, describe)
        stage = TuneStage(**_prepare(config, base, resume), **_tuned(config, base))
        trained = fit(OpenTask(stage), stage.run, stage.optim, resume, settings=_asked(config))
        try:
            made = make_open_folder(base, trained, output)
        except OSError as error:
            raise ConfigError(f"cannot write {output} ({error.strerror}); the transformer is in {trained}") from None
        find_base(made).load(torch.device("cpu"), torch.bfloat16)  # what cannot be loaded must not be called done
        return _put(made, output)


def _put(made: Path, output: Path) -> Path:
    """Moves a finished model to its place, where another may be, which stays there until the new one is beside it.
    Raises ConfigError where that cannot be."""
    before, beside = (output.with_name(f".{output.name}.{end}") for end in ("before", "new"))
    try:
        if made != beside:
            shutil.rmtree(beside, ignore_errors=True)
            shutil.move(made, beside)  # which may be to another disk
        if output.exists():
            shutil.rmtree(before, ignore_errors=True)  # of a run that was killed here, once
            os.replace(output, before)
        try:
            os.replace(beside, output)
        except OSError:
            if before.exists():
                os.replace(before, output)
            raise
    except OSError as error:
        where = beside if beside.exists() else made
        raise ConfigError(f"cannot write {output} ({error.strerror}); the model is in {where}") from None
    shutil.rmtree(before, ignore_errors=True)
    return output


# ---- what is learned from --------------------------------------------------------------------------------------------


def _read(folder: Path, output: Path, base: Base, defaults: Defaults, settings: Sequence[str]) -> Finetune:
    """The settings: those of the model, else `defaults`, unless told. Raises ConfigError for what cannot be, before
    anything is encoded."""
    card = base.card
    raw = {name: dict(value) if isinstance(value, dict) else value for name, value in defaults.items()}
    raw["run"]["out"] = str(output.with_name(f"{output.name}.run"))
    sizes = [tuple(max(GRID, side // GRID * GRID) for side in size) for size in card.sizes]
    raw["footage"] = {"path": str(folder), "frames": card.frames_max, "fps": card.fps, "sizes": sizes}
    if card.one_level:
        raw["anchored"] = 0.0
    config = check_config(Finetune, raw, f"fine-tuning on {folder}", settings)
    if card.one_level and config.anchored:
        raise ConfigError(f"{card.name} has one noise level a clip, so that nothing of it can be held: anchored is 0")
    if card.world is not None:
        load_mix(card.world)
    elif config.prior:
        raise ConfigError(f"prior is for models that have learned from the simulated world; {card.name} has not")
    pick_device(config.run.device)
    return config


def _make_run(config: Finetune, output: Path, describe: Describe | None) -> None:
    """Makes the run's folder, which is beside the output unless it was given, and that of the output. Raises
    ConfigError, without a trace, where there is nothing to learn from."""
    refuse_nothing(config.footage, describe is not None)
    beside = config.run.out == output.with_name(f"{output.name}.run")
    make_folder(config.run.out, "-o" if beside else "run.out")
    make_folder(output.parent, "-o")


def _with_list(settings: Sequence[str], output: Path, describe: Describe | None) -> list[str]:
    """The settings, and where a captioner's list will be."""
    listed = json.dumps(str(output.with_name(f"{output.name}.run") / LISTED), ensure_ascii=False)
    return [*settings, *([f"footage.listed={listed}"] if describe else [])]


def _describe(config: Finetune, describe: Describe | None) -> None:
    if describe is not None:
        assert config.footage.listed is not None
        describe(config.footage.path, config.footage.listed)
        config.footage.listed.touch()  # there is none where nothing could be said


def _prepare(config: Finetune, base: Base, resume: bool) -> dict[str, Any]:
    """Encodes what is learned from. Returns what all stages of fine-tuning share: a bucket for each size and length in
    the pool, drawn as often as there are clips of it."""
    pool = LatentPool(_encode(config, base, "latents", resume))
    world = _go_over(config, base, pool, resume) if base.card.world is not None and config.prior != 0 else None
    captions = [said for each in pool.captions() for said in each]
    base.write_states(captions, config.run.out / "captions", config.run.precision)
    _claim(config, base, resume)
    largest = max(base.card.shift_for((width, height)) for width, height, _ in pool.clips)
    kept = {name: getattr(config, name) for name in ("drop_prompt", "anchored", "level_std", "optim")}
    return kept | {
        "run": config.run.model_copy(update={"out": config.run.out / "training"}),
        "pool": pool.folder,
        "autoencoder": base.autoencoder,
        "buckets": tuple(bucket.model_copy(update={"batch": config.batch}) for bucket in pool.buckets()),
        "shift": largest,
        "world": world,
        "prior": 0.0 if world is None else PRIOR if config.prior is None else config.prior,
        "details": {"short": 1.0},  # of the world's scenes: longer ones would be cut, and be padding for the footage's
    }


def _tuned(config: Finetune, base: Base) -> dict[str, Any]:
    """What TuneStage has besides."""
    return {
        "start_from": base.folder,
        "name": base.card.name,
        "states": config.run.out / "captions",
        "checkpointing": config.checkpointing,
    }


def _go_over(config: Finetune, base: Base, pool: LatentPool, resume: bool) -> Path:
    """A pool of scenes of the world that the model has learned from, in the sizes of the footage and as long."""
    longest: dict[tuple[int, int], int] = {}
    clips: dict[tuple[int, int], int] = {}
    for (width, height, frames), of in pool.clips.items():
        longest[width, height] = max(frames, longest.get((width, height), 1))
        clips[width, height] = clips.get((width, height), 0) + len(of)
    total = sum(clips.values())
    buckets = tuple(
        PoolBucket(width=width, height=height, frames=frames, clips=max(LEAST, SCENES * clips[width, height] // total))
        for (width, height), frames in sorted(longest.items())
    )
    assert base.card.world is not None
    return _encode(config, base, "world", resume, mix=base.card.world, fps=config.footage.fps, buckets=buckets)


def _encode(config: Finetune, base: Base, name: str, resume: bool, **rendered: Any) -> Path:
    """A pool of the run: of what is `rendered`, or else of the footage."""
    run = config.run
    job = Job(out=run.out / name, seed=run.seed, device=run.device, precision=run.precision, workers=run.workers)
    given = rendered or {"footage": config.footage}
    return build_pool(LatentsStage(run=job, autoencoder=base.autoencoder, **given), resume)


def _claim(config: Finetune, base: Base, resume: bool) -> None:
    """A run's checkpoint belongs to one model's weights. Raises ConfigError where it belongs to another's."""
    note, digest = config.run.out / "base.json", weights_digest(base.weights)
    if resume and note.exists() and read_json(note).get("transformer_sha256") != digest:
        raise ConfigError(f"{config.run.out} holds a run on another model; use --no-resume or another name with -o")
    write_json(note, {"transformer_sha256": digest})


def _asked(config: Finetune) -> dict[str, Any]:
    """The settings that a checkpoint is made with, as they were given; clips that changed the pool has refused."""
    return settings_of(config, without=("footage",))
