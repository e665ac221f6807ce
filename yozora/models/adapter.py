"""Few-step weights, kept as what they add to a transformer's own: low-rank changes of its matrices (LoRA, Hu et al.
2021).

A transformer says in which direction to go at a noise level, and takes some twenty small steps with two passes each.
The one that an adapter makes of it has learned where those steps and guidance lead together (`yozora train distill`):
it is told how far the step goes and answers with the mean velocity over it, in one pass. A matrix W becomes W +
up·down; what tells it of the step's length is new.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.init import kaiming_uniform_

from yozora.errors import ModelError
from yozora.models.transformer import MAX_WIDTH, Transformer, TransformerConfig

SPAN = "time.span.weight"


@dataclass(frozen=True)
class AdapterConfig:
    """`base` is the transformer that it changes, `rank` that of the changes."""

    rank: int = 32
    base: TransformerConfig = field(default_factory=TransformerConfig)

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= MAX_WIDTH:
            raise ValueError(f"rank must be from 1 to {MAX_WIDTH}")
        if self.base.spans:
            raise ValueError("the base of an adapter is no flow map itself")


class LowRank(nn.Module):
    """Changes up·down of some matrices of a transformer, by the matrices' names. Fresh ones are zero."""

    def __init__(self, matrices: Mapping[str, Tensor], rank: int) -> None:
        super().__init__()
        shapes = {_key(name): matrix.shape for name, matrix in matrices.items()}
        self.down = nn.ParameterDict({key: torch.empty(rank, columns) for key, (_, columns) in shapes.items()})
        self.up = nn.ParameterDict({key: torch.zeros(rows, rank) for key, (rows, _) in shapes.items()})
        for matrix in self.down.values():
            kaiming_uniform_(matrix, a=5**0.5)

    def changed(self, base: Transformer) -> dict[str, Tensor]:
        """The weights by name, of `base` and with gradients to this, of the transformer that this makes of it: only
        those that differ from the base's."""
        weights = dict(base.named_parameters())
        return {
            name: weights[name].float() + self.up[key].float() @ self.down[key].float()
            for key in self.up
            for name in [key.replace("/", ".")]
        }


class Adapter(LowRank):
    """What makes a few-step transformer of one."""

    def __init__(self, config: AdapterConfig) -> None:
        with torch.device("meta"):
            matrices = matrices_of(Transformer(config.base))
        super().__init__(matrices, config.rank)
        self.config = config
        self.span = nn.Parameter(torch.zeros(config.base.width, config.base.freq_dim))

    def grown(self, rank: int) -> Adapter:
        """One of a rank as large or larger that changes a transformer in the same way, for now."""
        made = Adapter(dataclasses.replace(self.config, rank=rank))
        with torch.no_grad():
            made.span.copy_(self.span)
            for key in self.up:
                made.up[key][:, : self.config.rank] = self.up[key]
                made.down[key][: self.config.rank] = self.down[key]
        return made

    def changed(self, base: Transformer) -> dict[str, Tensor]:
        """As of any LowRank. Raises ModelError, as `check`."""
        self.check(base)
        return super().changed(base) | {SPAN: self.span.float()}

    def check(self, base: Transformer) -> None:
        """Raises ModelError where it was made for another transformer."""
        if base.config != self.config.base:
            raise ModelError("the few-step weights are of another transformer: copy the whole model folder")

    @torch.no_grad()
    def onto(self, base: Transformer) -> Transformer:
        """The few-step transformer, of the base's type and on its device. Raises ModelError, as `changed`."""
        weights = base.state_dict() | self.changed(base)
        like = next(base.parameters())
        with torch.device("meta"):
            made = Transformer(few_step_config(base.config))
        made.load_state_dict({n: w.to(like.device, like.dtype) for n, w in weights.items()}, assign=True)
        return made.eval()


def few_step_config(base: TransformerConfig) -> TransformerConfig:
    """The configuration of the transformer that an adapter makes of one."""
    return dataclasses.replace(base, spans=True)


def matrices_of(transformer: Transformer, text: bool = False) -> dict[str, Tensor]:
    """What is changed: every matrix but, unless `text`, those that read the text, which are worked out once a video."""
    return {
        name: parameter
        for name, parameter in transformer.named_parameters()
        if parameter.ndim == 2 and name.endswith("weight") and (text or not name.startswith("text.")) and name != SPAN
    }


def _key(name: str) -> str:
    return name.replace(".", "/")  # a parameter's name has no dots
