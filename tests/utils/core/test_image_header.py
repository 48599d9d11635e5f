"""JPEG headers, and decoding at reduced size."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from utils.core.image import read_image_reduced
from utils.core.image_header import read_jpeg_header


def encode(hw: tuple[int, int] = (64, 96), mode: str = "RGB", **options: Any) -> bytes:
    """A noisy image as JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (hw[0] // 4, hw[1] // 4, 3), np.uint8)
    image = Image.fromarray(noise).resize((hw[1], hw[0])).convert(mode)
    stream = BytesIO()
    image.save(stream, "jpeg", **options)
    return stream.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_size_is_read_without_decoding(mode: str) -> None:
    header = read_jpeg_header(encode((40, 72), mode))
    assert header is not None
    assert header.hw == (40, 72)


def test_exif_data_is_noticed() -> None:
    exif = Image.Exif()
    exif[274] = 6
    with_exif, without = read_jpeg_header(encode(exif=exif)), read_jpeg_header(encode())
    assert with_exif is not None and without is not None
    assert (with_exif.has_metadata, without.has_metadata) == (True, False)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", encode()[:30], b"\xff\xd8\xff\xe0\0\0"])
def test_other_files_and_damaged_headers_give_none(content: bytes) -> None:
    assert read_jpeg_header(content) is None


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_is_decoded_at_the_least_size_that_is_enough(tmp_path: Path, mode: str, divisor: int) -> None:
    (tmp_path / "a.jpg").write_bytes(encode((67, 93), mode))
    least = -(-67 // divisor), -(-93 // divisor)  # decoders round up
    for hw in (least, (least[0] - 1, least[1])):
        image, full_hw = read_image_reduced(tmp_path / "a.jpg", hw)
        assert (image.shape, full_hw) == ((*least, 3), (67, 93))
