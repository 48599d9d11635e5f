"""One image: reading, writing, its size, the letterbox, and the one place where bytes become network input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO

import cv2
import numpy as np
import torch
from PIL import UnidentifiedImageError

from utils.core.boxes import Array, unscale_coords
from utils.core.errors import InputError, first_line
from utils.core.files import open_regular, write_atomic
from utils.core.image_header import (
    PNG_MAGIC,
    JpegHeader,
    check_size,
    decode_with_pillow,
    read_jpeg_header,
    size_and_orientation,
)

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
_AS_STORED = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED = {  # by the divisor of both sides
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_ROUNDING = 1e-3  # by which rounding may leave a range of floats
_ROWS = 256  # rescaled at a time


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


def letterbox(
    image: np.ndarray,
    new_shape: int | Sequence[int] = (640, 640),
    color: tuple[int, int, int] = (114, 114, 114),
    auto: bool = True,
    scaleFill: bool = False,
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Resize an image [H, W, C] to fit into a canvas, keeping its aspect ratio, and pad the rest with ``color``.

    Args:
        image: uint8, any channel order.
        new_shape: side, or (height, width), of the canvas.
        color: fill value of each channel.
        auto: pad only as much as makes both sides multiples of ``stride`` (given a canvas that is one).
        scaleFill: stretch to the whole canvas instead; no effect together with ``auto``, as in v6.1.
        scaleup: allow enlarging; False keeps small images at their size.
        stride: see ``auto``.

    Returns:
        The new image, its scale (width, height) and the padding at (left, top). The larger half of an odd padding is
        at the right and bottom; the returned value is the exact half (10.5).
    """
    canvas_h, canvas_w = (new_shape, new_shape) if isinstance(new_shape, int) else (new_shape[0], new_shape[1])
    height, width = image.shape[:2]
    if scaleFill and not auto:
        new_h, new_w, ratio_wh = canvas_h, canvas_w, (canvas_w / width, canvas_h / height)
    else:
        ratio = min(canvas_h / height, canvas_w / width)
        ratio = ratio if scaleup else min(ratio, 1.0)
        # A very thin image would otherwise round to no pixels at all.
        new_h, new_w, ratio_wh = max(round(height * ratio), 1), max(round(width * ratio), 1), (ratio, ratio)
    pad_h, pad_w = canvas_h - new_h, canvas_w - new_w
    if auto:
        pad_h, pad_w = pad_h % stride, pad_w % stride
    if (height, width) != (new_h, new_w):
        image = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    if pad_h or pad_w:
        top, left = pad_h // 2, pad_w // 2
        edges = (top, pad_h - top, left, pad_w - left)
        image = cv2.copyMakeBorder(image, *edges, cv2.BORDER_CONSTANT, value=color)
    return image, ratio_wh, (pad_w / 2, pad_h / 2)


# Reading --------------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open an image file; what the system refuses becomes one line about the image."""
    try:
        with open_regular(path) as stream:
            yield stream
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such image") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def image_hw(path: str | Path) -> tuple[int, int]:
    """Read (height, width) of an image as ``read_image`` will return it, without decoding it.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: the file is no image.
    """
    with _opened(Path(path)) as stream:
        return stream_hw(stream, path)


def stream_hw(stream: IO[bytes], name: str | Path) -> tuple[int, int]:
    """Read (height, width) of an image file as ``read_image`` will return it; ``name`` is for messages.

    From the header, except for the rare formats whose header Pillow does not know.

    Raises:
        InputError: the stream holds no image, or one too large to be decoded.
    """
    try:
        hw, orientation = size_and_orientation(stream)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Exception:  # Pillow does not know everything that OpenCV reads
        stream.seek(0)
        image = decode_image(stream.read(), name)
        return image.shape[0], image.shape[1]
    check_size(hw, name)
    return _upright_hw(hw, orientation)


def _upright_hw(hw: tuple[int, int], orientation: int) -> tuple[int, int]:
    return hw[::-1] if _UPRIGHT.get(orientation, (False, None))[0] else hw


def _turn_upright(image: np.ndarray, orientation: int) -> np.ndarray:
    swap, flip = _UPRIGHT.get(orientation, (False, None))
    if swap:
        image = cv2.transpose(image)
    return image if flip is None else cv2.flip(image, flip)


def _checked_orientation(content: bytes, jpeg: JpegHeader | None, name: str | Path) -> int:
    """Return the EXIF orientation to apply. OpenCV applies it itself for some formats, depending on its release.

    Raises:
        InputError: the image is too large to be decoded.
    """
    hw, orientation = (0, 0), 1
    if jpeg is not None and not jpeg.has_metadata:
        hw = jpeg.hw
    else:
        with suppress(Exception):  # OpenCV may read what Pillow cannot, by its own limit of size
            hw, orientation = size_and_orientation(BytesIO(content))
    check_size(hw, name)
    return 1 if content.startswith(_TIFF_MAGIC) else orientation  # TIFF is the one format that OpenCV always turns


