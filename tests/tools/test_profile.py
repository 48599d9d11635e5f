"""Cost of each layer: operations by hand, shapes, the table, and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.yolo import Model
from tools.profile import LayerProfile, ProfileOptions, format_profile, main, profile_layers
from utils.config.paths import ROOT
from utils.core.errors import InputError


@pytest.fixture(scope="module")
def model() -> Model:
    return Model("yolov5n_dynamic.yaml", nc=2)


@pytest.fixture(scope="module")
def rows(model: Model) -> list[LayerProfile]:
    return profile_layers(model, 64, batch=2, repeats=2)


def test_there_is_a_row_for_every_layer_of_the_yaml(model: Model, rows: list[LayerProfile]) -> None:
    assert [row.index for row in rows] == list(range(25))
    assert [row.type for row in rows[9:12]] == ["SPPF", "Dynamic_conv2d", "nn.Upsample"]
    assert rows[12].sources == (-1, 6)
    assert sum(row.params for row in rows) == sum(p.numel() for p in model.parameters())


def test_shapes_are_those_of_the_batch(rows: list[LayerProfile]) -> None:
    assert rows[0].out_shape == (2, 16, 32, 32)
    assert rows[9].out_shape == (2, 256, 2, 2)
    assert rows[24].out_shape == (2, 3 * (64 + 16 + 4), 7)


def test_operations_of_some_layers_by_hand(rows: list[LayerProfile]) -> None:
    # per image of 64 px, 2 x multiply-adds
    convolution = 2 * (3 * 6 * 6) * 16 * 32 * 32
    dynamic = 2 * (256 * 256 + 256 * 4) + 2 * 4 * (256 * 128 + 128) + 2 * 256 * 128 * 2 * 2
    head = 2 * (64 * 64 + 128 * 16 + 256 * 4) * 3 * 7
    assert rows[0].gflops * 1e9 == pytest.approx(convolution)
    assert rows[10].gflops * 1e9 == pytest.approx(dynamic)
    assert rows[11].gflops == 0
    assert rows[24].gflops * 1e9 == pytest.approx(head)


def test_operations_of_the_static_model_are_those_published() -> None:
    rows = profile_layers(Model("yolov5n.yaml"), 640, repeats=1)
    assert sum(row.gflops for row in rows) == pytest.approx(4.5, abs=0.05)


def test_operations_of_attention_are_seen_in_evaluation_mode_too() -> None:
    content = {
        "nc": 1, "anchors": [[10, 13]], "backbone": [[-1, 1, "Conv", [8, 3, 4]], [-1, 1, "C3TR", [8]]],
        "head": [[[-1], 1, "Detect", ["nc", "anchors"]]],
    }  # fmt: skip
    model = Model(content).eval().requires_grad_(False)
    tokens, width = 8 * 8, 4  # half of the 8 channels go through the transformer
    convolutions = tokens * (8 * 4 + 8 * 4 + 8 * 8)
    linear = tokens * 10 * width * width  # position, q k v, again q k v and the output, two at the end
    products = 2 * tokens * tokens * width
    transformer = profile_layers(model, 32, repeats=1)[1]
    assert transformer.gflops * 1e9 == pytest.approx(2 * (convolutions + linear + products))


def test_every_layer_takes_time(rows: list[LayerProfile]) -> None:
    assert all(row.ms > 0 for row in rows)


def test_the_model_is_left_as_it_was(model: Model) -> None:
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    profile_layers(model, 32, repeats=1)
    assert model.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.model)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"imgsz": 100}, "imgsz 100 is not a multiple of the model's largest stride 32"),
        ({"imgsz": 0}, "imgsz 0"),
        ({"batch": 0}, "batch 0"),
        ({"repeats": 0}, "repeats 0"),
    ],
)
def test_sizes_that_cannot_be_are_refused(model: Model, given: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile_layers(model, **given)


def test_the_table_ends_with_totals_and_shows_shares() -> None:
    rows = [
        LayerProfile(0, "Conv", (-1,), 1000, 0.3, 1.0, (1, 16, 32, 32)),
        LayerProfile(1, "Concat", (-1, 0), 0, 0.1, 3.0, (1, 32, 32, 32)),
    ]
    _, first, second, total = format_profile(rows)
    assert first.split() == ["0", "-1", "1,000", "0.300", "75.0", "1.000", "25.0", "Conv", "1x16x32x32"]
    assert second.split() == ["1", "[-1,", "0]", "0", "0.100", "25.0", "3.000", "75.0", "Concat", "1x32x32x32"]
    assert total.split() == ["all", "1,000", "0.400", "100.0", "4.000", "100.0"]


def test_a_table_without_operations_has_no_shares() -> None:
    assert format_profile([LayerProfile(0, "Concat", (-1,), 0, 0.0, 1.0, (1,))])[1].split()[4] == "-"


def test_the_command_logs_the_table_of_a_yaml(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        main(ProfileOptions(cfg="yolov5n.yaml", imgsz=64, repeats=1, device="cpu", fuse=True))
    assert "SPPF" in caplog.text and "64 x 64 px" in caplog.text


@pytest.mark.parametrize(
    ("file", "arguments", "seen"),
    [
        ("models/yolo.py", ["--cfg", "yolov5n.yaml", "--imgsz", "64", "--repeats", "1"], "Detect"),
        ("tools/benchmark.py", ["--help"], "--hard-fail"),
        ("utils/benchmarks.py", ["--help"], "--hard-fail"),
    ],
)
def test_files_that_v61_users_run_by_their_path_run(file: str, arguments: list[str], seen: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / file), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert seen in done.stdout + done.stderr


def test_the_command_measures_a_checkpoint(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from utils.checkpoint import Checkpoint, save_checkpoint

    file = tmp_path / "a.pt"
    content = Checkpoint(
        model_yaml=model.yaml, nc=2, names=["a", "b"], stride=model.stride.tolist(), model=model.state_dict()
    )
    save_checkpoint(file, content)
    with caplog.at_level("INFO"):
        main(ProfileOptions(weights=str(file), imgsz=64, repeats=1, device="cpu"))
    assert "Dynamic_conv2d" in caplog.text and f"{file}:" in caplog.text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"imgsz": 16}, "--imgsz 16"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"repeats": 0}, "--repeats 0"),
        ({"cfg": "a.yaml", "weights": "b.pt"}, "--cfg and --weights"),
    ],
)
def test_impossible_options_name_the_flag(given: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProfileOptions(**given)  # type: ignore[arg-type]
