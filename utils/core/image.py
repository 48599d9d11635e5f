"""One image: reading, writing, its size, the letterbox, and the one place where bytes become network input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO

import cv2
import numpy as np
import torch
from PIL import UnidentifiedImageError

from utils.core.boxes import Array, unscale_coords
from utils.core.errors import InputError, first_line
from utils.core.files import open_regular, write_atomic
from utils.core.image_header import check_size, decode_with_pillow, size_and_orientation
from utils.core.jpeg import JpegHeader, decode_jpeg, read_header, upper_rows

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
_PNG_MAGIC = b"\x89PNG"
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_LEAST_CUT = 64  # two rows of the largest blocks: a decoder reads ahead and must not meet the end of the bytes
_OVERSHOOT = 1e-3  # by which rounding may leave a range of floats
_ROWS = 256  # rescaled at once
_SPARE_ROWS = 16  # decoded below the rows that are wanted: the last ones of a cut image are not exact


@dataclass(frozen=True)
class LetterboxInfo:
    """How an image was placed on a canvas: ``canvas = original * ratio + pad`` on each axis.

    Attributes:
        original_hw: height and width of the image in pixels.
        ratio_wh: scale along width and height.
        pad_wh: pixels added at the left and at the top (half of the total, so it may end in .5).
    """

    original_hw: tuple[int, int]
    ratio_wh: tuple[float, float]
    pad_wh: tuple[float, float]

    def undo(self, boxes_xyxy: Array) -> Array:
        """Corners [..., 4+] on the canvas back to the original image, clipped to it; further columns pass through."""
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
    # A very thin image would otherwise round to no pixels at all.
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
    """Fit an image [H, W, C] into a canvas without changing its proportions, the rest filled with ``color``.

    Args:
        image: uint8, any channel order.
        new_shape: side, or (height, width), of the canvas.
        color: fill value of each channel.
        auto: keep only as much margin as makes both sides multiples of ``stride`` (given a canvas that is one).
        scaleFill: stretch to the whole canvas instead; no effect together with ``auto``, as in v6.1.
        scaleup: allow enlarging; False keeps small images at their size.
        stride: see ``auto``.

    Returns:
        The new image, its scale (width, height) and the margin at (left, top); an odd margin is split with the
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


def stream_size(stream: IO[bytes], name: str | Path) -> tuple[int, int]:
    """(height, width) of an image file as ``read_image`` will return it; ``name`` for messages.

    From the header, but for the rare kinds whose header is not understood.

    Raises:
        InputError: the stream holds no image, or one too large to be decoded.
    """
    try:
        (height, width), orientation = size_and_orientation(stream)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception:  # Pillow does not know everything that OpenCV reads
        stream.seek(0)
        image = decode_image(stream.read(), name)
        return image.shape[0], image.shape[1]
    check_size((height, width), name)
    swapped, _ = _UPRIGHT.get(orientation, (False, None))
    return (width, height) if swapped else (height, width)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as ``read_image`` will return it, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no image.
    """
    path = Path(path)
    try:
        with open_regular(path) as stream:
            return stream_size(stream, path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def _checked_orientation(content: bytes, jpeg: JpegHeader | None, name: str | Path) -> int:
    """The EXIF orientation; applied here because which formats OpenCV does it for depends on its release.

    Raises:
        InputError: an image that is too large to be decoded.
    """
    hw, orientation = (0, 0), 1
    if jpeg is not None and not jpeg.has_notes:
        hw = jpeg.hw
    else:
        with suppress(Exception):  # OpenCV may read what Pillow cannot, by its own limit of size
            hw, orientation = size_and_orientation(BytesIO(content))
    check_size(hw, name)
    return 1 if content.startswith(_TIFF_MAGIC) else orientation  # TIFF is the one format that OpenCV always turns


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    swap, flip = _UPRIGHT.get(orientation, (False, None))
    if swap:
        image = cv2.transpose(image)
    return image if flip is None else cv2.flip(image, flip)


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _ends(content: bytes, jpeg: JpegHeader | None) -> bool:
    """Whether a JPEG or PNG has its end: in place of what is cut off, some releases of OpenCV put grey pixels."""
    if jpeg is not None:
        return content.rfind(b"\xff\xd9", jpeg.scan_at) >= 0
    return not content.startswith(_PNG_MAGIC) or content.rfind(b"IEND") >= 0


@lru_cache(maxsize=1)
def _silence_opencv() -> None:
    """Let OpenCV write nothing of its own from the first image on: the caller reports what is wrong.

    Its level is that of the process, so threads that set it and put it back could leave any.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _decode(content: bytes, jpeg: JpegHeader | None) -> np.ndarray | None:
    """The image as stored [H, W, 3], of the depth it has, by OpenCV; None if that cannot read it."""
    _silence_opencv()
    try:
        # From bytes, not by name: OpenCV's own file access fails on non-ASCII names on Windows.
        return cv2.imdecode(np.frombuffer(content, np.uint8), _AS_STORED) if _ends(content, jpeg) else None
    except cv2.error:  # an empty buffer, or a broken file
        return None


