"""Where memory does not suffice, the switch that would help is named: by stage, and only if it is not in use."""

from __future__ import annotations

import pytest
import torch

from yozora.create.memory import advice, memory_errors
from yozora.errors import CanvasError, ModelError
from yozora.models.registry import load_bundle
from yozora.models.running import Running

CPU, GPU = torch.device("cpu"), torch.device("cuda")
SMALLER = "a smaller size, fewer seconds or fewer variations"


@pytest.mark.parametrize(
    ("stage", "running", "device", "tile", "large", "said"),
    [
        ("load", Running(), GPU, 0, True, "ask for --weights int8 or --offload cpu"),
        ("load", Running("int8"), CPU, 0, True, "ask for --offload disk"),
        ("load", Running(compiled=True), CPU, 0, True, "ask for --weights int8 or --offload disk without --compile"),
        ("load", Running("fp8", "disk"), CPU, 0, True, "a smaller model, or more memory, is needed"),
        ("sample", Running(), CPU, 0, True, f"ask for --weights int8 or --offload disk or {SMALLER}"),
        ("sample", Running(), CPU, 0, False, f"ask for {SMALLER}"),
        ("decode", Running(), GPU, 0, False, f"ask for --tile 256 or {SMALLER}"),
        ("decode", Running(), GPU, 0, True, f"ask for --tile 256 or --offload cpu or {SMALLER}"),
        ("decode", Running("int8", "cpu"), GPU, 256, True, f"ask for {SMALLER}"),
    ],
)
def test_advice(stage: str, running: Running, device: torch.device, tile: int, large: bool, said: str) -> None:
    assert advice(stage, running, device, tile, large) == said


def test_an_allocation_that_fails_is_one_line() -> None:
    said = r"^not enough memory for 5 frames of 8x8: ask for less$"
    with pytest.raises(CanvasError, match=said), memory_errors("5 frames of 8x8", lambda: "ask for less"):
        torch.empty(2**60)
    with pytest.raises(RuntimeError, match="another"), memory_errors("x", lambda: ""):
        raise RuntimeError("another")


def test_what_serves_open_weights_is_not_for_others() -> None:
    with pytest.raises(ModelError, match="mini is no open weights: leave out --weights, --offload and --compile"):
        load_bundle("mini", running=Running("int8"))
