"""Training the rewriter, tiny: the stage runs, learns, resumes, and what it writes can be loaded."""

from pathlib import Path

import numpy as np
import torch

from yozora.models.folder import load_module
from yozora.models.language import LanguageModel
from yozora.train import run
from yozora.train.config import Optim, RewriterStage, Run
from yozora.train.rewriter import IGNORED, LABELS, Prompts, RewriterTask, collate, sorted_facts

CONFIG = """
scenes = 12
batch = 8
vocabulary = 400
[run]
out = "{out}"
steps = {steps}
workers = 0
log_every = 1
sample_every = 4
[optim]
adamw = 3e-3
warmup = 1
ema = 0.5
[model]
width = 32
depth = 1
heads = 2
"""


def _config(out: Path, **changes: object) -> RewriterStage:
    model = {"width": 32, "depth": 1, "heads": 2}
    settings = {"scenes": 12, "batch": 8, "vocabulary": 400} | changes
    return RewriterStage(run=Run(out=out, steps=4, workers=0), optim=Optim(adamw=3e-3), model=model, **settings)  # pyright: ignore[reportArgumentType]


def test_the_stage_writes_a_model_that_knows_its_prompts_words(tmp_path: Path) -> None:
    path = tmp_path / "rewriter.toml"
    path.write_text(CONFIG.format(out=tmp_path / "out", steps=4))
    folder = run("rewriter", path)
    model = load_module(LanguageModel, folder)
    assert model.config.labels == LABELS
    assert {"ball", "camera"} <= model.words
    assert "understood in full" in (tmp_path / "out" / "samples" / "0000004.txt").read_text()
    path.write_text(CONFIG.format(out=tmp_path / "out", steps=5))
    assert run("rewriter", path) == folder  # goes on


def test_a_caption_states_what_was_asked(tmp_path: Path) -> None:
    prompts, drawn = Prompts(_config(tmp_path, unprompted=0.0)), np.random.default_rng(0)
    for _ in range(40):
        asked = prompts.draw(drawn)
        assert asked.prompt.strip() and asked.caption.strip()
        assert all(f"{name}={value}" in LABELS for name, value in asked.facts.items())


def test_only_what_is_written_is_learned(tmp_path: Path) -> None:
    task = RewriterTask(_config(tmp_path, unprompted=0.0))
    drawn = np.random.default_rng(1)
    asked = [task.prompts.draw(drawn) for _ in range(4)]
    pairs = collate(task.model, asked)
    for ids, prompt, following, one in zip(*pairs, asked, strict=True):
        assert (following[: int(prompt)] == IGNORED).all()
        wanted = following[following != IGNORED]
        labels = task.model.label_ids([f"{n}={v}" for n, v in sorted_facts(one.facts)])
        assert wanted[: len(labels)].tolist() == labels
        assert wanted[-1] == task.model.end
        assert ids[int(prompt)] == task.model.begin_labels


def test_without_a_prompt_the_labels_are_given_and_not_guessed(tmp_path: Path) -> None:
    task = RewriterTask(_config(tmp_path))
    drawn = np.random.default_rng(1)
    one = task.prompts.draw(drawn)._replace(prompt="")
    pairs = collate(task.model, [one])
    first = int((pairs.following[0] != IGNORED).nonzero()[0])
    assert pairs.ids[0, first] == task.model.begin_caption


def test_loss_falls_on_one_batch(tmp_path: Path) -> None:
    task = RewriterTask(_config(tmp_path))
    batch = next(iter(task.batches(0)))
    optimiser = torch.optim.Adam(task.model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss, figures = task.loss(batch, torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert set(figures) == {"labels_right", "caption_right"}
