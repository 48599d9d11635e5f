"""Images of the data set, from which scales and mean attentions are computed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.config.dataset_spec import DatasetSpec
from utils.core.image import letterbox, read_image, to_model_input
from utils.datasets.labels.splits import load_labels
from utils.export.export_job import ExportJob

MOST_CALIBRATION_IMAGES = 64


def calibration_batches(job: ExportJob, most: int = MOST_CALIBRATION_IMAGES) -> Iterator[Tensor]:
    """Batches [B, 3, H, W] in 0..1 of up to ``most`` images of the training split, evenly spread over it.

    Without a training split they come from the val split.
    """
    spec, options = DatasetSpec.load(job.options.data), job.options
    cache_dir = Path(options.cache_dir) if options.cache_dir else None
    records = load_labels(spec, "train" if spec.train else "val", cache_dir=cache_dir).records
    count, batch = min(most, len(records)), options.batch_size
    chosen = [records[i * len(records) // count].image for i in range(count)]
    chosen += chosen[: -count % batch]  # whole batches only: the number may be fixed
    for start in range(0, len(chosen) - len(chosen) % batch, batch):
        boxed = [letterbox(read_image(path), job.hw, auto=False)[0] for path in chosen[start : start + batch]]
        stacked = np.stack(boxed)[..., ::-1].transpose(0, 3, 1, 2).copy()  # BGR HWC -> RGB CHW
        yield to_model_input(torch.from_numpy(stacked), job.device)
