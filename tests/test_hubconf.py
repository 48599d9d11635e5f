"""Models by name through torch.hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hubconf
from models.yolo import Model, find_model_yaml
from utils.inference.autoshape import AutoShape
from utils.inference.backends import DetectMultiBackend

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = [f"yolov5{size}{kind}" for kind in ("", "6", "_dynamic") for size in "nsmlx"]


def load(name: str, **options: Any) -> Any:
    return torch.hub.load(str(ROOT), name, source="local", device="cpu", **options)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_has_its_name_and_its_yaml(name: str) -> None:
    entry = getattr(hubconf, name)
    assert entry.__name__ == name
    assert name in str(entry.__doc__)
    assert find_model_yaml(f"{name}.yaml").is_file()


def test_a_checkpoint_of_ones_own_takes_images(eager_weights: Path) -> None:
    model = load("custom", path=str(eager_weights), verbose=False)
    assert isinstance(model, AutoShape)
    assert model.names == ["ant", "bee"]
    assert len(model(np.zeros((48, 64, 3), np.uint8), size=64).xyxy[0])


def test_the_later_name_of_verbose_silences_the_load(eager_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    load("custom", path=eager_weights, _verbose=False)
    load("yolov5n", classes=2, _verbose=False)
    assert not [record for record in caplog.records if "AutoShape" in record.getMessage()]
    load("custom", path=eager_weights)
    assert [record for record in caplog.records if "AutoShape" in record.getMessage()]


def test_without_autoshape_it_takes_tensors(eager_weights: Path) -> None:
    model = load("custom", path=eager_weights, autoshape=False)
    assert isinstance(model, DetectMultiBackend)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 252, 7)


def test_an_untrained_model_has_the_classes_asked_for() -> None:
    model = load("yolov5n_dynamic", classes=3, autoshape=False)
    assert isinstance(model, Model)
    assert model.nc == 3
    assert model.eval()(torch.zeros(1, 3, 64, 64), augment=False)[0].shape == (1, 252, 8)
    wrapped = load("yolov5n", classes=3)
    assert wrapped(np.zeros((64, 64, 3), np.uint8), size=64).n == 1


@pytest.mark.parametrize("folder", [".", "weights"])
def test_pretrained_reads_a_file_of_the_working_directory(
    folder: str, eager_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    shutil.copy(eager_weights, tmp_path / folder / "yolov5n.pt")
    assert load("yolov5n", pretrained=True, classes=2).names == ["ant", "bee"]


def test_pretrained_with_other_classes_takes_the_tensors_that_fit(
    eager_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(eager_weights, tmp_path / "yolov5n.pt")
    model = load("yolov5n", pretrained=True, classes=5, autoshape=False)
    taken = torch.load(eager_weights, weights_only=True)["model"]["model.0.conv.weight"]
    assert model.nc == 5
    assert torch.equal(model.state_dict()["model.0.conv.weight"], taken)


def test_a_missing_file_is_named_with_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"yolov5n\.pt not found; searched: .*yolov5n\.pt and .*weights"):
        load("yolov5n", pretrained=True)


def test_it_works_from_another_folder_in_a_fresh_process(eager_weights: Path, tmp_path: Path) -> None:
    """The repository is on the module path while the model loads, not while it is used."""
    script = tmp_path / "use.py"
    script.write_text(
        "import sys, numpy, torch\n"
        f"model = torch.hub.load({str(ROOT)!r}, 'custom', path={str(eager_weights)!r}, source='local', device='cpu')\n"
        f"assert {str(ROOT)!r} not in sys.path\n"
        "found = model([numpy.zeros((48, 64, 3), numpy.uint8)], size=64)\n"
        "found.save()\n"
        "print(len(found.crop()), found.render()[0].shape)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "(48, 64, 3)" in done.stdout
    assert (tmp_path / "runs/detect/exp/image0.jpg").is_file()
