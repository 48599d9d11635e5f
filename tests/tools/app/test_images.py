"""Images of the page: the boxes of detect.py at any thresholds, the kernels that were used, and what is refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.routing import RoutingRecorder
from tools.app import uploads
from tools.app.model_thread import ModelThread
from utils.config.app_options import AppOptions
from utils.config.detect_options import DetectOptions
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.inference import Predictor, Thresholds
from utils.inference.backends.base import FileBackend
from utils.inference.backends.metadata import Metadata

pytest.importorskip("fastapi")

LIMITS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("conf=0.6&iou=0.2", {"conf": 0.6, "iou": 0.2}),
    ("conf=0.01&iou=0.9&max_det=7", {"conf": 0.01, "iou": 0.9, "max_det": 7}),
    ("conf=0.3&classes=1", {"conf": 0.3, "classes": (1,)}),
    ("conf=0.3&classes=&agnostic=1", {"conf": 0.3, "classes": (), "agnostic": True}),
    ("conf=0.3&agnostic=1", {"conf": 0.3, "agnostic": True}),
]


@pytest.mark.parametrize(("query", "limits"), LIMITS)
def test_boxes_are_those_of_the_predictor_at_the_same_thresholds(
    site: Any, image_of: Any, png_of: Any, predictor_of: Callable[..., Predictor], query: str, limits: dict[str, Any]
) -> None:
    image = image_of()
    expected = predictor_of(**limits)(image).boxes.tolist()
    assert bool(expected) is (limits.get("classes") != ())
    first = site(f"/api/images?{query}", png_of(image)).json
    assert first["boxes"] == expected  # to the last digit
    assert (first["height"], first["width"]) == image.shape[:2]
    site(f"/api/images/{first['id']}?conf=0.5&iou=0.5")
    assert site(f"/api/images/{first['id']}?{query}").json["boxes"] == expected


def test_every_threshold_has_its_effect(site: Any, image_of: Any, png_of: Any) -> None:
    key = site("/api/images", png_of(image_of())).json["id"]

    def boxes(query: str) -> list[list[float]]:
        found: list[list[float]] = site(f"/api/images/{key}?{query}").json["boxes"]
        return found

    assert len(boxes("conf=0.6")) < len(boxes("conf=0.3")) < len(boxes("conf=0.01"))
    assert len(boxes("iou=0.1")) < len(boxes("iou=0.5")) < len(boxes("iou=0.9"))
    assert len(boxes("agnostic=1")) < len(boxes("agnostic=0"))
    assert boxes("max_det=5") == boxes("")[:5]
    assert boxes("classes=1") == [box for box in boxes("") if box[5] == 1] != []


def test_boxes_are_those_of_detect_py(
    eager_weights: Path, tmp_path: Path, image_of: Any, log_handlers_restored: None
) -> None:
    import detect
    from tools.app.model_thread import open_predictor
    from utils.inference.tables import detection_rows

    cv2.imwrite(str(tmp_path / "a.png"), image_of())
    given: dict[str, Any] = {"imgsz": (96,), "device": "cpu", "conf_thres": 0.4, "iou_thres": 0.3}
    given |= {"weights": (str(eager_weights),), "source": str(tmp_path / "a.png"), "project": str(tmp_path)}
    detect.main(DetectOptions(nosave=True, save_json=True, **given))
    (entry,) = json.loads((tmp_path / "exp/detections.json").read_text(encoding="utf-8"))
    options = AppOptions(weights=str(eager_weights), imgsz=(96,), device="cpu")
    with ModelThread(*open_predictor(options), options) as model:
        output = model.predict(read_image(tmp_path / "a.png"))
    rows = detection_rows(output.candidates.detections(Thresholds(0.4, 0.3, 1000)))
    assert len(rows) > 3
    assert [[row[0], row[2], row[3]] for row in rows] == [
        [found["class"], found["confidence"], found["box_xyxy"]] for found in entry["detections"]
    ]


def test_candidates_say_how_low_a_threshold_may_go(image_of: Any, predictor_of: Callable[..., Predictor]) -> None:
    candidates = predictor_of().candidates(image_of(), min_objectness=0.2)
    assert len(candidates.rows) > 0
    assert float(candidates.rows[:, 4].min()) > 0.2
    assert len(candidates.detections(Thresholds(0.2))) > 0
    with pytest.raises(InputError, match=r"conf is 0\.1, but candidates were kept from 0\.2 only"):
        candidates.detections(Thresholds(0.1))


def test_an_image_that_is_turned_or_has_16_bits_is_read_as_detect_py_reads_it(
    site: Any, image_of: Any, tmp_path: Path, predictor_of: Callable[..., Predictor]
) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(image_of()[..., ::-1]).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    cv2.imwrite(str(tmp_path / "deep.png"), image_of(1).astype(np.uint16) * 257)
    for name in ("turned.jpg", "deep.png"):
        image = read_image(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        answer = site("/api/images", content).json
        assert (answer["height"], answer["width"]) == image.shape[:2]
        assert answer["boxes"] == predictor_of()(image).boxes.tolist()
        shown = site("/api/png", content)
        assert shown.headers["content-type"] == "image/png"
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(shown.body, np.uint8), cv2.IMREAD_COLOR), image)


# --- routing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cfg", "kind", "sums_to_one"),
    [
        ("yolov5n_dynamic.yaml", "Dynamic_conv2d", True),
        ("yolov5n_odconv_head.yaml", "ODConv2d", True),
        ("yolov5n_condconv_head.yaml", "CondConv2d", False),
    ],
)
def test_every_dynamic_layer_is_shown_with_the_weights_it_used(
    image_of: Any, predictor_of: Callable[..., Predictor], cfg: str, kind: str, sums_to_one: bool
) -> None:
    predictor = predictor_of(cfg)
    with ModelThread(predictor, Path("a.pt"), AppOptions()) as model:
        first, second = model.predict(image_of(0)), model.predict(image_of(1))
    with RoutingRecorder(predictor.model) as recorder:
        predictor(image_of(1))
    assert [layer.name for layer in model.layers] == list(second.routing) == list(recorder.layers)
    assert {(layer.kind, layer.sums_to_one) for layer in model.layers} == {(kind, sums_to_one)}
    assert {layer.temperature for layer in model.layers} == {34.0 if sums_to_one else None}
    for name, weights in second.routing.items():
        assert weights.tolist() == recorder.weights(name)[0].tolist()
        assert not np.allclose(weights, first.routing[name], atol=1e-4)
        assert bool(abs(weights.sum() - 1) < 1e-5) is sums_to_one
    assert model.why_no_routing == ""


def test_the_answer_for_an_image_has_its_routing(site: Any, image_of: Any, png_of: Any) -> None:
    layers = [layer["name"] for layer in site("/api/model").json["layers"]]
    routing = site("/api/images", png_of(image_of())).json["routing"]
    assert list(routing) == layers == ["10", "14"]
    assert [len(weights) for weights in routing.values()] == [4, 4]


class _File(FileBackend):
    """An exported file that finds nothing."""

    def run(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.zeros(len(images), 1, self.nc + 5)]


def _model_of_file(**about: Any) -> ModelThread:
    model = _File(Metadata(names=("ant",), dynamic=("batch", "height", "width"), **about), Path("a.onnx"), None)  # type: ignore[arg-type]
    return ModelThread(Predictor(model, torch.device("cpu"), 64), Path("a.onnx"), AppOptions())


def test_where_no_kernels_can_be_seen_the_page_says_why(image_of: Any, predictor_of: Callable[..., Predictor]) -> None:
    with ModelThread(predictor_of("yolov5n.yaml"), Path("a.pt"), AppOptions()) as static:
        assert static.predict(image_of()).routing == {}
        assert static.why_no_routing == "This model has no dynamic layers."
    with _model_of_file(temperature=1.0) as exported:
        assert exported.predict(image_of()).routing == {}
        assert "has dynamic layers (temperature 1)" in exported.why_no_routing
    with _model_of_file() as unknown:
        assert "whether it has dynamic layers cannot be seen" in unknown.why_no_routing


def test_thresholds_do_not_go_below_those_inside_an_exported_file() -> None:
    with _model_of_file(nms_conf=0.3) as free, _model_of_file(nms=True, nms_conf=0.3) as inside:
        assert (free.min_conf, free.start.conf) == (0.01, 0.25)
        assert (inside.min_conf, inside.start.conf) == (0.3, 0.3)


# --- what is refused, and what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/images", b"", 400, "no image"),
        ("/api/images", b"neither this nor that", 400, "no image"),
        ("/api/png", b"<svg></svg>", 400, "no image"),
        ("/api/images", b"x" * 300_001, 413, "more than 0.3 MB"),
        ("/api/images?conf=high", b"-", 400, "conf=high is no number"),
        ("/api/images?conf=0.001", b"-", 400, "allowed are 0.01 to 1"),
        ("/api/images?conf=nan", b"-", 400, "allowed are 0.01 to 1"),
        ("/api/images?iou=1.5", b"-", 400, "iou 1.5"),
        ("/api/images?max_det=0", b"-", 400, "max_det=0: a whole number from 1"),
        ("/api/images?max_det=99999999999999999999", b"-", 400, "max_det=99999"),
        ("/api/images?classes=0,2", b"-", 400, "class numbers from 0 to 1"),
        ("/api/images?classes=%C2%B2", b"-", 400, "class numbers from 0 to 1"),
        ("/api/images/0123", None, 404, "no longer kept"),
        ("/api/videos/0123/events", None, 404, "no longer kept"),
        ("/api/nothing", None, 404, "Not Found"),
    ],
)
def test_a_refusal_is_a_sentence(site: Any, path: str, body: bytes | None, status: int, text: str) -> None:
    answer = site(path, body)
    assert answer.status == status
    assert text in answer.json["detail"]


def test_too_many_pixels_and_an_image_that_is_cut_off_are_refused(site: Any, image_of: Any, png_of: Any) -> None:
    answer = site("/api/images", png_of(np.zeros((200, 300, 3), np.uint8)))
    assert (answer.status, answer.json["detail"]) == (
        413, "the image has 300 x 200 pixels, allowed are 20000 in all",
    )  # fmt: skip
    answer = site("/api/images", png_of(image_of())[:100])
    assert answer.status == 400
    assert "cut off" in answer.json["detail"] or "no image" in answer.json["detail"]


def test_only_the_newest_images_are_kept(site: Any, image_of: Any, png_of: Any) -> None:
    keys = [site("/api/images", png_of(image_of(n))).json["id"] for n in range(2)]
    assert site(f"/api/images/{keys[0]}").status == 200  # now the other is the longest unused
    site("/api/images", png_of(image_of(2)))
    assert [site(f"/api/images/{key}").status for key in keys] == [200, 404]
    site(f"/api/images/{keys[0]}", method="DELETE")
    assert site(f"/api/images/{keys[0]}").status == 404


def test_when_too_many_wait_the_next_is_asked_to_come_back(
    site: Any, image_of: Any, png_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, entered, predict = threading.Event(), threading.Semaphore(0), site.service.model.predict

    def slowly(image: Any) -> Any:
        entered.release()
        go.wait(60)
        return predict(image)

    monkeypatch.setattr(site.service.model, "predict", slowly)
    monkeypatch.setattr(uploads, "SLOT_TIME_S", 0.2)
    with ThreadPoolExecutor(2) as pool:
        first = [pool.submit(site, "/api/images", png_of(image_of())) for _ in range(2)]
        assert entered.acquire(timeout=60) and entered.acquire(timeout=60)
        refused = site("/api/images", png_of(image_of()))
        go.set()
        assert [answer.result().status for answer in first] == [200, 200]
    assert (refused.status, refused.json["detail"][:28]) == (503, "2 images are being processed")


def test_who_comes_when_all_places_are_taken_waits_for_one(site: Any, image_of: Any, png_of: Any) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: site("/api/images", png_of(image_of(n))), range(20)))
    assert {answer.status for answer in answers} == {200}


def test_a_bug_is_answered_as_json_too(site: Any, monkeypatch: pytest.MonkeyPatch, image_of: Any, png_of: Any) -> None:
    def broken(image: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(site.service.model, "predict", broken)
    answer = site("/api/images", png_of(image_of()))
    assert (answer.status, "terminal" in answer.json["detail"]) == (500, True)
