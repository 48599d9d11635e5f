"""Evaluation of a model on a data set: precision, recall, mAP, confusion matrix, losses and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.memory_format import prepare_for_inference
from utils.core.boxes import xywhn2xyxy
from utils.core.dist import ALONE, Ranks
from utils.core.image import LetterboxInfo, to_model_input
from utils.core.nms import EVAL_THRESHOLDS, Thresholds, non_max_suppression
from utils.core.threads import limit_torch_threads
from utils.core.timing import StageTimer
from utils.datasets.loader import Batch
from utils.datasets.loader_errors import iterate_batches
from utils.evaluation.results import IOU_THRESHOLDS, EvalResult, ImageResult, MetricsCollector
from utils.loss import DetectionLoss
from utils.metrics import ConfusionMatrix, match_predictions
from utils.metrics.matching import Matcher

__all__ = ["EvalResult", "Evaluator", "ImageResult", "Observer"]


class Observer(Protocol):
    """Base of all observers of an evaluation: each method does nothing, and a subclass overrides those it needs."""

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Handle a batch and its detections, in pixels of the model input."""
        return

    def on_image(self, result: ImageResult) -> None:
        """Handle the result of an image."""
        return


class Evaluator:
    """Evaluates models on one loader.

    Args:
        batches: :class:`Batch` objects; the length is the number of batches.
        nc: number of classes; with ``single_cls`` every prediction counts as class 0.
        device: of the model.
        thresholds: arguments of NMS.
        half: run under autocast (float16 on a GPU, bfloat16 on a CPU); the weights are not converted.
        hybrid: also give observers the detections of NMS with the labels added; the metrics do not use these.
        matcher: function that decides which detections are correct.
        ranks: the processes that share the batches; all get the metrics of all images.
    """

    def __init__(
        self,
        batches: Iterable[Batch],
        nc: int,
        device: torch.device,
        thresholds: Thresholds = EVAL_THRESHOLDS,
        *,
        single_cls: bool = False,
        half: bool = False,
        hybrid: bool = False,
        matcher: Matcher = match_predictions,
        ranks: Ranks = ALONE,
    ) -> None:
        self.batches, self.nc, self.device, self.thresholds = batches, nc, device, thresholds
        self.single_cls, self.half, self.hybrid = single_cls, half, hybrid
        self.matcher, self.ranks = matcher, ranks

    def run(
        self, model: nn.Module, loss: DetectionLoss | None = None, observers: Sequence[Observer] = ()
    ) -> EvalResult:
        """Evaluate ``model`` (left in evaluation mode); ``loss`` adds validation losses.

        Raises:
            NoBatchError: a batch could not be made.
        """
        timer = StageTimer(self.device)
        collector = self.collect(model, timer, loss, observers)
        return MetricsCollector.merge(self.ranks.gather(collector)).result(self.nc, timer.per_image_ms())

    @torch.no_grad()
    def collect(
        self, model: nn.Module, timer: StageTimer, loss: DetectionLoss | None = None, observers: Sequence[Observer] = ()
    ) -> MetricsCollector:
        """Evaluate the images of this process."""
        with limit_torch_threads(model):
            return self._collect(model, timer, loss, observers)

    def _collect(
        self, model: nn.Module, timer: StageTimer, loss: DetectionLoss | None, observers: Sequence[Observer]
    ) -> MetricsCollector:
        model.eval()
        layout = prepare_for_inference(model, self.device)
        collector = MetricsCollector(ConfusionMatrix(self.nc))
        for index, batch in enumerate(self._loaded(timer)):
            n = batch.count
            with timer.stage("pre-process", n):
                images = to_model_input(batch.images, self.device, layout=layout)
            with timer.stage("inference", n), torch.autocast(self.device.type, enabled=self.half):
                decoded, raw = model(images)
            if loss is not None:
                items = loss(raw, batch.targets.to(self.device), n)
                collector.losses += torch.stack([items.box, items.obj, items.cls]).detach().cpu()
            collector.batches += 1
            with timer.stage("NMS", n):
                detections = self._nms(decoded)
            hybrid = self._nms(decoded, _labels_px(batch)) if self.hybrid else None
            for observer in observers:
                observer.on_batch(index, batch, detections)
            with timer.stage("matching", n):
                results = list(self._per_image(batch, detections, hybrid))
                for result in results:
                    collector.add(result, (index, self.ranks.rank))
            for result in results:
                for observer in observers:
                    observer.on_image(result)
        return collector

    def _loaded(self, timer: StageTimer) -> Iterator[Batch]:
        """Yield the batches, and time the waiting for them."""
        source = iterate_batches(
            tqdm(self.batches, desc="validating", leave=False, dynamic_ncols=True, disable=not self.ranks.main)
        )
        while True:
            with timer.stage("loading"):
                batch = next(source, None)
            if batch is None:
                return
            timer.add("loading", 0.0, batch.count)
            yield batch

    def _nms(self, decoded: Tensor, labels: Sequence[Tensor] = ()) -> list[Tensor]:
        conf, iou, max_det = self.thresholds.conf, self.thresholds.iou, self.thresholds.max_det
        return non_max_suppression(
            decoded, conf, iou, multi_label=True, agnostic=self.single_cls, labels=labels, max_det=max_det
        )

    def _per_image(
        self, batch: Batch, detections: Sequence[Tensor], hybrid: Sequence[Tensor] | None
    ) -> Iterator[ImageResult]:
        """Map detections and labels back to the image file, and match them."""
        height, width = batch.images.shape[2:]
        for i, (path, info) in enumerate(zip(batch.paths, batch.infos)):
            if not path:
                continue  # the empty image of a process without one
            rows = batch.targets[batch.targets[:, 0] == i, 1:]  # [n, 5] class, xywhn
            labels = torch.cat([rows[:, :1], info.undo(xywhn2xyxy(rows[:, 1:], width, height))], dim=1)
            rows_in_file = self._in_file(detections[i], info)
            correct = self.matcher(rows_in_file, labels, IOU_THRESHOLDS).numpy()
            hybrid_rows = None if hybrid is None else self._in_file(hybrid[i], info)
            yield ImageResult(path, info.original_hw, rows_in_file, labels, correct, hybrid_rows)

    def _in_file(self, rows: Tensor, info: LetterboxInfo) -> Tensor:
        """Map detections [k, 6] to pixels of the image file."""
        rows = rows.cpu().clone()
        rows[:, :4] = info.undo(rows[:, :4])
        if self.single_cls:
            rows[:, 5] = 0
        return rows


def _labels_px(batch: Batch) -> list[Tensor]:
    """Return the labels of each image of a batch [n, 5]: class, xywh in pixels of the model input."""
    height, width = batch.images.shape[2:]
    rows = batch.targets.clone()
    rows[:, 2:] *= torch.tensor([width, height, width, height])
    return [rows[rows[:, 0] == i, 1:] for i in range(len(batch.paths))]
