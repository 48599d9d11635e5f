"""Reading and writing images, the letterbox, and network input."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from utils.core.errors import InputError
from utils.core.image import LetterboxInfo, image_hw, letterbox, read_image, to_model_input, write_image


@pytest.fixture
def image() -> np.ndarray:
    """A BGR image of 32 x 48 blocks whose corners differ, smooth enough to survive JPEG."""
    small = np.zeros((4, 6, 3), np.uint8)
    small[0, 0], small[0, -1], small[-1, 0] = (255, 255, 255), (180, 180, 180), (90, 90, 90)
    return np.kron(small, np.ones((8, 8, 1), np.uint8))


def save_turned(path: Path, image: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(image).save(path, exif=exif)


# How numpy turns a stored image upright, from the definition of the EXIF tag.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_every_exif_orientation_is_applied_in_every_format(
    tmp_path: Path, image: np.ndarray, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"turned{suffix}"
    save_turned(path, image, orientation)
    expected = UPRIGHT[orientation](image)
    found = read_image(path)
    assert found.shape == expected.shape
    assert image_hw(path) == found.shape[:2]
    assert np.abs(found.astype(int) - expected).mean() < 6


def test_an_image_survives_writing_and_reading_under_a_non_ascii_name(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "снимок 图像.png"
    write_image(path, image)
    assert np.array_equal(read_image(path), image)
    assert image_hw(path) == (32, 48)


def test_channels_are_read_in_blue_green_red_order(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (10, 20, 30)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[30, 20, 10]] * 2]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_grey_transparent_and_palette_images_become_three_channels(tmp_path: Path, mode: str) -> None:
    Image.new("RGBA", (3, 2), (255, 255, 255, 128)).convert(mode).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.shape == (2, 3, 3) and found.dtype == np.uint8
    assert (found == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_by_257(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / f"a{suffix}"), values)
    assert read_image(tmp_path / f"a{suffix}")[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_opencv_prints_nothing_of_its_own_about_an_image_that_it_cannot_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="32 bits"):
        read_image(tmp_path / "a.tif")
    assert "".join(capfd.readouterr()) == ""


def test_the_log_level_of_opencv_is_set_once_by_the_first_image_and_not_by_the_import(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    code = (
        "import sys, cv2; from utils.core import image; level = cv2.utils.logging.getLogLevel; before = level()\n"
        "cv2.utils.logging.setLogLevel(4); image.read_image(sys.argv[1]); first = level()\n"
        "cv2.utils.logging.setLogLevel(5); image.read_image(sys.argv[1]); print(before, first, level())"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]).stdout
    assert said.split() == ["3", "0", "5"]


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 3)], ids=["grey", "colour"])
def test_a_float_image_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=r"a\.tif: .*expected.* 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("content", [b"", b"this is no image"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.jpg").write_bytes(content)
    for read in (read_image, image_hw):
        with pytest.raises(InputError, match=r"bad\.jpg: not a readable image"):
            read(tmp_path / "bad.jpg")
        with pytest.raises(FileNotFoundError, match=r"gone\.jpg: no such image"):
            read(tmp_path / "gone.jpg")


def test_an_unknown_format_cannot_be_written(tmp_path: Path, image: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot write an image of shape"):
        write_image(tmp_path / "a.xyz", image)


def test_letterbox_centres_the_image_on_grey() -> None:
    image, ratio, pad = letterbox(np.zeros((50, 100, 3), np.uint8), 64, auto=False)
    assert image.shape == (64, 64, 3)
    assert (ratio, pad) == ((0.64, 0.64), (0.0, 16.0))
    assert (image[:16] == 114).all() and (image[16:48] == 0).all() and (image[48:] == 114).all()


def test_letterbox_gives_the_odd_pixel_to_the_far_side() -> None:
    image, _, pad = letterbox(np.zeros((3, 4, 3), np.uint8), 4, auto=False)
    assert pad == (0.0, 0.5)
    assert image[:, 0, 0].tolist() == [0, 0, 0, 114]


def test_letterbox_keeps_a_pixel_of_a_very_thin_image() -> None:
    assert letterbox(np.zeros((1, 5000, 3), np.uint8), 64, auto=False)[0].shape == (64, 64, 3)


@pytest.mark.parametrize("options", [{}, {"auto": False}, {"auto": False, "scaleFill": True}, {"scaleup": False}])
def test_undoing_a_letterbox_is_the_identity(options: dict[str, bool]) -> None:
    original = np.array([[3.0, 5.0, 60.0, 40.0], [0.0, 0.0, 90.0, 70.0]])
    _, ratio, pad = letterbox(np.zeros((70, 90, 3), np.uint8), 256, **options)
    placed = original * (ratio * 2) + pad * 2
    info = LetterboxInfo((70, 90), ratio, pad)
    assert info.undo(placed) == pytest.approx(original)
    assert info.undo(torch.from_numpy(placed)).numpy() == pytest.approx(original)


def test_undoing_a_letterbox_clips_to_the_image() -> None:
    info = LetterboxInfo((10, 20), (1.0, 1.0), (0.0, 5.0))
    assert info.undo(np.array([[-4.0, 0.0, 30.0, 30.0, 0.5, 2.0]])).tolist() == [[0, 0, 20, 10, 0.5, 2]]


def test_network_input_is_bytes_over_255() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    single, half = to_model_input(images, "cpu"), to_model_input(images, "cpu", half=True)
    assert (single.dtype, half.dtype) == (torch.float32, torch.float16)
    assert single.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert images.flatten().tolist() == [0, 51, 255]


def test_network_input_is_not_divided_twice() -> None:
    with pytest.raises(TypeError, match="already divided"):
        to_model_input(torch.zeros(1, 3, 2, 2), "cpu")


def letterbox_matches(case: dict[str, Any], image: np.ndarray) -> bool:
    out, ratio, pad = letterbox(image, case["new_shape"], **case["options"])
    digest = hashlib.sha256(np.ascontiguousarray(out).tobytes()).hexdigest()
    same_plan = list(ratio) == case["ratio"] and list(pad) == case["pad_wh"] and list(out.shape) == case["out_shape"]
    return same_plan and digest == case["sha256"]


def test_letterboxed_crops_equal_the_reference_to_the_byte(golden: Any) -> None:
    for case in golden.json("tensors")["letterbox"]["cases"]:
        if case["case"] != "whole image":
            assert letterbox_matches(case, golden.array(f"letterbox/src_{case['src']}")), case


def test_an_image_is_read_and_letterboxed_as_by_the_reference(golden: Any, shared_data: Path) -> None:
    facts = golden.json("tensors")["letterbox"]
    image = read_image(next(shared_data.rglob(facts["image"])))
    assert list(image.shape) == facts["decoded_bgr_shape"]
    assert hashlib.sha256(image.tobytes()).hexdigest() == facts["decoded_bgr_sha256"]
    for case in facts["cases"]:
        if case["case"] == "whole image":
            assert letterbox_matches(case, image), case
