"""The processes that train together, as `torchrun` starts them: who this one is, and what it says to the others.

They stand in a table. Each row (a shard of the data) learns from clips of its own; within a row, `context` processes
share the tokens of the same clips. Parameters are sharded over all of them. One process alone is a table of one, for
which nothing here costs anything.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from yozora.errors import ConfigError

PATIENCE = timedelta(minutes=30)  # the others wait that long while the first one draws samples or writes weights


@dataclass(frozen=True)
class Mesh:
    """This process (`rank`) among `size`, of which `context` share a clip's tokens. The rest is None for one alone:
    `everyone`, over which parameters are sharded; the groups of its column and row; one for what is no tensor (`host`);
    and one for writing checkpoints (`disk`), which goes on beside everything else and may not get in its way."""

    rank: int = 0
    size: int = 1
    context: int = 1
    everyone: DeviceMesh | None = None
    column: dist.ProcessGroup | None = None
    row: dist.ProcessGroup | None = None
    host: dist.ProcessGroup | None = None
    disk: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes for all."""
        return self.rank == 0

    @property
    def shards(self) -> int:
        """How many shares a step's data are divided into."""
        return self.size // self.context

    @property
    def shard(self) -> int:
        """Which of the shares is this process's."""
        return self.rank // self.context

    @property
    def place(self) -> int:
        """Its place among those that share its clips' tokens."""
        return self.rank % self.context

    def over_shards(self, value: Tensor) -> Tensor:
        """The sum of what every share has."""
        if self.shards > 1:
            value = value.clone()
            dist.all_reduce(value, group=self.column)
        return value

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag whether any process has raised it; all get the same answer."""
        if self.size == 1:
            return list(flags)
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self.host)
        return [bool(flag) for flag in raised]

    def gather(self, said: Any) -> list[Any]:
        """What each process says, in their order; every one of them gets it."""
        if self.size == 1:
            return [said]
        heard: list[Any] = [None] * self.size
        dist.all_gather_object(heard, said, group=self.host)
        return heard

    def from_first(self, said: Any) -> Any:
        """What the first process says, to all."""
        if self.size == 1:
            return said
        heard = [said]
        dist.broadcast_object_list(heard, src=0, group=self.host)
        return heard[0]


ALONE = Mesh()


def processes() -> int:
    """How many processes were started together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def launch() -> str:
    """A name for what started this process, and for which training of it this is: the same when `torchrun
    --max-restarts` starts the process again, another when a person or a cluster does. "" where nobody would start it
    again. (torchrun's count of restarts does not tell: on several machines each counts for itself.)"""
    number = next(_launches)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return ""
    told = os.environ.get("TORCHELASTIC_ERROR_FILE")  # in a new folder of each torchrun: FOLDER/attempt_0/1/error.json
    agent = Path(told).parents[2] if told and len(Path(told).parents) > 3 else _named(os.getppid())
    return f"{socket.gethostname()} {agent} {number}"


_launches = itertools.count()  # trainings of this process, which come in the same order when it is started again


def _named(process: int) -> str:
    """A process, and, where the system tells, when it began: numbers come again."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
        return f"{process} {boot} {stat.rpartition(')')[2].split()[19]}"
    except (OSError, ValueError, IndexError):
        return str(process)


def _attempt() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def says_first(message: str) -> bool:
    """Whether no other process that torchrun has started has said the same. They tell one another by torchrun's own
    store, since what is wrong is often wrong before they have met; where that does not answer, each speaks."""
    if processes() == 1:
        return True
    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add(f"yozora {_attempt()} {hashlib.sha256(message.encode()).hexdigest()}", 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return True


def refuse_several(what: str) -> None:
    """Raises ConfigError where several processes were started for something that one does."""
    if (count := processes()) > 1:
        raise ConfigError(
            f"{what} is done by one process, not {count}: start it without torchrun, which is for "
            "`yozora train transformer`"
        )


@contextmanager
def meet(context: int, device: str) -> Iterator[Mesh]:
    """The mesh of the processes that were started, which they leave in the end; `context` of them share the tokens of a
    clip, and each is on a `device` (`auto`, `cpu`, `cuda`) of its own. Raises ConfigError where that cannot be."""
    size = processes()
    if size % context:
        raise ConfigError(
            f"parallel.context = {context} needs a multiple of {context} processes, not {size}: start them with "
            f"torchrun --nproc-per-node {context}, or leave it at 1"
        )
    if size == 1:
        yield ALONE
        return
    if ":" in device:
        raise ConfigError(f"run.device = {device!r} is one device, and each process needs its own: say cuda or auto")
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        _take_gpu(int(os.environ.get("LOCAL_RANK", "0")))
    joined = not dist.is_initialized()  # else whoever started these processes has done it
    if joined:
        _join("cpu:gloo,cuda:nccl" if on_gpu else "gloo", context)
    try:
        kind = "cuda" if on_gpu else "cpu"
        table = init_device_mesh(kind, (size // context, context), mesh_dim_names=("data", "context"))
        host, disk = (dist.new_group(backend="gloo", timeout=PATIENCE) for _ in range(2))
        assert isinstance(host, dist.ProcessGroup) and isinstance(disk, dist.ProcessGroup)
        yield Mesh(
            rank=dist.get_rank(),
            size=size,
            context=context,
            everyone=init_device_mesh(kind, (size,), mesh_dim_names=("everyone",)),
            column=table.get_group("data"),
            row=table.get_group("context"),
            host=host,
            disk=disk,
        )
    finally:
        if joined:
            dist.destroy_process_group()


_meetings = itertools.count()  # of this process


def _join(backend: str, context: int) -> None:
    """Meets the other processes where torchrun says. On one machine it keeps that place when it starts them again, with
    the addresses of those that have died; so each attempt has a corner of its own. (Machines do not count alike: see
    docs/parallel.md for what torchrun needs to be told there.) So has each meeting of the same processes: what one
    left there would be taken for the next one's. Raises ConfigError where the first one wants another `backend` or
    `context`: they would wait for one another."""
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(f"meeting {next(_meetings)}", store)
    if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
        store = PrefixStore(f"attempt {_attempt()}", store)
    wanted = f"{backend} {context}"
    if rank == 0:
        store.set("wanted", wanted)
    elif store.get("wanted").decode() != wanted:
        raise ConfigError(
            "the processes were given different settings (run.device, parallel.context), or only some have GPUs: give "
            "all the same"
        )
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)


def _take_gpu(number: int) -> None:
    if number >= torch.cuda.device_count():
        raise ConfigError(
            f"there are more processes than the {torch.cuda.device_count()} GPUs of this machine: give torchrun a "
            "smaller --nproc-per-node, or set run.device = 'cpu'"
        )
    torch.cuda.set_device(number)
