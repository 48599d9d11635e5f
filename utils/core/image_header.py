"""What the header of an image file says, and reading with Pillow what OpenCV cannot read."""

from __future__ import annotations

import contextlib
import struct
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from utils.core.errors import InputError
from utils.core.jpeg import JpegHeader, read_header
from utils.core.packages import import_optional

MAX_PIXELS = 1 << 30  # the limit of OpenCV: 3 GB as uint8 BGR
_JPEG_HEADER = 1 << 16  # bytes within which most headers end
_NETPBM_HEADER, _MOST_CHUNKS = 1 << 14, 100_000  # bytes; parts of a PNG, which are of 8 kB or more
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_WIDTH, _TIFF_HEIGHT, _EXIF_ORIENTATION = 256, 257, 274
_ORIENTATIONS = range(1, 9)
_HEADER_ERRORS = (SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error)  # not of this format after all
# The readers of Pillow that may see a file; the others are for documents, fonts, games and the like.
_KINDS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "JPEG2000", "GIF", "BMP", "DIB", "PPM", "HEIF")
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


def _png_header(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """``size_and_orientation`` of a PNG: Pillow would decode the whole image to look for EXIF behind the pixels."""
    stream.seek(len(_PNG_MAGIC))
    hw, orientation, left = (0, 0), 1, _MOST_CHUNKS
    while len(start := stream.read(8)) == 8:
        left -= 1
        if left < 0:
            raise ValueError("a PNG of very many chunks")
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if hw == (0, 0) and kind != b"IHDR":
            break
        if hw == (0, 0):  # a later one counts for no decoder
            size = stream.read(8)
            hw = (int.from_bytes(size[4:], "big"), int.from_bytes(size[:4], "big"))
            length -= 8
        elif kind == b"eXIf":
            exif = Image.Exif()
            with contextlib.suppress(Exception):  # broken notes do not make an image unreadable
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
    """The EXIF orientation in the segments of a JPEG; None when it takes Pillow to find out."""
    if not jpeg.has_notes:
        return 1
    at = head.find(b"Exif\0\0")
    if at < 0 or b"tiff:Orientation" in head:  # XMP says it as well
        return None
    exif = Image.Exif()
    try:
        exif.load(head[at:])
        orientation = exif.get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow raises anything on broken notes
        return None
    return orientation if orientation in _ORIENTATIONS else 1


def size_and_orientation(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """(height, width) as stored and the EXIF orientation (1..8) of an image file, from the header alone.

    Pillow's readers raise anything from SyntaxError to struct.error on a broken file.
    """
    start = stream.read(len(_PNG_MAGIC))
    if start == _PNG_MAGIC:
        return _png_header(stream)
    if start.startswith(b"\xff\xd8"):
        head = start + stream.read(_JPEG_HEADER)
        jpeg = read_header(head)
        if jpeg is not None and (orientation := _jpeg_orientation(head[: jpeg.scan_at], jpeg)) is not None:
            return jpeg.hw, orientation  # a fraction of the time that Pillow takes
    stream.seek(0)
    if start[:1] == b"P":  # Netpbm: Pillow reads its header byte by byte, however long a note in it is
        stream = BytesIO(stream.read(_NETPBM_HEADER))
    with open_with_pillow(stream) as image:
        orientation = 1
        with contextlib.suppress(Exception):  # as above
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
        width, height = image.size
        # Pillow swaps the size of a turned TIFF, depending on its release; the tags never lie.
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
    """As ``Image.open``, but for a closed list of formats, and without its limit of pixels: ``MAX_PIXELS`` holds.

    That limit is a setting of the whole process, which is not ours to change.

    Raises:
        UnidentifiedImageError: none of the formats; anything else that Pillow raises on a broken file.
    """
    start = stream.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        import_optional("pillow_heif", "pillow-heif", "a HEIC image").register_heif_opener()
    Image.init()
    for kind in _KINDS:
        reader, accepts = Image.OPEN.get(kind, (None, None))
        if reader is None or accepts is None or accepts(start) is not True:
            continue
        stream.seek(0)
        with contextlib.suppress(*_HEADER_ERRORS):
            return reader(stream, "")
    raise UnidentifiedImageError("not an image of a known format")


def decode_with_pillow(content: bytes) -> np.ndarray:
    """The bytes of an image file, which OpenCV could not read, as uint8 or uint16 [H, W, 3] BGR, turned upright.

    Of a file with several images it is the first. Raises InputError for pixels that are floats or have 32 bits, and
    what Pillow raises on a broken file.
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
