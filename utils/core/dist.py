"""Distributed training: the processes that ``torchrun`` started, and their communication.

Objects are exchanged between CPUs (gloo), gradients between GPUs if there are any (NCCL). A rank that fails closes its
connections, so that the ranks which wait for it get an error at once.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from utils.core.errors import InputError, first_line

T = TypeVar("T")
# The other ranks wait while one downloads, or reads the labels of a very large data set.
WAIT = datetime.timedelta(days=1)
_CONNECTION_ERRORS = ("gloo", "nccl", "closed by peer", "reset by peer", "broken pipe")


@dataclass(frozen=True)
class Ranks:
    """This process and the others of its run, made by :func:`connect_ranks`. All ranks have to call a method together.

    Attributes:
        rank, size: number of this process, from 0, and number of all processes.
        local_rank, local_size: the same on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = field(default=None, repr=False, compare=False)  # key-value store of all ranks

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """The command that starts such a run."""
        if self.size == 1:
            return "python"
        machines = self.size // self.local_size
        elsewhere = f" --nnodes={machines} --rdzv_backend=c10d --rdzv_endpoint=HOST:PORT" if machines > 1 else ""
        return f"torchrun{elsewhere} --nproc_per_node={self.local_size}"

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace ``tensor`` by the sum of the tensors of all ranks, in place, and return it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is True on any rank."""
        return bool(self.sum(torch.tensor(int(flag)))) if self.size > 1 else flag

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """Return the value of rank 0."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def on_main(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call a function on rank 0 while the others wait, and return its result on all ranks."""
        return self.share(work(*args, **options) if self.main else None)  # type: ignore[return-value]

    def first_on_machine(self, work: Callable[[], T]) -> T:
        """Call a function on one rank of each machine, then on the others, which can use the files it wrote."""
        if self.size == 1:
            return work()
        result = [work()] if self.local_rank == 0 else []
        self.gather(None)
        return result[0] if result else work()

    def spread(self, module: nn.Module) -> None:
        """Copy the tensors of ``module`` from rank 0 to all ranks."""
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in module.state_dict().values():
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for tensors in by_type.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message for all memory formats
            distributed.broadcast(flat, src=0)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view_as(tensor))

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that the connection to another rank is lost."""
        text = str(error).lower()
        return self.size > 1 and isinstance(error, RuntimeError) and any(sign in text for sign in _CONNECTION_ERRORS)

    def fails_first(self) -> bool:
        """Whether this is the first rank that calls it: the first one that fails reports the error."""
        try:
            return int(self.store.add("failed", 1)) == 1
        except RuntimeError:  # the process with the store has ended
            return True


ALONE = Ranks()


def _number(name: str) -> int:
    """Read an environment variable that torchrun sets."""
    try:
        return int(os.environ[name])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {name} is {os.environ.get(name, 'not set')}: start several "
            "processes with torchrun --nproc_per_node=N train.py ..., or unset WORLD_SIZE for a single one"
        ) from error


def _connect() -> Ranks:
    from torch.distributed.rendezvous import rendezvous

    ranks = {name: _number(name.upper()) for name in ("rank", "local_rank")}
    size = _number("WORLD_SIZE")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and distributed.is_nccl_available() else "gloo"
    try:
        store, _, _ = next(rendezvous("env://"))
        distributed.init_process_group(backend, store=store, rank=ranks["rank"], world_size=size, timeout=WAIT)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the processes of this run do not find one another: {first_line(error)}") from error
    return Ranks(size=size, local_size=int(os.environ.get("LOCAL_WORLD_SIZE", size)), store=store, **ranks)


@contextmanager
def connect_ranks(local_rank: int = -1) -> Iterator[Ranks]:
    """Connect the processes that torchrun started; yield ``ALONE`` if there is only this one.

    The first rank that fails raises its error; the others, which fail by the same cause or by the lost connection, end
    with exit code 1 and no message.

    Args:
        local_rank: value of the option ``--local_rank`` that old launchers add; -1: not given.

    Raises:
        InputError: ``local_rank`` without a launcher, or another one than that of the launcher; no connection, or a
            lost one.
    """
    known = os.environ.get("LOCAL_RANK")
    if local_rank >= 0 and str(local_rank) != known:
        raise InputError(
            f"--local_rank {local_rank}: the number of a process comes from the launcher, which also sets LOCAL_RANK "
            f"({'not set' if known is None else known}); leave the option out and use torchrun --nproc_per_node=N"
        )
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    ranks = _connect()
    try:
        yield ranks
    except Exception as error:
        if not ranks.fails_first():
            time.sleep(1)  # torchrun ends all ranks with the first one that ends: let the other report its error first
            raise SystemExit(1) from None
        if ranks.lost(error):
            raise InputError(f"another process of this run has ended: {first_line(error)}") from error
        raise
    distributed.destroy_process_group()  # after an error it would wait for the others
