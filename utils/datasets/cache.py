"""Storage for the result of a label scan: plain arrays and a JSON header in one npz archive, nothing executable."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import label_path_for, write_atomic

logger = logging.getLogger(__name__)

_HEADER = "header"


def cache_path_for(images: list[Path], cache_dir: Path | None = None) -> Path:
    """Return where the scan of ``images`` is kept: ``labels/train.cache`` for labels in ``labels/train``.

    ``cache_dir`` moves it elsewhere (read-only data), with a name that tells data sets with equal folders apart.
    """
    folder = label_path_for(images[0]).parent.absolute()
    if cache_dir is None:
        return folder.parent / f"{folder.name}.cache"
    tag = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    return cache_dir / f"{folder.name}-{tag}.cache"


def fingerprint(files: Iterable[Path], root: str, settings: str = "") -> str:
    """Return a hash over name (below ``root``), size and modification time of every file, present or not."""
    digest = hashlib.sha256(settings.encode())
    for file in files:
        try:
            stat = file.stat()
            state = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            state = "absent"
        digest.update(f"\n{str(file).removeprefix(root)}\t{state}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def load_cache(path: Path, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Return the arrays and the header stored under ``key``, or None when there is nothing usable."""
    if not path.is_file():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            header = json.loads(archive[_HEADER].tobytes())
            if header["key"] != key:
                logger.debug("%s: label cache is out of date, labels are read again", path)
                return None
            return {name: archive[name] for name in archive.files if name != _HEADER}, header["content"]
    except Exception as error:  # foreign, truncated or old bytes fail in many ways, with one cure: read the labels
        logger.debug("%s: label cache is not usable (%s), labels are read again", path, error)
        return None


def save_cache(path: Path, key: str, arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> bool:
    """Store arrays and JSON content under ``key``. A folder that cannot be written is worth one warning only."""
    header = json.dumps({"key": key, "content": dict(content)}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, **{_HEADER: np.frombuffer(header, np.uint8)}, **dict(arrays))  # type: ignore[arg-type]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())
    except OSError as error:
        logger.warning(
            "%s: label cache not written (%s); everything works, but the next start reads all labels again. "
            "A cache folder elsewhere avoids that.",
            path,
            error.strerror or error,
        )
        return False
    return True
