"""How a finished model is run by several processes, or in less memory: applied to it from outside, in this order.

1. `with_float8`: the blocks' matrices multiply in eight bits, on GPUs that have them (torchao).
2. `with_checkpointing`: blocks work out again in the backward pass what they did not keep (Chen et al. 2016).
3. `with_kernels`: each block is compiled.
4. `shard`: parameters, gradients, optimiser states and the average are divided over all processes (FSDP2: Zhao et al.
   2023), and are whole only while a block runs.

The tokens of a sequence are divided by `yozora.train.context`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.attention.varlen  # which makes its operation known
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from yozora.errors import ConfigError
from yozora.models.compiled import check_compiler, compile_block
from yozora.models.transformer import Block, Transformer
from yozora.train.mesh import Mesh

KEPT = {  # what selective checkpointing keeps, since it is dear to work out again
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.torch_attn._varlen_attn.default,  # of packs on a GPU
}
FLOAT8_SINCE = (8, 9)  # compute capability
SIXTEEN = 16  # what the sides of a matrix must be multiples of, in eight bits


class Networks(nn.ModuleDict):
    """Networks that are trained together. Sharding makes parameters whole for as long as a module's forward pass lasts;
    so what is done with these is done within this one's."""

    def forward(self, act: Callable[..., Any], *given: Any) -> Any:
        """What `act` makes of what is given."""
        return act(*given)


def with_kernels(transformer: Transformer) -> Transformer:
    """The same network, each of its blocks compiled. Raises ConfigError where there is no compiler."""
    check_compiler("set compile=false")
    for block in transformer.blocks:
        compile_block(block)
    return transformer


def with_checkpointing(transformer: Transformer, kind: str) -> Transformer:
    """The same network, which keeps less of its blocks for the backward pass: `selective` what matrix products and
    attention made, `full` only what each block was given, `none` everything."""
    if kind == "none":
        return transformer
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # nothing in a block is random
    if kind == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in transformer.blocks:
        block.forward = partial(checkpoint, block.forward, **settings)
    return transformer


def _policy(_context: Any, operation: Any, *_given: Any, **_named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


def with_float8(transformer: Transformer, device: torch.device) -> Transformer:
    """The same network, whose blocks' matrices multiply in eight bits, each scaled by its largest number. Raises
    ConfigError where the device or torchao is missing."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FLOAT8_SINCE:
        raise ConfigError(
            "parallel.float8 needs an NVIDIA GPU of compute capability 8.9 or later (Ada, Hopper): set it to false here"
        )
    try:
        from torchao.float8 import convert_to_float8_training  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError("parallel.float8 needs torchao: pip install 'yozora[float8]', or set it to false") from None

    def fits(module: nn.Module, _name: str) -> bool:
        return isinstance(module, nn.Linear) and not any(side % SIXTEEN for side in module.weight.shape)

    convert_to_float8_training(transformer.blocks, module_filter_fn=fits)
    return transformer


# ---- sharding --------------------------------------------------------------------------------------------------------


def shard(networks: Networks, mesh: Mesh, half: bool) -> None:
    """Divides the parameters of networks, the same on every process, over all of them. A transformer's blocks become
    whole one after the other as they run; what is in no block, and small, for the whole pass. `half`: blocks are sent
    and run in bfloat16, and their gradients added up in float32."""
    assert mesh.everyone is not None
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    plain = MixedPrecisionPolicy(cast_forward_inputs=False)
    for block in [module for module in networks.modules() if isinstance(module, Block)]:
        fully_shard(block, mesh=mesh.everyone, mp_policy=policy)
    fully_shard(networks, mesh=mesh.everyone, mp_policy=plain)


def shard_stored(module: nn.Module, mesh: Mesh) -> None:
    """Divides the parameters of a module that never runs, such as an average, as `shard` does."""
    assert mesh.everyone is not None
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            divided = distribute_tensor(parameter.data, mesh.everyone, [Shard(0)])
            part.register_parameter(name, nn.Parameter(divided, requires_grad=parameter.requires_grad))


def whole(module: nn.Module, mesh: Mesh, device: torch.device) -> nn.Module | None:
    """The module with whole parameters on `device`: for the first process, of what all bring; for the others None. Of a
    module that is not sharded, itself."""
    if mesh.size == 1:
        return module
    gathered = {}
    for name, tensor in module.state_dict().items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if mesh.first:
            gathered[name] = full.to(device)
    if not mesh.first:
        return None
    made = copy.deepcopy(module)
    made.load_state_dict(gathered, assign=True)
    return made
