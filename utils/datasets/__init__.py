"""From pictures and label files to batches."""

from typing import Any

from utils.compat import find, served
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

__all__ += served("utils.datasets")  # for scripts that import all


def __getattr__(name: str) -> Any:
    return find("utils.datasets", name)
