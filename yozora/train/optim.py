"""Optimisers, learning-rate schedule and moving average of the weights.

Muon (Jordan et al., 2024) orthogonalises the update of a matrix. torch's implementation takes 2D parameters; a
convolution's kernel is a matrix too, of `out` rows, so it is handed over as a 2D view on the same memory. Parameters
may be sharded over several processes: AdamW then works on each one's part, and Muon gathers each matrix's update first,
since its rows depend on one another.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from yozora.models.registry import quick_dtype
from yozora.train.config import Optim

LATELY = 50  # steps whose gradients say how large they usually are


class Optimisers:
    """Muon on hidden matrices, AdamW on everything else, stepped together; `rate(name)` scales a parameter's rate."""

    def __init__(
        self,
        model: nn.Module,
        config: Optim,
        is_hidden: Callable[[str, Tensor], bool],
        rate: Callable[[str], float] = lambda name: 1.0,
        half: bool | None = None,
    ):
        """`half`: whether Muon multiplies in bfloat16 (None: where the device is quick at it)."""
        self.config = config
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.views: list[tuple[nn.Parameter, nn.Parameter]] = []  # (parameter, its 2D view), where that is another
        self.names: dict[nn.Parameter, str] = {}  # of what the optimisers are given
        muon: dict[float, list[nn.Parameter]] = {}
        adamw: dict[float, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            given, kind = parameter, adamw
            if config.muon and is_hidden(name, parameter):
                kind = muon
                if parameter.ndim != 2:
                    given = nn.Parameter(_as_matrix(parameter.data, parameter))
                    self.views.append((parameter, given))
            self.names[given] = name
            kind.setdefault(rate(name), []).append(given)
        self.optimisers: list[torch.optim.Optimizer] = []
        if muon:
            groups = [{"params": p, "lr": config.muon * scale} for scale, p in muon.items()]
            settings = {"weight_decay": config.weight_decay, "momentum": 0.95}
            if half is None:
                half = quick_dtype(next(model.parameters()).device) == torch.bfloat16
            if half and not any(isinstance(parameter, DTensor) for parameter in self.parameters):
                self.optimisers.append(torch.optim.Muon(groups, **settings))  # pyright: ignore[reportArgumentType]
            else:
                self.optimisers.append(OurMuon(groups, torch.bfloat16 if half else torch.float32, **settings))
        if adamw:
            groups = [{"params": p, "lr": config.adamw * scale} for scale, p in adamw.items()]
            self.optimisers.append(
                torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True)
            )
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["peak"] = group["lr"]

    def step(self, scale: float, limit: float = math.inf) -> float:
        """One step at `scale` times the peak rates. Returns the gradient norm before clipping; nothing is changed
        when that is not finite, or above `limit`."""
        norm = float(_whole(nn.utils.clip_grad_norm_(self.parameters, self.config.clip)))
        if not math.isfinite(norm) or norm > limit:
            self.zero_grad()
            return norm
        for parameter, view in self.views:
            view.grad = None if parameter.grad is None else _as_matrix(parameter.grad, parameter)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * scale
            optimiser.step()
        self.zero_grad()
        return norm

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """All that the optimisers remember, as PARAMETER.KIND; before the first step, zeros. The tensors are theirs:
        what is written into them counts."""
        said = {}
        for optimiser in self.optimisers:
            for parameter in _parameters(optimiser):
                memory = optimiser.state[parameter]
                if not memory:
                    memory |= _blank(optimiser, parameter)
                said |= {f"{self.names[parameter]}.{kind}": tensor for kind, tensor in memory.items()}
        return said

    @property
    def order(self) -> list[list[str]]:
        """The names of each optimiser's parameters, in its order."""
        return [[self.names[parameter] for parameter in _parameters(each)] for each in self.optimisers]


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _blank(optimiser: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """What an optimiser remembers of a parameter before its first step."""
    if isinstance(optimiser, torch.optim.Muon):
        return {"momentum_buffer": torch.zeros_like(parameter)}
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}


