"""A model for several processes, as far as it can be looked at in one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.yolo import Model
from utils.core.dist import ALONE, Ranks
from utils.core.errors import InputError
from utils.training import distributed as parallel
from utils.training.distributed import device_of_rank, distribute, without_gradient

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
