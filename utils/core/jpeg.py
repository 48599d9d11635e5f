"""What a JPEG says before its pixels, decoding it, and how to have only its upper rows decoded."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_SEQUENTIAL = (0xC0, 0xC1)  # frames whose rows are stored from top to bottom in one go
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three are tables and extensions
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_APP1, _SCAN, _RESTARTS, _END = 0xE1, 0xDA, 0xDD, b"\xff\xd9"

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


@dataclass(frozen=True)
class JpegHeader:
    """The parts of a header that decide how an image is decoded.

    Attributes:
        hw: height and width as stored, before any turning.
        has_notes: there is a segment that may hold EXIF or XMP.
        cuttable: the rows lie one after another in a single scan, so that decoding can stop early.
        height_at: position of the two bytes of the height. scan_at: position of the scan.
    """

    hw: tuple[int, int]
    has_notes: bool
    cuttable: bool
    height_at: int
    scan_at: int


def read_header(content: bytes) -> JpegHeader | None:
    """Walk the segments up to the first scan (ITU T.81, annex B); None if this is no JPEG of 8 bits or is damaged."""
    if content[:2] != b"\xff\xd8":
        return None
    at, frame_at, restarts, notes = 2, -1, False, False
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF or marker in _STANDALONE:  # a fill byte, or nothing behind the marker
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _SCAN:
            break
        if marker in _FRAMES:
            frame_at = at
        elif marker == _RESTARTS:
            restarts = content[at + 4 : at + 6] != b"\0\0"
        elif marker == _APP1:
            notes = True
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    else:
        return None
    if frame_at < 0 or content[frame_at + 4] != 8:
        return None
    height, width = (int.from_bytes(content[i : i + 2], "big") for i in (frame_at + 5, frame_at + 7))
    if not height or not width:
        return None
    one_scan = content[at + 4] == content[frame_at + 9]  # all components together
    cuttable = content[frame_at + 1] in _SEQUENTIAL and one_scan and not restarts
    return JpegHeader((height, width), notes, cuttable, frame_at + 5, at)


def upper_rows(content: bytes, header: JpegHeader, rows: int) -> np.ndarray:
    """The file [bytes] of an image that ends after ``rows`` rows: the decoder does no work for the others.

    Only the height in the header changes. The last rows can differ from those of the whole image, where the decoder
    blends colours with the rows below: ask for some more than needed. Leave two rows of blocks or more undecoded: the
    decoder reads ahead and gives up where the bytes end. The end marker is left out, because a decoder
    that finds it after rows it was not told of complains on stderr.
    """
    end = content.find(_END, header.scan_at)
    cut = np.frombuffer(content, np.uint8, count=end if end > 0 else len(content)).copy()
    cut[header.height_at : header.height_at + 2] = rows >> 8, rows & 255
    return cut


def decode_jpeg(content: np.ndarray, divisor: int = 1) -> np.ndarray | None:
    """Decode the bytes of a JPEG to BGR [H, W, 3] as stored, at 1 / ``divisor`` (1, 2, 4 or 8) of its size, rounded up.

    None if it cannot be decoded; read it in another way to know why.
    """
    try:
        return cv2.imdecode(content, _REDUCED[divisor] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
