"""The model behind the page: one thread runs it, and whoever asks waits in line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from models.common import Dynamic_conv2d
from models.dynamic import attention_layers
from models.routing import RoutingRecorder, layer_names
from utils.checkpoint.find import newest_checkpoint
from utils.config.app_options import AppOptions
from utils.config.detect_options import DetectOptions
from utils.config.paths import TRAIN_RUNS
from utils.inference.backends import FileBackend
from utils.inference.predictor import Candidates, Predictor, Thresholds
from utils.inference.weights import build_predictor

FLOOR = 0.01  # candidates of less objectness are not kept, and thresholds of the page cannot go below
EngineT = TypeVar("EngineT", bound="Engine")


@dataclass(frozen=True)
class DynamicLayer:
    """A layer that chooses among kernels.

    Attributes:
        name: its place in the model, as in ``routing.csv``.
        kind: class of the layer.
        temperature: T of its softmax, None without.
        sums_to_one: whether the weights of a picture do; those of a sigmoid are independent.
    """

    name: str
    kind: str
    temperature: float | None
    sums_to_one: bool


@dataclass(frozen=True)
class Look:
    """What the model saw in one picture.

    Attributes:
        candidates: before suppression.
        ms: milliseconds of each stage.
        routing: [K] weights of the kernels, by the name of the layer.
    """

    candidates: Candidates
    ms: dict[str, float]
    routing: dict[str, np.ndarray]


def open_predictor(options: AppOptions) -> tuple[Predictor, Path]:
    """The model of ``--weights``, ready for pictures, and its file.

    Raises:
        FileNotFoundError, InputError: no such file, an unreadable one, or an option that does not suit it.
    """
    file = options.weights or str(newest_checkpoint(TRAIN_RUNS, "best.pt"))
    given = DetectOptions(
        weights=(file,), data=options.data, imgsz=options.imgsz, conf_thres=options.conf_thres,
        iou_thres=options.iou_thres, max_det=options.max_det, device=options.device, half=options.half,
        trust=options.trust,
    )  # fmt: skip
    return build_predictor(given), Path(file)


class Engine:
    """A model that several threads may ask. To be used in a ``with`` statement, or its thread stays.

    Args:
        predictor: the model; nobody else may use it meanwhile.
        file: for its name.
        options: the thresholds to start with.
    """

    def __init__(self, predictor: Predictor, file: Path, options: AppOptions) -> None:
        self.predictor, self.file = predictor, file
        model = predictor.model
        inside = model.info.nms_conf if isinstance(model, FileBackend) and model.info.nms else 0.0
        self.floor = max(min(FLOOR, options.conf_thres), inside)
        self.start = Thresholds(max(options.conf_thres, self.floor), options.iou_thres, options.max_det)
        self.layers = dynamic_layers(predictor)
        self._line = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def __enter__(self: EngineT) -> EngineT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.shutdown(cancel_futures=True)

    def look(self, image: np.ndarray) -> Look:
        """``image``: HWC BGR uint8. Waits until those who asked before have their answer."""
        return self._line.submit(self._look, image).result()

    def _look(self, image: np.ndarray) -> Look:
        timer = self.predictor.timer
        before = dict(timer.seconds)
        with RoutingRecorder(self.predictor.model) as recorder:
            found = self.predictor.candidates(image, self.floor)
        ms = {stage: 1000 * (after - before.get(stage, 0.0)) for stage, after in timer.seconds.items()}
        rows = {name: recorder.weights(name)[0].numpy() for name in recorder.layers}
        return Look(found, ms, {name: row for name, row in rows.items() if np.isfinite(row).all()})

    @property
    def why_no_routing(self) -> str:
        """Why the weights of kernels cannot be shown, "" where they can."""
        model = self.predictor.model
        if isinstance(model, FileBackend):
            if model.info.temperature is None:
                return "An exported file: whether it has dynamic layers cannot be seen in it. Open the .pt file."
            return (
                f"This exported file has dynamic layers (temperature {model.info.temperature:g}), but which kernels "
                "they use cannot be seen in it. Open the .pt file."
            )
        return "" if self.layers else "This model has no dynamic layers."


def dynamic_layers(predictor: Predictor) -> list[DynamicLayer]:
    """The layers of a model that choose among kernels, in its order."""
    owners = {
        id(module.routing): type(module).__name__
        for module in predictor.model.modules()
        if isinstance(module, Dynamic_conv2d)
    }
    names = layer_names(predictor.model)
    return [
        DynamicLayer(
            name=names[name],
            kind=owners.get(id(routing), type(routing).__name__),
            temperature=None if routing.temperature is None else float(routing.temperature),
            sums_to_one=routing.sums_to_one,
        )
        for name, routing in attention_layers(predictor.model)
    ]
