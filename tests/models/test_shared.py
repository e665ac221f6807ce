"""Two processes make the video that one makes: the same network, sampling, reuse and command, over gloo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torchrun import torchrun

from yozora.cli import main
from yozora.clip import Clip

SCRIPT = """
import sys
import torch
from yozora.diffusion import guided, sample, schedule
from yozora.diffusion.reuse import Reuse
from yozora.models.running import Blocks, Running
from yozora.models.shared import Halved, Shared
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.mesh import meet

torch.manual_seed(0)
model = Transformer(TransformerConfig(channels=4, width=48, depth=3, heads=4, text_width=16, freq_dim=32)).eval()
for parameter in model.parameters():
    parameter.data.add_(0.05 * torch.randn_like(parameter))
cut = Transformer(model.config).eval()
cut.load_state_dict(model.state_dict())
ready = Blocks(Running(), torch.device("cpu"), torch.float32)
for n, block in enumerate(cut.blocks):
    cut.blocks[n] = ready.ready(block)
noise, text = torch.randn(2, 4, 3, 6, 10), torch.randn(2, 5, 16)
mask = torch.rand(2, 3, 5) < 0.8
mask[:, :, 0] = True
hold = torch.zeros(2, 3, 3, 5)
hold[:, 0], hold[:, 1, 1] = 1.0, 0.5
known = torch.randn(2, 4, 3, 6, 10)

def make(model, held, text_mask):
    velocity = guided(model, (text, text_mask), (torch.zeros(1, 5, 16), None), 3.0)
    extra = {"known": known, "hold": hold} if held else {}
    *_, step = sample(velocity, noise, schedule(8, 3.0), **extra)
    return step.latents

with meet(2, "cpu") as mesh:
    for held, text_mask in ((False, None), (True, mask)):  # one level for all; one for each token, a text a frame
        expected = make(model, held, text_mask)
        for each in (model, cut):
            difference = (make(Shared(each, mesh.row), held, text_mask) - expected).abs().max()
            assert difference <= 1e-5, difference
            difference = (make(Halved(each, mesh.row), held, text_mask) - expected).abs().max()
            assert difference <= 1e-5, difference
    three = Halved(model, mesh.row)(noise[:1], torch.ones(1, 3), text[:1])  # a batch that has no halves
    assert torch.equal(three, model(noise[:1], torch.ones(1, 3), text[:1]))
    reuse, alone = Reuse(Shared(model, mesh.row), 0.3), Reuse(model, 0.3)
    difference = (make(reuse, False, None) - make(alone, False, None)).abs().max()
    assert difference <= 1e-5 and reuse.full == alone.full < reuse.calls, (difference, reuse.full, alone.full)

from yozora.__main__ import run
sys.argv = ["yozora", *sys.argv[1:]]
run()
"""


def test_two_processes_make_what_one_makes(tiny_model: Path, tmp_path: Path) -> None:
    arguments = [
        "generate",
        "a red ball",
        "--model",
        str(tiny_model),
        "--size",
        "64x64",
        "--steps",
        "3",
        "--device",
        "cpu",
    ]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = torchrun(2, str(script), *arguments, "-o", str(tmp_path / "two.png"), "--seed", "3")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("two.png: 64x64") == 1  # one speaks for all
    assert main([*arguments, "-o", str(tmp_path / "one.png"), "--seed", "3"]) == 0
    one, two = (Clip.read(tmp_path / name).frames.astype(int) for name in ("one.png", "two.png"))
    assert one.shape == two.shape and np.abs(one - two).max() <= 1
