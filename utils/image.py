"""One picture: reading, writing, its size, the letterbox, and the one place where bytes become network input."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from utils.boxes import Array, unscale_coords
from utils.errors import InputError
from utils.files import write_atomic
from utils.jpeg import JpegHeader, decode_jpeg, read_header, upper_rows

_COMMENT = b"\xff\xfe"  # the JPEG marker
# EXIF orientation -> (swap the axes first, then flip around: 0 the horizontal axis, 1 the vertical one, -1 both)
_UPRIGHT: dict[int, tuple[bool, int | None]] = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}
_TIFF_MAGIC = (b"II*\0", b"MM\0*")
_JPEG_HEADER = 1 << 16  # bytes within which most headers end
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_TIFF_WIDTH, _TIFF_HEIGHT, _EXIF_ORIENTATION = 256, 257, 274
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_LEAST_CUT = 64  # two rows of the largest blocks: a decoder reads ahead and must not meet the end of the bytes
_OVERSHOOT = 1e-3  # by which rounding may leave a range of floats
_SPARE_ROWS = 16  # decoded below the rows that are wanted: the last ones of a cut picture are not exact


@dataclass(frozen=True)
class LetterboxInfo:
    """How a picture was placed on a canvas: ``canvas = original * ratio + pad`` on each axis.

    Attributes:
        original_hw: height and width of the picture in pixels.
        ratio_wh: scale along width and height.
        pad_wh: pixels added at the left and at the top (half of the total, so it may end in .5).
    """

    original_hw: tuple[int, int]
    ratio_wh: tuple[float, float]
    pad_wh: tuple[float, float]

    def undo(self, boxes_xyxy: Array) -> Array:
        """Corners [..., 4+] on the canvas back to the original picture, clipped to it; further columns pass through."""
        return unscale_coords(boxes_xyxy, self.ratio_wh, self.pad_wh, self.original_hw)


@dataclass(frozen=True)
class _Placement:
    """What a letterbox will do: resize to ``size_wh``, then add half of ``margin_wh`` on either side."""

    size_wh: tuple[int, int]
    margin_wh: tuple[int, int]
    ratio_wh: tuple[float, float]


def _place(
    hw: tuple[int, int], canvas_hw: tuple[int, int], auto: bool, fill: bool, up: bool, stride: int
) -> _Placement:
    (height, width), (canvas_h, canvas_w) = hw, canvas_hw
    if fill and not auto:
        return _Placement((canvas_w, canvas_h), (0, 0), (canvas_w / width, canvas_h / height))
    ratio = min(canvas_h / height, canvas_w / width)
    if not up:
        ratio = min(ratio, 1.0)
    # A very thin picture would otherwise round to no pixels at all.
    size_w, size_h = max(round(width * ratio), 1), max(round(height * ratio), 1)
    margin_w, margin_h = canvas_w - size_w, canvas_h - size_h
    if auto:
        margin_w, margin_h = margin_w % stride, margin_h % stride
    return _Placement((size_w, size_h), (margin_w, margin_h), (ratio, ratio))


def letterbox(
    image: np.ndarray,
    new_shape: int | Sequence[int] = (640, 640),
    color: tuple[int, int, int] = (114, 114, 114),
    auto: bool = True,
    scaleFill: bool = False,
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Fit a picture [H, W, C] into a canvas without changing its proportions, the rest filled with ``color``.

    Args:
        image: uint8, any channel order.
        new_shape: side, or (height, width), of the canvas.
        color: fill value of each channel.
        auto: keep only as much margin as makes both sides multiples of ``stride`` (given a canvas that is one).
        scaleFill: stretch to the whole canvas instead; no effect together with ``auto``, as in v6.1.
        scaleup: allow enlarging; False keeps small pictures at their size.
        stride: see ``auto``.

    Returns:
        The new picture, its scale (width, height) and the margin at (left, top); an odd margin is split with the
        larger half at the right and bottom, and reported as its half (10.5).
    """
    canvas_hw = (new_shape, new_shape) if isinstance(new_shape, int) else (new_shape[0], new_shape[1])
    plan = _place((image.shape[0], image.shape[1]), canvas_hw, auto, scaleFill, scaleup, stride)
    (width, height), (margin_w, margin_h) = plan.size_wh, plan.margin_wh
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    if margin_w or margin_h:
        left, top = margin_w // 2, margin_h // 2
        edges = (top, margin_h - top, left, margin_w - left)
        image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=color)
    return image, plan.ratio_wh, (margin_w / 2, margin_h / 2)


