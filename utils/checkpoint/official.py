"""Official YOLOv5 weights: their addresses, and the checksums that are known."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from utils.core.downloads import download
from utils.core.errors import InputError, suggestion

LOG = logging.getLogger(__name__)
RELEASES = "https://github.com/ultralytics/yolov5/releases/download"
# Name -> release and SHA-256 of the files that were at hand. Release v6.1 has the others, whose checksums are not
# known.
CHECKSUMS = {"yolov5n.pt": ("v6.0", "edd2e5cc4e3caa4b508168b51d9dc529da58b37813e0d2c8b49aba06aa3472dc")}
_OFFICIAL = re.compile(r"yolov5[nsmlx]6?\.pt")
_MOST_BYTES = 10**9


def official_address(name: str) -> tuple[str, str]:
    """Address and SHA-256 of an official file; "" for what is not known."""
    if not _OFFICIAL.fullmatch(name):
        return "", ""
    release, checksum = CHECKSUMS.get(name, ("v6.1", ""))
    return f"{RELEASES}/{release}/{name}", checksum


def describe_missing(weights: str | Path) -> str:
    """The message for a model file that does not exist; for an official one with the place where it is.

    For another name the closest of the checkpoints in the same folder is suggested.
    """
    path = Path(weights)
    address, checksum = official_address(path.name)
    cure = "nothing is downloaded"
    if not address:
        cure += suggestion(path.name, [file.name for file in path.parent.glob("*.pt")])
    if checksum:
        cure = f"--download fetches {address} (SHA-256 {checksum})"
    elif address:
        cure = f"download it yourself from {address}; no checksum of it is known, so --download does not fetch it"
    return f"--weights {path}: no such file ({path.absolute()}); {cure}"


def fetch_official(weights: Iterable[str], wanted: bool = True) -> None:
    """Download the official files among ``weights`` that are missing, each completely or not at all.

    Args:
        weights: paths of model files; those that are there, or are not official, are passed over.
        wanted: value of ``--download``; nothing happens without it.

    Raises:
        InputError: no network, the content is not that of the checksum, or no checksum of the file is known.
    """
    for path in map(Path, weights if wanted else ()):
        address, checksum = official_address(path.name)
        if not address or path.exists():
            continue
        if not checksum:  # whether to use a file that nothing can be compared with is for the user to decide
            raise InputError(describe_missing(path))
        LOG.info("%s: fetching %s", path, address)
        download(address, path, checksum, progress=True, max_bytes=_MOST_BYTES)
