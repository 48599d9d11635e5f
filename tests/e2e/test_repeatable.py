"""The same seed gives the same run, to the last digit, with any number of CPU threads.

Threads add to a gradient as they come only where many boxes are matched, three or more of them to one cell and anchor:
hence a crowded set of many classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.config.options import TrainOptions
from utils.core.callbacks import BatchEnd, Callback
from utils.core.errors import InputError
from utils.training import saver
from utils.training.session import Session
from utils.training.setup import prepare

Training = Callable[..., Session]
SMALL = {"cfg": "yolov5n.yaml", "imgsz": 96, "batch_size": 4, "optimizer": "AdamW"}


class InterruptAfter(Callback):
    """A second Ctrl-C after a number of batches: what was trained since the last save is lost."""

    def __init__(self, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, event: BatchEnd) -> None:
        if event.iteration + 1 == self.batches:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    """Data yaml of images with 60 boxes each, of 80 classes."""
    names = tuple(f"class{i}" for i in range(80))
    folder = tmp_path_factory.mktemp("crowded")
    return make_dataset(folder, n_train=12, n_val=2, nc=80, names=names, boxes=60, hw=(96, 96))


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """So many threads, as OMP_NUM_THREADS gives a command; and checkpoints stay whole at the end of a run."""
    monkeypatch.setattr(saver, "strip_checkpoint", lambda _: 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def tensors_of(value: Any, place: str = "") -> dict[str, torch.Tensor]:
    """The tensors of a nested record, by their place in it."""
    if isinstance(value, torch.Tensor):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {key: tensor for name, inner in items for key, tensor in tensors_of(inner, f"{place}/{name}").items()}


def state_of(session: Session) -> dict[str, torch.Tensor]:
    """Weights, averages, momenta and waiting gradients at the end of a run."""
    checkpoint = load_checkpoint(session.saver.last)
    parts = ("model", "ema", "optimizer", "train_state")
    return tensors_of({name: getattr(checkpoint, name) for name in parts})


def test_the_same_seed_gives_the_same_weights_and_so_does_the_run_resumed_inside_an_epoch(
    tmp_path: Path, training: Training, crowded: Path, threads: int
) -> None:
    options = SMALL | {"data": str(crowded), "epochs": 1}
    expected = state_of(training(tmp_path, name="whole", **options))
    folder = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, lambda s: s.callbacks.add(InterruptAfter(3)), name="parts", save_steps=1, **options)
    between = load_checkpoint(folder / "weights/last.pt").train_state
    assert (between["epoch"], between["position"]["batches"]) == (-1, 2)
    found = state_of(training(tmp_path, resume=str(folder)))
    assert found.keys() == expected.keys() and len(found) > 500
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


def test_the_gradient_of_indexing_is_added_in_a_fixed_order(
    tmp_path: Path, options_for: Callable[..., TrainOptions], threads: int
) -> None:
    """As layers of the user's own need it: a table of position biases, looked up for every pair of places."""
    prepare(options_for(tmp_path))
    table = torch.zeros(50, 64, requires_grad=True)
    index = torch.randint(0, 50, (20_000,), generator=torch.Generator().manual_seed(0))
    weight = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((table[index] * weight).sum(), table)[0] for _ in range(4)]
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


@pytest.mark.parametrize("wanted", [True, False])
def test_on_a_gpu_the_order_is_fixed_for_those_who_ask(
    tmp_path: Path, options_for: Callable[..., TrainOptions], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    def seeded(_: int, deterministic: bool) -> None:
        raise InterruptedError(f"deterministic: {deterministic}")

    monkeypatch.setattr("utils.training.setup.select_device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setattr("utils.training.setup.seed_everything", seeded)
    with pytest.raises(InterruptedError, match=f"deterministic: {wanted}"):
        prepare(options_for(tmp_path, deterministic=wanted))


def test_a_run_in_this_process_leaves_the_settings_of_torch_alone(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    inside = []
    training(tmp_path, lambda _: inside.append(torch.are_deterministic_algorithms_enabled()), files=False)
    assert inside == [True] and not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_a_checkpoint_that_is_no_whole_run_is_refused_before_anything_is_changed(
    tmp_path: Path, training: Training, options_for: Callable[..., TrainOptions]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, lambda s: s.callbacks.add(InterruptAfter(2)), save_steps=1, batch_size=2)
    folder = tmp_path / "exp"
    checkpoint = load_checkpoint(folder / "weights/last.pt")
    assert checkpoint.optimizer is not None
    checkpoint.optimizer["groups"][0]["weight_decay"] = 0.1
    save_checkpoint(folder / "weights/last.pt", checkpoint)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(
        InputError, match=r"--resume .*last\.pt: .*group no_decay: weight_decay is 0\.1, .*; no other file"
    ):
        prepare(options_for(tmp_path, resume=str(folder)))
    assert {file: file.read_bytes() for file in before} == before