def _png_header(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """What ``_header`` returns, for a PNG: Pillow would decode the whole picture to look for EXIF behind the pixels."""
    stream.seek(len(_PNG_MAGIC))
    hw, orientation = (0, 0), 1
    while len(start := stream.read(8)) == 8:
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if kind == b"IHDR":
            size = stream.read(8)
            hw = (int.from_bytes(size[4:], "big"), int.from_bytes(size[:4], "big"))
            length -= 8
        elif kind == b"eXIf":
            exif = Image.Exif()
            with contextlib.suppress(Exception):  # broken notes do not make a picture unreadable
                exif.load(stream.read(length))
                orientation = exif.get(_EXIF_ORIENTATION, 1)
            length = 0
        elif kind == b"IEND":
            break
        stream.seek(length + 4, 1)  # each chunk ends with a checksum
    if min(hw) < 1:
        raise ValueError("a PNG without a size")
    return hw, orientation if orientation in _UPRIGHT else 1


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
    return orientation if orientation in _UPRIGHT else 1


def _header(stream: IO[bytes]) -> tuple[tuple[int, int], int]:
    """(height, width) as stored and the EXIF orientation (1..8), from the header alone."""
    start = stream.read(len(_PNG_MAGIC))
    if start == _PNG_MAGIC:
        return _png_header(stream)
    if start.startswith(b"\xff\xd8"):
        head = start + stream.read(_JPEG_HEADER)
        jpeg = read_header(head)
        if jpeg is not None and (orientation := _jpeg_orientation(head[: jpeg.scan_at], jpeg)) is not None:
            return jpeg.hw, orientation  # a fraction of the time that Pillow takes
    stream.seek(0)
    with Image.open(stream) as picture:
        orientation = 1
        with contextlib.suppress(Exception):  # as above
            orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
        width, height = picture.size
        # Pillow swaps the size of a turned TIFF, depending on its release; the tags never lie.
        tags = getattr(picture, "tag_v2", {})
        stored = (int(tags.get(_TIFF_HEIGHT, height)), int(tags.get(_TIFF_WIDTH, width)))
        return stored, orientation if orientation in _UPRIGHT else 1


def stream_size(stream: IO[bytes], name: str | Path) -> tuple[int, int]:
    """(height, width) of a picture file as ``read_image`` will return it, without decoding it; ``name`` for messages.

    Raises:
        InputError: the stream holds no picture.
    """
    try:
        (height, width), orientation = _header(stream)
    except Exception as error:  # Pillow's readers raise anything from SyntaxError to struct.error on a broken file
        detail = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"  # the former names a Python object
        raise InputError(f"{name}: not a readable image{detail}") from error
    swapped, _ = _UPRIGHT.get(orientation, (False, None))
    return (width, height) if swapped else (height, width)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of a picture as ``read_image`` will return it, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no picture.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return stream_size(stream, path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def _orientation(content: bytes, jpeg: JpegHeader | None) -> int:
    """The EXIF orientation; applied here because which formats OpenCV does it for depends on its release."""
    if content.startswith(_TIFF_MAGIC) or (jpeg is not None and not jpeg.has_notes):
        return 1  # TIFF is the one format that OpenCV always turns
    try:
        return _header(BytesIO(content))[1]
    except Exception:  # OpenCV could read it, so a header that Pillow cannot read only means no known orientation
        return 1


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    swap, flip = _UPRIGHT.get(orientation, (False, None))
    if swap:
        image = cv2.transpose(image)
    return image if flip is None else cv2.flip(image, flip)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb", buffering=0) as stream:
            return stream.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _decode(path: Path, content: bytes) -> np.ndarray:
    """The picture as stored, as uint8 [H, W, 3]."""
    try:
        # From bytes, not by name: OpenCV's own file access fails on non-ASCII names on Windows.
        image = cv2.imdecode(np.frombuffer(content, np.uint8), _AS_STORED)
    except cv2.error as error:  # an empty buffer, or dimensions beyond OpenCV's limits
        raise InputError(f"{path}: not a readable image ({error.err or 'empty file'})") from error
    if image is None:
        raise InputError(
            f"{path}: not a readable image; expected jpg, png, bmp, tif, webp ... of 8 or 16 bits a channel"
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels are {image.dtype}, expected 8 or 16 bits; convert the image first")
    return to_uint8(image, path)


def to_uint8(pixels: np.ndarray, name: str | Path) -> np.ndarray:
    """Pixel values of any type as uint8 of the same shape; ``name`` is for messages.

    8-bit values stay, 16-bit ones are divided by 257 and rounded, booleans become 0 and 255. Other types have no
    range of their own, so the largest value decides: floats up to 1 are multiplied by 255, values up to 255 stay, those
    up to 65535 are 16-bit ones.

    Raises:
        InputError: values outside 0..65535, not finite, or not numbers.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # of either byte order
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if pixels.dtype.kind not in "iuf":
        raise InputError(f"{name}: pixels are {pixels.dtype}, expected numbers from 0 to 255, 0 to 65535 or 0 to 1")
    if not pixels.size:
        return pixels.astype(np.uint8)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -_OVERSHOOT and high <= 65535):  # also true of NaN
        raise InputError(
            f"{name}: pixels are {pixels.dtype} from {low:g} to {high:g}, expected 0 to 255, 0 to 65535 or 0 to 1"
        )
    if high > 255:
        return to_uint8(np.rint(np.clip(pixels, 0, None)).astype(np.uint16), name)
    factor = 255.0 if pixels.dtype.kind == "f" and high <= 1 + _OVERSHOOT else 1.0
    return np.rint(np.clip(pixels.astype(np.float64) * factor, 0, 255)).astype(np.uint8)


def read_image(path: str | Path) -> np.ndarray:
    """A picture as uint8 BGR [H, W, 3], turned upright by its EXIF orientation.

    Grey becomes three equal channels, transparency is dropped. 16-bit values are divided by 257 and rounded, so that
    the whole range 0..65535 becomes 0..255. Other depths (32-bit, float) have no natural range and are refused.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be decoded, or has another depth than 8 or 16 bits.
    """
    path = Path(path)
    return decode_image(_content(path), path)


def decode_image(content: bytes, name: str | Path) -> np.ndarray:
    """The bytes of a picture file as ``read_image`` would return it; ``name`` is for messages.

    Raises:
        InputError: as ``read_image``.
    """
    return _turn_upright(_decode(Path(name), content), _orientation(content, read_header(content)))


def read_image_for(
    path: str | Path, size_hw: tuple[int, int], rows: float = 1.0
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """A picture as ``read_image`` gives it, but only as much of it as needed.

    A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is not below ``size_hw``, and decoding may
    end below the share ``rows`` of its height: then the array has fewer rows. Other formats are decoded in full.

    Returns:
        The array, the (height, width) it has when no row is missing, and the full (height, width) of the picture.

    Raises:
        FileNotFoundError, InputError: as ``read_image``.
    """
    path = Path(path)
    content = _content(path)
    jpeg = read_header(content)
    turn = _orientation(content, jpeg)
    swapped, _ = _UPRIGHT.get(turn, (False, None))
    image, whole_hw, full_hw = None, (0, 0), (0, 0)
    if jpeg is not None:
        full_hw, target = jpeg.hw, size_hw[::-1] if swapped else size_hw
        sizes = {d: (-(-full_hw[0] // d), -(-full_hw[1] // d)) for d in (8, 4, 2, 1)}  # rounded up
        divisor = next((d for d, hw in sizes.items() if hw[0] >= target[0] and hw[1] >= target[1]), 1)
        wanted = math.ceil(rows * full_hw[0]) + _SPARE_ROWS * divisor
        whole_hw = sizes[divisor]
        if jpeg.cuttable and turn == 1 and wanted <= full_hw[0] - _LEAST_CUT:
            image = decode_jpeg(upper_rows(content, jpeg, wanted), divisor)
        if image is None:
            image = decode_jpeg(np.frombuffer(content, np.uint8), divisor)
    if image is None:
        image = _decode(path, content)
        whole_hw = full_hw = (image.shape[0], image.shape[1])
    image = _turn_upright(image, turn)
    return (image, whole_hw[::-1], full_hw[::-1]) if swapped else (image, whole_hw, full_hw)


def write_image(path: str | Path, image: np.ndarray, comment: bytes = b"") -> None:
    """Write a BGR or grey uint8 picture in the format that the suffix of ``path`` names.

    The file appears whole or not at all. ``comment``, at most 65,533 bytes, goes into the header of a JPEG.

    Raises:
        InputError: OpenCV knows no such suffix or cannot store this array in it.
    """
    path = Path(path)
    try:
        done, encoded = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise InputError(f"{path}: cannot write an image of shape {image.shape} as '{path.suffix}'") from error
    if not done:
        raise InputError(f"{path}: cannot write an image of shape {image.shape} as '{path.suffix}'")
    content = encoded.tobytes()
    if comment:  # behind the two bytes that every JPEG begins with
        content = content[:2] + _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment + content[2:]
    write_atomic(path, content, durable=False)


def jpeg_comment(path: Path) -> bytes:
    """The comment that :func:`write_image` put into a JPEG, b"" where there is none."""
    with path.open("rb") as stream:
        head = stream.read(6)
        return stream.read(int.from_bytes(head[4:], "big") - 2) if head[2:4] == _COMMENT and len(head) == 6 else b""


def to_model_input(
    images: torch.Tensor,
    device: torch.device | str,
    half: bool = False,
    layout: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """Bytes [B, 3, H, W] to the floats 0..1 that the model expects, on ``device``, in that memory layout.

    The copy goes over as bytes, a quarter of what floats would take. Raises TypeError if ``images`` is not uint8.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"expected uint8 images, got {images.dtype}: were they already divided by 255?")
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float16 if half else torch.float32, memory_format=layout).div_(255)
