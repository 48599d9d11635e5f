"""Observers of an evaluation: images of the first batches, label files, routing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.routing import RoutingRecorder, RoutingStats, class_presence
from utils.core.boxes import xyxy2xywhn
from utils.core.dist import ALONE, Ranks
from utils.core.files import write_atomic
from utils.core.nms_defaults import CONF_THRES
from utils.core.output import OutputFolder
from utils.datasets.labels.yolo_text import yolo_detection_text
from utils.datasets.loader import Batch
from utils.evaluation.evaluator import Observer
from utils.evaluation.results import ImageResult
from utils.plots.batches import plot_batch


class BatchPlots(Observer):
    """Draws labels and detections of the first batches: ``val_batchN_labels.jpg`` and ``val_batchN_pred.jpg``."""

    def __init__(self, folder: Path, names: Sequence[str], batches: int = 3, conf: float = CONF_THRES) -> None:
        self.folder, self.names, self.batches, self.conf = folder, names, batches, conf

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        if index >= self.batches:
            return
        stem = f"val_batch{index}"
        plot_batch(batch.images, batch.targets, batch.paths, self.folder / f"{stem}_labels.jpg", self.names)
        predicted = self._as_targets(detections, *batch.images.shape[2:])
        plot_batch(batch.images, predicted, batch.paths, self.folder / f"{stem}_pred.jpg", self.names)

    def _as_targets(self, detections: list[Tensor], height: int, width: int) -> Tensor:
        """Convert the detections above the confidence to rows [N, 7]: image, class, xywhn, confidence."""
        rows = []
        for i, all_rows in enumerate(detections):
            kept = all_rows[all_rows[:, 4] > self.conf].cpu()
            image = torch.full((len(kept), 1), float(i))
            rows.append(torch.cat([image, kept[:, 5:6], xyxy2xywhn(kept[:, :4], width, height), kept[:, 4:5]], dim=1))
        return torch.cat(rows) if rows else torch.zeros(0, 7)


class LabelFiles(Observer):
    """Writes the detections of each image as a YOLO label file (class, xywhn, confidence if requested).

    With ``hybrid`` of the evaluator, the files have the labels too, with confidence 1.
    """

    def __init__(self, folder: Path | OutputFolder, with_conf: bool) -> None:
        self.folder, self.with_conf = OutputFolder.of(folder), with_conf
        self._taken: dict[str, str] = {}  # file name -> image
        self.folder.folder.mkdir(parents=True, exist_ok=True)

    def on_image(self, result: ImageResult) -> None:
        rows = result.detections if result.hybrid is None else result.hybrid
        text = yolo_detection_text(rows, result.hw, self.with_conf)
        write_atomic(self.folder.path(self._name(Path(result.path))), text.encode(), durable=False)

    def _name(self, image: Path) -> str:
        """Return the name of the image, with that of its folder before it if another image has the same name."""
        name = f"{image.stem}.txt"
        for folder in image.parents:
            if self._taken.setdefault(name, str(image)) == str(image):
                break
            name = f"{folder.name}_{name}"
        return name


class RoutingObserver(RoutingRecorder, Observer):
    """Records the routing of the dynamic layers of ``model``, with the classes of each image.

    Use it in a ``with`` statement around the evaluation. A model without dynamic layers has no statistics. Of several
    processes, ``ranks``, each gets the statistics of the images of all.
    """

    def __init__(self, model: nn.Module, nc: int, ranks: Ranks = ALONE) -> None:
        super().__init__(model)
        self._nc, self._ranks = nc, ranks
        self._presence: list[Tensor] = []  # [B, nc] of each batch
        self._counts: list[Tensor] = []  # [B] of each batch: False for the empty image of a process without one

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Record which classes the images contain."""
        self._presence.append(class_presence(batch.targets, len(batch.paths), self._nc))
        self._counts.append(torch.tensor([path != "" for path in batch.paths]))

    def layer_stats(self) -> tuple[RoutingStats, ...]:
        """Return the statistics of each layer over the evaluation."""
        if not self._presence:
            return ()
        real = torch.cat(self._counts)
        own = torch.cat(self._presence)[real], {name: self.weights(name)[real] for name in self.layers}
        presence, weights = zip(*self._ranks.gather(own))
        return self.stats(torch.cat(presence), lambda name: torch.cat([part[name] for part in weights]))
