"""The live window, and whether this machine can show images."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from utils.plots.fonts import standard_file

LOG = logging.getLogger(__name__)
# Where a window cannot be opened, some window systems end the process at once. So another process tries first.
_OPEN_WINDOW = (
    "import cv2, numpy; cv2.imshow('', numpy.zeros((9, 9, 3), 'uint8')); cv2.waitKey(1); cv2.destroyAllWindows()"
)
_QUIT_KEYS = (ord("q"), 27)  # 27: Escape


class ImageWindow:
    """A window for images, if this machine can open one; otherwise it warns once and does nothing.

    Attributes:
        works: whether the window can be opened.
        quit: whether q or Escape was pressed.
    """

    def __init__(self) -> None:
        self.quit = False
        self.works = can_open_window()
        set_qt_fonts()
        if not self.works:
            LOG.warning("--view-img: no window can be opened here; results are still saved")

    def show(self, title: str, image: np.ndarray, wait: bool) -> None:
        """Show an image, HWC BGR uint8; ``wait`` for a key, or return at once."""
        if not self.works:
            return
        cv2.imshow(title, image)
        key = cv2.waitKey(0 if wait else 1) & 0xFF
        self.quit = self.quit or key in _QUIT_KEYS
        if wait:
            cv2.destroyWindow(title)

    def close(self) -> None:
        if self.works:
            cv2.destroyAllWindows()


def set_qt_fonts() -> None:
    """Set Qt's font folder to that of matplotlib where OpenCV names a missing one; Qt would warn for every line."""
    named, font = os.environ.get("QT_QPA_FONTDIR"), standard_file()
    if named and font and not Path(named).is_dir():
        os.environ["QT_QPA_FONTDIR"] = str(Path(font).parent)


def has_display() -> bool:
    """Return whether this system has a display; on Linux its environment variables say so."""
    named = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(named) or not sys.platform.startswith("linux")


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, which shows images below its cells."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def can_open_window() -> bool:
    """Return whether a window can be opened on this machine."""
    if not has_display():
        return False
    try:
        return subprocess.run([sys.executable, "-c", _OPEN_WINDOW], capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
