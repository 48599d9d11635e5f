"""Files, folders and downloads under the calls of v6.1."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from utils.checkpoint.format import strip_checkpoint
from utils.compat.general.logger import LOGGER
from utils.core.downloads import Remote
from utils.core.files import increment_path as _increment_path
from utils.datasets.fetch import fetch


def increment_path(path: str | Path, exist_ok: bool = False, sep: str = "", mkdir: bool = False) -> Path:
    """``runs/exp``, then ``runs/exp2``, ``runs/exp3`` ...; see :func:`utils.core.files.increment_path`."""
    return _increment_path(path, exist_ok, mkdir, sep=sep)


def get_latest_run(search_dir: str | Path = ".") -> str:
    """The newest ``last*.pt`` at any depth of a folder, "" when there is none."""
    found = sorted(Path(search_dir).rglob("last*.pt"), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else ""


def download(
    url: str | Iterable[str],
    dir: str | Path = ".",
    unzip: bool = True,
    delete: bool = True,
    curl: bool = False,
    threads: int = 1,
) -> None:
    """Fetch a file, or several, into a folder and unpack archives there, nothing that is there being replaced.

    An archive is kept only when it is not unpacked; ``delete``, ``curl`` and ``threads`` have no effect.
    """
    for address in [url] if isinstance(url, str) else url:
        fetch(Remote(address), Path(dir), unpack_archive=unzip)


def strip_optimizer(f: str | Path = "best.pt", s: str | Path = "") -> None:
    """Reduce a checkpoint to what is needed for use, in place or as a new file ``s``."""
    if s:
        shutil.copyfile(f, s)
    LOGGER.info("%s: stripped to %.1f MB", s or f, strip_checkpoint(Path(s or f)))


def file_size(path: str | Path) -> float:
    """Megabytes (of 1,000,000 bytes) of a file or of everything below a folder; 0 for what is not there."""
    place = Path(path)
    files = [place] if place.is_file() else [found for found in place.rglob("*") if found.is_file()]
    return sum(found.stat().st_size for found in files) / 1e6


def url2file(url: str) -> str:
    """The name of the file that an address leads to, without query: ``https://host/a%20b.txt?c`` -> ``a b.txt``."""
    return Path(unquote(urlsplit(str(url)).path)).name
