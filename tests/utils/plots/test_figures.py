"""Figures drawn with matplotlib: they are written, whatever the number of classes, and leave no global state."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from utils.core.errors import InputError
from utils.core.image import read_image
from utils.metrics.confusion import ConfusionMatrix
from utils.plots import (
    plot_confusion,
    plot_label_correlogram,
    plot_labels,
    plot_metric_curve,
    plot_pr_curve,
    plot_results,
)
from utils.plots.labels import plot_box_sizes
from utils.plots.results import read_results

COUNTS = [0, 1, 80]


def names_of(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def assert_image(file: Path) -> None:
    image = read_image(file)
    assert min(image.shape[:2]) > 300
    assert (image < 250).any()


@pytest.mark.parametrize("count", COUNTS)
def test_labels_of_any_number_of_classes_are_drawn(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0.1, 0.9, (5 * count, 4))
    labels = np.column_stack([np.arange(5 * count) % max(count, 1), boxes])
    plot_labels(labels, names_of(count), tmp_path / "labels.jpg")
    plot_label_correlogram(labels, tmp_path / "correlogram.jpg")
    assert_image(tmp_path / "labels.jpg")
    assert_image(tmp_path / "correlogram.jpg")


@pytest.mark.parametrize("count", [0, 1, 500])
def test_box_sizes_of_any_number_of_boxes_are_drawn(tmp_path: Path, count: int) -> None:
    sides = np.random.default_rng(0).lognormal(3, 2, (count, 2))
    plot_box_sizes(sides, np.array([count, 0, 3]), 640, tmp_path / "sizes.png")
    assert_image(tmp_path / "sizes.png")


def test_a_class_beyond_the_names_is_drawn_by_its_number(tmp_path: Path) -> None:
    plot_labels(np.array([[4, 0.5, 0.5, 0.1, 0.1]]), ["a"], tmp_path / "labels.jpg")
    assert_image(tmp_path / "labels.jpg")


@pytest.mark.parametrize("count", COUNTS)
def test_curves_of_any_number_of_classes_are_drawn(tmp_path: Path, count: int) -> None:
    x = np.linspace(0, 1, 50)
    values = np.tile(1 - x, (count, 1))
    plot_pr_curve(x, values, np.full(count, 0.5), names_of(count), tmp_path / "pr.png")
    plot_metric_curve(x, values, names_of(count), tmp_path / "f1.png", "F1")
    assert_image(tmp_path / "pr.png")
    assert_image(tmp_path / "f1.png")


@pytest.mark.parametrize(("count", "normalize"), [(0, True), (1, False), (10, False), (80, True)])
def test_confusion_of_any_number_of_classes_is_drawn(tmp_path: Path, count: int, normalize: bool) -> None:
    matrix = np.eye(count + 1) * 7
    before = matrix.copy()
    plot_confusion(matrix, names_of(count), tmp_path / "confusion.png", normalize)
    assert_image(tmp_path / "confusion.png")
    assert (matrix == before).all()


def test_an_empty_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    plot_confusion(np.zeros((3, 3)), ["a", "b"], tmp_path / "confusion.png")
    assert_image(tmp_path / "confusion.png")


def test_class_names_of_any_script_are_accepted(tmp_path: Path) -> None:
    plot_confusion(np.eye(3), ["größe", "λ $x$"], tmp_path / "confusion.png")
    assert_image(tmp_path / "confusion.png")


def test_no_figure_uses_the_global_state_of_pyplot(tmp_path: Path) -> None:
    had_pyplot = "matplotlib.pyplot" in sys.modules
    plot_confusion(np.eye(3), ["a", "b"], tmp_path / "confusion.png")
    assert ("matplotlib.pyplot" in sys.modules) == had_pyplot


@pytest.mark.parametrize("epochs", [1, 40])
def test_results_are_drawn_beside_their_file(tmp_path: Path, epochs: int) -> None:
    rows = [f"{e},{1 / (e + 1)},,{34 - e}" for e in range(epochs)]
    file = tmp_path / "results.csv"
    file.write_text("epoch,train/box_loss,val/box_loss,temperature\n" + "\n".join(rows) + "\n", encoding="utf-8")
    assert plot_results(file) == tmp_path / "results.png"
    assert_image(tmp_path / "results.png")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved."""
    saved: list[Any] = []
    monkeypatch.setattr("utils.plots.results.save_figure", lambda figure, *_, **__: saved.append(figure))
    monkeypatch.setattr("utils.plots.curves.save_figure", lambda figure, *_, **__: saved.append(figure))
    return saved


METRICS = "metrics/precision,metrics/recall,metrics/mAP_0.5,metrics/mAP_0.5:0.95"


def test_the_chart_counts_epochs_from_1_and_marks_the_last_of_the_best(tmp_path: Path, figures: list[Any]) -> None:
    file = tmp_path / "results.csv"
    rows = ["0,0.9,0.9,0.9,0.1", "1,0.1,0.1,0.5,0.4", "2,0.1,0.1,0.5,0.4", "3,,,,"]
    file.write_text(f"epoch,{METRICS}\n" + "\n".join(rows) + "\n", encoding="utf-8")
    plot_results(file)
    (figure,) = figures
    axes = next(axes for axes in figure.axes if axes.get_title() == "mAP@.5:.95")
    assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(axes.lines[1].get_xdata()) == [3, 3]
    assert "epoch 3, the best one" in figure.get_supxlabel()


def test_a_chart_without_metrics_marks_nothing(tmp_path: Path, figures: list[Any]) -> None:
    file = tmp_path / "results.csv"
    file.write_text("epoch,val/box_loss\n0,0.5\n1,0.4\n", encoding="utf-8")
    plot_results(file)
    (figure,) = figures
    assert [len(axes.lines) for axes in figure.axes if axes.get_visible()] == [1]
    assert figure.get_supxlabel() == "epoch"


def test_cells_of_the_confusion_matrix_show_shares_and_counts(tmp_path: Path, figures: list[Any]) -> None:
    matrix = ConfusionMatrix(2)
    matrix.matrix[:] = [[30, 0, 2], [10, 1, 0], [0, 3, 0]]
    matrix.plot(save_dir=tmp_path, names=["a", "b"])
    (figure,) = figures
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == {"0.75\n30", "0.25\n10", "1.00\n2", "0.25\n1", "0.75\n3"}
    assert axes.get_title() == "Confusion matrix (confidence > 0.25, IoU > 0.45)"
    matrix.plot(normalize=False, save_dir=tmp_path, names=["a", "b"])
    assert {text.get_text() for text in figures[1].axes[0].texts} == {"30", "10", "2", "1", "3"}


def test_results_padded_with_blanks_are_read(tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("   epoch,  train/box_loss\n   0,   0.5\n   1,      \n", encoding="utf-8")
    table = read_results(file)
    assert list(table) == ["epoch", "train/box_loss"]
    assert table["train/box_loss"][0] == 0.5
    assert np.isnan(table["train/box_loss"][1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,a\n", "no epochs in it yet"),
        ("epoch,a\n0,1\n1\n", "results.csv:3: 1 cells, the header has 2"),
        ("epoch,a\n0,x\n", "results.csv:2: column 'a': 'x' is not a number"),
    ],
)
def test_a_damaged_results_file_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "results.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        plot_results(file)
