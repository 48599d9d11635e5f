"""Programs that expect YOLOv5 work with this repository: ``pip install -r requirements-clients.txt``, else skipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import val
from utils.core.image import read_image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(eager_weights: Path) -> Any:
    return torch.hub.load(str(ROOT), "custom", path=str(eager_weights), source="local", device="cpu", _verbose=False)


@pytest.fixture
def image(blurred_noise: Callable[..., np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(blurred_noise(0, (64, 96))[..., ::-1])  # RGB


def test_sahi_finds_what_the_model_finds(
    model: Any, image: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sahi = pytest.importorskip("sahi")
    predict = pytest.importorskip("sahi.predict")
    (tmp_path / "yolov5").mkdir()  # sahi wants to find a package of this name, and takes nothing from it
    monkeypatch.syspath_prepend(tmp_path)
    wrapped = sahi.AutoDetectionModel.from_pretrained(
        model_type="yolov5", model=model, confidence_threshold=0.3, image_size=96, device="cpu"
    )
    assert wrapped.category_mapping == {"0": "ant", "1": "bee"}
    found = predict.get_prediction(image, wrapped).object_prediction_list
    expected = model(image, size=96).xyxy[0]
    assert len(found) == len(expected) > 5
    boxes = torch.tensor([one.bbox.to_xyxy() for one in found])
    torch.testing.assert_close(boxes, expected[:, :4].clamp(min=0), rtol=0, atol=1e-3)
    assert [one.category.name for one in found] == [model.names[int(number)] for number in expected[:, 5]]

    sliced = predict.get_sliced_prediction(
        image, wrapped, slice_height=64, slice_width=64, overlap_height_ratio=0, overlap_width_ratio=0,
        perform_standard_pred=False, postprocess_match_threshold=1.0, verbose=0,
    ).object_prediction_list  # fmt: skip
    left, right = model(image[:, :64], size=96).xyxy[0], model(image[:, 32:], size=96).xyxy[0]
    assert 0 < len(sliced) <= len(left) + len(right)
    assert max(one.bbox.to_xyxy()[2] for one in sliced) > 64  # boxes of the right slice are moved to their place


def test_supervision_reads_the_results(model: Any, image: np.ndarray) -> None:
    supervision = pytest.importorskip("supervision")
    results = model(image, size=96)
    detections = supervision.Detections.from_yolov5(results)
    assert len(detections) == len(results.pred[0]) > 5
    assert np.array_equal(detections.xyxy, results.xyxy[0][:, :4].numpy())
    assert np.array_equal(detections.class_id, results.pred[0][:, 5].int().numpy())
    drawn = supervision.BoxAnnotator().annotate(scene=image.copy(), detections=detections)
    assert (drawn != image).any()


def test_grad_cam_explains_the_last_block(model: Any, image: np.ndarray) -> None:
    cam = pytest.importorskip("pytorch_grad_cam")
    pytest.importorskip("pandas")
    table = model([image], size=96).pandas().xyxy[0].to_dict()
    assert set(table["name"].values()) <= {"ant", "bee"}
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    layers = [model.model.model.model[-2]]
    heat = cam.EigenCAM(model, layers)(x, targets=None)[0]
    assert heat.shape == image.shape[:2]
    assert heat.min() < heat.max()
    with cam.GradCAM(model.model.model, layers) as explain:  # a score of its own, from the raw answer of the model
        scored = explain(x.requires_grad_(), targets=[lambda output: output[..., 4].sum()])[0]
    assert scored.shape == image.shape[:2]
    assert np.isfinite(scored).all()


@pytest.fixture(scope="module")
def scored(
    lively_weights: Path, make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, float]:
    """A run of val.py on squares of 64 px: its folder, that of the images, and COCO's mAP@.5:.95."""
    pytest.importorskip("faster_coco_eval")
    folder = tmp_path_factory.mktemp("scored")
    data = make_dataset(folder, n_train=1, n_val=6, boxes=3)
    data.write_text(data.read_text(encoding="utf-8").replace("red", "ant").replace("green", "bee"), encoding="utf-8")
    figures, _, _ = val.run(
        weights=lively_weights, data=data, imgsz=64, rect=False, save_json=True, project=folder, name="val", workers=0,
        device="cpu",
    )  # fmt: skip
    return folder / "val", folder, figures[3]


def test_pycocotools_reads_the_predictions_of_val(scored: tuple[Path, Path, float]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    run, _, expected = scored
    truth = coco.COCO(str(run / "annotations.json"))
    found = truth.loadRes(str(next(run.glob("*_predictions.json"))))
    scores = evaluation.COCOeval(truth, found, "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(expected, abs=1e-9)
    assert expected > 0


def test_torchmetrics_gives_the_figure_of_val(scored: tuple[Path, Path, float], lively_weights: Path) -> None:
    detection = pytest.importorskip("torchmetrics.detection")
    run, folder, expected = scored
    model = torch.hub.load(str(ROOT), "custom", path=lively_weights, source="local", device="cpu", _verbose=False)
    model.conf, model.iou, model.multi_label, model.max_det = 0.001, 0.6, True, 300  # those of val.py
    metric = detection.MeanAveragePrecision(backend="faster_coco_eval")
    truth = json.loads((run / "annotations.json").read_text(encoding="utf-8"))
    first = min(category["id"] for category in truth["categories"])
    for entry in truth["images"]:
        rows = [row for row in truth["annotations"] if row["image_id"] == entry["id"]]
        path = folder / "images/val" / Path(entry["file_name"]).name
        pred = model(read_image(path)[..., ::-1], size=64).pred[0]
        corners = torch.tensor([row["bbox"] for row in rows])
        corners[:, 2:] += corners[:, :2]
        metric.update(
            [{"boxes": pred[:, :4], "scores": pred[:, 4], "labels": pred[:, 5].int()}],
            [{"boxes": corners, "labels": torch.tensor([row["category_id"] - first for row in rows])}],
        )
    assert float(metric.compute()["map"]) == pytest.approx(expected, abs=2e-4)  # val.py writes rounded boxes
