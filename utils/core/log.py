"""Logging of the scripts. Modules only call ``logging.getLogger(__name__)``; the handler is installed here, once."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import time
from pathlib import Path
from typing import TextIO

from utils.core.names import printable

_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "bold": 1}


class LineHandler(logging.Handler):
    """Writes each record above a running progress bar; errors go to stderr.

    Attributes:
        lost: why lines could not be written, if so; the program continues without them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: OSError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.ERROR else sys.stdout
        bar_class = getattr(sys.modules.get("tqdm"), "tqdm", None)
        try:
            if bar_class is None:
                stream.write(self.format(record) + "\n")
            else:
                bar_class.write(self.format(record), file=stream)
            stream.flush()
        except OSError as error:  # a full disk, or a pipe whose reader has ended
            self.lost = self.lost or error
            discard_output(stream)
        except Exception:
            self.handleError(record)


class SafeFormatter(logging.Formatter):
    """Escapes control characters, since names of classes and files come from other people."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


def discard_output(stream: TextIO) -> None:
    """Discard what is written to a stream from now on, and the content of its buffer."""
    with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:  # ValueError: no descriptor
        os.dup2(nowhere.fileno(), stream.fileno())


def setup_logging(level: int = logging.INFO) -> LineHandler:
    """Send log records to stdout and errors to stderr as plain lines; a second call only sets the level.

    Called by scripts. Characters that a stream cannot encode, such as of names that are not UTF-8, are escaped.
    """
    root = logging.getLogger()
    root.setLevel(level)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    installed = next((handler for handler in root.handlers if isinstance(handler, LineHandler)), None)
    if installed is not None:
        return installed
    handler = LineHandler()
    handler.setFormatter(SafeFormatter("%(message)s"))
    root.addHandler(handler)
    return handler


def slow_bars_without_terminal() -> None:
    """Let progress bars write a line a minute where stderr is a file or a pipe; called before tqdm is imported."""
    if not sys.stderr.isatty():
        for name in ("TQDM_MININTERVAL", "TQDM_MAXINTERVAL"):
            os.environ.setdefault(name, "60")


def wait_for_rank_0(seconds: float = 10) -> None:
    """On the other ranks of torchrun, wait to be ended by it, since rank 0 is about to fail with the same message."""
    if os.environ.get("RANK", "0") != "0" and os.environ.get("WORLD_SIZE", "1") != "1":
        time.sleep(seconds)


def colorstr(text: str, *styles: str, stream: TextIO | None = None) -> str:
    """Return ``text`` in the given styles ("blue", "bold" ...) if ``stream`` (default stdout) is a terminal.

    Raises:
        KeyError: unknown style.
    """
    codes = "".join(f"\033[{_COLOURS[style]}m" for style in styles or ("blue", "bold"))
    target = sys.stdout if stream is None else stream
    return f"{codes}{text}\033[0m" if target.isatty() else text


class ScriptLogger(logging.Logger):
    """Writes INFO and above to stdout until a program installs its own handler.

    v6.1 installs a handler on import, and scripts rely on its output.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, logging.INFO)
        self.parent = logging.getLogger(name)  # for its handlers and level

    def isEnabledFor(self, level: int) -> bool:
        minimum = self.parent.level if self.parent is not None else logging.NOTSET
        return level >= minimum and super().isEnabledFor(level)

    def callHandlers(self, record: logging.LogRecord) -> None:
        if self.hasHandlers():
            super().callHandlers(record)
        else:
            print(record.getMessage())


SCRIPT_LOG = ScriptLogger("yolov5")  # the LOGGER that scripts for v6.1 import
