"""Names of ``utils.compat.general`` that depend on the process, and those of later releases."""

from __future__ import annotations

import logging
from pathlib import Path, PurePath
from typing import Any

import yaml

from utils.core import image
from utils.core.files import read_yaml, write_atomic
from utils.core.log import SCRIPT_LOG, LineHandler
from utils.inference.window import in_notebook as is_notebook

LOGGING_NAME = SCRIPT_LOG.name
TQDM_BAR_FORMAT = "{l_bar}{bar:10}{r_bar}"
_WITH_HANDLER: dict[str, Any] = {"LOGGER": SCRIPT_LOG, "cv2": image.cv2}
is_jupyter = is_notebook

__all__ = [
    "LOGGING_NAME", "TQDM_BAR_FORMAT", "is_jupyter", "is_notebook", "yaml_load", "yaml_save",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """``LOGGER`` and ``cv2``: who imports one finds a handler at the root logger, which some scripts then take away.

    For v6.1 a handler is there after any import; these two are what scripts with such a line import.
    """
    if name in _WITH_HANDLER:
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(LineHandler())  # its format is the message, in the colours of the script
        return _WITH_HANDLER[name]
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


class _WithPaths(yaml.SafeDumper):
    """Writes paths as text."""


_WithPaths.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))


def yaml_load(file: str | Path = "data.yaml") -> Any:
    """The content of a yaml file, see :func:`utils.core.files.read_yaml`."""
    return read_yaml(file)


def yaml_save(file: str | Path = "data.yaml", data: dict[str, Any] | None = None) -> None:
    """Write a yaml file; paths in it become text."""
    text = yaml.dump(data or {}, Dumper=_WithPaths, sort_keys=False, allow_unicode=True)
    write_atomic(Path(file), text.encode())
