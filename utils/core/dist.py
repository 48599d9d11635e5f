"""The processes of a run that ``torchrun`` started, and how they keep in step. A process alone skips all of it.

Whatever they tell one another travels between CPUs (gloo), gradients between GPUs where there are any (NCCL). A rank
that fails or dies closes its connections, so that those which wait for it are told at once.
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
# One rank may be busy for long while the others wait: with a download, with the labels of a very large set.
WAIT = datetime.timedelta(days=1)
_SIGNS_OF_LOSS = ("gloo", "nccl", "closed by peer", "reset by peer", "broken pipe")


@dataclass(frozen=True)
class Ranks:
    """This process and the others of its run, made by :func:`connect_ranks`. All ranks have to call a method together.

    Attributes:
        rank, size: number of this process, from 0, and how many there are.
        local_rank, local_size: the same on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = field(default=None, repr=False, compare=False)  # where the ranks leave notes

    @property
    def main(self) -> bool:
        """This is rank 0, which writes files and talks to people."""
        return self.rank == 0

    @property
    def launcher(self) -> str:
        """How such a run is started again."""
        if self.size == 1:
            return "python"
        machines = self.size // self.local_size
        elsewhere = f" --nnodes={machines} --rdzv_backend=c10d --rdzv_endpoint=HOST:PORT" if machines > 1 else ""
        return f"torchrun{elsewhere} --nproc_per_node={self.local_size}"

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the tensors that all ranks give; ``tensor`` itself is changed to it."""
        if self.size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is True on some rank."""
        return bool(self.sum(torch.tensor(int(flag)))) if self.size > 1 else flag

    def gather(self, value: T) -> list[T]:
        """What each rank gives, in their order, on all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """What rank 0 gives."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def on_main(self, work: Callable[..., T], *args: Any, **options: Any) -> T:
        """Do some work on rank 0 while the others wait; all get its result."""
        return self.share(work(*args, **options) if self.main else None)  # type: ignore[return-value]

    def first_on_machine(self, work: Callable[[], T]) -> T:
        """Do some work on one rank of each machine, then on the others there, who find the files it left."""
        if self.size == 1:
            return work()
        result = [work()] if self.local_rank == 0 else []
        self.gather(None)
        return result[0] if result else work()

    def spread(self, module: nn.Module) -> None:
        """Give all ranks the tensors that ``module`` has on rank 0."""
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in module.state_dict().values():
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for tensors in by_type.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message, whatever the memory formats
            distributed.broadcast(flat, src=0)
            for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view_as(tensor))

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that the connection to another rank is gone."""
        text = str(error).lower()
        return self.size > 1 and isinstance(error, RuntimeError) and any(sign in text for sign in _SIGNS_OF_LOSS)

    def fails_first(self) -> bool:
        """Whether no other rank has asked this before: it is for the first one that fails to say why."""
        try:
            return int(self.store.add("failed", 1)) == 1
        except RuntimeError:  # the store went with the process that kept it
            return True


ALONE = Ranks()


def _number(name: str) -> int:
    """A variable that torchrun sets."""
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
    """The processes that torchrun started with this one, connected; or this one alone.

    The first rank to leave by an error raises it; the others, which fail of the same or because it is gone, end
    silently with exit code 1.

    Args:
        local_rank: that of the command line, where old launchers put it; -1: it has none.

    Raises:
        InputError: ``local_rank`` without a launcher, or one that it contradicts; no connection, or a lost one.
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
            time.sleep(1)  # to end before the other has said it would have torchrun end that one as well
            raise SystemExit(1) from None
        if ranks.lost(error):
            raise InputError(f"another process of this run is gone: {first_line(error)}") from error
        raise
    distributed.destroy_process_group()  # not after an error: it would wait for the others
