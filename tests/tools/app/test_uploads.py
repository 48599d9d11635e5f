"""Images by strangers: their size is known from the header before anything is decoded."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from tools.app.uploads import UploadTooLargeError, decode_upload
from utils.core.errors import InputError

IMAGE = np.zeros((40, 50, 3), np.uint8)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(before_end: bytes = b"") -> bytes:
    content = cv2.imencode(".png", IMAGE)[1].tobytes()
    return content.replace(chunk(b"IEND"), before_end + chunk(b"IEND"))


def size(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


@pytest.mark.parametrize("second", [size(10, 10), size(0, 0)])
def test_a_second_size_behind_the_pixels_of_a_png_does_not_count(second: bytes) -> None:
    assert decode_upload(png(), 2000).shape == (40, 50, 3)
    with pytest.raises(UploadTooLargeError, match="50 x 40 pixels"):
        decode_upload(png(second), 1000)


@pytest.mark.parametrize(
    "content",
    [
        cv2.imencode(".hdr", IMAGE.astype(np.float32))[1].tobytes(),
        cv2.imencode(".sr", IMAGE)[1].tobytes(),
        cv2.imencode(".pam", IMAGE)[1].tobytes(),
        png(chunk(b"tEXt") * 100_000),
        b"P6 #" + bytes(100_000) + b"\n50 40 255\n" + IMAGE.tobytes(),
    ],
    ids=["Radiance", "Sun", "PAM", "very many chunks", "a long note"],
)
def test_what_has_no_header_that_is_understood_is_not_decoded_to_find_its_size(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.app.uploads.decode_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="this is no image"):
        decode_upload(content, 1000)


def test_netpbm_images_with_a_note_are_read() -> None:
    assert decode_upload(b"P6 # a note\n50 40 255\n" + IMAGE.tobytes(), 2000).shape == (40, 50, 3)
