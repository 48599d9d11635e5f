"""The model behind the page: one thread runs it, requests wait in a queue."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

from models.dynamic import attention_layers
from models.dynamic_convolution import DynamicConvolution
from models.routing import RoutingRecorder, layer_names
from utils.checkpoint.detector import newest_checkpoint
from utils.config.app_options import AppOptions
from utils.config.detect_options import DetectOptions
from utils.config.paths import TRAIN_RUNS
from utils.inference.backends import FileBackend
from utils.inference.predictor import Candidates, Predictor, Thresholds
from utils.inference.weights import build_predictor

MIN_CONF = 0.01  # candidates of less objectness are dropped, and thresholds of the page cannot be lower
ModelThreadT = TypeVar("ModelThreadT", bound="ModelThread")


@dataclass(frozen=True)
class DynamicLayer:
    """A layer that mixes kernels.

    Attributes:
        name: its place in the model, as in ``routing.csv``.
        kind: class of the layer.
        temperature: T of its softmax, None without.
        sums_to_one: whether the routing weights of an image do; those of a sigmoid are independent.
    """

    name: str
    kind: str
    temperature: float | None
    sums_to_one: bool


@dataclass(frozen=True)
class ModelOutput:
    """Output of the model for one image.

    Attributes:
        candidates: boxes before NMS.
        ms: milliseconds of each stage.
        routing: [K] weights of the kernels, by the name of the layer.
    """

    candidates: Candidates
    ms: dict[str, float]
    routing: dict[str, np.ndarray]


def open_predictor(options: AppOptions) -> tuple[Predictor, Path]:
    """Return the model of ``--weights``, ready for images, and its file.

    Raises:
        FileNotFoundError, InputError: no such file, an unreadable one, or an option that does not suit it.
    """
    file = options.weights or str(newest_checkpoint(TRAIN_RUNS, "best.pt"))
    shared = ("data", "imgsz", "conf_thres", "iou_thres", "max_det", "device", "half", "trust")
    return build_predictor(DetectOptions(weights=(file,), **{n: getattr(options, n) for n in shared})), Path(file)


class ModelThread:
    """A model that several threads may call. To be used in a ``with`` statement, which ends its thread.

    Args:
        predictor: the model; nothing else may use it meanwhile.
        file: of the model, for its name.
        options: the thresholds to start with.

    Attributes:
        min_conf: lowest confidence threshold.
        start: thresholds that the page starts with.
        layers: dynamic layers.
    """

    def __init__(self, predictor: Predictor, file: Path, options: AppOptions) -> None:
        self.predictor, self.file = predictor, file
        model = predictor.model
        inside = model.info.nms_conf if isinstance(model, FileBackend) and model.info.nms else 0.0
        self.min_conf = max(min(MIN_CONF, options.conf_thres), inside)
        self.start = Thresholds(max(options.conf_thres, self.min_conf), options.iou_thres, options.max_det)
        self.layers = dynamic_layers(predictor)
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    def __enter__(self: ModelThreadT) -> ModelThreadT:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.shutdown(cancel_futures=True)

    def predict(self, image: np.ndarray) -> ModelOutput:
        """Run the model on ``image``, HWC BGR uint8, after the images of earlier calls."""
        return self._queue.submit(self._predict, image).result()

    def _predict(self, image: np.ndarray) -> ModelOutput:
        timer = self.predictor.timer
        before = dict(timer.seconds)
        with RoutingRecorder(self.predictor.model) as recorder:
            candidates = self.predictor.candidates(image, self.min_conf)
        ms = {stage: 1000 * (after - before.get(stage, 0.0)) for stage, after in timer.seconds.items()}
        rows = {name: recorder.weights(name)[0].numpy() for name in recorder.layers}
        return ModelOutput(candidates, ms, {name: row for name, row in rows.items() if np.isfinite(row).all()})

    @property
    def why_no_routing(self) -> str:
        """Why the routing weights cannot be shown, "" where they can."""
        model = self.predictor.model
        if not isinstance(model, FileBackend):
            return "" if self.layers else "This model has no dynamic layers."
        if model.info.temperature is None:
            return "An exported file: whether it has dynamic layers cannot be seen in it. Open the .pt file."
        return (
            f"This exported file has dynamic layers (temperature {model.info.temperature:g}), but which kernels "
            "they use cannot be seen in it. Open the .pt file."
        )


def dynamic_layers(predictor: Predictor) -> list[DynamicLayer]:
    """Return the layers of a model that mix kernels, in its order."""
    owners = {
        id(module.routing): type(module).__name__
        for module in predictor.model.modules()
        if isinstance(module, DynamicConvolution)
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
