"""``--batch-size -1`` returns only what has been tried and fits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from models.yolo import Model
from utils.compat.autobatch import autobatch, check_train_batch_size
from utils.config.options import TrainOptions
from utils.config.train_slices import StepOptions
from utils.core.errors import InputError
from utils.training import autobatch as module
from utils.training.autobatch import batch_at, choose_batch_size, largest_batch

CPU = torch.device("cpu")


def steps(**given: Any) -> StepOptions:
    return StepOptions.of(TrainOptions(**given))


class Machine:
    """Memory of an invented model: ``base + slope * batch``, out of memory beyond ``breaks_at``."""

    def __init__(self, base: float, slope: float, breaks_at: float = float("inf"), bend: float = 0) -> None:
        self.base, self.slope, self.breaks_at, self.bend = base, slope, breaks_at, bend
        self.tried: dict[int, bool] = {}

    def __call__(self, batch: int) -> float:
        taken = self.base + self.slope * batch + self.bend * batch**2
        self.tried[batch] = taken <= self.breaks_at
        return taken if self.tried[batch] else math.inf


def test_the_batch_at_a_limit_lies_on_the_line_through_the_two_largest_batches() -> None:
    assert batch_at(21.0, {1: 6.0, 2: 7.0, 4: 11.0}) == 9.0
    assert batch_at(4.0, {1: 3.0, 2: 3.0}) == math.inf


def test_memory_that_does_not_grow_allows_the_largest_batch() -> None:
    assert largest_batch(Machine(base=3, slope=0), limit=4, cap=100) == 100


def test_the_batch_that_fills_the_limit_is_found_with_few_trials() -> None:
    machine = Machine(base=3, slope=2)
    assert largest_batch(machine, limit=43.5, cap=1000) == 20
    assert list(machine.tried) == [1, 2, 4, 20]


@pytest.mark.parametrize("limit", [5, 6.9, 7, 12, 17, 100, 1e9])
@pytest.mark.parametrize(("breaks_at", "bend"), [(1e12, 0), (30, 0), (1e12, 0.3), (60, -0.01)])
@pytest.mark.parametrize("multiple", [1, 4])
def test_what_is_returned_has_run_and_stays_within_the_limit(
    limit: float, breaks_at: float, bend: float, multiple: int
) -> None:
    machine = Machine(3, 2, breaks_at, bend)
    try:
        batch = largest_batch(machine, limit, cap=64, multiple=multiple)
    except InputError:
        assert machine.tried == {multiple: True} or not machine.tried[multiple]
        return
    assert machine.tried[batch]
    assert machine(batch) <= limit
    assert batch % multiple == 0
    assert 0 < batch <= 64


def test_the_cap_is_reached_but_not_passed() -> None:
    machine = Machine(3, 2)
    assert largest_batch(machine, limit=1e9, cap=16) == 16
    assert max(machine.tried) == 16
    assert largest_batch(Machine(3, 2), limit=1e9, cap=3) == 3
    assert largest_batch(Machine(3, 2), limit=1e9, cap=1) == 1


def test_a_smaller_batch_is_tried_when_the_predicted_one_fails() -> None:
    machine = Machine(3, 2, breaks_at=25)  # 11 is the most that runs, the line predicts 48
    batch = largest_batch(machine, limit=100, cap=1000)
    assert machine.tried[batch]
    assert not machine.tried[max(machine.tried)]


def test_nothing_that_fits_is_an_error_with_the_cure() -> None:
    with pytest.raises(InputError, match=r"--batch-size -1: a training step of 1 image needs 5.00 GiB.*--imgsz"):
        largest_batch(Machine(3 * 2**30, 2 * 2**30), limit=2**30, cap=16)
    with pytest.raises(InputError, match=r"4 images needs more than there is"):
        largest_batch(Machine(3, 2, breaks_at=1), limit=2**30, cap=16, multiple=4)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Steps (images, side) that were run, on a machine with 1000 MiB free where an image of 64 px takes 100 MiB."""
    steps: list[tuple[int, int]] = []

    def peak(model: Model, batch: int, imgsz: int, device: torch.device, amp: bool | None) -> float:
        steps.append((batch, imgsz))
        return batch * 100 * (imgsz / 64) ** 2

    monkeypatch.setattr(module, "training_memory", peak)
    monkeypatch.setattr(module, "free_memory", lambda device: 1000 * 2**20)
    return steps


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("yolov5n.yaml", nc=2)


def test_seven_tenths_of_a_cpus_free_memory_are_used(model: Model, tried: list[tuple[int, int]]) -> None:
    assert choose_batch_size(model, 64, CPU, steps(), images=100) == 7
    assert tried[-1] == (7, 64)


def test_steps_are_of_the_largest_size_of_multi_scale(model: Model, tried: list[tuple[int, int]]) -> None:
    assert choose_batch_size(model, 64, CPU, steps(multi_scale=True), images=100) == 3  # 700 / 225
    assert {side for _, side in tried} == {96}


def test_united_images_are_a_quarter_as_many_of_twice_the_side(model: Model, tried: list[tuple[int, int]]) -> None:
    assert choose_batch_size(model, 64, CPU, steps(quad=True), images=100) == 4
    assert (1, 128) in tried


def test_adam_needs_room_for_a_second_average(
    model: Model, tried: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit is 707 MiB: 7 images and 7 MiB, which is less than the weights.
    monkeypatch.setattr(module, "free_memory", lambda device: 1010 * 2**20)
    sizes = {name: choose_batch_size(model, 64, CPU, steps(optimizer=name), 100) for name in ("SGD", "AdamW")}
    assert sizes == {"SGD": 7, "AdamW": 6} or sum(p.numel() for p in model.parameters()) * 4 < 7 * 2**20


def test_no_batch_is_larger_than_the_training_set(model: Model, tried: list[tuple[int, int]]) -> None:
    assert choose_batch_size(model, 64, CPU, steps(), images=3) == 3


def test_a_system_that_does_not_report_its_memory_needs_a_number(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "free_memory", lambda device: None)
    with pytest.raises(InputError, match="give a number"):
        choose_batch_size(model, 64, CPU, steps(), images=3)


def test_real_steps_are_run_and_leave_the_model_alone(model: Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert choose_batch_size(model, 64, CPU, steps(), images=2) == 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_names_of_v61_give_a_size_within_v61s_answer_for_a_cpu(model: Model, tried: list[tuple[int, int]]) -> None:
    assert check_train_batch_size(model, 64) == 9
    assert autobatch(model, 64, fraction=0.5, batch_size=4) == 4