def _is_complete(content: bytes, jpeg: JpegHeader | None) -> bool:
    """Whether a JPEG or PNG has its end marker: some releases of OpenCV fill in grey pixels for what is cut off."""
    if jpeg is not None:
        return content.rfind(b"\xff\xd9", jpeg.scan_at) >= 0
    return not content.startswith(PNG_MAGIC) or content.rfind(b"IEND") >= 0


@lru_cache(maxsize=1)
def _silence_opencv() -> None:
    """Turn off messages of OpenCV from the first image on: the caller reports what is wrong.

    The level belongs to the process: threads that set it and restore it could leave any level.
    """
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _decode_with_opencv(content: bytes, flags: int) -> np.ndarray | None:
    """Decode to the image as stored [H, W, 3]; None if OpenCV cannot read it."""
    _silence_opencv()
    try:
        # From bytes, not by name: OpenCV's own file access fails on non-ASCII names on Windows.
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:  # an empty buffer, or a broken file
        return None


def _decode_whole(content: bytes, jpeg: JpegHeader | None, orientation: int, name: str | Path) -> np.ndarray:
    """Decode an image whose header and orientation are known, by OpenCV or else by Pillow."""
    image = _decode_with_opencv(content, _AS_STORED) if _is_complete(content, jpeg) else None
    if image is not None:
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{name}: pixels are {image.dtype}, expected 8 or 16 bits; convert the image first")
        return _turn_upright(to_uint8(image, name), orientation)
    try:
        return to_uint8(decode_with_pillow(content), name)
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
    if not (low >= -_ROUNDING and high <= 65535):  # also true of NaN
        raise InputError(
            f"{name}: pixels are {pixels.dtype} from {low:g} to {high:g}, expected 0 to 255, 0 to 65535 or 0 to 1"
        )
    if high > 255:
        return to_uint8(np.rint(np.clip(pixels, 0, None)).astype(np.uint16), name)
    factor = 255.0 if pixels.dtype.kind == "f" and high <= 1 + _ROUNDING else 1.0
    return np.rint(np.clip(pixels.astype(np.float64) * factor, 0, 255)).astype(np.uint8)


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as uint8 BGR [H, W, 3], turned upright by its EXIF orientation.

    Grey becomes three equal channels, transparency is dropped. 16-bit values are divided by 257 and rounded, so that
    the whole range 0..65535 becomes 0..255. Other depths (32-bit, float) have no natural range and are refused.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be decoded, is cut off, has another depth than 8 or 16 bits, or more than
            ``utils.core.image_header.MAX_PIXELS``.
    """
    path = Path(path)
    with _opened(path) as stream:
        content = stream.read()
    return decode_image(content, path)


def decode_image(content: bytes, name: str | Path) -> np.ndarray:
    """Decode the bytes of an image file as ``read_image`` does; ``name`` is for messages.

    All commands read images through this function, so they accept the same files.

    Raises:
        InputError: as ``read_image``.
    """
    jpeg = read_jpeg_header(content)
    return _decode_whole(content, jpeg, _checked_orientation(content, jpeg, name), name)


def read_image_reduced(path: str | Path, least_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image as ``read_image`` does, but a JPEG at reduced size where that is enough.

    Args:
        path: the file.
        least_hw: the height and width that are needed.

    Returns:
        The image, a JPEG at the smallest of 1, 1/2, 1/4 and 1/8 of its size (rounded up) that is not below
        ``least_hw``, and the full (height, width) of the file.

    Raises:
        FileNotFoundError, InputError: as ``read_image``.
    """
    path = Path(path)
    with _opened(path) as stream:
        content = stream.read()
    jpeg = read_jpeg_header(content)
    orientation = _checked_orientation(content, jpeg, path)
    if jpeg is not None and _is_complete(content, jpeg):
        full_hw = _upright_hw(jpeg.hw, orientation)
        divisor = next((d for d in (8, 4, 2) if all(-(-side // d) >= n for side, n in zip(full_hw, least_hw))), 1)
        image = _decode_with_opencv(content, _REDUCED[divisor] | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None:
            return _turn_upright(image, orientation), full_hw
    image = _decode_whole(content, jpeg, orientation, path)
    return image, (image.shape[0], image.shape[1])


# Writing, and network input -------------------------------------------------------------------------------------------


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
