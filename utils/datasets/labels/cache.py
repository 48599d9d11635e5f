"""Storage for the result of a label scan: plain arrays and a JSON header in one npz archive, nothing executable."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.files import label_path_for, write_atomic

logger = logging.getLogger(__name__)

_HEADER = "header"


def cache_path_for(images: Sequence[Path], cache_dir: Path | None = None, sources: Sequence[Path] = ()) -> Path:
    """Return where the scan of ``images`` is kept: ``labels/train.cache`` for the folder ``images/train``.

    ``sources`` are the folders, lists and files that the images come from. All but a single folder get a name of
    their own beside the labels of their first image, so that two lists over one folder do not overwrite each other.
    ``cache_dir`` moves the cache elsewhere (read-only data), with a name that is unique for the labels.
    """
    folder = label_path_for(images[0]).parent.absolute()
    tagged: list[str] = []
    if len(sources) == 1 and sources[0].is_dir():
        folder = label_path_for(sources[0].absolute() / images[0].name).parent
    elif sources:  # relative to the labels, so that a moved data set keeps its cache
        tagged = [os.path.relpath(source.absolute(), folder) for source in sources]
    if cache_dir is not None:
        tagged.append(str(folder))
    name = folder.name
    if tagged:
        name += f"-{hashlib.sha256(os.fsencode(chr(10).join(tagged))).hexdigest()[:8]}"
    return (folder.parent if cache_dir is None else cache_dir) / f"{name}.cache"


def fingerprint(files: Sequence[str], root: str, settings: str = "") -> str:
    """Return a hash over name (below ``root``), size and times of every file, present or not.

    The time of the last change of content or state counts as well: it cannot be set, so it shows a file that was
    replaced by one of equal length and date.
    """
    names, states = [], array("q")
    for name in files:
        try:
            stat = os.stat(name)  # noqa: PTH116  (for 200,000 files the detour counts)
            states.extend((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
        except (OSError, ValueError):
            states.extend((-1, -1, -1))
        names.append(name.removeprefix(root))
    digest = hashlib.sha256(settings.encode())
    digest.update("\n".join(names).encode("utf-8", "surrogateescape"))
    digest.update(states.tobytes())
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
            "A folder that can be written, given by --cache-dir, avoids that.",
            path,
            error.strerror or error,
        )
        return False
    return True
