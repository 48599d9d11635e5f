"""The screen as a source; needs the package mss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utils.core.errors import InputError
from utils.core.packages import import_optional
from utils.datasets.sources.base import Clip, Frame, Source

_USAGE = "expected: screen, screen NUMBER, or screen NUMBER LEFT TOP WIDTH HEIGHT"


class ScreenSource(Source):
    """What is on the screen, again and again.

    Args:
        source: ``screen`` (all monitors), ``screen 1`` (the first one), ``screen 1 100 50 640 480``: of that one the
            part at left 100, top 50, 640 wide and 480 high.

    Raises:
        InputError: other words, no such monitor, no screen on this machine, or mss is not installed.
    """

    live = True

    def __init__(self, source: str = "screen") -> None:
        super().__init__()
        words = source.split()[1:]
        if len(words) not in (0, 1, 5) or not all(word.isdecimal() for word in words):
            raise InputError(f"--source {source}: {_USAGE}")
        self.number, *part = [int(word) for word in words] or [0]
        mss = import_optional("mss", "mss", "--source screen")
        try:
            self._camera: Any = mss.mss()
            monitors = self._camera.monitors  # the first is all of them together
        except Exception as error:  # each system has its own
            raise InputError(f"--source {source}: no screen can be read here ({error})") from error
        if self.number >= len(monitors):
            raise InputError(f"--source {source}: there are {len(monitors) - 1} monitors, numbered from 1")
        whole = monitors[self.number]
        self.area = {key: int(whole[key]) for key in ("left", "top", "width", "height")}
        if part:
            left, top, width, height = part
            self.area = {"left": whole["left"] + left, "top": whole["top"] + top, "width": width, "height": height}
        self.clip = Clip(name=source, live=True)
        self._open = True

    @property
    def total(self) -> None:
        return None

    def batches(self, size: int = 1) -> Iterator[list[Frame]]:
        """One frame at a time, numbered as if they came at the rate of the clip."""
        begin, number = time.monotonic(), 0
        while self._open:
            pixels = np.asarray(self._camera.grab(self.area))  # [h, w, 4] BGR and one unused
            number = max(number + 1, int((time.monotonic() - begin) * self.clip.fps) + 1)
            image = np.ascontiguousarray(pixels[..., :3])
            yield [Frame(image, Path(self.clip.name), Path("screen"), self.clip, number)]

    def close(self) -> None:
        if self._open:
            self._open = False
            self._camera.close()
