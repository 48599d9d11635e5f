"""Models side by side: options, taking turns, tables by hand, and the whole command."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from models.summary import ModelSummary
from tools.compare import (
    WARM_UP_ROUNDS,
    CompareOptions,
    ModelCosts,
    Timing,
    cost_markdown,
    cost_text,
    load_models,
    main,
    plot_costs,
    time_in_turns,
    write_cost_csv,
)
from utils.config.cli import parse, run_script
from utils.core.image import read_image

CPU = torch.device("cpu")


def row(
    name: str, parameters: int, gflops: float, forward: Timing, step: Timing | None, mib: float | None
) -> ModelCosts:
    return ModelCosts(name, ModelSummary(200, parameters, parameters, gflops), forward, step, mib)


ROWS = [
    row("small", 1_000, 2.0, Timing(10, 9, 11), Timing(40, 38, 46), 100),
    row("large", 1_500, 1.0, Timing(12.5, 12, 14), Timing(40, 39, 41), 2048),
]


@pytest.mark.parametrize(
    "argv",
    [
        ["a.yaml", "b.pt", "--imgsz", "64"],
        ["--imgsz", "64", "a.yaml", "b.pt"],
        ["a.yaml", "--imgsz", "64", "b.pt"],
    ],
)
def test_models_may_stand_before_after_and_between_the_options(argv: list[str]) -> None:
    options = parse(CompareOptions, argv)
    assert (options.models, options.imgsz) == (("a.yaml", "b.pt"), 64)


def test_checkpoints_may_be_named_by_weights_alone() -> None:
    assert parse(CompareOptions, ["--weights", "a.pt", "b.pt"]).weights == ("a.pt", "b.pt")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no model named"),
        (["a.yaml", "--nc", "0"], "--nc 0 is too small"),
        (["a.yaml", "--repeats", "0"], "--repeats 0 is too small"),
        (["a.yaml", "--imgsz", "31"], "--imgsz 31 is too small"),
        (["a.yaml", "--batch", "0"], "--batch-size 0 is too small"),
        (["a.yaml", "--name", ""], "--name is given an empty text"),
        (["a.yaml", "--name", "../a"], "--name ../a leads out of --project"),
        (["a.yaml", "--repeat5", "3"], "did you mean '--repeats'"),
    ],
)
def test_an_option_error_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(CompareOptions, argv)
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [("yolov5n_dynmic.yaml", "did you mean 'yolov5n_dynamic.yaml'"), ("none.pt", "none.pt: no such file")],
)
@pytest.mark.usefixtures("log_handlers_restored")
def test_a_missing_model_is_one_logged_line_and_no_folder(
    model: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    argv = ["yolov5n.yaml", model, "--device", "cpu", "--project", str(tmp_path)]
    assert run_script(main, CompareOptions, argv) == 1
    assert message in caplog.messages[-1]
    assert list(tmp_path.iterdir()) == []


def test_models_take_turns_and_the_warm_up_is_not_counted() -> None:
    order: list[str] = []
    timings = time_in_turns([lambda: order.append("a"), lambda: order.append("b")], CPU, 3, "test")
    assert order == ["a", "b"] * (WARM_UP_ROUNDS + 3)
    assert len(timings) == 2


def test_times_are_medians_and_quartiles_in_milliseconds() -> None:
    timing = Timing.of([0.005, 0.001, 0.002, 0.003, 0.004])
    assert (timing.median, timing.low, timing.high) == pytest.approx((3, 2, 4))
    assert str(timing) == "3.0 ± 1.0"


def test_markdown_by_hand() -> None:
    assert cost_markdown(ROWS).splitlines() == [
        "| model | layers | parameters | GFLOPs | forward ms | training step ms | peak MiB |",
        "|---|---:|---:|---:|---:|---:|---:|",
        "| small | 200 | 1,000 | 2.00 | 10.0 ± 1.0 | 40.0 ± 4.0 | 100 |",
        "| large | 200 (+0.0 %) | 1,500 (+50.0 %) | 1.00 (-50.0 %) | 12.5 ± 1.0 (+25.0 %) | 40.0 ± 1.0 (+0.0 %) "
        "| 2,048 (+1948.0 %) |",
    ]


def test_the_table_of_the_terminal_has_its_numbers_below_one_another() -> None:
    rows = [row("a", 5, 1.0, Timing(1, 1, 1), None, None), row("long", 10, 1.5, Timing(20, 19, 21), None, None)]
    assert cost_text(rows).splitlines() == [
        "model  layers           parameters             GFLOPs            forward ms",
        "a         200                    5               1.00             1.0 ± 0.0",
        "long      200 (+0.0 %)          10 (+100.0 %)    1.50 (+50.0 %)  20.0 ± 1.0 (+1900.0 %)",
    ]


def test_columns_of_the_training_step_are_left_out_when_there_was_none(tmp_path: Path) -> None:
    rows = [row("a", 5, 1.0, Timing(1, 1, 1), None, None)]
    write_cost_csv(rows, tmp_path / "compare.csv")
    for text in (cost_text(rows), cost_markdown(rows), (tmp_path / "compare.csv").read_text()):
        assert "step" not in text
        assert "peak" not in text


def test_the_csv_file_has_values_quartiles_and_differences(tmp_path: Path) -> None:
    write_cost_csv(ROWS, tmp_path / "compare.csv")
    with (tmp_path / "compare.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["model"], first["parameters"], first["parameters_percent"]) == ("small", "1000", "0.0")
    assert (second["gflops"], second["gflops_percent"]) == ("1.0", "-50.0")
    assert (second["forward_ms"], second["forward_ms_q1"], second["forward_ms_q3"]) == ("12.5", "12", "14")
    assert (second["step_ms"], second["step_ms_q3"], second["peak_mib_percent"]) == ("40", "41", "1948.0")


@pytest.mark.parametrize("count", [1, 2, 12])
def test_any_number_of_models_is_drawn(tmp_path: Path, count: int) -> None:
    rows = [
        row(f"model {i} " + "x" * 3 * i, i, 0.5 * i, Timing(i, i, i + 1), Timing(i, i, i), 8 * i) for i in range(count)
    ]
    plot_costs(rows, tmp_path / "compare.png")
    height, width = read_image(tmp_path / "compare.png").shape[:2]
    assert width > height > 100 + 40 * count


def test_names_are_short_unless_two_models_share_one(eager_weights: Path) -> None:
    file = str(eager_weights)
    loaded = load_models(CompareOptions(models=("yolov5n.yaml", file), weights=(file,), nc=3))
    assert [name for name, _ in loaded] == ["yolov5n", file, file]
    assert [model.nc for _, model in loaded] == [3, 2, 2]


def test_a_map_too_small_to_normalise_is_refused_with_the_cure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, log_handlers_restored: None
) -> None:
    argv = ["yolov5n.yaml", "--nc", "2", "--imgsz", "32", "--device", "cpu", "--project", str(tmp_path)]
    assert run_script(main, CompareOptions, argv) == 1
    assert "yolov5n: a map of one pixel" in caplog.messages[-1]
    assert "--notrain" in caplog.messages[-1]


@pytest.mark.parametrize("markdown", [False, True])
def test_the_whole_command(
    markdown: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], log_handlers_restored: None
) -> None:
    argv = ["yolov5n.yaml", "yolov5n_dynamic.yaml", "--nc", "2", "--imgsz", "64", "--repeats", "1", "--device", "cpu"]
    argv += ["--project", str(tmp_path)] + ["--markdown"] * markdown
    assert run_script(main, CompareOptions, argv) == 0
    printed = capsys.readouterr().out
    assert ("| yolov5n_dynamic |" in printed) == markdown
    assert f"results are in {tmp_path / 'exp'}" in printed
    assert read_image(tmp_path / "exp/compare.png").size > 0
    with (tmp_path / "exp/compare.csv").open(newline="") as stream:
        static, dynamic = csv.DictReader(stream)
    assert int(dynamic["parameters"]) > int(static["parameters"])
    assert float(dynamic["peak_mib"]) > float(static["peak_mib"]) > 0
    assert float(static["forward_ms"]) > 0
    assert float(static["step_ms"]) > 0
