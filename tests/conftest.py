"""Fixtures shared by all tests. Official weights and real data sets may lie beside the checkout and are optional."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
GOLDEN = ROOT / "tests" / "golden"
CLASS_NAMES = ("red", "green", "blue", "yellow")
COLOURS = ((40, 40, 220), (60, 200, 60), (220, 90, 30), (30, 210, 220))  # BGR


class Golden:
    """Reference values of YOLOv5 v6.1: ``golden.array("iou/matrix")``, ``golden.json("tensors")``; read when asked for.

    Outputs of the official network are large and need its weights: they are read from beside the checkout; without them
    the test is skipped.
    """

    folder = GOLDEN

    def __init__(self) -> None:
        self._archives: dict[Path, Any] = {}

    def json(self, name: str) -> Any:
        return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))

    def array(self, name: str) -> np.ndarray:
        folder = SHARED / "golden" if name.startswith("model/") else GOLDEN
        if not folder.is_dir():
            pytest.skip("outputs of the official network are not beside this checkout")
        if folder not in self._archives:
            self._archives[folder] = np.load(folder / "tensors.npz")
        values: np.ndarray = self._archives[folder][name]
        return values

    def labels(self, name: str) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
        """Sizes (height, width) and label rows [n, 5] of every image of a real training set, by file name."""
        rows = self.array(f"boxes/{name}_rows")  # [N, 6] image, class, x, y, w, h
        sizes = [(int(h), int(w)) for h, w in self.array(f"boxes/{name}_hw")]
        return sizes, [rows[rows[:, 0] == i, 1:] for i in range(len(sizes))]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without the optional files, a test that needs them is skipped once instead of once per parameter."""
    folders = {"shared_data": SHARED / "data", "shared_weights": SHARED / "weights"}
    absent = {fixture for fixture, folder in folders.items() if not folder.is_dir()}
    seen: set[str] = set()
    dropped = []
    for item in items:
        if absent.intersection(getattr(item, "fixturenames", ())):
            test = item.nodeid.split("[")[0]
            if test in seen:
                dropped.append(item)
            seen.add(test)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("reference data sets are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def shared_weights() -> Path:
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("reference checkpoints are not beside this checkout")
    return folder


def _coloured_image(rng: np.random.Generator, hw: tuple[int, int], classes: list[int]) -> tuple[np.ndarray, list[str]]:
    """A grey image with a filled rectangle per class number, and its label rows."""
    height, width = hw
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    rows = []
    for c in classes:
        w, h = (int(rng.integers(side // 4, side // 2)) for side in (width, height))
        x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
        image[y : y + h, x : x + w] = COLOURS[c % len(COLOURS)]
        rows.append(f"{c} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n")
    return image, rows


def _make_dataset(
    folder: Path,
    n_train: int = 4,
    n_val: int = 4,
    nc: int = 2,
    *,
    hw: tuple[int, int] = (64, 64),
    boxes: int = 1,
    seed: int = 0,
    names: tuple[str, ...] = (),
    labels: bool = True,
) -> Path:
    """Write images with coloured rectangles, ``boxes`` each, and return the data yaml.

    Images are ``images/train/0.png`` ... and ``images/val/0.png`` ...; classes go round. Without ``labels`` all label
    files are empty: background only.
    """
    import cv2  # here, so that tests without images do not pay for it
    import yaml

    rng = np.random.default_rng(seed)
    for split, count in (("train", n_train), ("val", n_val)):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, rows = _coloured_image(rng, hw, [(i + k) % nc for k in range(boxes)])
            cv2.imwrite(str(folder / "images" / split / f"{i}.png"), image)
            text = "".join(rows) if labels else ""
            (folder / "labels" / split / f"{i}.txt").write_text(text, encoding="utf-8")
    content = {"train": "images/train", "val": "images/val", "names": list(names or CLASS_NAMES[:nc])}
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    """``make_dataset(folder, n_train, n_val, nc, hw=..., boxes=..., seed=...) -> data yaml``: made on the spot."""
    return _make_dataset


@pytest.fixture(scope="session")
def eager_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of an untrained nano model, classes "ant" and "bee", that is sure to see objects everywhere."""
    import torch

    from models.yolo import Model
    from utils.checkpoint import Checkpoint, save_checkpoint

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = Model("yolov5n.yaml", nc=2)
        for conv in model.head.m:
            conv.weight.mul_(20)  # otherwise all its boxes would be the anchors
            conv.bias.view(model.head.na, -1)[:, 4:] = 2.0
    names = ["ant", "bee"]
    file = tmp_path_factory.mktemp("eager") / "eager.pt"
    save_checkpoint(
        file,
        Checkpoint(
            model_yaml=model.yaml, nc=2, names=names, stride=model.stride.tolist(), model=dict(model.state_dict())
        ),
    )
    return file


def _blurred_noise(seed: int = 0, hw: tuple[int, int] = (60, 90)) -> np.ndarray:
    import cv2

    small = np.random.default_rng(seed).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    image: np.ndarray = cv2.resize(small, hw[::-1], interpolation=cv2.INTER_CUBIC)
    return image


@pytest.fixture(scope="session")
def blurred_noise() -> Callable[..., np.ndarray]:
    """``blurred_noise(seed, hw)``: an image of coloured spots, HWC BGR uint8."""
    return _blurred_noise


@pytest.fixture(scope="session")
def lively_model() -> Callable[..., Any]:
    """``lively_model(cfg)``: an untrained model, classes "ant" and "bee", that sees other things in every image.

    It has boxes of all confidences, and its dynamic layers take other kernels for every image.
    """
    import torch

    from models.yolo import Model

    def make(cfg: str = "yolov5n_dynamic.yaml") -> Model:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = Model(cfg, nc=2)
            model.names = ["ant", "bee"]
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = None  # the plain mean
            images = np.stack([_blurred_noise(seed, (96, 96)) for seed in range(8)])
            model.train()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)  # norms that suit what they see
            for name, module in model.named_modules():
                if name.endswith(("fc2", "kernel.fc", "attention.fc")):
                    module.weight.mul_(60)
            for conv in model.head.m:
                conv.bias.view(model.head.na, -1)[:, 4:] = 0.0
        return model.eval()

    return make


@pytest.fixture(scope="session")
def lively_weights(tmp_path_factory: pytest.TempPathFactory, lively_model: Callable[..., Any]) -> Path:
    """Checkpoint of the dynamic one."""
    from utils.checkpoint import Checkpoint, save_checkpoint

    model = lively_model()
    file = tmp_path_factory.mktemp("lively") / "lively.pt"
    content = {"model_yaml": model.yaml, "nc": 2, "names": model.names, "stride": model.stride.tolist()}
    save_checkpoint(file, Checkpoint(**content, model=dict(model.state_dict())))
    return file


@pytest.fixture
def log_handlers_restored() -> Iterator[None]:
    """For tests that go through ``run_script``, which installs a handler."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in list(root.handlers):
        if handler not in before:
            root.removeHandler(handler)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Several tests run side by side, and the tensors are small: more threads would only wait for one another.

    Only for speed: test_repeatable.py has 1, 2 and 4 threads, and commands that tests start have as many as a user's.
    """
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def signals_are_heard() -> None:
    """A shell starts background jobs with Ctrl-C ignored, nohup with SIGHUP: the tests of stopping would inherit it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
