"""How dynamic layers start, cool down and learn in a run of train.py."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from models.dynamic import temperatures
from utils.core.callbacks import BatchEnd, Callback
from utils.core.errors import InputError
from utils.training.session import Session

DYNAMIC = "yolov5n_dynamic_head.yaml"


class Training(Protocol):
    def __call__(self, project: Path, hook: Any = None, **options: Any) -> Session: ...


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory, training: Training) -> str:
    """Weights of a static model."""
    return str(training(tmp_path_factory.mktemp("static")).saver.best)


def hyp_file(folder: Path, text: str) -> str:
    (folder / "own.yaml").write_text(text, encoding="utf-8")
    return str(folder / "own.yaml")


def test_inflated_layers_start_with_equal_kernels_and_a_calibrated_routing(
    tmp_path: Path, training: Training, static: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        session = training(tmp_path, cfg=DYNAMIC, weights=static, epochs=0)
    layer = session.model.model[10].conv
    assert all(torch.equal(kernel, layer.weight[0]) for kernel in layer.weight)
    assert layer.attention.fc2.weight.abs().min() > 0
    assert "routing of 2 dynamic layers set on 4 images: logits of mean 0 and standard deviation 2" in caplog.text


def test_a_kernel_spread_starts_with_different_kernels_and_a_uniform_routing(
    tmp_path: Path, training: Training, static: str
) -> None:
    hyp = hyp_file(tmp_path, "kernel_spread: 0.5")
    layer = training(tmp_path, cfg=DYNAMIC, weights=static, epochs=0, hyp=hyp).model.model[10].conv
    assert not torch.equal(layer.weight[0], layer.weight[1]) and not layer.attention.fc2.weight.any()


def test_from_scratch_the_routing_is_as_drawn_unless_a_deviation_is_named(
    tmp_path: Path, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = training(tmp_path, cfg=DYNAMIC, epochs=0).model.model[10].conv.attention.fc2.weight
    with caplog.at_level(logging.INFO):
        hyp = hyp_file(tmp_path, "routing_deviation: 1")
        set_to_one = training(tmp_path, cfg=DYNAMIC, epochs=0, hyp=hyp).model.model[10].conv.attention.fc2.weight
    assert not torch.equal(drawn, set_to_one) and "standard deviation 1" in caplog.text


def test_a_spread_and_a_deviation_together_are_refused(tmp_path: Path, training: Training) -> None:
    with pytest.raises(InputError, match=r"own.yaml: kernel_spread 0.5 needs a uniform routing"):
        training(tmp_path, cfg=DYNAMIC, hyp=hyp_file(tmp_path, "kernel_spread: 0.5\nrouting_deviation: 2"))


def test_with_a_span_model_and_average_cool_down_batch_by_batch(tmp_path: Path, training: Training) -> None:
    seen: list[tuple[list[float], list[float]]] = []

    class Look(Callback):
        def __init__(self, session: Session) -> None:
            self.session = session

        def on_train_batch_end(self, event: BatchEnd) -> None:
            seen.append((temperatures(self.session.model), temperatures(self.session.ema.model)))

    training(
        tmp_path, lambda session: session.callbacks.add(Look(session)), cfg=DYNAMIC, epochs=4, batch_size=2,
        hyp=hyp_file(tmp_path, "temperature_span: 0.5"), files=False,
    )  # fmt: skip
    course = [pytest.approx(34 - 33 * i / 4) for i in range(4)] + [1.0] * 4
    assert seen == [([value], [value]) for value in course]
