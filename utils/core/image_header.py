"""Size and orientation of an image file from its header, and decoding with Pillow what OpenCV cannot read.

JPEG and PNG headers are read here: Pillow takes several times as long for the first and decodes the second in full to
look for EXIF data behind the pixels. Pillow reads all other formats.
"""

from __future__ import annotations

import contextlib
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.core.errors import InputError
from utils.core.packages import import_optional

MAX_PIXELS = 1 << 30  # the limit of OpenCV: 3 GB as uint8 BGR
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_HEADER = 1 << 16  # bytes within which most headers end
_NETPBM_HEADER = 1 << 14  # bytes
_MAX_CHUNKS = 100_000  # of a PNG; writers put 8 kB or more into each
_TIFF_WIDTH, _TIFF_HEIGHT, _EXIF_ORIENTATION = 256, 257, 274
_ORIENTATIONS = range(1, 9)
_HEADER_ERRORS = (SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error)  # not of this format after all
# The readers of Pillow that are tried; the others are for documents, fonts, games and the like.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "JPEG2000", "GIF", "BMP", "DIB", "PPM", "HEIF")
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})

# Markers of a JPEG (ITU T.81, table B.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # these three are tables and extensions
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # without a length
_APP1, _SCAN, _FILL = 0xE1, 0xDA, 0xFF


@dataclass(frozen=True)
class JpegHeader:
    """The parts of a JPEG header that are used.

    Attributes:
        hw: height and width as stored, before the orientation is applied.
        has_metadata: there is a segment that may hold EXIF or XMP.
        scan_at: position of the first scan, where the pixels begin.
    """

    hw: tuple[int, int]
    has_metadata: bool
    scan_at: int


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """Read the segments up to the first scan (ITU T.81, annex B); None if this is no JPEG of 8 bits or is damaged."""
    if content[:2] != b"\xff\xd8":
        return None
    at, frame_at, has_metadata = 2, -1, False
    while at + 4 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == _SCAN:
            break
        if marker == _FILL or marker in _STANDALONE:
            at += 1 if marker == _FILL else 2
            continue
        if marker in _FRAMES:
            frame_at = at
        has_metadata |= marker == _APP1
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    else:
        return None
    if frame_at < 0 or content[frame_at + 4] != 8:
        return None
    height, width = (int.from_bytes(content[i : i + 2], "big") for i in (frame_at + 5, frame_at + 7))
    return JpegHeader((height, width), has_metadata, at) if height and width else None


def _png_header(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """Read (height, width) and the EXIF orientation of a PNG."""
    stream.seek(len(PNG_MAGIC))
    hw, orientation, left = (0, 0), 1, _MAX_CHUNKS
    while len(start := stream.read(8)) == 8:
        left -= 1
        if left < 0:
            raise ValueError("a PNG of very many chunks")
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if hw == (0, 0) and kind != b"IHDR":
            break
        if hw == (0, 0):  # decoders ignore a second one
            size = stream.read(8)
            hw = (int.from_bytes(size[4:], "big"), int.from_bytes(size[:4], "big"))
            length -= 8
        elif kind == b"eXIf":
            exif = Image.Exif()
            with contextlib.suppress(Exception):  # broken EXIF data does not make an image unreadable
                exif.load(stream.read(length))
                orientation = exif.get(_EXIF_ORIENTATION, 1)
            length = 0
        elif kind == b"IEND":
            break
        stream.seek(length + 4, 1)  # each chunk ends with a checksum
    if min(hw) < 1:
        raise ValueError("a PNG without a size")
    return hw, orientation if orientation in _ORIENTATIONS else 1


def _jpeg_orientation(head: bytes, jpeg: JpegHeader) -> int | None:
    """Read the EXIF orientation from the segments of a JPEG; None where Pillow is needed."""
    if not jpeg.has_metadata:
        return 1
    at = head.find(b"Exif\0\0")
    if at < 0 or b"tiff:Orientation" in head:  # XMP may hold another value
        return None
    exif = Image.Exif()
    try:
        exif.load(head[at:])
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises anything on broken EXIF data
        return None
    return orientation if orientation in _ORIENTATIONS else 1


def size_and_orientation(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """Read (height, width) as stored and the EXIF orientation (1..8) of an image file, from the header alone.

    Raises:
        Exception: Pillow's readers raise anything from SyntaxError to struct.error on a broken file.
    """
    start = stream.read(len(PNG_MAGIC))
    if start == PNG_MAGIC:
        return _png_header(stream)
    if start.startswith(b"\xff\xd8"):
        head = start + stream.read(_JPEG_HEADER)
        jpeg = read_jpeg_header(head)
        if jpeg is not None and (orientation := _jpeg_orientation(head[: jpeg.scan_at], jpeg)) is not None:
            return jpeg.hw, orientation  # a fraction of the time that Pillow takes
    stream.seek(0)
    if start[:1] == b"P":  # Netpbm: Pillow reads comments of any length in its header, byte by byte
        stream = BytesIO(stream.read(_NETPBM_HEADER))
    with open_with_pillow(stream) as image:
        orientation = 1
        with contextlib.suppress(Exception):  # broken EXIF data
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        width, height = image.size
        # Pillow swaps the size of a turned TIFF, depending on its release; the tags have it as stored.
        tags = getattr(image, "tag_v2", {})
        stored = (int(tags.get(_TIFF_HEIGHT, height)), int(tags.get(_TIFF_WIDTH, width)))
        return stored, orientation if orientation in _ORIENTATIONS else 1


def check_size(hw: tuple[int, int], name: str | Path) -> None:
    """Raise InputError when an image of that height and width is too large to be decoded."""
    if hw[0] * hw[1] > MAX_PIXELS:
        raise InputError(
            f"{name}: {hw[1]}x{hw[0]} pixels are more than the {MAX_PIXELS} that can be decoded; cut it into parts"
        )


def open_with_pillow(stream: IO[bytes]) -> Image.Image:
    """Open an image as ``Image.open`` does, but only of the formats in ``_FORMATS``, with ``MAX_PIXELS`` as the limit.

    Pillow's own limit of pixels is a global setting of the process and stays as it is.

    Raises:
        UnidentifiedImageError: another format. Pillow raises anything else on a broken file.
    """
    start = stream.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        import_optional("pillow_heif", "pillow-heif", "a HEIC image").register_heif_opener()
    Image.init()
    for kind in _FORMATS:
        reader, accepts = Image.OPEN.get(kind, (None, None))
        if reader is None or accepts is None or accepts(start) is not True:
            continue
        stream.seek(0)
        with contextlib.suppress(*_HEADER_ERRORS):
            return reader(stream, "")
    raise UnidentifiedImageError("not an image of a known format")


def decode_with_pillow(content: bytes) -> np.ndarray:
    """Decode an image file that OpenCV cannot read to uint8 or uint16 [H, W, 3] BGR, turned upright.

    Of a file with several images the first is used.

    Raises:
        InputError: pixels are floats or have 32 bits.
        Exception: what Pillow raises on a broken file.
    """
    with open_with_pillow(BytesIO(content)) as opened:
        if opened.mode in ("I", "F"):
            raise InputError("pixels are floats or have 32 bits, expected 8 or 16 bits; convert the image first")
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        if upright.mode.startswith("I;16"):
            grey = np.asarray(upright)
            return grey.astype(np.uint16)[..., None].repeat(3, axis=2)
        return np.ascontiguousarray(np.asarray(upright.convert("RGB"))[..., ::-1])
