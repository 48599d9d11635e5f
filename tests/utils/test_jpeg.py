"""JPEG headers, and pictures of which only the upper rows are decoded."""

from __future__ import annotations

import sys
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from utils import jpeg
from utils.jpeg import decode_jpeg, read_header, upper_rows


def encode(hw: tuple[int, int] = (64, 96), mode: str = "RGB", **options: Any) -> bytes:
    """A noisy picture as JPEG."""
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


def test_progressive_pictures_and_restart_markers_are_not_cut() -> None:
    for content in (encode(progressive=True), encode(restart_marker_rows=1)):
        header = read_header(content)
        assert header is not None and header.hw == (64, 96)
        assert not header.cuttable


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", encode()[:30], b"\xff\xd8\xff\xe0\0\0"])
def test_other_files_and_damaged_headers_are_left_alone(content: bytes) -> None:
    assert read_header(content) is None


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("rows", [16, 40])
def test_the_upper_rows_are_those_of_the_whole_picture(
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


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
def test_a_picture_is_the_same_from_either_decoder(mode: str, divisor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    content, size_hw = as_array(encode((67, 93), mode)), (-(-67 // divisor), -(-93 // divisor))
    ours = decode_jpeg(content, size_hw, divisor)
    monkeypatch.setattr(jpeg, "_faster_decoder", lambda: None)
    theirs = decode_jpeg(content, size_hw, divisor)
    assert ours is not None and theirs is not None and ours.shape == (*size_hw, 3)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("divisor", [1, 2])
@pytest.mark.parametrize("installed", [True, False])
def test_upper_rows_are_decoded_by_either_decoder(
    installed: bool, divisor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if installed:  # and it does all the work
        pytest.importorskip("simplejpeg")
        monkeypatch.setattr(cv2, "imdecode", lambda *_: None)
    else:
        monkeypatch.setattr(jpeg, "_faster_decoder", lambda: None)
    content = encode((256, 96), quality=90)
    header = read_header(content)
    assert header is not None
    whole = decode_jpeg(as_array(content), (256 // divisor, 96 // divisor), divisor)
    part = decode_jpeg(upper_rows(content, header, 100), (100 // divisor, 96 // divisor), divisor, cut=True)
    assert whole is not None and part is not None and len(part) == 100 // divisor
    np.testing.assert_array_equal(part[:-8], whole[: len(part) - 8])


@pytest.mark.parametrize("installed", [True, False])
def test_what_cannot_be_decoded_gives_none(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setattr(jpeg, "_faster_decoder", lambda: None)
    assert decode_jpeg(as_array(encode()[:60]), (64, 96)) is None
    assert decode_jpeg(as_array(b""), (64, 96)) is None


def test_a_damaged_picture_is_left_to_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("simplejpeg")
    content = bytearray(encode((256, 256), quality=95))
    content[len(content) // 2 : len(content) // 2 + 8] = b"\xff\xc5" * 4  # no marker belongs there
    ours = decode_jpeg(as_array(bytes(content)), (256, 256))
    monkeypatch.setattr(jpeg, "_faster_decoder", lambda: None)
    theirs = decode_jpeg(as_array(bytes(content)), (256, 256))
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        np.testing.assert_array_equal(ours, theirs)


def test_a_missing_package_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    jpeg._faster_decoder.cache_clear()
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # importing it raises
    try:
        assert decode_jpeg(as_array(encode()), (64, 96)) is not None
    finally:
        jpeg._faster_decoder.cache_clear()
