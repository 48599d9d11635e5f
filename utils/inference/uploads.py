"""Files that come over a network: looked at before they are decoded, because anybody may have sent them."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from utils.core.errors import InputError
from utils.core.image import decode_image
from utils.core.image_header import size_and_orientation

VIDEO_HEAD = 200  # bytes of a file that ``looks_like_video`` wants to see
_TS_PACKET = 188


class UploadTooLargeError(InputError):
    """More bytes, pixels or frames than are allowed."""


def decode_upload(content: bytes, max_pixels: int) -> np.ndarray:
    """The bytes of an image file as HWC BGR uint8, as ``utils.core.image.read_image`` would return the file.

    The header is read first: a small file cannot become a huge image.

    Raises:
        UploadTooLargeError: more than ``max_pixels``.
        InputError: no image, or a broken one.
    """
    try:
        (height, width), _ = size_and_orientation(BytesIO(content))
    except Exception as error:  # a header that is not understood; to decode it nevertheless could take any memory
        raise InputError("this is no image: a JPEG, PNG, WebP, BMP or TIFF file is expected") from error
    if height * width > max_pixels:
        raise UploadTooLargeError(f"the image has {width} x {height} pixels, allowed are {max_pixels} in all")
    try:
        return decode_image(content, "upload")
    except InputError as error:
        raise InputError("the image cannot be decoded: it is cut off, damaged or of an unusual kind") from error


def looks_like_video(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a container with the images inside.

    Only such a file may be handed to a video library. Playlists are text, and would make the library open whatever
    files and addresses they name.
    """
    known = (b"\x1aE\xdf\xa3", b"GIF8", b"\0\0\1\xba", b"\0\0\1\xb3", b"0&\xb2u\x8ef\xcf\x11", b"FLV\1")
    boxes = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")  # MP4 and QuickTime
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    stream = head[:1] == b"G" and head[_TS_PACKET : _TS_PACKET + 1] == b"G"  # MPEG transport stream
    return head.startswith(known) or head[4:8] in boxes or riff or stream
