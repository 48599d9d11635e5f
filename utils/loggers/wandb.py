"""Weights & Biases, offline: everything stays in the run folder until the user calls ``wandb sync``."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from utils.config.hyp import Hyp
from utils.config.paths import ROOT
from utils.config.train_slices import LoggerOptions
from utils.core.boxes import xywhn2xyxy
from utils.core.callbacks import Callback, EpochStart, FitEpochEnd, TrainEnd, TrainStart
from utils.core.image import read_image
from utils.core.names import counted
from utils.core.output import OutputFolder
from utils.core.packages import import_optional
from utils.datasets.labels.records import LabelRecord
from utils.datasets.loader import Batch
from utils.loggers.results_csv import WITHOUT

logger = logging.getLogger(__name__)

_IMAGES = 16  # of the first validation batch, shown with their boxes
_CONF = 0.25  # of the boxes that are shown
_PROJECT = "yolov5-dynamic"


def require_wandb() -> Any:
    """Import the package.

    Raises:
        InputError: it is not installed.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # otherwise it reports its errors to its makers
    return import_optional("wandb", "wandb", "--wandb", WITHOUT)  # slow to import


class WandbLogger(Callback):
    """Writes an offline run into ``wandb/`` of the run folder.

    Metrics have the names of results.csv, and their step is the epoch. At the end follow the images of the run folder
    and the best checkpoint as an artifact. A resumed run has the same id, so that ``wandb sync --append`` makes one
    run of both. Images and checkpoints of artifacts are not copied: they must exist when ``wandb sync`` is called.

    It also observes the validations, for ``--bbox_interval``.

    Args:
        options: ``project`` and those of W&B.
        config, hyp: all options of the run, and its hyper-parameters; recorded as the configuration.
        labels: of each split, for ``--upload_dataset``.
    """

    def __init__(
        self,
        options: LoggerOptions,
        config: Mapping[str, Any],
        hyp: Hyp,
        labels: Mapping[str, Sequence[LabelRecord]],
    ) -> None:
        self._wandb = require_wandb()
        self._options = options
        self._config = {**config, "hyp": hyp.to_dict()}
        chosen = {False: (), True: tuple(labels), "val": ("val",)}[options.upload_dataset]
        self._labels = {split: labels[split] for split in chosen}
        self._names: tuple[str, ...] = ()
        self._run: Any = None
        self._due = False  # images with boxes, in this epoch
        self._images: list[Any] = []

    def on_train_start(self, event: TrainStart) -> None:
        """Open the run; a new one starts with the data set, if that is requested."""
        self._names = event.names
        earlier = sorted((event.save_dir / "wandb").glob("offline-run-*-*")) if event.resumed_epoch else []
        OutputFolder(event.save_dir).below("wandb")
        usual = Path(self._options.project).parent == ROOT / "runs"
        self._run = self._wandb.init(
            mode="offline",
            dir=str(event.save_dir),
            project=_PROJECT if usual else Path(self._options.project).name,
            entity=self._options.entity,
            name=event.save_dir.name,
            id=earlier[-1].name.rpartition("-")[2] if earlier else None,
            config=self._config,
            reinit="create_new",
            settings=self._wandb.Settings(console="off", silent=True, save_code=False),
        )
        if not event.resumed_epoch:
            for split, records in self._labels.items():
                self._log_split(split, records)
        logger.info("W&B: nothing is sent; to upload: wandb sync %s", Path(self._run.dir).parent)

    def on_train_epoch_start(self, event: EpochStart) -> None:
        """Decide whether to show this epoch's validation: every --bbox_interval epochs, and the last one."""
        every = self._options.bbox_interval
        every = max(1, event.epochs // 10) if every == -1 else every
        self._due = every > 0 and ((event.epoch + 1) % every == 0 or event.epoch + 1 == event.epochs)
        self._images = []

    def on_batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Keep images of the first validation batch, with labels and detections."""
        if not self._due or index:
            return
        height, width = batch.images.shape[2:]
        for i, image in enumerate(batch.images[:_IMAGES]):
            true = batch.targets[batch.targets[:, 0] == i, 1:]  # [n, 5] class, xywh in 0..1
            rows = detections[i].cpu()  # [k, 6] x1 y1 x2 y2 in pixels, confidence, class
            sure = rows[rows[:, 4] > _CONF]
            boxes = {
                "ground_truth": self._boxes(xywhn2xyxy(true[:, 1:], width, height), true[:, 0], None, (height, width)),
                "predictions": self._boxes(sure[:, :4], sure[:, 5], sure[:, 4], (height, width)),
            }
            array = image.permute(1, 2, 0).cpu().numpy()
            self._images.append(self._wandb.Image(array, boxes=boxes, caption=Path(batch.paths[i]).name))

    def on_image(self, result: Any) -> None:
        """Do nothing: images are kept by batch."""

    def on_fit_epoch_end(self, event: FitEpochEnd) -> None:
        """Log the row of results.csv, and the images of this epoch."""
        shown = {"bbox": self._images} if self._images else {}
        self._run.log({**event.row, **shown}, step=event.epoch)
        self._images = []

    def on_train_end(self, event: TrainEnd) -> None:
        """Log the plots and images of the run folder and the best checkpoint, and close the run."""
        files = sorted([*event.save_dir.glob("*.png"), *event.save_dir.glob("*.jpg")])
        self._run.log({f"plots/{file.stem}": self._wandb.Image(read_image(file)[..., ::-1]) for file in files})
        if event.best is not None:
            model = self._wandb.Artifact(f"run_{self._run.id}_model", "model")
            model.add_file(str(event.best), policy="immutable", skip_cache=True)
            self._run.log_artifact(model, aliases=["latest", "best"])
        self._run.finish()

    def _log_split(self, split: str, records: Sequence[LabelRecord]) -> None:
        """Log a split as an artifact: unchanged images, and labels as YOLO text."""
        artifact = self._wandb.Artifact(split, "dataset", metadata={"names": list(self._names)})
        labels = Path(self._run.dir).parent / "labels" / split  # W&B itself would put them outside the run folder
        labels.mkdir(parents=True, exist_ok=True)
        for number, record in enumerate(records):
            stem = f"{number:06d}_{record.image.stem[:48]}"  # images of two folders may have the same name
            rows = [f"{int(c)} {x:.6g} {y:.6g} {w:.6g} {h:.6g}\n" for c, x, y, w, h in record.boxes]
            label = labels / f"{stem}.txt"
            label.write_text("".join(rows), encoding="utf-8")
            for kind, file in (("images", record.image), ("labels", label)):
                artifact.add_file(str(file), f"{kind}/{stem}{file.suffix}", policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)
        logger.info("W&B: %s of %s as an artifact", counted(len(records), "image"), split)

    def _boxes(self, xyxy: Tensor, classes: Tensor, conf: Tensor | None, hw: tuple[int, int]) -> dict[str, Any]:
        """Convert boxes from corners in pixels to the format of W&B: fractions of the image."""
        names = dict(enumerate(self._names))
        data = []
        for i, (corners, number) in enumerate(zip(xyxy.tolist(), classes.tolist())):
            x1, y1, x2, y2 = corners
            caption = names.get(int(number), str(int(number)))
            box: dict[str, Any] = {
                "position": {"minX": x1 / hw[1], "maxX": x2 / hw[1], "minY": y1 / hw[0], "maxY": y2 / hw[0]},
                "class_id": int(number),
                "box_caption": caption if conf is None else f"{caption} {float(conf[i]):.2f}",
            }
            data.append(box if conf is None else box | {"scores": {"conf": float(conf[i])}})
        return {"box_data": data, "class_labels": names}
