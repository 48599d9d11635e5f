"""Damaged and identical images."""

from __future__ import annotations

import struct
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any
from zlib import crc32

import cv2
import numpy as np
import pytest
from PIL import Image, features

from utils.core.errors import InputError
from utils.core.files import IMAGE_SUFFIXES
from utils.core.image import image_hw, read_image, read_image_reduced
from utils.datasets.labels.image_check import check_image, decode_all, identical_files
from utils.inference.autoshape import read_rgb


def encoded(suffix: str, seed: int = 0) -> bytes:
    rows, columns = np.mgrid[:120, :160]
    image = np.stack([columns, rows, rows + columns], -1).astype(np.uint8)
    image[40:80, 40:120] = np.random.default_rng(seed).integers(0, 255, (40, 80, 3))
    return cv2.imencode(suffix, image)[1].tobytes()


def middle_overwritten(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(64) + content[half + 64 :]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_whole_image_passes_both_looks(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix))
    assert check_image(path) == (120, 160)
    assert list(decode_all([path], 1)) == [""]


def test_damage_in_the_middle_is_found_by_decoding_only(tmp_path: Path) -> None:
    paths = []
    for suffix in (".jpg", ".png"):
        paths += [tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"]
        paths[-2].write_bytes(encoded(suffix))
        paths[-1].write_bytes(middle_overwritten(encoded(suffix)))
    assert check_image(paths[1]) == check_image(paths[3]) == (120, 160)
    problems = list(decode_all(paths, 2))
    assert [bool(problem) for problem in problems] == [False, True] * 2
    assert "Corrupt JPEG data" in problems[1]


def of_pillow(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """An image as Pillow writes it; mode ``I;16`` makes 16 bits of the grey values."""
    image = Image.fromarray(cv2.imdecode(np.frombuffer(encoded(".png"), np.uint8), cv2.IMREAD_COLOR)[..., ::-1])
    grey = np.asarray(image.convert("L"))
    made = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    stream = BytesIO()
    if options.pop("animated", False):
        options |= {"save_all": True, "append_images": [made.rotate(180)]}
    made.save(stream, kind, **options)
    return stream.getvalue()


FLOATS = BytesIO()
Image.fromarray(np.ones((120, 160), np.float32)).save(FLOATS, "TIFF")
# Name of a file -> its content, and whether it can be used.
KINDS: dict[str, tuple[bytes, bool]] = {
    "one_bit.png": (of_pillow("PNG", "1"), True),
    "one_bit.tif": (of_pillow("TIFF", "1", compression="group4"), True),
    "cmyk.jpg": (of_pillow("JPEG", "CMYK"), True),
    "cmyk.tif": (of_pillow("TIFF", "CMYK"), True),
    "16_bits.tif": (of_pillow("TIFF", "I;16"), True),
    "16_bits.png": (of_pillow("PNG", "I;16"), True),
    "floats.tif": (FLOATS.getvalue(), False),
    "float_colours.tif": (cv2.imencode(".tif", np.ones((120, 160, 3), np.float32))[1].tobytes(), False),
    "jfif.jfif": (of_pillow("JPEG"), True),
    "jp2.jp2": (of_pillow("JPEG2000"), True),
    "avif.avif": (of_pillow("AVIF") if features.check("avif") else b"", features.check("avif")),
    "grey.pgm": (of_pillow("PPM", "L"), True),
    "still.gif": (of_pillow("GIF"), True),
    "moving.webp": (of_pillow("WEBP", animated=True), True),
    "moving.png": (of_pillow("PNG", animated=True), True),
    "pages.tif": (of_pillow("TIFF", animated=True), True),
    "no_end.png": (encoded(".png")[:-2], True),  # every pixel is there
    "more.jpg": (encoded(".jpg") + b"more", True),
    **{f"half{s}": (encoded(s)[: len(encoded(s)) // 2], False) for s in (".jpg", ".png", ".webp", ".tif", ".bmp")},
    "no_end.jpg": (encoded(".jpg")[:-2], False),
    "half.jp2": (of_pillow("JPEG2000")[:-200], False),
    "text.jpg": (b"no image", False),
    "empty.jpg": (b"", False),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("name", KINDS)
def test_checking_training_and_detecting_agree_on_what_can_be_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content, usable = KINDS[name]
    path.write_bytes(content)
    assert path.suffix in IMAGE_SUFFIXES
    answers = []
    for look in (
        check_image,
        read_image,
        lambda path: read_image_reduced(path, (60, 80)),
        lambda path: read_rgb(path, 0),
    ):
        try:
            look(path)
        except InputError as error:
            assert str(error).startswith(str(path))
            answers.append(False)
        else:
            answers.append(True)
    assert answers == [usable] * 4
    if usable:
        assert check_image(path) == read_image(path).shape[:2]


@pytest.mark.parametrize("name", ["16_bits.tif", "cmyk.tif", "moving.webp", "jp2.jp2", "still.gif", "no_end.png"])
def test_the_limit_of_pillow_does_not_matter(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(KINDS[name][0])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # it refuses the double of that
    assert check_image(tmp_path / name) == (120, 160)
    assert image_hw(tmp_path / name) == (120, 160)
    assert read_image(tmp_path / name).shape == (120, 160, 3)


@pytest.mark.parametrize("look", [check_image, read_image, lambda path: read_rgb(path, 0)])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_image_beyond_our_own_limit_is_refused_before_it_is_decoded(
    look: Callable[[Path], object], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        sides = struct.pack(">II", 40_000, 40_000)
        header = b"IHDR" + sides + b"\x08\x02\0\0\0"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", crc32(header)))
    else:
        content = bytearray(encoded(".jpg"))
        at = content.index(b"\xff\xc0") + 5
        content[at : at + 4] = struct.pack(">HH", 40_000, 40_000)
        path.write_bytes(bytes(content))
    with pytest.raises(
        InputError, match=r"a\.\w+: 40000x40000 pixels are more than the 1073741824 that can be decoded"
    ):
        look(path)


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="then it is read")
def test_a_heic_image_without_the_package_for_it_names_that(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x1cftypheic" + bytes(100))
    for look in (check_image, read_image):
        with pytest.raises(InputError, match=r"a\.heic: a HEIC image needs .*: pip install pillow-heif"):
            look(tmp_path / "a.heic")


def test_identical_files_are_found_by_content(tmp_path: Path) -> None:
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"three", "e": b"one", "f": b"two", "g": b"six"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in contents]
    groups = identical_files([*paths, paths[0], tmp_path / "gone"], 2)
    assert [[path.name for path in group] for group in groups] == [["a", "c", "e"], ["b", "f"]]
