"""The results of AutoShape: formats, texts, files."""

from __future__ import annotations

import base64
import io
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow

import models.common
from utils.core.errors import InputError
from utils.core.image import read_image
from utils.inference.autoshape import AutoShape
from utils.inference.results import Detections


@pytest.fixture
def results() -> Detections:
    """Two images, 200 x 100 px with a bee and an ant, 40 x 60 px with nothing."""
    boxes = torch.tensor([[20.0, 10, 60, 50, 0.9, 1], [100, 20, 120, 40, 0.5, 0]])
    images = [np.full((100, 200, 3), (250, 0, 0), np.uint8), np.zeros((60, 40, 3), np.uint8)]
    return Detections(
        images, [boxes, torch.zeros(0, 6)], ["a.jpg", "b.jpg"], ["ant", "bee"], (0.002, 0.004, 0.006), (2, 3, 64, 64)
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
    assert (len(results), results.n, results.s) == (2, 2, (2, 3, 64, 64))
    assert results.t == pytest.approx((1.0, 2.0, 3.0))
    assert [stage.t for stage in results.times] == [0.002, 0.004, 0.006]
    assert results.tolist()[1].t == pytest.approx((1.0, 2.0, 3.0))
    assert results.ims is results.imgs


def test_print_names_what_was_found(results: Detections, capsys: pytest.CaptureFixture[str]) -> None:
    results.print()
    first, second, speed = capsys.readouterr().out.splitlines()
    assert first == "image 1/2: 100x200 1 ant, 1 bee"
    assert second == "image 2/2: 60x40 nothing"
    assert "2.0 ms inference" in speed
    assert str(results).splitlines()[0] == first


def test_tolist_gives_one_result_per_image(results: Detections) -> None:
    first, second = results.tolist()
    assert (len(first), len(second)) == (1, 1)
    assert second.files == ["b.jpg"]
    assert torch.equal(first.xyxy[0], results.xyxy[0])


def test_render_draws_into_the_images(results: Detections) -> None:
    before = results.imgs[0].copy()
    drawn = results.render()
    assert drawn[0] is results.imgs[0]
    assert (drawn[0][10, 20:60] != before[10, 20:60]).any()
    assert drawn[0][90, 190].tolist() == [250, 0, 0]  # still red, green, blue
    assert np.array_equal(drawn[1], np.zeros((60, 40, 3)))


def test_render_without_labels_leaves_the_space_above_a_box_alone(results: Detections) -> None:
    drawn = results.render(labels=False)[0]
    assert (drawn[:8] == (250, 0, 0)).all()


def test_save_writes_every_image(results: Detections, tmp_path: Path) -> None:
    folder = results.save(save_dir=tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["a.jpg", "b.jpg"]
    assert read_image(folder / "a.jpg")[90, 190].tolist() == pytest.approx([0, 0, 250], abs=4)  # blue, green, red
    results.save(save_dir=tmp_path / "out")
    assert len(list(folder.iterdir())) == 2  # a folder that was named is used again


def test_the_default_folder_gets_a_number(results: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [results.save(), results.save()] == [Path("runs/detect/exp"), Path("runs/detect/exp2")]
    assert (tmp_path / "runs/detect/exp2/b.jpg").is_file()


def test_images_of_one_name_do_not_overwrite_each_other(results: Detections, tmp_path: Path) -> None:
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


def test_crops_of_later_calls_stand_beside_those_of_earlier_ones(tmp_path: Path) -> None:
    for value in (0, 100, 200):  # the frames of a video have no names of their own
        image, boxes = np.full((60, 60, 3), value, np.uint8), torch.tensor([[5.0, 5, 40, 40, 0.9, 0]])
        Detections([image], [boxes], ["image0.jpg"], ["ant"]).crop(save_dir=tmp_path)
    files = sorted((tmp_path / "crops/ant").iterdir())
    assert [read_image(file)[0, 0, 0] for file in files] == [0, 100, 200]


def test_crops_need_not_be_saved(results: Detections, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(results.crop(save=False)) == 2
    assert list(tmp_path.iterdir()) == []


def test_show_opens_every_image(results: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, tuple[int, int]]] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(ImageShow, "show", lambda image, title: not shown.append((title, image.size)))
    results.show()
    assert shown == [("a.jpg", (200, 100)), ("b.jpg", (40, 60))]


@pytest.mark.parametrize("display", ["", ":0"])
def test_show_without_a_display_or_a_viewer_saves_and_says_where(
    results: Detections, display: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(ImageShow, "show", lambda image, title: not display)
    results.show()
    assert [record.getMessage() for record in caplog.records] == [
        f"no display to show images on: they are saved in {Path('runs/detect/exp')}"
    ]
    assert sorted(path.name for path in (tmp_path / "runs/detect/exp").iterdir()) == ["a.jpg", "b.jpg"]


def test_show_in_a_notebook_puts_the_images_below_the_cell(
    results: Detections, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Image.Image] = []
    shell = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", shell)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=shown.append))  # type: ignore[arg-type]
    results.show()
    assert [image.size for image in shown] == [(200, 100), (40, 60)]


def test_the_representation_is_the_summary(results: Detections) -> None:
    assert repr(results).splitlines() == ["Detections", *str(results).splitlines()]


def test_a_notebook_shows_summary_and_images(results: Detections) -> None:
    results.names[1] = "<script>"
    page = results._repr_html_()
    assert "100x200 1 ant, 1 &lt;script&gt;" in page
    assert "<script>" not in page
    assert base64.b64encode(results._repr_png_()).decode() in page
    sheet = Image.open(io.BytesIO(results._repr_png_()))
    assert sheet.size == (200, 160)
    assert sheet.getpixel((190, 90)) == (250, 0, 0)
    assert Image.open(io.BytesIO(Detections([], [], [], [])._repr_png_())).size == (1, 1)


def test_display_does_what_its_switches_say(
    results: Detections, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = results.ims[0].copy()
    assert results.display() is None
    assert capsys.readouterr().out == ""
    assert np.array_equal(results.ims[0], before)
    crops = results.display(pprint=True, save=True, crop=True, render=True, save_dir=tmp_path / "out")
    assert [crop["label"] for crop in crops or ()] == ["bee 0.90", "ant 0.50"]
    assert "1 ant, 1 bee" in capsys.readouterr().out
    assert (tmp_path / "out/a.jpg").is_file()
    assert (tmp_path / "out/crops/bee/a.jpg").is_file()
    assert (results.ims[0] != before).any()


def test_a_folder_that_is_there_gets_a_number_when_asked(results: Detections, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert results.save(save_dir=tmp_path / "out", exist_ok=False) == tmp_path / "out2"


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
