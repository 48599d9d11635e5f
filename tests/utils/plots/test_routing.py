"""Images of routing: written for any number of layers, epochs and classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.routing import RoutingStats, routing_stats
from utils.core.callbacks import TrainStart, ValEnd
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.loggers import RoutingCsv
from utils.plots import plot_results, plot_routing
from utils.plots.routing import plot_class_routing, plot_shares, read_routing


def layers(count: int, nc: int = 3, labelled: bool = True) -> list[RoutingStats]:
    found = []
    for i in range(count):
        rng = torch.Generator().manual_seed(i)
        weights = torch.randn(20, 4 + i % 2, generator=rng).softmax(1)
        presence = (torch.rand(20, nc, generator=rng) < 0.5) & labelled
        found.append(routing_stats(f"{i}.m.0.cv2", weights, presence, 1.0))
    return found


def written(folder: Path, count: int, epochs: int) -> Path:
    logger = RoutingCsv()
    logger.on_train_start(TrainStart(save_dir=folder, epochs=epochs, names=(), labels=np.zeros((0, 5))))
    for epoch in range(epochs):
        logger.on_val_end(ValEnd(epoch=epoch, metrics={}, per_class_ap={}, routing=layers(count)))
    return folder / "routing.csv"


def size_of(file: Path) -> tuple[int, int]:
    image = read_image(file)
    assert (image < 250).any()
    return image.shape[:2]


@pytest.mark.parametrize(("count", "epochs"), [(1, 1), (2, 3), (8, 2), (9, 1), (60, 3)])
def test_the_course_of_any_number_of_layers_is_drawn(tmp_path: Path, count: int, epochs: int) -> None:
    target = plot_routing(written(tmp_path, count, epochs))
    assert target == tmp_path / "routing.png"
    height, width = size_of(target)
    assert min(height, width) > 300
    assert max(height, width) < 4000


def test_the_file_is_read_layer_by_layer(tmp_path: Path) -> None:
    courses = read_routing(written(tmp_path, 2, 3))
    assert list(courses) == ["0.m.0.cv2", "1.m.0.cv2"]
    assert [course.kernels for course in courses.values()] == [4, 5]
    assert courses["0.m.0.cv2"].epochs.tolist() == [0, 1, 2]
    assert courses["0.m.0.cv2"].entropy == pytest.approx([layers(1)[0].entropy] * 3, rel=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch,layer,K,entropy,mean_0\n", "no epochs"),
        ("epoch,layer,K,entropy,mean_0\n0,10,1,0,1\n1,10,1,0,x\n", r"routing\.csv:3: .*'x'"),
        ("epoch,layer,K,entropy,mean_0\n0,10,2,0,1\n", r"routing\.csv:2: .*mean_1"),
        ("epoch,layer,K,entropy,mean_0\n0,10\n", r"routing\.csv:2: "),
    ],
)
def test_a_spoilt_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "routing.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        plot_routing(tmp_path / "routing.csv")


@pytest.mark.parametrize(("count", "dominant"), [(1, True), (60, False)])
def test_shares_of_any_number_of_layers_are_drawn(tmp_path: Path, count: int, dominant: bool) -> None:
    plot_shares(layers(count), tmp_path / "a.png", dominant)
    assert min(size_of(tmp_path / "a.png")) > 300


@pytest.mark.parametrize(("count", "nc"), [(1, 1), (2, 3), (6, 80)])
def test_routing_of_any_number_of_classes_is_drawn(tmp_path: Path, count: int, nc: int) -> None:
    assert plot_class_routing(layers(count, nc), [f"class {i}" for i in range(nc)], tmp_path / "a.png")
    assert min(size_of(tmp_path / "a.png")) > 300


def test_without_labels_there_is_no_image_of_classes(tmp_path: Path) -> None:
    assert not plot_class_routing(layers(2, labelled=False), ["a", "b", "c"], tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_the_columns_of_the_layers_do_not_swell_the_image_of_the_results(tmp_path: Path) -> None:
    sizes = []
    for name, columns in (("few", 0), ("many", 60)):
        header = ["epoch", "train/box_loss", *(f"routing/{i}_entropy" for i in range(columns))]
        (tmp_path / name).mkdir()
        file = tmp_path / name / "results.csv"
        file.write_text(f"{','.join(header)}\n{','.join(['1'] * len(header))}\n", encoding="utf-8")
        sizes.append(size_of(plot_results(file)))
    assert sizes[0] == sizes[1]
