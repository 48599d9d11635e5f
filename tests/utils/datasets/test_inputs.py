"""Images and lists as people have them: every format, depth and name is read as it should be, or named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.config.dataset_spec import DatasetSpec
from utils.core.files import find_images, label_path_for
from utils.core.image import image_hw, read_image
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.splits import load_labels

HW = (20, 40)
ROW = "0 0.25 0.5 0.2 0.4\n"


def gradient() -> np.ndarray:
    """[20, 40, 3] RGB that is dark at the left and bright at the right, with a red corner at the top left."""
    pixels = np.repeat(np.linspace(0, 240, HW[1]).astype(np.uint8)[None, :, None], HW[0], 0).repeat(3, 2)
    pixels[:10, :10] = (200, 0, 0)
    return pixels


def save(path: Path, image: Image.Image, kind: str | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)
    return path


def rgb() -> Image.Image:
    return Image.fromarray(gradient())


# How to write each kind, and how far its pixels may be from the original.
KINDS: dict[str, tuple[str, Callable[[Path], object], int]] = {
    "jpg": (".jpg", lambda p: save(p, rgb(), quality=95, subsampling=0), 20),
    "progressive jpg": (".jpeg", lambda p: save(p, rgb(), quality=95, subsampling=0, progressive=True), 20),
    "png": (".png", lambda p: save(p, rgb()), 0),
    "interlaced palette png": (".png", lambda p: save(p, rgb().quantize(256)), 8),
    "rgba png": (".png", lambda p: save(p, rgb().convert("RGBA")), 0),
    "16-bit png": (".png", lambda p: cv2.imwrite(str(p), gradient()[..., ::-1].astype(np.uint16) * 257), 0),
    "bmp": (".bmp", lambda p: save(p, rgb()), 0),
    "tif": (".tif", lambda p: save(p, rgb()), 0),
    "compressed tiff": (".tiff", lambda p: save(p, rgb(), compression="tiff_lzw"), 0),
    "16-bit tif": (".tif", lambda p: cv2.imwrite(str(p), gradient()[..., ::-1].astype(np.uint16) * 257), 0),
    "dng that is a plain tif": (".dng", lambda p: save(p, rgb(), "tiff"), 0),
    "webp": (".webp", lambda p: save(p, rgb(), lossless=True), 0),
    "mpo": (".mpo", lambda p: save(p, rgb(), "MPO", save_all=True, append_images=[rgb()], quality=95), 20),
    "suffix of another format": (".jpg", lambda p: save(p, rgb(), "png"), 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_read_with_its_colours_and_size(kind: str, tmp_path: Path) -> None:
    suffix, write, tolerance = KINDS[kind]
    path = tmp_path / f"a{suffix}"
    write(path)
    path.with_suffix(".txt").write_text(ROW)
    (record,) = scan_labels([path], 1).records
    assert record.hw == HW == image_hw(path)
    image = read_image(path)
    assert image.shape == (*HW, 3) and image.dtype == np.uint8
    inner = np.abs(image[..., ::-1].astype(int) - gradient())[2:8, 2:8]  # compression blurs the edges of the corner
    assert inner.max() <= tolerance


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", ".png"), ("L", ".jpg"), ("1", ".png"), ("LA", ".png"), ("I;16", ".png"), ("I;16", ".tif"), ("P", ".bmp")],
)
def test_grey_images_get_three_equal_channels(mode: str, suffix: str, tmp_path: Path) -> None:
    bright = np.full(HW, 255, np.uint8)
    bright[:, :20] = 0
    grey = Image.fromarray(bright)
    if mode == "I;16":
        pil_image = Image.fromarray(bright.astype(np.uint16) * 257)
    else:
        pil_image = grey.convert(mode)
    path = save(tmp_path / f"a{suffix}", pil_image)
    assert len(scan_labels([path], 1).records) == 1
    image = read_image(path)
    assert image[5, 5].tolist() == [0, 0, 0] or max(image[5, 5]) < 5
    assert min(image[5, 35]) > 250


def test_sixteen_bits_are_scaled_by_one_rule_whatever_the_image_holds(tmp_path: Path) -> None:
    """Values 0..4000 of 65535 stay dark: the rule is a division by 257, not a stretch of each image."""
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.linspace(0, 4000, 800).reshape(HW).astype(np.uint16))
    assert read_image(path).max() == round(4000 / 257)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_on_the_same_pixels_whatever_the_orientation(suffix: str, orientation: int, tmp_path: Path) -> None:
    """Stored turned and marked so that a viewer shows the original: the red corner is at the top left again."""
    stored_as = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # transpose method that undoes each orientation
    stored = rgb() if orientation == 1 else rgb().transpose(Image.Transpose(stored_as[orientation]))
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / f"a{suffix}", stored, exif=exif)
    assert scan_labels([path], 1).records[0].hw == HW
    blue, _, red = read_image(path)[5, 5].astype(int)
    assert red - blue > 120


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_behind_the_pixels_of_a_png_counts_and_broken_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    content = save(tmp_path / "a.png", rgb(), exif=exif).read_bytes()
    at = content.index(b"eXIf") - 4
    length = int.from_bytes(content[at : at + 4], "big") + 12
    chunk, rest = content[at : at + length], content[:at] + content[at + length :]
    end = rest.index(b"IEND") - 4
    late = tmp_path / "late.png"
    late.write_bytes(rest[:end] + chunk + rest[end:])
    assert image_hw(late) == (HW[1], HW[0]) == read_image(late).shape[:2]
    broken = tmp_path / "broken.jpg"
    save(broken, rgb(), exif=b"Exif\0\0MM\0*\0\0\xff\xff\x12")
    assert len(scan_labels([broken], 1).records) == 1


NAMES = ("a[1].jpg", "b {x} *?.PNG", "with space.Jpg", "图片 é.png", "한국어.JPEG", "dots.in.name.png", "-dash.png")


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_and_folder_name_will_do(name: str, tmp_path: Path) -> None:
    root = tmp_path / "set [v1] ünï" / "images" / "träin (2)"
    path = save(root / "deep" / name, rgb(), "png")
    label = tmp_path / "set [v1] ünï" / "labels" / "träin (2)" / "deep" / f"{Path(name).stem}.txt"
    label.parent.mkdir(parents=True)
    label.write_text(ROW)
    assert find_images([root]) == [path]
    (record,) = scan_labels([path], 1).records
    assert record.label == label == label_path_for(path)
    assert len(record.boxes) == 1
    assert read_image(path).shape == (*HW, 3)


def make_set(root: Path) -> None:
    for name in ("a", "b", "c"):
        save(root / "images" / "all" / f"{name}.png", rgb())
        label = root / "labels" / "all" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(ROW)


LISTS = {
    "relative to the list": ("train.txt", "images/all/a.png\nimages/all/b.png\n"),
    "with ./": ("train.txt", "./images/all/a.png\n./images/all/b.png\n"),
    "of Windows": ("train.txt", "images\\all\\a.png\r\n.\\images\\all\\b.png\r\n"),
    "relative to the yaml": ("lists/train.txt", "images/all/a.png\nimages/all/b.png\n"),
    "with ./ relative to the yaml": ("lists/train.txt", "./images/all/a.png\n./images/all/b.png\n"),
    "with bare names beside it": ("images/all/train.txt", "a.png\nb.png\n"),
    "of CVAT": ("train.txt", "data/images/all/a.png\ndata/images/all/b.png\n"),
    "of CVAT, elsewhere": ("lists/train.txt", "data/images/all/a.png\ndata\\images\\all\\b.png\n"),
    "absolute": ("lists/train.txt", "{root}/images/all/a.png\n{root}/images/all/b.png"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_every_style(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_set(tmp_path / "set")
    where, content = LISTS[kind]
    listing = tmp_path / "set" / where
    listing.parent.mkdir(exist_ok=True)
    listing.write_bytes(content.replace("{root}", str(tmp_path / "set")).encode())
    data = tmp_path / "set" / "data.yaml"
    data.write_text(f"train: {where}\nval: images/all\nnames: [x]\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    labels = load_labels(DatasetSpec.load(data), "train")
    assert [record.image.name for record in labels.records] == ["a.png", "b.png"]
    assert labels.report.labelled == 2


def test_a_folder_that_is_really_called_data_comes_first(tmp_path: Path) -> None:
    save(tmp_path / "data" / "a.png", rgb())
    save(tmp_path / "a.png", rgb())
    (tmp_path / "train.txt").write_text("data/a.png\n")
    assert find_images([tmp_path / "train.txt"]) == [tmp_path / "data" / "a.png"]


def test_several_lists_and_folders_make_one_split(tmp_path: Path) -> None:
    make_set(tmp_path)
    save(tmp_path / "more" / "images" / "d.png", rgb())
    (tmp_path / "one.txt").write_text("images/all/a.png\n")
    (tmp_path / "two.txt").write_text("images/all/c.png\n")
    data = tmp_path / "data.yaml"
    data.write_text("train: [one.txt, two.txt, more/images]\nnames: [x]\n")
    report = load_labels(DatasetSpec.load(data), "train").report
    assert (report.labelled, report.missing) == (2, 1)


def test_lines_of_a_list_that_name_no_image_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_set(tmp_path)
    (tmp_path / "train.txt").write_text("# mine\nimages/all/a.png\nimages/all/b.tga\nimages/all/c\n")
    assert len(find_images([tmp_path / "train.txt"])) == 1
    assert f"{tmp_path / 'train.txt'}:3: 'images/all/b.tga' names no image; 2 such lines" in caplog.text


def test_images_of_kinds_that_cannot_be_read_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_set(tmp_path)
    for name in ("x.NEF", "y.nef", "z.tga", "notes.md"):
        (tmp_path / "images" / "all" / name).write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert len(find_images([tmp_path / "images"])) == 3
    assert "2 .nef, 1 .tga" in caplog.text and ".md" not in caplog.text


def test_a_listed_image_that_is_gone_is_named(tmp_path: Path) -> None:
    make_set(tmp_path)
    (tmp_path / "train.txt").write_text(f"images/all/a.png\nimages/all/gone.png\n{'x' * 300}.png\n")
    images = find_images([tmp_path / "train.txt"])
    report = scan_labels(images, 1).report
    assert report.corrupt == 2
    assert any("gone.png" in message and "no such image" in message for message in report.messages)
