"""A model for several processes, as far as it can be looked at in one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models.yolo import Model
from utils.config.options import TrainOptions
from utils.core.dist import ALONE, Ranks
from utils.core.errors import InputError
from utils.training import distributed as parallel
from utils.training.distributed import check_alone, check_batch_size, device_of_rank, distribute, without_gradient

TWO = Ranks(rank=1, size=2, local_rank=1, local_size=2)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(parallel.torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(parallel.torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("device", "count", "chosen"),
    [("", 0, "cpu"), ("cpu", 4, "cpu"), ("", 2, "1"), ("2,3", 4, "3"), ("cuda:2,3", 4, "3"), ("7,x", 2, "x")],
)
def test_each_process_has_a_device_of_its_own(
    monkeypatch: pytest.MonkeyPatch, device: str, count: int, chosen: str
) -> None:
    gpus(monkeypatch, count)
    assert device_of_rank(device, TWO) == chosen


@pytest.mark.parametrize("device", ["", "0"])
def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    gpus(monkeypatch, 1)
    with pytest.raises(InputError, match=r"2 processes here for 1 GPUs \(0\): use --nproc_per_node=1, or --device cpu"):
        device_of_rank(device, TWO)


def test_several_gpus_for_one_process_are_refused_with_the_command() -> None:
    with pytest.raises(InputError, match=r"--device 0,1: .*torchrun --nproc_per_node=2 train\.py --device 0,1"):
        device_of_rank("0,1", ALONE)
    assert device_of_rank("0", ALONE) == "0"


@pytest.mark.parametrize(("batch", "quad", "cure"), [(15, False, "of 2, for example 16"), (12, True, "of 8")])
def test_a_batch_that_cannot_be_divided_is_refused(batch: int, quad: bool, cure: str) -> None:
    with pytest.raises(InputError, match=f"--batch-size {batch} is the total of 2 processes .*use a multiple {cure}"):
        check_batch_size(batch, quad, TWO)
    check_batch_size(batch, quad, ALONE)
    check_batch_size(16, quad, TWO)


def test_one_process_trains_the_model_itself() -> None:
    model = nn.Identity()
    assert distribute(model, torch.device("cpu"), ALONE) is model  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "cfg", ["yolov5n.yaml", "yolov5n_dynamic.yaml", "yolov5n_odconv_head.yaml", "yolov5n_condconv_head.yaml"]
)
def test_a_gradient_reaches_every_parameter(cfg: str) -> None:
    model = Model(cfg, nc=2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert without_gradient(model) == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_parameter_without_gradient_is_named() -> None:
    model = Model("yolov5n.yaml", nc=2)
    model.model[3].register_parameter("spare", nn.Parameter(torch.zeros(1)))
    model.model[0].requires_grad_(False)  # frozen ones need none
    assert without_gradient(model) == ["model.3.spare"]


@pytest.mark.parametrize(
    ("values", "flag"), [({"batch_size": -1}, "--batch-size -1"), ({"compile": True}, "--compile")]
)
def test_what_needs_a_run_of_one_process_is_refused_in_a_larger_one(values: dict[str, Any], flag: str) -> None:
    check_alone(TrainOptions(**values), ALONE)
    with pytest.raises(InputError, match=f"{flag} is for a run of one process, and this one has 2"):
        check_alone(TrainOptions(**values), TWO)


def test_a_resumed_run_keeps_its_batch_and_is_told_how_many_processes_can_share_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(InputError, match=r"--batch-size 9 .*go on with 1 or 3 or 9 of them"):
        check_batch_size(9, False, TWO, resumed=True)
    assert check_alone(TrainOptions(compile=True), TWO, resumed=True).compile is False
    assert "--compile of this run is left out" in caplog.text
    assert check_alone(TrainOptions(compile=True), ALONE, resumed=True).compile is True
