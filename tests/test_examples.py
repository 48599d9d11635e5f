"""The example scripts, run as their users run them."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
# A program that imports torch fails at once.
WITHOUT_TORCH = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"  # noqa: E501


@pytest.fixture(scope="module")
def found_by_torch(eager_weights: Path) -> Callable[[np.ndarray], torch.Tensor]:
    from utils.checkpoint import load_model
    from utils.inference import Predictor

    predictor = Predictor(load_model(eager_weights)[0], torch.device("cpu"), 96)
    predictor.whole_canvas = True
    return lambda image: predictor(image).boxes


def test_the_onnx_script_needs_no_torch_and_finds_what_detect_finds(
    eager_weights: Path, tmp_path: Path, found_by_torch: Callable[[np.ndarray], torch.Tensor]
) -> None:
    pytest.importorskip("onnxruntime")
    from utils.config.options import ExportOptions
    from utils.export import export_checkpoint

    options: dict[str, Any] = {
        "include": ("onnx",),
        "nms": True,
        "topk_all": 9,
        "imgsz": (96,),
        "output": str(tmp_path),
    }
    row = export_checkpoint(eager_weights, ExportOptions(**options), torch.device("cpu"))[1]
    assert row.made, row.note
    image = np.random.default_rng(0).integers(0, 255, (40, 96, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "examples/onnx_image.py"), str(row.path)]
    done = subprocess.run([*command, str(tmp_path / "a.png")], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    expected = found_by_torch(image)[:9]
    assert len(lines) == len(expected) > 2
    assert {words[0] for words in lines} <= {"ant", "bee"}
    boxes = np.array([[float(word) for word in words[1:]] for words in lines])  # [k, 5] confidence, xyxy
    for *xyxy, confidence, _ in expected.tolist():  # in whatever order: some are nearly as sure as others
        assert (np.abs(boxes - [confidence, *xyxy]) < [0.002, 0.2, 0.2, 0.2, 0.2]).all(1).any()


def test_the_openvino_script_needs_no_torch_and_finds_objects(eager_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    from utils.config.options import ExportOptions
    from utils.export import export_checkpoint

    options = ExportOptions(include=("openvino",), imgsz=(96,), output=str(tmp_path))
    row = export_checkpoint(eager_weights, options, torch.device("cpu"))[1]
    assert row.made, row.note
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 255, (40, 96, 3), dtype=np.uint8))
    command = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "examples/openvino_image.py")]
    found = [
        subprocess.run(
            [*command, str(model), str(tmp_path / "a.png")], capture_output=True, text=True, check=True
        ).stdout
        for model in (row.path, next(row.path.glob("*.xml")))  # the folder that export.py names, or the file in it
    ]
    assert found[0] == found[1]
    rows = [line.split() for line in found[0].splitlines()]
    assert {row[0] for row in rows} <= {"ant", "bee"} and rows
    boxes = np.array([[float(word) for word in row[2:]] for row in rows])
    assert (boxes >= 0).all() and (boxes <= [96, 40, 96, 40]).all()


@pytest.mark.parametrize(("script", "package"), [("onnx_image.py", "onnxruntime"), ("openvino_image.py", "openvino")])
def test_a_script_says_in_one_line_what_is_no_model(script: str, package: str, tmp_path: Path) -> None:
    pytest.importorskip(package)
    (tmp_path / "text.xml").write_text("no model")
    for model in (tmp_path / "text.xml", tmp_path / "nowhere", tmp_path / "empty"):
        command = [sys.executable, str(ROOT / "examples" / script), str(model), "a.png"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
        assert done.stderr.splitlines()[-1].startswith(str(model))  # OpenVINO writes lines of its own before


class Answer(NamedTuple):
    status: int
    body: dict[str, Any]


@pytest.fixture(scope="module")
def service(eager_weights: Path) -> Iterator[Callable[..., Answer]]:
    """``service(path, body) -> answer`` of examples/serve.py, listening on this machine."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from tools.app.connections import create_server

    spec = importlib.util.spec_from_file_location("serve", ROOT / "examples/serve.py")
    assert spec and spec.loader
    serve = importlib.util.module_from_spec(spec)
    sys.modules["serve"] = serve  # its annotations are looked up there
    spec.loader.exec_module(serve)
    app = serve.create_app(serve.load_predictor(str(eager_weights), 96, "cpu", 0.25), "eager.pt", 20_000, 10_000)
    server = create_server(app)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who asks before the server runs waits
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def ask(path: str, body: bytes | None = None, **headers: str) -> Answer:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}{path}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(urllib.request.Request(address, body, headers), timeout=60) as answer:
                return Answer(answer.status, json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.loads(error.read()))

    yield ask
    server.should_exit = True
    thread.join(30)
    del sys.modules["serve"]