def _decode_otherwise(content: bytes, name: str | Path) -> np.ndarray:
    """By Pillow what OpenCV could not read: uint8 or uint16 [H, W, 3], upright."""
    try:
        return decode_with_pillow(content)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except UnidentifiedImageError:
        raise InputError(
            f"{name}: not a readable image; expected jpg, png, bmp, tif, webp ... of 8 or 16 bits a channel"
        ) from None
    except Exception as error:  # Pillow's readers raise anything on a broken file
        raise InputError(f"{name}: not a readable image ({first_line(error)})") from error


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
        scaled = np.empty(pixels.shape, np.uint8)
        for start in range(0, len(pixels), _ROWS):  # in parts, because a whole large image would take 6 times its size
            scaled[start : start + _ROWS] = (pixels[start : start + _ROWS].astype(np.uint32) + 128) // 257
        return scaled
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
    """An image as uint8 BGR [H, W, 3], turned upright by its EXIF orientation.

    Grey becomes three equal channels, transparency is dropped. 16-bit values are divided by 257 and rounded, so that
    the whole range 0..65535 becomes 0..255. Other depths (32-bit, float) have no natural range and are refused.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be decoded, is cut off, has another depth than 8 or 16 bits, or more than
            ``utils.core.image_header.MAX_PIXELS``.
    """
    path = Path(path)
    return decode_image(_content(path), path)


def decode_image(content: bytes, name: str | Path) -> np.ndarray:
    """The bytes of an image file as ``read_image`` would return it; ``name`` is for messages.

    This decides for all commands which files can be read.

    Raises:
        InputError: as ``read_image``.
    """
    jpeg = read_header(content)
    return _decode_whole(content, jpeg, _checked_orientation(content, jpeg, name), name)


def _decode_whole(content: bytes, jpeg: JpegHeader | None, turn: int, name: str | Path) -> np.ndarray:
    """``decode_image`` once the header and its orientation ``turn`` are known."""
    image = _decode(content, jpeg)
    if image is None:
        return to_uint8(_decode_otherwise(content, name), name)
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name}: pixels are {image.dtype}, expected 8 or 16 bits; convert the image first")
    return _turn_upright(to_uint8(image, name), turn)


def read_image_for(
    path: str | Path, size_hw: tuple[int, int], rows: float = 1.0
) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """An image as ``read_image`` gives it, but only as much of it as needed.

    A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size that is not below ``size_hw``, and decoding may
    end below the share ``rows`` of its height: then the array has fewer rows. Other formats are decoded in full.

    Returns:
        The array, the (height, width) it has when no row is missing, and the full (height, width) of the image.

    Raises:
        FileNotFoundError, InputError: as ``read_image``.
    """
    path = Path(path)
    content = _content(path)
    jpeg = read_header(content)
    turn = _checked_orientation(content, jpeg, path)
    swapped, _ = _UPRIGHT.get(turn, (False, None))
    image, whole_hw, full_hw = None, (0, 0), (0, 0)
    if jpeg is not None and _ends(content, jpeg):
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
        image = _decode_whole(content, jpeg, turn, path)
        hw = (image.shape[0], image.shape[1])
        return image, hw, hw
    image = _turn_upright(image, turn)
    return (image, whole_hw[::-1], full_hw[::-1]) if swapped else (image, whole_hw, full_hw)


def write_image(path: str | Path, image: np.ndarray, comment: bytes = b"") -> None:
    """Write a BGR or grey uint8 image in the format that the suffix of ``path`` names.

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
    with open_regular(path) as stream:
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
