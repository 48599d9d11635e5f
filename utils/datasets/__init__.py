"""From pictures and label files to batches."""

import importlib
from typing import Any

from utils.datasets.compat import (
    IMG_FORMATS,
    VID_FORMATS,
    LoadImages,
    LoadScreenshots,
    LoadStreams,
    LoadWebcam,
    exif_size,
    img2label_paths,
    letterbox,
)
from utils.datasets.dataset import DetectionDataset, Sample, TrainItem
from utils.datasets.labels import LabelRecord, LabelSet, ScanReport, scan_labels
from utils.datasets.loader import Batch, EpochSampler, build_loader, collate

__all__ = [
    "IMG_FORMATS",
    "VID_FORMATS",
    "Batch",
    "DetectionDataset",
    "EpochSampler",
    "LabelRecord",
    "LabelSet",
    "LoadImages",
    "LoadScreenshots",
    "LoadStreams",
    "LoadWebcam",
    "Sample",
    "ScanReport",
    "TrainItem",
    "build_loader",
    "collate",
    "exif_size",
    "img2label_paths",
    "letterbox",
    "scan_labels",
]

# v6.1's other names, looked up when they are asked for: most programs need none of them.
_COMPAT = dict.fromkeys(
    ("HELP_URL", "InfiniteDataLoader", "LoadImagesAndLabels", "_RepeatSampler", "create_dataloader"),
    "utils.datasets.compat.training",
) | dict.fromkeys(
    (
        "autosplit", "create_folder", "dataset_stats", "exif_transpose", "extract_boxes", "flatten_recursive",
        "get_hash", "verify_image_label",
    ),
    "utils.datasets.compat.tools",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _COMPAT:
        return getattr(importlib.import_module(_COMPAT[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
