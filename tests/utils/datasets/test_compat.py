"""LoadImages and its neighbours, called as in v6.1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.datasets import IMG_FORMATS, VID_FORMATS, LoadImages, LoadStreams, exif_size, img2label_paths, letterbox
from utils.errors import InputError
from utils.image import write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, shape in enumerate([(30, 64, 3), (64, 64, 3)]):
        write_image(tmp_path / f"{number}.png", np.full(shape, (10, 20, 30), np.uint8))
    return tmp_path


def test_pictures_come_ready_for_the_model(folder: Path) -> None:
    dataset = LoadImages(str(folder), img_size=64, stride=32, auto=True)
    (path, image, original, cap, text), second = list(dataset)
    assert (len(dataset), dataset.nf, dataset.mode, cap) == (2, 2, "image", None)
    assert Path(path) == folder / "0.png"
    assert image.shape == (3, 32, 64)
    assert image[:, 16, 32].tolist() == [30, 20, 10]  # red, green, blue
    assert original.shape == (30, 64, 3)
    assert original[0, 0].tolist() == [10, 20, 30]
    assert text == f"image 1/2 {folder / '0.png'}: "
    assert second[1].shape == (3, 64, 64)


def test_without_auto_every_picture_is_square(folder: Path) -> None:
    assert [item[1].shape for item in LoadImages(folder, 64, 32, False)] == [(3, 64, 64), (3, 64, 64)]


def test_a_broken_picture_is_skipped_and_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "0.png").write_bytes(b"no picture")
    found = list(LoadImages(folder, 64))
    assert [item[4] for item in found] == [f"image 2/2 {folder / '1.png'}: "]
    assert "0.png" in caplog.text


def test_formats_are_named_without_a_dot() -> None:
    assert {"jpg", "png", "tiff"} <= set(IMG_FORMATS + VID_FORMATS)


def test_streams_are_refused_when_used_not_when_imported() -> None:
    with pytest.raises(InputError, match="source '0': cameras and streams cannot be read so far"):
        LoadStreams("0", img_size=640)


def test_size_of_a_turned_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert exif_size(Image.open(tmp_path / "a.jpg")) == (10, 20)
    assert exif_size(Image.new("RGB", (20, 10))) == (20, 10)


def test_label_files_of_pictures() -> None:
    assert [Path(path) for path in img2label_paths(["set/images/train/a.jpg"])] == [Path("set/labels/train/a.txt")]


def test_letterbox_is_found_in_its_old_places() -> None:
    from utils import augmentations

    assert augmentations.letterbox is letterbox
