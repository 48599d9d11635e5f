"""A layer from a file beside nobody's code: trained, resumed, scored and used, and run only when a person names it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml

import detect
import train
import val
from models import user_modules
from models.registry import LAYERS
from models.yolo import MODELS_DIR
from utils.checkpoint import load_checkpoint, load_model
from utils.config.cli import parse
from utils.config.options import DetectOptions, TrainOptions, ValOptions
from utils.core.callbacks import Callback, EpochStart
from utils.core.errors import InputError
from utils.training.session import Session

ROOT = Path(__file__).resolve().parents[2]
LAYER = """
import pathlib
from torch import Tensor, nn
from models.registry import LayerPlan, register

with (pathlib.Path(__file__).parent / "ran").open("a") as marker:
    marker.write("ran ")

def gated(row, channels, scale):
    out = scale.channels(row.args[0])
    return LayerPlan((channels[0], out), out)

@register(gated)
class GatedConv(nn.Module):
    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.value = nn.Conv2d(c1, c2, 3, padding=1)
        self.gate = nn.Conv2d(c1, c2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * self.gate(x).sigmoid()
"""


class Files(NamedTuple):
    """A layer's file and two model yamls that use it: one imports it, one does not."""

    layer: Path
    importing: Path
    bare: Path

    @property
    def times_run(self) -> int:
        return len((self.layer.parent / "ran").read_text().split())


class Interrupt(Callback):
    """Ctrl-C as the second epoch begins."""

    def on_train_epoch_start(self, event: EpochStart) -> None:
        if event.epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    layers, loaded = dict(LAYERS), dict(user_modules._LOADED)
    folder = tmp_path_factory.mktemp("mine")
    found = Files(folder / "my_layers.py", folder / "importing.yaml", folder / "bare.yaml")
    found.layer.write_text(LAYER, encoding="utf-8")
    content = yaml.safe_load((MODELS_DIR / "yolov5n.yaml").read_text(encoding="utf-8"))
    content["backbone"][4] = [-1, 1, "GatedConv", [256]]
    found.bare.write_text(yaml.safe_dump(content), encoding="utf-8")
    found.importing.write_text(yaml.safe_dump({**content, "imports": "my_layers.py"}), encoding="utf-8")
    yield found
    forget(layers, loaded)


def forget(layers: dict[str, Any], loaded: dict[str, Any]) -> None:
    """Only these are registered and loaded from here on."""
    for now, then in ((LAYERS, layers), (user_modules._LOADED, loaded)):
        now.clear()
        now.update(then)


@pytest.fixture(autouse=True)
def as_in_a_new_process(files: Files, stopped: Path, finished: Path) -> None:
    """No file is loaded when a test begins, whatever the runs before it loaded."""
    forget({name: entry for name, entry in LAYERS.items() if name != "GatedConv"}, {})


@pytest.fixture(scope="module")
def finished(files: Files, tmp_path_factory: pytest.TempPathFactory, training: Callable[..., Session]) -> Path:
    """Run folder of one epoch of the yaml that imports."""
    return training(tmp_path_factory.mktemp("finished"), cfg=str(files.importing)).save_dir


@pytest.fixture(scope="module")
def stopped(files: Files, tmp_path_factory: pytest.TempPathFactory, training: Callable[..., Session]) -> Path:
    """Run folder of ``--modules`` that was interrupted after the first of two epochs."""
    project = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        training(
            project, lambda session: session.callbacks.add(Interrupt()),
            cfg=str(files.bare), modules=(str(files.layer),), epochs=2,
        )  # fmt: skip
    return project / "exp"


def score(run: Path, project: Path, *more: str) -> None:
    weights = ["--weights", str(run / "weights/best.pt"), "--project", str(project)]
    val.main(parse(ValOptions, [*weights, "--imgsz", "64", "--workers", "0", "--device", "cpu", *more]))


def find(run: Path, project: Path, source: Path, *more: str) -> None:
    weights = ["--weights", str(run / "weights/best.pt"), "--project", str(project), "--source", str(source)]
    detect.main(parse(DetectOptions, [*weights, "--imgsz", "64", "--device", "cpu", *more]))


def test_the_layer_is_trained_like_any_other(finished: Path, files: Files) -> None:
    user_modules.load_modules([files.layer])
    model, _ = load_model(finished / "weights/best.pt")
    assert type(model.model[4]).__name__ == "GatedConv"
    assert model.model[4].value.weight.abs().sum() > 0 and model(torch.zeros(1, 3, 64, 64))[0].shape == (1, 252, 7)


def test_a_checkpoint_notes_file_and_hash_and_no_folder(finished: Path, stopped: Path, files: Files) -> None:
    for path in (finished / "weights/best.pt", finished / "weights/last.pt", stopped / "weights/last.pt"):
        (record,) = load_checkpoint(path).model_yaml["modules"]
        assert record["file"] == "my_layers.py" and len(record["sha256"]) == 64
        assert "imports" not in load_checkpoint(path).model_yaml


def test_val_and_detect_run_with_the_file(finished: Path, files: Files, toy: Path, tmp_path: Path) -> None:
    images = toy.parent / "images/val"
    score(finished, tmp_path / "val", "--modules", str(files.layer))
    find(finished, tmp_path / "out", images, "--modules", str(files.layer))
    assert len(list((tmp_path / "out/exp").glob("*.png"))) == 4


def test_val_and_detect_refuse_without_the_file_and_run_nothing(
    finished: Path, stopped: Path, files: Files, toy: Path, tmp_path: Path
) -> None:
    before, message = files.times_run, r"best.pt: this model needs layers from my_layers.py .*: pass --modules "
    for run in (finished, stopped):
        with pytest.raises(InputError, match=message):
            score(run, tmp_path / "val")
        with pytest.raises(InputError, match=message):
            find(run, tmp_path / "out", toy.parent / "images/val")
    assert files.times_run == before and list(tmp_path.iterdir()) == []


def test_a_new_process_beside_the_file_does_not_run_it_either(finished: Path, files: Files, toy: Path) -> None:
    before = files.times_run
    command = [sys.executable, str(ROOT / "val.py"), "--weights", str(finished / "weights/best.pt"), "--data", str(toy)]
    done = subprocess.run(command, cwd=files.layer.parent, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1 and "pass --modules path/to/my_layers.py" in done.stdout + done.stderr
    assert files.times_run == before


def test_weights_to_start_from_run_nothing(finished: Path, files: Files, options_for: Any, tmp_path: Path) -> None:
    before = files.times_run
    with pytest.raises(InputError, match="pass --modules"):
        train.main(options_for(tmp_path, cfg="", weights=str(finished / "weights/best.pt")))
    assert files.times_run == before


def test_an_interrupted_run_tells_how_to_go_on(
    files: Files, tmp_path: Path, training: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, lambda s: s.callbacks.add(Interrupt()), cfg=str(files.importing), epochs=2)
    last = tmp_path / "exp/weights/last.pt"
    command = f"python train.py --resume {last} --modules {files.layer.resolve()}"
    assert f"stopped at once, without a save; resume with: {command}" in caplog.text


def test_resume_asks_for_the_file_where_it_was_and_goes_on_with_it_where_it_is(
    stopped: Path,
    files: Files,
    results: Callable[[Path], list[dict[str, str]]],
    training: Callable[..., Session],
    tmp_path: Path,
) -> None:
    last, before = str(stopped / "weights/last.pt"), files.times_run
    with pytest.raises(InputError) as caught:
        train.main(TrainOptions(resume=last))
    assert str(caught.value).startswith(f"--resume {last}: this model needs layers from my_layers.py (sha256 ")
    assert str(caught.value).endswith(f": pass --modules {files.layer}")
    assert files.times_run == before
    moved = shutil.copy(files.layer, tmp_path)
    session = training(stopped, resume=last, modules=(str(moved),))
    assert (tmp_path / "ran").read_text() == "ran " and files.times_run == before
    assert session.saver.recorded["modules"] == [str(moved)]
    assert [row["epoch"].strip() for row in results(stopped)] == ["0", "1"]
