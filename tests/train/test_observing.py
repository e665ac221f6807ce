"""What a run says of itself: operations counted rightly, figures by noise level, and gradients that are no lesson."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from yozora.clip import Clip
from yozora.models.transformer import Transformer, TransformerConfig
from yozora.train.config import Run
from yozora.train.flops import step_flops
from yozora.train.flow import unanchored
from yozora.train.log import Log, matmul_rate
from yozora.train.optim import LATELY, Guard

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "config",
    [
        TransformerConfig(channels=8, width=48, depth=3, heads=4, text_width=32, patch=(1, 2, 2)),
        TransformerConfig(channels=4, width=96, depth=2, heads=2, ffn=3.0, text_width=16, patch=(1, 1, 1)),
    ],
)
def test_operations_are_those_that_torch_counts(config: TransformerConfig) -> None:
    transformer = Transformer(config)
    latents, text = torch.randn(2, config.channels, 5, 8, 12), torch.randn(2, 7, config.text_width)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it knows no fused one of CPUs
        transformer(latents, torch.rand(2, 1), text).square().mean().backward()
    tokens = 5 * 8 * 12 // config.patch_volume
    counted = step_flops(config, [tokens, tokens], [7, 7])
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.03)


def test_the_matmul_rate_is_of_this_machine() -> None:
    assert 1e9 < matmul_rate(CPU, "fp32") < 1e14


def test_errors_by_noise_level() -> None:
    figures = unanchored([0.0, 0.1, 0.55, 1.0], [1.0, 3.0, 5.0, 7.0])
    assert figures == {"loss_unanchored": 4.0, "level/0.0-0.2": 2.0, "level/0.4-0.6": 5.0, "level/0.8-1.0": 7.0}
    assert unanchored([], []) == {}


def test_a_figure_is_the_mean_over_the_steps_that_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(Run(out=tmp_path, steps=3, log_every=3, precision="fp32"), CPU)
    for step, figures in enumerate(({"loss": 1.0, "level/0.0-0.2": 4.0}, {"loss": math.nan}, {"loss": 3.0}), start=1):
        log.step(step, 5, figures | {"tokens": 100.0, "flops": 1e6})
    log.close()
    line = capsys.readouterr().out
    assert "step 3/3  loss 2.0000" in line and "tokens_per_second" in line and "level" not in line
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    last = {name: events.Scalars(name)[-1].value for name in events.Tags()["scalars"]}
    assert last["loss"] == 2.0 and last["level/0.0-0.2"] == 4.0
    assert last["mfu"] == pytest.approx(last["flops_per_second"] / matmul_rate(CPU, "fp32"), rel=1e-5)
    assert last["tokens_per_second"] == pytest.approx(20 * last["samples_per_second"], rel=1e-5)
    assert last["memory_mib"] > 50


def test_samples_are_shown(tmp_path: Path) -> None:
    """A video moves (as a GIF), a picture is as it is, and a text can be read."""
    log = Log(Run(out=tmp_path, steps=3, log_every=9, precision="fp32"), CPU)
    frames = np.zeros((5, 32, 32, 3), np.uint8)
    frames[np.arange(5), 4:12, np.arange(5) * 4] = 255
    (tmp_path / "samples").mkdir()
    for name in ("0000003-0.mp4", "0000003.png", "0000002-0.mp4"):
        Clip(frames if name.endswith("mp4") else frames[:1], 8.0).write(tmp_path / "samples" / name)
    (tmp_path / "samples" / "0000003.txt").write_text("iou: 0.5")
    log.show(3)
    log.show(1)  # of which there are none
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(events.Tags()["images"]) == {"samples/0", "samples/sheet"}
    (event,) = events.Images("samples/0")
    (tmp_path / "shown.gif").write_bytes(event.encoded_image_string)
    shown = Clip.read(tmp_path / "shown.gif")
    assert event.step == 3 and shown.frames.shape == frames.shape and shown.fps == pytest.approx(8, abs=0.5)
    assert np.abs(shown.frames.astype(int) - frames).mean() < 8
    (sheet,) = events.Images("samples/sheet")
    assert sheet.encoded_image_string == (tmp_path / "samples" / "0000003.png").read_bytes()
    assert events.Tensors("samples/read/text_summary")[0].tensor_proto.string_val == [b"iou: 0.5"]


FULL = """
import resource, sys, time
from pathlib import Path
import torch
from yozora.errors import ConfigError
from yozora.train.config import Run
from yozora.train.log import Log

log = Log(Run(out=Path(sys.argv[1]), steps=99, log_every=1, precision="fp32"), torch.device("cpu"))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    for step in range(1, 99):
        log.step(step, 1, {"loss": 1.0})
    log.close()
except ConfigError as error:
    print(error)
"""


def test_curves_on_a_full_disk_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and not done.stderr, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == f"cannot write {tmp_path / 'tensorboard'} (File too large); is the disk full?"


def test_a_spike_is_no_lesson_but_what_grows_for_good_becomes_one() -> None:
    guard = Guard(10.0)
    assert [guard.judge(norm) for norm in (5.0, 0.1, 80.0)] == ["", "", ""]  # too few are known
    guard = Guard(10.0)
    for _ in range(LATELY):
        assert guard.judge(1.0) == ""
    assert guard.limit == 10.0
    assert guard.judge(9.9) == "" and "25 times as large as lately" in guard.judge(25.0)
    assert guard.judge(math.nan) == guard.judge(math.inf) == "loss or gradient is not finite"
    skipped = [bool(guard.judge(50.0)) for _ in range(LATELY)]
    assert all(skipped[:10]) and not any(skipped[-10:])
