"""Names of ``utils.downloads`` of YOLOv5 v6.1."""

from __future__ import annotations

from pathlib import Path

from utils.checkpoint.official import describe_missing
from utils.core.downloads import download
from utils.core.errors import InputError


def attempt_download(file: str | Path) -> str:
    """Return the path of a local file as text; quotes around the path are removed. Nothing is downloaded.

    Raises:
        FileNotFoundError: the file is missing.
    """
    path = Path(str(file).strip(" '\""))
    if path.is_file():
        return str(path)
    raise FileNotFoundError(describe_missing(path))


def safe_download(
    file: str | Path, url: str, url2: str | None = None, min_bytes: float = 1.0, error_msg: str = ""
) -> None:
    """Fetch ``url``, or ``url2`` if that fails, into ``file``, which is written completely or not at all.

    Raises:
        InputError: both fail, or the content is not larger than ``min_bytes``; ``error_msg`` is added to the message.
    """
    target, addresses = Path(file), [address for address in (url, url2) if address]
    for number, address in enumerate(addresses, 1):
        try:
            download(address, target)
            if target.stat().st_size <= min_bytes:
                target.unlink()
                raise InputError(f"{address}: the content is not larger than {min_bytes:g} bytes")
            return
        except InputError as error:
            if number == len(addresses):
                raise InputError(f"{error}{'; ' + error_msg if error_msg else ''}") from error
