"""JPEG headers, and images of which only the upper rows are decoded."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.core.jpeg import decode_jpeg, read_header, upper_rows


def encode(hw: tuple[int, int] = (64, 96), mode: str = "RGB", **options: Any) -> bytes:
    """A noisy image as JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (hw[0] // 4, hw[1] // 4, 3), np.uint8)
    picture = Image.fromarray(noise).resize((hw[1], hw[0])).convert(mode)
    stream = BytesIO()
    picture.save(stream, "jpeg", **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_size_is_read_without_decoding(mode: str) -> None:
    header = read_header(encode((40, 72), mode))
    assert header is not None
    assert header.hw == (40, 72)
    assert header.cuttable


def test_notes_are_seen() -> None:
    exif = Image.Exif()
    exif[274] = 6
    with_notes, without = read_header(encode(exif=exif)), read_header(encode())
    assert with_notes is not None and without is not None
    assert (with_notes.has_notes, without.has_notes) == (True, False)


def test_progressive_images_and_restart_markers_are_not_cut() -> None:
    for content in (encode(progressive=True), encode(restart_marker_rows=1)):
        header = read_header(content)
        assert header is not None and header.hw == (64, 96)
        assert not header.cuttable


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", encode()[:30], b"\xff\xd8\xff\xe0\0\0"])
def test_other_files_and_damaged_headers_are_left_alone(content: bytes) -> None:
    assert read_header(content) is None


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("rows", [16, 40])
def test_the_upper_rows_are_those_of_the_whole_image(
    subsampling: int, rows: int, capfd: pytest.CaptureFixture[str]
) -> None:
    content = encode(subsampling=subsampling, quality=90)
    header = read_header(content)
    assert header is not None
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    part = cv2.imdecode(upper_rows(content, header, rows), cv2.IMREAD_COLOR)
    assert part.shape == (rows, 96, 3)
    np.testing.assert_array_equal(part[: rows - 4], whole[: rows - 4])
    assert capfd.readouterr().err == ""  # the decoder has nothing to complain about


def as_array(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_image_is_reduced_rounding_up(mode: str, divisor: int) -> None:
    image = decode_jpeg(as_array(encode((67, 93), mode)), divisor)
    assert image is not None and image.shape == (-(-67 // divisor), -(-93 // divisor), 3)


@pytest.mark.parametrize("divisor", [1, 2])
def test_upper_rows_are_decoded_at_any_size(divisor: int) -> None:
    content = encode((256, 96), quality=90)
    header = read_header(content)
    assert header is not None
    whole, part = (decode_jpeg(c, divisor) for c in (as_array(content), upper_rows(content, header, 100)))
    assert whole is not None and part is not None and len(part) == 100 // divisor
    np.testing.assert_array_equal(part[:-8], whole[: len(part) - 8])


@pytest.mark.parametrize("content", [b"", encode()[:60]])
def test_what_cannot_be_decoded_gives_none(content: bytes) -> None:
    assert decode_jpeg(as_array(content)) is None