class Guard:
    """Knows which gradients are no lesson: those that are not finite, or `factor` times as large as lately."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.norms: deque[float] = deque(maxlen=LATELY)

    @property
    def limit(self) -> float:
        """The largest gradient norm that is a lesson; inf as long as too few are known."""
        return self.factor * statistics.median(self.norms) if len(self.norms) >= LATELY // 2 else math.inf

    def judge(self, norm: float) -> str:
        """Why a step with this norm is skipped; "" where it is not. It is remembered either way, so that what has
        grown for good is a lesson again in the end."""
        if not math.isfinite(norm):
            return "loss or gradient is not finite"
        limit = self.limit
        self.norms.append(norm)
        return "" if norm <= limit else f"the gradient is {norm / limit * self.factor:.0f} times as large as lately"


class OurMuon(torch.optim.Muon):
    """Muon for what torch's is not made for. It multiplies in any `dtype`: torch's does in bfloat16, over which a CPU
    without instructions for it takes a hundred times as long. And matrices may be sharded by rows: every process works
    out the whole update, and takes its own rows of it. The state is the same as torch's."""

    def __init__(self, params: Any, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
        super().__init__(params, **settings)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            rate, momentum = float(group["lr"]), group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                gradient, buffer = _own(parameter.grad), _own(state["momentum_buffer"])
                buffer.lerp_(gradient, 1 - momentum)
                wanted = _gathered(gradient.lerp(buffer, momentum), parameter)
                update = orthogonalise(wanted.to(self.dtype), group["ns_coefficients"], group["eps"], group["ns_steps"])
                own = _own(parameter)
                own.mul_(1 - rate * group["weight_decay"])
                size = -rate * max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                own.add_(_rows(update, parameter).to(own.dtype), alpha=size)


def _whole(tensor: Tensor) -> Tensor:
    """What all processes hold of a tensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _own(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor, on the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _gathered(rows: Tensor, like: Tensor) -> Tensor:
    """The whole matrix, of which each process has the rows that it has of `like`."""
    if not isinstance(like, DTensor):
        return rows
    shape, stride = like.shape, like.stride()
    return DTensor.from_local(rows, like.device_mesh, like.placements, shape=shape, stride=stride).full_tensor()


def _rows(matrix: Tensor, like: Tensor) -> Tensor:
    """Of a matrix that every process has, the rows that this one has of `like`."""
    if not isinstance(like, DTensor):
        return matrix
    mesh = like.device_mesh
    everywhere = DTensor.from_local(matrix, mesh, [Replicate()] * mesh.ndim)
    return everywhere.redistribute(placements=like.placements).to_local()


def orthogonalise(matrix: Tensor, coefficients: tuple[float, float, float], eps: float, steps: int) -> Tensor:
    """A matrix of the same singular vectors whose singular values are all near 1 (Newton-Schulz, quintic)."""
    a, b, c = coefficients
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """`[out, ...]` as `[out, rest]`, its columns in the order in which `like` lies in memory.

    For `like` itself this is a view on the same memory, also for a channels-last convolution kernel.
    """
    if like.ndim == 4 and not like.is_contiguous():
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(tensor.shape[0], -1)


def rate_scale(step: int, steps: int, config: Optim) -> float:
    """Warmup, constant, linear decay to zero over the last `decay` part: a factor in (0, 1]."""
    warm = (step + 1) / max(1, config.warmup)
    left = (steps - step) / max(1.0, config.decay * steps)
    return max(0.0, min(1.0, warm, left))


class Average:
    """Exponential moving average of a model's weights and buffers, with the usual short memory at the start."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            _own(mine).lerp_(_own(theirs), weight)
        for mine, theirs in zip(self.model.buffers(), model.buffers(), strict=True):
            mine.copy_(theirs)
