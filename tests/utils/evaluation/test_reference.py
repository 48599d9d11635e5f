"""Scores and detections of the official yolov5n on real images, against the figures of the reference."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.fuse import fuse
from models.tta import AugmentedModel
from utils.checkpoint import load_model
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.core.image import read_image
from utils.core.nms import EVAL_THRESHOLDS
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import build_loader
from utils.evaluation import Evaluator
from utils.evaluation.coco_results import CocoResults, find_annotations, read_ground_truth
from utils.inference import Predictor
from utils.loss import DetectionLoss, scale_gains
from utils.metrics import match_as_v61


@pytest.fixture(scope="module")
def tiny_coco(shared_data: Path, tmp_path_factory) -> DatasetSpec:
    """A copy, because the label cache is written beside the labels."""
    folder = tmp_path_factory.mktemp("data") / "tiny-coco"
    for part in ("images/val2017", "labels/val2017", "images/train2017", "annotations"):
        shutil.copytree(shared_data / "tiny-coco" / part, folder / part)
    shutil.copy(shared_data / "tiny-coco/tiny-coco.yaml", folder)
    return DatasetSpec.load(folder / "tiny-coco.yaml")


@pytest.mark.parametrize(
    ("name", "batch", "iou"),
    [
        ("bs16 iou0.65", 16, 0.65),
        ("bs16 iou0.60", 16, 0.6),
        ("bs1 iou0.65", 1, 0.65),
        ("bs16 iou0.65 augment (TTA)", 16, 0.65),
    ],
)
def test_scores_of_the_official_model(golden, shared_weights, tiny_coco, name: str, batch: int, iou: float) -> None:
    run = next(r for r in golden.json("eval")["runs"] if r["name"] == name)
    reference = run["metric_v61"]
    pytest.importorskip("faster_coco_eval")
    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    records = load_labels(tiny_coco, "val").records
    dataset = DetectionDataset(records, 640, rect=True, batch_size=batch, pad=0.5)
    loader = build_loader(dataset, batch_size=batch, workers=0)
    detector = AugmentedModel(fuse(model)) if "augment" in name else fuse(model)
    annotations = find_annotations(tiny_coco, "val")
    assert annotations is not None
    collected = CocoResults(read_ground_truth(annotations, records, tiny_coco.names))
    evaluator = Evaluator(loader, 80, torch.device("cpu"), replace(EVAL_THRESHOLDS, iou=iou), matcher=match_as_v61)
    result = evaluator.run(detector, observers=[collected])
    assert (result.images, result.labels) == (run["images"], run["labels"])
    assert result.detections == pytest.approx(run["detections"], abs=3)
    assert result.precision == pytest.approx(reference["P"], abs=5e-4)
    assert result.recall == pytest.approx(reference["R"], abs=5e-4)
    assert result.map50 == pytest.approx(reference["mAP50"], abs=5e-4)
    assert result.map == pytest.approx(reference["mAP50_95"], abs=5e-4)
    # In three views two pairs of box and annotation lie within 2e-4 of an IoU threshold: the last digits decide there.
    within = 4e-3 if "augment" in name else 5e-4
    assert collected.metrics().by_name() == pytest.approx(run["pycocotools"], abs=within)


def test_validation_losses_of_the_official_model(golden, shared_weights, tiny_coco) -> None:
    reference = golden.json("eval")["val_losses"][0]
    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    dataset = DetectionDataset(load_labels(tiny_coco, "val").records, 640, rect=True, batch_size=16, pad=0.5)
    head = model.head
    loss = DetectionLoss(head.anchors, head.stride, 80, scale_gains(Hyp(), head.nl, 80, 640))
    result = Evaluator(build_loader(dataset, batch_size=16, workers=0), 80, torch.device("cpu")).run(model, loss)
    assert result.losses == pytest.approx([reference["box"], reference["obj"], reference["cls"]], rel=1e-4)


def test_detections_of_the_official_model_in_all_images(golden, shared_weights, shared_data) -> None:
    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    predictor = Predictor(model, torch.device("cpu"), 640)
    listed = golden.json("eval")["detect"]["images"]
    assert len(listed) == 50
    for entry in listed:
        image = read_image(shared_data / "tiny-coco/images/val2017" / entry["image"])
        found = predictor(image)
        reference = torch.tensor(entry["detections"]).reshape(-1, 6)
        assert list(found.hw) == entry["image_hw"]
        torch.testing.assert_close(found.boxes[:, :4], reference[:, :4], atol=0.01, rtol=1e-4)
        torch.testing.assert_close(found.boxes[:, 4:], reference[:, 4:], atol=1e-4, rtol=0)
        assert found.boxes[:, :4].round().int().tolist() == entry["xyxy_rounded"]
