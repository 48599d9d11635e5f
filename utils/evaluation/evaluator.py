"""One pass of a model over a labelled set: precision, recall, mAP, confusion matrix, losses and times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.boxes import xywhn2xyxy
from utils.datasets.loader import Batch
from utils.datasets.supply import supplied
from utils.image import to_model_input
from utils.loss import DetectionLoss
from utils.metrics import ApResult, ConfusionMatrix, match_predictions
from utils.metrics.ap import ap_per_class
from utils.nms import non_max_suppression
from utils.timing import StageTimer

IOU_THRESHOLDS = torch.linspace(0.5, 0.95, 10)


@dataclass(frozen=True)
class NmsSettings:
    """Thresholds of the suppression; the defaults are those of scoring."""

    conf: float = 0.001
    iou: float = 0.6
    max_det: int = 300


@dataclass(frozen=True)
class ImageResult:
    """Detections and labels of one picture, both in pixels of the picture as it is on disk."""

    path: str
    hw: tuple[int, int]
    detections: Tensor  # [k, 6] xyxy, confidence, class
    labels: Tensor  # [n, 5] class, xyxy


class Observer(Protocol):
    """Sees every batch with the detections found in it (input pixels) and every picture's result."""

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None: ...

    def on_image(self, result: ImageResult) -> None: ...


@dataclass(frozen=True)
class EvalResult:
    """Figures of one evaluation. Arrays per class follow ``ap.classes``."""

    precision: float
    recall: float
    map50: float
    map: float
    losses: tuple[float, float, float]  # box, obj, cls; zeros without a loss function
    images: int
    labels: int
    detections: int
    ap: ApResult
    labels_per_class: np.ndarray  # [nc]
    images_per_class: np.ndarray  # [nc]
    confusion: ConfusionMatrix
    ms_per_image: dict[str, float] = field(default_factory=dict)

    def maps(self, nc: int) -> np.ndarray:
        """[nc] mAP@.5:.95 of every class, the mean for classes without labels."""
        maps = np.full(nc, self.map)
        maps[self.ap.classes] = self.ap.ap.mean(1)
        return maps


@dataclass
class _Tally:
    """What is gathered picture by picture."""

    correct: list[np.ndarray] = field(default_factory=list)  # [k, 10]
    conf: list[np.ndarray] = field(default_factory=list)
    predicted: list[np.ndarray] = field(default_factory=list)
    true: list[np.ndarray] = field(default_factory=list)
    images: int = 0
    detections: int = 0

    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        correct = np.concatenate(self.correct) if self.correct else np.zeros((0, len(IOU_THRESHOLDS)), bool)
        rest = [np.concatenate(part) if part else np.zeros(0) for part in (self.conf, self.predicted, self.true)]
        return correct, rest[0], rest[1], rest[2]


class Evaluator:
    """Scores models on one loader.

    Args:
        batches: gives :class:`Batch` objects; its length is the number of batches.
        nc: number of classes; with ``single_cls`` every prediction counts as class 0.
        device: where to run.
        nms: suppression thresholds.
        half: run under autocast (GPU only); the weights themselves stay as they are.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        nc: int,
        device: torch.device,
        nms: NmsSettings | None = None,
        *,
        single_cls: bool = False,
        half: bool = False,
    ) -> None:
        self.batches, self.nc, self.device, self.nms = batches, nc, device, nms or NmsSettings()
        self.single_cls, self.half = single_cls, half

    @torch.no_grad()
    def run(
        self, model: nn.Module, loss: DetectionLoss | None = None, observers: Sequence[Observer] = ()
    ) -> EvalResult:
        """Evaluate ``model`` (left in evaluation mode); ``loss`` adds validation losses.

        Raises:
            NoBatchError: a batch could not be made.
        """
        model.eval()
        tally, timer, sums, count = _Tally(), StageTimer(self.device), torch.zeros(3), 0
        confusion = ConfusionMatrix(self.nc)
        batches = tqdm(self.batches, desc="validating", leave=False, dynamic_ncols=True)
        for index, batch in enumerate(supplied(batches)):
            targets, n = batch.targets.to(self.device), len(batch.paths)
            with timer.stage("pre-process", n):
                images = to_model_input(batch.images, self.device)
            with timer.stage("inference", n), torch.autocast(self.device.type, enabled=self.half):
                decoded, maps = model(images)
            if loss is not None:
                items = loss(maps, targets)
                sums += torch.stack([items.box, items.obj, items.cls]).detach().cpu()
            with timer.stage("NMS", n):
                found = non_max_suppression(
                    decoded, self.nms.conf, self.nms.iou, multi_label=True,
                    agnostic=self.single_cls, max_det=self.nms.max_det,
                )  # fmt: skip
            count += 1
            for observer in observers:
                observer.on_batch(index, batch, found)
            for result in self._per_image(batch, found):
                self._score(result, tally, confusion)
                for observer in observers:
                    observer.on_image(result)
        return self._summarize(tally, confusion, (sums / max(count, 1)).tolist(), timer)

    def _per_image(self, batch: Batch, found: list[Tensor]) -> Iterable[ImageResult]:
        """Detections and labels mapped back to the picture on disk."""
        height, width = batch.images.shape[2:]
        for i, (path, info, detections) in enumerate(zip(batch.paths, batch.infos, found)):
            rows = batch.targets[batch.targets[:, 0] == i, 1:]  # [n, 5] class, xywhn
            boxes = info.undo(xywhn2xyxy(rows[:, 1:], width, height))
            detections = detections.cpu().clone()
            detections[:, :4] = info.undo(detections[:, :4])
            if self.single_cls:
                detections[:, 5] = 0
            yield ImageResult(path, info.original_hw, detections, torch.cat([rows[:, :1], boxes], dim=1))

    def _score(self, result: ImageResult, tally: _Tally, confusion: ConfusionMatrix) -> None:
        tally.images += 1
        tally.detections += len(result.detections)
        tally.true.append(result.labels[:, 0].numpy())
        tally.correct.append(match_predictions(result.detections, result.labels, IOU_THRESHOLDS).numpy())
        tally.conf.append(result.detections[:, 4].numpy())
        tally.predicted.append(result.detections[:, 5].numpy())
        confusion.process_batch(result.detections, result.labels)

    def _summarize(
        self, tally: _Tally, confusion: ConfusionMatrix, losses: list[float], timer: StageTimer
    ) -> EvalResult:
        correct, conf, predicted, true = tally.joined()
        ap = ap_per_class(correct, conf, predicted, true)
        in_image = [np.unique(classes.astype(int)) for classes in tally.true]  # each class once per picture
        precision, recall, map50, map_ = ap.means()
        return EvalResult(
            precision=precision,
            recall=recall,
            map50=map50,
            map=map_,
            losses=(losses[0], losses[1], losses[2]),
            images=tally.images,
            labels=len(true),
            detections=tally.detections,
            ap=ap,
            labels_per_class=np.bincount(true.astype(int), minlength=self.nc),
            images_per_class=np.bincount(np.concatenate([[], *in_image]).astype(int), minlength=self.nc),
            confusion=confusion,
            ms_per_image=timer.per_image_ms(),
        )
