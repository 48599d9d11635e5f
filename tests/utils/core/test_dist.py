"""What several processes tell each other; the processes themselves are in tests/e2e/test_distributed.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.core.dist import ALONE, Ranks, connect_ranks
from utils.core.errors import InputError


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_a_process_alone_tells_itself_what_it_knows() -> None:
    tensor, module = torch.ones(2), nn.Linear(2, 2)
    assert ALONE.sum(tensor) is tensor and tensor.tolist() == [1, 1]
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert (ALONE.gather("x"), ALONE.share("x"), ALONE.on_main(max, 1, 2)) == (["x"], "x", 2)
    assert ALONE.first_on_machine(lambda: 7) == 7
    ALONE.spread(module)
    assert ALONE.main and not ALONE.lost(RuntimeError("gloo: connection closed by peer"))


def test_without_a_launcher_a_process_is_alone() -> None:
    with connect_ranks() as ranks:
        assert ranks is ALONE


def test_a_launcher_of_one_process_connects_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        monkeypatch.setenv(name, value)
    with connect_ranks(local_rank=0) as ranks:
        assert ranks is ALONE
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("variable", "shown"), [(None, "not set"), ("1", r"\(1\)")])
def test_a_local_rank_that_is_not_the_launchers_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, shown: str
) -> None:
    if variable:
        monkeypatch.setenv("LOCAL_RANK", variable)
    with pytest.raises(InputError, match=f"--local_rank 0: .*{shown}.*torchrun"), connect_ranks(local_rank=0):
        pass


def test_half_of_a_launchers_variables_are_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 2, but RANK is not set: .*torchrun"), connect_ranks():
        pass


def test_only_a_broken_connection_counts_as_a_lost_process() -> None:
    ranks = Ranks(size=2)
    assert ranks.lost(RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    assert not ranks.lost(RuntimeError("CUDA out of memory"))
    assert not ranks.lost(InputError("gloo"))


@pytest.mark.parametrize(
    ("ranks", "command"),
    [
        (ALONE, "python"),
        (Ranks(size=2, local_size=2), "torchrun --nproc_per_node=2"),
        (Ranks(size=8, local_size=4), "torchrun --nnodes=2 --rdzv_backend=c10d --rdzv_endpoint=HOST:PORT "),
    ],
)
def test_a_run_knows_how_it_is_started_again(ranks: Ranks, command: str) -> None:
    assert ranks.launcher.startswith(command)