def test_the_service_answers_an_image_with_boxes_in_its_own_pixels(service: Callable[..., Answer]) -> None:
    assert service("/health") == (200, {"model": "eager.pt", "classes": ["ant", "bee"]})
    image = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
    status, body = service("/detect", cv2.imencode(".png", image)[1].tobytes())
    assert (status, body["width"], body["height"]) == (200, 80, 40)
    assert len(body["detections"]) > 0
    for found in body["detections"]:
        assert found["name"] == ["ant", "bee"][found["class"]]
        assert 0 <= found["box"][0] <= found["box"][2] <= 80
        assert 0 <= found["box"][1] <= found["box"][3] <= 40


def test_the_service_says_what_is_wrong_with_a_request(service: Callable[..., Answer]) -> None:
    plain = cv2.imencode(".png", np.zeros((200, 300, 3), np.uint8))[1].tobytes()
    noise = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))[1].tobytes()
    for body, status, text in (
        (b"", 400, "no image"), (b"nothing of the kind", 400, "no image"), (b"x" * 20_001, 413, "0.02 MB"),
        (plain, 413, "300 x 200 pixels"), (noise[:200], 400, "image"),
    ):  # fmt: skip
        answer = service("/detect", body)
        assert answer.status == status
        assert text in answer.body["detail"]


def test_the_service_takes_a_form_as_curl_sends_it(service: Callable[..., Answer]) -> None:
    image = cv2.imencode(".png", np.random.default_rng(1).integers(0, 255, (40, 80, 3), dtype=np.uint8))[1].tobytes()
    plain = service("/detect", image)
    head = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    note = b'--xyz\r\nContent-Disposition: form-data; name="conf"\r\n\r\n0.25\r\n'
    kind = {"Content-Type": 'multipart/form-data; boundary="xyz"'}
    assert service("/detect", note + head + image + b"\r\n--xyz--\r\n", **kind) == plain
    twice = service("/detect", (head + image + b"\r\n") * 2 + b"--xyz--\r\n", **kind)
    assert (twice.status, twice.body["detail"][:27]) == (400, "the form has 2 files; send ")
    none = service("/detect", note + b"--xyz--\r\n", **kind)
    assert (none.status, none.body["detail"][:20]) == (400, "the form has 0 files")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)  # fmt: skip
def test_the_service_answers_no_foreign_page(service: Callable[..., Answer], headers: dict[str, str]) -> None:
    for path, body in (("/health", None), ("/detect", b"x")):
        assert service(path, body, **headers).status == 403


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_the_service_has_no_pages_that_load_from_elsewhere(service: Callable[..., Answer], path: str) -> None:
    assert service(path).status == 404


def test_the_service_refuses_a_form_of_very_many_parts(service: Callable[..., Answer]) -> None:
    answer = service("/detect", b"--x\r\n" * 3000, **{"Content-Type": "multipart/form-data; boundary=x"})
    assert (answer.status, answer.body["detail"][:32]) == (400, "the form has more than 100 parts")
