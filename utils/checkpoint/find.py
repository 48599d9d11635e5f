"""Finding the checkpoint that is meant when none is named."""

from __future__ import annotations

from pathlib import Path


def newest_checkpoint(runs: Path, name: str) -> Path:
    """The most recently written ``<run>/weights/<name>`` below ``runs``.

    Raises:
        FileNotFoundError: no run has one.
    """
    found = sorted(runs.glob(f"*/weights/{name}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"no {name} below {runs}: train first (python train.py), or name a file with --weights")
    return found[-1]
