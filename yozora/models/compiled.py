"""Blocks compiled by torch.compile, each by itself: all have one shape, so one compilation serves them all."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from yozora.errors import ConfigError


def check_compiler(without: str) -> None:
    """Raises ConfigError where there is no compiler that torch.compile could use; `without` says how to do without."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++")):
        raise ConfigError(f"compile needs a C++ compiler (g++ or clang++): install one, or {without}")


def compile_block(block: nn.Module) -> None:
    """Compiles what a block does when it is first called. Shapes may differ from call to call."""
    block.forward = torch.compile(block.forward, dynamic=True)
