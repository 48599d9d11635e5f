"""Optional packages, which only some options need; the program never installs one."""

from __future__ import annotations

import importlib
from typing import Any

from utils.core.errors import InputError


def import_optional(module: str, package: str, why: str, instead: str = "") -> Any:
    """Import a module of an optional package.

    Args:
        module: what to import.
        package: what ``pip`` calls the package.
        why: what needs it, for the message.
        instead: another way without it, for the message.

    Raises:
        InputError: it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        other = f" ({instead})" if instead else ""
        raise InputError(f"{why} needs the package {package}: pip install {package}{other}") from error
