"""From images and label files to batches."""

from typing import Any

from utils.core.v61 import import_served, served_names
from utils.datasets.dataset import DetectionDataset, Sample, TrainItem
from utils.datasets.labels import LabelRecord, LabelSet, ScanReport, scan_labels
from utils.datasets.loader import Batch, EpochSampler, build_loader, collate

__all__ = [
    "Batch",
    "DetectionDataset",
    "EpochSampler",
    "LabelRecord",
    "LabelSet",
    "Sample",
    "ScanReport",
    "TrainItem",
    "build_loader",
    "collate",
    "scan_labels",
]

__all__ += served_names("utils.datasets")  # for scripts that import all


def __getattr__(name: str) -> Any:
    return import_served("utils.datasets", name)
