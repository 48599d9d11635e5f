"""The model yamls of examples/layers: trained by ``--modules``, exported, and counted."""

from __future__ import annotations

import copy
import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from models.summary import summarize
from models.yolo import Model
from tools import compare
from utils.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from utils.config.options import ExportOptions, TrainOptions
from utils.core.seed import torch_settings_restored
from utils.export import export_checkpoint

FOLDER = Path(__file__).resolve().parents[2] / "examples/layers"
NAMES = ("akconv", "bifpn", "cbam", "coordatt", "eca")
# A tensor of the layer that training must move.
MOVED = {
    "akconv": "model.5.offsets.weight", "bifpn": "model.21.w", "cbam": "model.9.positions.conv.weight",
    "coordatt": "model.9.of_rows.weight", "eca": "model.9.conv.weight",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("set"))


@pytest.fixture
def trained(
    load: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], tuple[Path, dict[str, bool]]]:
    """``trained("eca") -> best.pt, which tensors changed`` in two steps with the yaml and the file of that name."""
    for name in ("plot_labels", "plot_label_correlogram", "plot_batch", "plot_results", "plot_routing"):
        monkeypatch.setattr(f"utils.loggers.plots_logger.{name}", lambda *_: None)
    monkeypatch.setattr("utils.evaluation.observers.plot_batch", lambda *_: None)
    monkeypatch.setattr("utils.training.finish.save_plots", lambda *_: None)

    def run(name: str) -> tuple[Path, dict[str, bool]]:
        options = TrainOptions(
            data=str(data), cfg=str(FOLDER / f"yolov5n_{name}.yaml"), modules=(str(FOLDER / f"{name}.py"),), epochs=2,
            batch_size=4, imgsz=64, workers=0, device="cpu", project=str(tmp_path), seed=0,
        )  # fmt: skip
        models: list[Model] = []
        original = train.prepare

        def prepare(*given: Any) -> Any:
            session = original(*given)
            models.extend([session.model, copy.deepcopy(session.model)])
            return session

        with torch_settings_restored(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "prepare", prepare)
            train.main(options)
        ended, started = (model.state_dict() for model in models)
        return tmp_path / "exp/weights/best.pt", {key: not torch.equal(ended[key], started[key]) for key in ended}

    return run


@pytest.mark.parametrize("name", NAMES)
def test_each_trains_and_its_exports_equal_pytorch_at_any_batch_and_size(
    trained: Callable[[str], tuple[Path, dict[str, bool]]], name: str, tmp_path: Path
) -> None:
    for package in ("onnxruntime", "openvino"):
        pytest.importorskip(package)
    best, changed = trained(name)
    assert changed[MOVED[name]]
    checkpoint = load_checkpoint(best)
    assert [record["file"] for record in checkpoint.model_yaml["modules"]] == [f"{name}.py"]
    random = torch.Generator().manual_seed(0)
    for key, tensor in checkpoint.model.items():
        if key.endswith("offsets.bias"):  # as after a long training
            checkpoint.model[key] = torch.randn(tensor.shape, generator=random)
        elif key.endswith("running_var"):  # those of two steps make much of a rounding
            checkpoint.model[key] = torch.ones_like(tensor)
    save_checkpoint(tmp_path / "moved.pt", checkpoint)
    options = ExportOptions(
        weights=(str(tmp_path / "moved.pt"),), imgsz=(64,), include=("onnx", "openvino"), opset=16, dynamic=True,
        output=str(tmp_path / "out"),
    )  # fmt: skip
    for row in export_checkpoint(tmp_path / "moved.pt", options, torch.device("cpu"))[1:]:
        assert row.made, row.note
        assert row.worst < 1e-4


