"""The logger of v6.1's scripts and what they print with it."""

from __future__ import annotations

import logging
from typing import Any

from utils.core.log import SCRIPT_LOG, setup_logging
from utils.core.log import colorstr as _colorstr

_COLOURS = frozenset({"red", "green", "yellow", "blue", "magenta", "cyan", "bold"})


LOGGER: logging.Logger = SCRIPT_LOG
NCOLS: int | None = None  # width of progress bars: tqdm finds it out by itself


def set_logging(name: str | None = None, verbose: bool = True) -> logging.Logger:
    """Send all log lines to stdout, from INFO up, or from WARNING up with ``verbose`` off."""
    setup_logging(logging.INFO if verbose else logging.WARNING)
    return logging.getLogger(name) if name else LOGGER


def print_args(name: str, opt: Any) -> None:
    """Log the options of a script, an ``argparse.Namespace``, in one line."""
    LOGGER.info("%s: %s", name, ", ".join(f"{key}={value}" for key, value in vars(opt).items()))


def colorstr(*words: str) -> str:
    """``colorstr("red", "bold", "text")``: the last word in the styles before it, blue and bold when there are none.

    Only when stdout is a terminal; styles that it may not know are left out.
    """
    *styles, text = words
    known = [style.removeprefix("bright_") for style in styles if style.removeprefix("bright_") in _COLOURS]
    return text if styles and not known else _colorstr(text, *known)
