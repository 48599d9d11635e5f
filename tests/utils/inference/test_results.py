"""The results of AutoShape: formats, texts, files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models.common
from utils.errors import InputError
from utils.image import read_image
from utils.inference.autoshape import AutoShape
from utils.inference.results import Detections


@pytest.fixture
def results() -> Detections:
    """Two pictures, 200 x 100 px with a bee and an ant, 40 x 60 px with nothing."""
    boxes = torch.tensor([[20.0, 10, 60, 50, 0.9, 1], [100, 20, 120, 40, 0.5, 0]])
    pictures = [np.full((100, 200, 3), (250, 0, 0), np.uint8), np.zeros((60, 40, 3), np.uint8)]
    return Detections(
        pictures, [boxes, torch.zeros(0, 6)], ["a.jpg", "b.jpg"], ["ant", "bee"], (1.0, 2.0, 3.0), (2, 3, 64, 64)
    )


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("xyxy", [20, 10, 60, 50, 0.9, 1]),
        ("xywh", [40, 30, 40, 40, 0.9, 1]),
        ("xyxyn", [0.1, 0.1, 0.3, 0.5, 0.9, 1]),
        ("xywhn", [0.2, 0.3, 0.2, 0.4, 0.9, 1]),
        ("pred", [20, 10, 60, 50, 0.9, 1]),
    ],
)
def test_the_box_formats(results: Detections, form: str, first: list[float]) -> None:
    full, empty = getattr(results, form)
    assert full[0].tolist() == pytest.approx(first)
    assert empty.shape == (0, 6)


def test_scripts_find_the_class_in_models_common() -> None:
    assert models.common.Detections is Detections
    assert models.common.AutoShape is AutoShape


def test_counts_and_times(results: Detections) -> None:
    assert (len(results), results.n, results.t, results.s) == (2, 2, (1.0, 2.0, 3.0), (2, 3, 64, 64))


def test_print_names_what_was_found(results: Detections, capsys: pytest.CaptureFixture[str]) -> None:
    results.print()
    first, second, speed = capsys.readouterr().out.splitlines()
    assert first == "image 1/2: 100x200 1 ant, 1 bee"
    assert second == "image 2/2: 60x40 nothing"
    assert "2.0 ms inference" in speed
    assert str(results).splitlines()[0] == first


def test_tolist_gives_one_result_per_picture(results: Detections) -> None:
    first, second = results.tolist()
    assert (len(first), len(second)) == (1, 1)
    assert second.files == ["b.jpg"]
    assert torch.equal(first.xyxy[0], results.xyxy[0])


def test_render_draws_into_the_pictures(results: Detections) -> None:
    before = results.imgs[0].copy()
    drawn = results.render()
    assert drawn[0] is results.imgs[0]
    assert (drawn[0][10, 20:60] != before[10, 20:60]).any()
    assert drawn[0][90, 190].tolist() == [250, 0, 0]  # still red, green, blue
    assert np.array_equal(drawn[1], np.zeros((60, 40, 3)))


def test_render_without_labels_leaves_the_space_above_a_box_alone(results: Detections) -> None:
    drawn = results.render(labels=False)[0]
    assert (drawn[:8] == (250, 0, 0)).all()


def test_save_writes_every_picture(results: Detections, tmp_path: Path) -> None:
    folder = results.save(save_dir=tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "b.jpg"]
    assert read_image(folder / "a.jpg")[90, 190].tolist() == pytest.approx([0, 0, 250], abs=4)  # blue, green, red
    results.save(save_dir=tmp_path / "out")
    assert len(list(folder.iterdir())) == 2  # a folder that was named is used again


def test_the_default_folder_gets_a_number(results: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [results.save(), results.save()] == [Path("runs/detect/exp"), Path("runs/detect/exp2")]
    assert (tmp_path / "runs/detect/exp2/b.jpg").is_file()


def test_pictures_of_one_name_do_not_overwrite_each_other(results: Detections, tmp_path: Path) -> None:
    results.files = ["a.jpg", "a.jpg"]
    results.save(save_dir=tmp_path)
    sizes = {read_image(path).shape[:2] for path in tmp_path.iterdir()}
    assert sizes == {(100, 200), (60, 40)}


def test_crops_are_cut_with_a_margin_and_saved_by_class(results: Detections, tmp_path: Path) -> None:
    crops = results.crop(save_dir=tmp_path)
    assert [crop["label"] for crop in crops] == ["bee 0.90", "ant 0.50"]
    # 20 px * 1.02 + 10 = 30.4: from 94.8 to 125.2, 14.8 to 45.2, cut to whole pixels
    assert crops[1]["im"].shape == (45 - 14, 125 - 94, 3)
    assert crops[0]["im"][0, 0].tolist() == [0, 0, 250]  # blue, green, red
    assert crops[0]["box"].tolist() == [20, 10, 60, 50]
    assert (tmp_path / "crops/bee/a.jpg").is_file()
    assert read_image(tmp_path / "crops/ant/a.jpg").shape == (31, 31, 3)


def test_crops_need_not_be_saved(results: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(results.crop(save=False)) == 2
    assert list(tmp_path.iterdir()) == []


def test_show_opens_every_picture(results: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, tuple[int, int]]] = []
    monkeypatch.setattr(Image.Image, "show", lambda self, title: shown.append((title, self.size)))
    results.show()
    assert shown == [("a.jpg", (200, 100)), ("b.jpg", (40, 60))]


def test_without_pandas_the_cure_is_named(results: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        results.pandas()


def test_data_frames(results: Detections) -> None:
    pytest.importorskip("pandas")
    tables = results.pandas()
    frame = tables.xyxy[0]
    assert list(frame.columns) == ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
    assert frame.iloc[0, :4].tolist() == [20, 10, 60, 50]
    assert frame["name"].tolist() == ["bee", "ant"]
    assert frame["class"].dtype.kind == "i"
    assert list(tables.xywhn[0].columns)[:4] == ["xcenter", "ycenter", "width", "height"]
    assert len(tables.xyxy[1]) == 0
