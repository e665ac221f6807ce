"""How the blocks of a transformer are run: with fewer bits, from elsewhere, compiled, in pieces. None of it is known to
the model itself, and all but fewer bits leave its numbers as they are, up to rounding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from yozora.errors import ModelError
from yozora.models.compiled import check_compiler, compile_block
from yozora.models.offload import PLACES, AwayBlock, Shelf
from yozora.models.pieces import Pieces, can_be_packed
from yozora.models.quantised import KINDS, in_eight_bits
from yozora.models.transformer import Block


@dataclass(frozen=True)
class Running:
    """What is asked for: `weights` in eight bits ("int8", "fp8"), `offload` to where weights wait ("cpu", "disk"), each
    None for no; and whether blocks are `compiled`. Raises ModelError, ConfigError."""

    weights: str | None = None
    offload: str | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        for what, asked, known in (("weights", self.weights, KINDS), ("offload", self.offload, PLACES)):
            if asked is not None and asked not in known:
                raise ModelError(f"{what} {str(asked)[:40]!r} is none of {', '.join(known)}")
        if self.compiled:
            if self.offload:
                raise ModelError("compiled blocks cannot be offloaded: leave one of the two out")
            check_compiler("leave --compile out")


AS_IT_IS = Running()


class Blocks:
    """Makes the blocks of one transformer ready, one after the other as they are loaded, for a device."""

    def __init__(self, running: Running, device: torch.device, dtype: torch.dtype) -> None:
        self.running, self.device = running, device
        self.shelf = Shelf(device, running.offload) if running.offload else None
        self.packed = can_be_packed(device, dtype)
        self.home = torch.device("cpu") if running.offload and running.weights is None else device
        """Where a block is loaded to: what is only to be put away need not see the device."""

    def ready(self, block: Block) -> nn.Module:
        """The block as it is run."""
        run, made = self.running, block
        if run.weights:
            in_eight_bits(block, run.weights)
        if run.compiled:
            compile_block(block)
        elif self.device.type == "cpu" and not run.weights:
            made = Pieces(block, self.packed and self.shelf is None)
        return made if self.shelf is None else AwayBlock(made, self.shelf, self.packed)
