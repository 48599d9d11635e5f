"""Around a file that another library computes in its own threads, torch works on one thread: its own would wait
actively and slow the library down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import utils.core.nms
from utils.core.image import LetterboxInfo
from utils.core.timing import StageTimer
from utils.datasets.loader import Batch
from utils.evaluation import Evaluator
from utils.inference.autoshape import AutoShape
from utils.inference.backends import FileBackend
from utils.inference.predictor import Predictor

CPU = torch.device("cpu")
IMAGE = np.full((64, 64, 3), 90, np.uint8)


class Recorder:
    """A backend of 2 classes without a file, which records the threads of torch while it runs, and those of NMS."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        info = SimpleNamespace(
            task="detect", names=["a", "b"], stride=32, half=False, fixed_hw=None, imgsz=(64, 64), raw_levels=False,
            fixed_batch=None, dynamic=("height", "width"), nms=False,
        )  # fmt: skip
        self.backend = FileBackend(info, "file.onnx", CPU)  # type: ignore[arg-type]
        self.backend.own_threads = True
        monkeypatch.setattr(self.backend, "run", self.run)
        suppress = utils.core.nms._suppress
        monkeypatch.setattr(utils.core.nms, "_suppress", lambda *given: self.see() or suppress(*given))

    def see(self) -> None:
        self.threads.append(torch.get_num_threads())

    def run(self, images: Tensor) -> list[Tensor]:
        self.see()
        return [torch.zeros(len(images), 252, 7)]


def through_detect(backend: FileBackend) -> None:
    Predictor(backend, CPU, 64).predict([IMAGE])


def through_candidates(backend: FileBackend) -> None:
    Predictor(backend, CPU, 64).candidates(IMAGE)


def through_autoshape(backend: FileBackend) -> None:
    AutoShape(backend, verbose=False)(IMAGE)


def through_val(backend: FileBackend) -> None:
    info = LetterboxInfo((64, 64), (1.0, 1.0), (0.0, 0.0))
    batch = Batch(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(0, 6), ["0.jpg"], [info])
    Evaluator([batch], 2, CPU).collect(backend, StageTimer(CPU))


def alone(backend: FileBackend) -> None:
    backend(torch.zeros(1, 3, 64, 64))


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("way", [alone, through_detect, through_candidates, through_autoshape, through_val])
def test_every_way_to_use_such_a_file_has_one_thread_and_restores_them(
    way: Callable[[FileBackend], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    way(recorder.backend)
    assert len(recorder.threads) == (1 if way in (alone, through_candidates) else 2)  # the network, then NMS
    assert set(recorder.threads) == {1}
    assert torch.get_num_threads() == 2
