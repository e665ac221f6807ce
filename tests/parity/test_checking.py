"""`scripts/check_open_weights.py`: what it says of a folder that is run as diffusers runs it, and of another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from wan_models import tiny_pipeline

ROOT = Path(__file__).parents[2]
CHANGED = "import yozora.diffusion as d; d.SCHEDULES['wan-0.37'] = d.SCHEDULES['wan']; "


def check(folder: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    script = ROOT / "scripts" / "check_open_weights.py"
    arguments = [str(script), str(folder), "--side", "32", "--frames", "1"]
    run = f"import runpy, sys; {before}sys.argv = {arguments!r}; runpy.run_path({str(script)!r}, run_name='__main__')"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", run], env=env, capture_output=True, text=True, timeout=300)


def test_right_and_not_right(tmp_path: Path) -> None:
    tiny_pipeline("2.1").save_pretrained(tmp_path)
    right = check(tmp_path)
    assert right.returncode == 0, right.stderr
    lines = right.stdout.splitlines()
    assert lines[-1].startswith("right") and len(lines) == 7
    assert all(float(line.split(" from diffusers")[0].split()[-1]) < 1e-5 for line in lines[1:5])
    assert len(lines[5].split()[-1]) == 64
    wrong = check(tmp_path, CHANGED)
    assert wrong.returncode == 1 and wrong.stdout.splitlines()[-1].startswith("NOT right")
    path = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {name: torch.full_like(each, float("nan")) for name, each in tensors.items()}, path)
    assert check(tmp_path).returncode == 1  # no number is near to none
