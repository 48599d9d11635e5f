"""From pictures and label files to batches."""

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