def test_formats_that_cannot_sample_at_positions_are_answered_with_the_way_out(load: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    load("akconv")
    model = Model(FOLDER / "yolov5n_akconv.yaml", nc=2)
    save_checkpoint(
        tmp_path / "a.pt",
        Checkpoint(
            model_yaml=model.yaml, nc=2, names=["a", "b"], stride=model.stride.tolist(), model=dict(model.state_dict())
        ),
    )
    options = ExportOptions(
        weights=(str(tmp_path / "a.pt"),), imgsz=(64,), include=("torchscript", "onnx", "pt2"), opset=12
    )
    rows = {row.format: row for row in export_checkpoint(tmp_path / "a.pt", options, torch.device("cpu"))}
    assert [rows[name].made for name in options.include] == [True, False, False]
    assert rows["torchscript"].note.endswith("its users need --trust")
    opset = "opset 12 has no operation grid_sampler: pass --opset 16; layer 5 (AKConv, row [-1, 1, "
    assert rows["onnx"].note.startswith(opset)
    assert "refused, it uses the operation 'grid_sampler'" in rows["pt2"].note


def test_compare_counts_their_parameters_and_multiply_adds(load: Any, tmp_path: Path) -> None:
    """Against yolov5n at 64 px; its maps there are 8, 4 and 2 cells wide."""
    yamls = ["yolov5n.yaml", *(str(FOLDER / f"yolov5n_{name}.yaml") for name in NAMES)]
    options = compare.CompareOptions(
        models=tuple(yamls), modules=tuple(str(FOLDER / f"{name}.py") for name in NAMES), imgsz=64, notrain=True,
        repeats=1, device="cpu", project=str(tmp_path),
    )  # fmt: skip
    compare.main(options)
    with (tmp_path / "exp/compare.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["model"].removeprefix("yolov5n_"): row for row in csv.DictReader(stream)}
    first = rows.pop("yolov5n")
    found = {
        name: (
            int(row["parameters"]) - int(first["parameters"]),
            round((float(row["gflops"]) - float(first["gflops"])) * 1e9 / 2),
        )
        for name, row in rows.items()
    }
    # In place of 9 * in * out weights each: N * in * out, and offsets 2N * (9 * in + 1); 4 per sample to interpolate.
    at_4 = 16 * (5 * 64 * 128 + 10 * 9 * 64 + 4 * 5 * 64 - 9 * 64 * 128)
    at_2 = 4 * (5 * 128 * 256 + 10 * 9 * 128 + 4 * 5 * 128 - 9 * 128 * 256)
    akconv = -4 * (64 * 128 + 128 * 256) + 10 * (9 * 64 + 1 + 9 * 128 + 1)
    # Two maps are reduced by 1x1 convolutions less, two are brought to the width of the others, one is wider.
    narrower = {4: 128 * 128 - 128 * 128, 8: 64 * 64 - 64 * 64, 2: -128 * 256}
    macs = {
        "akconv": at_4 + at_2,
        "bifpn": 64 * narrower[8] + 16 * (narrower[4] + 9 * 64 * 64) + 4 * narrower[2],
        "cbam": 2 * 2 * 256 * 16 + 4 * 2 * 49,
        "coordatt": (2 + 2) * 256 * 8 + 2 * 2 * 256 * 8,
        "eca": 256 * 5,
    }
    parameters = {
        "akconv": akconv,
        "bifpn": 9 + 2 * (128 + 64) + 9 * 64 * 64 + 2 * 64 - 128 * 256,
        "cbam": 2 * 256 * 16 + 2 * 49,
        "coordatt": 256 * 8 + 2 * 8 + 2 * (8 * 256 + 256),
        "eca": 5,
    }
    assert found == {name: (parameters[name], macs[name]) for name in NAMES}


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_both_tables_have_what_compare_counts_at_640_px(load: Any, readme: str) -> None:
    text = (FOLDER / readme).read_text(encoding="utf-8")
    rows = {found[1]: found[0] for found in re.findall(r"(\| \[(\w+)\.py\].*)", text)}
    assert sorted(rows) == list(NAMES)
    for name, row in rows.items():
        load(name)
        counted = summarize(Model(FOLDER / f"yolov5n_{name}.yaml"), 640)
        assert row.endswith(f"| {counted.parameters:,} | {counted.gflops:.2f} |")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert all((FOLDER / link).is_file() for link in links if not link.startswith("https://arxiv.org/abs/"))
