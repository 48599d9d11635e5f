"""One pass of a model over a labelled set: precision, recall, mAP, confusion matrix, losses and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from utils.core.boxes import xywhn2xyxy
from utils.core.dist import ALONE, Ranks
from utils.core.image import LetterboxInfo, to_model_input
from utils.core.nms import EVAL_THRESHOLDS, Thresholds, non_max_suppression
from utils.core.timing import StageTimer
from utils.datasets.loader import Batch
from utils.datasets.loader_errors import supplied
from utils.evaluation.results import IOU_THRESHOLDS, EvalResult, ImageResult, Tally
from utils.loss import DetectionLoss
from utils.metrics import ConfusionMatrix, match_predictions
from utils.metrics.matching import Matcher

__all__ = ["EvalResult", "Evaluator", "ImageResult", "Observer"]


class Observer(Protocol):
    """Sees every batch with the detections found in it (input pixels) and every image's result."""

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None: ...

    def on_image(self, result: ImageResult) -> None: ...


class Evaluator:
    """Scores models on one loader.

    Args:
        batches: gives :class:`Batch` objects; its length is the number of batches.
        nc: number of classes; with ``single_cls`` every prediction counts as class 0.
        device: where to run.
        thresholds: arguments of NMS.
        half: run under autocast (float16 on a GPU, bfloat16 on a CPU); the weights themselves stay as they are.
        hybrid: give observers the detections with the labels mixed in as well; the figures are made without these.
        matcher: decides which detections are correct.
        ranks: the processes that share the batches; all get the figures of all images.
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
        tally = self.collect(model, timer, loss, observers)
        return Tally.joined(self.ranks.gather(tally)).figures(self.nc, timer.per_image_ms())

    @torch.no_grad()
    def collect(
        self, model: nn.Module, timer: StageTimer, loss: DetectionLoss | None = None, observers: Sequence[Observer] = ()
    ) -> Tally:
        """One pass over the loader, of this process' part of the images."""
        model.eval()
        tally = Tally(ConfusionMatrix(self.nc))
        for index, batch in enumerate(self._loaded(timer)):
            n = batch.count
            with timer.stage("pre-process", n):
                images = to_model_input(batch.images, self.device)
            with timer.stage("inference", n), torch.autocast(self.device.type, enabled=self.half):
                decoded, maps = model(images)
            if loss is not None:
                items = loss(maps, batch.targets.to(self.device), n)
                tally.losses += torch.stack([items.box, items.obj, items.cls]).detach().cpu()
            tally.batches += 1
            with timer.stage("NMS", n):
                found = self._suppress(decoded)
            mixed = self._suppress(decoded, _known(batch)) if self.hybrid else None
            for observer in observers:
                observer.on_batch(index, batch, found)
            with timer.stage("matching", n):
                results = list(self._per_image(batch, found, mixed))
                for result in results:
                    tally.add(result, (index, self.ranks.rank))
            for result in results:
                for observer in observers:
                    observer.on_image(result)
        return tally

    def _loaded(self, timer: StageTimer) -> Iterator[Batch]:
        """The batches; waiting for them is a stage of its own."""
        source = supplied(
            tqdm(self.batches, desc="validating", leave=False, dynamic_ncols=True, disable=not self.ranks.main)
        )
        while True:
            with timer.stage("loading"):
                batch = next(source, None)
            if batch is None:
                return
            timer.add("loading", 0.0, batch.count)
            yield batch

    def _suppress(self, decoded: Tensor, labels: Sequence[Tensor] = ()) -> list[Tensor]:
        conf, iou, max_det = self.thresholds.conf, self.thresholds.iou, self.thresholds.max_det
        return non_max_suppression(
            decoded, conf, iou, multi_label=True, agnostic=self.single_cls, labels=labels, max_det=max_det
        )

    def _per_image(
        self, batch: Batch, found: Sequence[Tensor], mixed: Sequence[Tensor] | None
    ) -> Iterator[ImageResult]:
        """Detections and labels mapped back to the image on disk, and which of them meet."""
        height, width = batch.images.shape[2:]
        for i, (path, info) in enumerate(zip(batch.paths, batch.infos)):
            if not path:
                continue  # the blank image of a process without any
            rows = batch.targets[batch.targets[:, 0] == i, 1:]  # [n, 5] class, xywhn
            labels = torch.cat([rows[:, :1], info.undo(xywhn2xyxy(rows[:, 1:], width, height))], dim=1)
            detections = self._on_disk(found[i], info)
            correct = self.matcher(detections, labels, IOU_THRESHOLDS).numpy()
            hybrid = None if mixed is None else self._on_disk(mixed[i], info)
            yield ImageResult(path, info.original_hw, detections, labels, correct, hybrid)

    def _on_disk(self, rows: Tensor, info: LetterboxInfo) -> Tensor:
        """Detections [k, 6] in pixels of the image as it is on disk."""
        rows = rows.cpu().clone()
        rows[:, :4] = info.undo(rows[:, :4])
        if self.single_cls:
            rows[:, 5] = 0
        return rows


def _known(batch: Batch) -> list[Tensor]:
    """The labels of each image of a batch [n, 5]: class, xywh in input pixels."""
    height, width = batch.images.shape[2:]
    rows = batch.targets.clone()
    rows[:, 2:] *= torch.tensor([width, height, width, height])
    return [rows[rows[:, 0] == i, 1:] for i in range(len(batch.paths))]
