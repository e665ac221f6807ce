"""Training the rewriter, tiny: the stage runs, learns, goes on, and what it writes can be loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from yozora.errors import ModelError
from yozora.models.folder import load_module
from yozora.models.prompt_reader import UNSAID, PromptReader
from yozora.train import run
from yozora.train.config import Optim, Run
from yozora.train.rewriter import FACTS, Asking, RewriterStage, RewriterTask, numbered

CONFIG = """
text_encoder = "{text}"
scenes = 12
batch = 8
[run]
out = "{out}"
steps = {steps}
workers = 0
log_every = 1
sample_every = 3
[optim]
adamw = 3e-3
warmup = 1
ema = 0.5
"""


def _config(model: Path, **changes: object) -> RewriterStage:
    settings = {"scenes": 12, "batch": 8, "text_encoder": model / "text_encoder"} | changes
    return RewriterStage(run=Run(out=Path("unused"), steps=3, workers=0), optim=Optim(adamw=3e-3), **settings)  # pyright: ignore[reportArgumentType]


def test_the_stage_writes_a_reader_that_knows_its_prompts_words(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yozora.train.rewriter.SHOWN", 20)
    path = tmp_path / "rewriter.toml"
    path.write_text(CONFIG.format(text=tiny_model / "text_encoder", out=tmp_path / "out", steps=3))
    folder = run("rewriter", path)
    reader = load_module(PromptReader, folder)
    assert set(reader.config.facts) == set(FACTS)
    assert {"camera", "caméra"} <= reader.words
    assert "understood in full" in (tmp_path / "out" / "samples" / "0000003.txt").read_text()
    path.write_text(CONFIG.format(text=tiny_model / "text_encoder", out=tmp_path / "out", steps=4))
    assert run("rewriter", path) == folder


def test_it_begins_as_the_text_encoder_is(tiny_model: Path) -> None:
    from yozora.models.text import TextEncoder

    task, text = RewriterTask(_config(tiny_model)), load_module(TextEncoder, tiny_model / "text_encoder")
    with torch.no_grad():
        assert torch.equal(task.model.text(["a red ball"])[0], text(["a red ball"])[0])


def test_prompts_come_with_the_facts_that_they_state(tiny_model: Path) -> None:
    asking, drawn = Asking(_config(tiny_model)), np.random.default_rng(0)
    asked = [asking.draw(drawn, n % 5 == 0) for n in range(30)]
    prompts = numbered(asked)
    assert all(one.prompt.strip() for one in asked)
    for values, one in zip(prompts.values, asked, strict=True):
        named = {name: FACTS[name][n - 1] for name, n in zip(FACTS, values.tolist(), strict=True) if n != UNSAID}
        assert named == one.facts
        assert one.facts


def test_the_same_step_has_the_same_batch(tiny_model: Path) -> None:
    first, second = (Asking(_config(tiny_model)).batch(5) for _ in range(2))
    assert first.texts == second.texts and torch.equal(first.values, second.values)


def test_it_learns_one_batch_by_heart(tiny_model: Path) -> None:
    task = RewriterTask(_config(tiny_model))
    batch = next(iter(task.batches(0)))
    optimiser = torch.optim.Adam(task.model.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        loss, figures = task.loss(batch, torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert set(figures) == {"stated_right", "understood"}


def test_a_missing_text_encoder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        RewriterTask(_config(tmp_path))
