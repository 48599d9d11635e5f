"""Cameras and network streams: a thread for each, which keeps the newest frame and gets lost connections back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.core.errors import InputError
from utils.core.names import counted
from utils.datasets.sources.base import Clip, Frame, Source, file_name_for, plausible_fps, without_password
from utils.datasets.sources.video import Capture, as_bgr

LOG = logging.getLogger(__name__)
_LONGEST_WAIT_S = 10.0
_STEADY_S = 10.0  # a connection that lasted so long was a good one: attempts are counted anew
_BAD_READS = 5  # in a row: the connection is lost
_PATIENCE_S = 0.5  # between two looks at the threads, so that Ctrl-C is heard on every system


@dataclass(frozen=True)
class LiveSettings:
    """How streams are read.

    Attributes:
        stride: every how many frames one is delivered.
        reconnect: attempts in a row to get a lost stream back; 0: none.
        wait_s: seconds before the first of them; twice as many before each next one, up to ten.
        timeout_s: seconds without an answer after which a connection counts as lost.
    """

    stride: int = 1
    reconnect: int = 5
    wait_s: float = 1.0
    timeout_s: float = 10.0


Opener = Callable[[str, LiveSettings], Capture]


def open_address(address: str, settings: LiveSettings) -> Capture:
    """OpenCV's reader for a camera number, an address or a file."""
    if address.isdecimal():
        return cv2.VideoCapture(int(address))
    if "://" not in address:
        return cv2.VideoCapture(address)
    limit_ms = int(1000 * settings.timeout_s)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, limits)


class _Reader(threading.Thread):
    """Reads one camera as fast as it sends. ``take()`` gives the newest frame, once.

    Args:
        address: camera number, address or file.
        changed: notified, with its lock held, at every new frame and at the end.
    """

    def __init__(self, address: str, settings: LiveSettings, changed: threading.Condition, opener: Opener) -> None:
        super().__init__(name=f"reader of {without_password(address)}", daemon=True)
        self.address, self.title = address, without_password(address)
        self.settings, self.changed, self.opener = settings, changed, opener
        self.fps = plausible_fps(0)
        self.ended = False
        self.grabbed = self.dropped = self.bad = 0
        self._newest: tuple[int, np.ndarray] | None = None
        self._halt = threading.Event()

    def take(self) -> tuple[int, np.ndarray] | None:
        """(number, image) that was not taken yet; with the lock held."""
        newest, self._newest = self._newest, None
        return newest

    @property
    def waiting(self) -> bool:
        return self._newest is not None

    def stop(self) -> None:
        self._halt.set()

    def run(self) -> None:
        failed = 0
        try:
            while not self._halt.is_set():
                steady, problem = self._read_connection()
                failed = 0 if steady else failed
                if self._halt.is_set() or not self._may_retry(failed, problem):
                    return
                failed += 1
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _may_retry(self, failed: int, problem: str) -> bool:
        """Say what happened, and wait for the next attempt; False when there were enough of them."""
        limit = self.settings.reconnect
        if failed >= limit:
            LOG.warning("%s: %s; given up%s", self.title, problem, f" after {limit} new attempts" if limit else "")
            return False
        wait = min(self.settings.wait_s * 2**failed, _LONGEST_WAIT_S)
        LOG.warning("%s: %s; attempt %d of %d in %.3g s", self.title, problem, failed + 1, limit, wait)
        return not self._halt.wait(wait)

    def _read_connection(self) -> tuple[bool, str]:
        """Connect and read until the connection is lost: (whether it was a good one, what happened)."""
        try:
            capture = self.opener(self.address, self.settings)
        except cv2.error as error:
            return False, f"cannot be opened ({error.err})"
        begin = time.monotonic()
        try:
            if not capture.isOpened():
                return False, "cannot be opened"
            self.fps = plausible_fps(capture.get(cv2.CAP_PROP_FPS))
            before = self.grabbed
            self._read_frames(capture)
            number = self.grabbed - before
            return (
                time.monotonic() - begin >= _STEADY_S,
                f"lost after {counted(number, 'frame')}" if number else "sends no frames",
            )
        finally:
            capture.release()

    def _read_frames(self, capture: Capture) -> None:
        due, failures = time.monotonic(), 0
        is_file = not self.address.isdecimal() and Path(self.address).is_file()
        while not self._halt.is_set() and failures < _BAD_READS:
            if is_file:  # a file would be read through in no time
                due = max(due + 1 / self.fps, time.monotonic() - 1)
                self._halt.wait(max(0.0, due - time.monotonic()))
            if not capture.grab():
                failures += 1
                continue
            self.grabbed += 1
            if (self.grabbed - 1) % self.settings.stride:
                failures = 0
                continue
            done, image = capture.retrieve()
            frame = as_bgr(image) if done and image is not None else None
            if frame is None:
                failures += 1
                self.bad += 1
                continue
            failures = 0
            with self.changed:
                self.dropped += self._newest is not None
                self._newest = (self.grabbed, frame)
                self.changed.notify_all()


class LiveSource(Source):
    """The newest frames of several cameras or streams. A source that dies leaves the others alive.

    Args:
        addresses: camera numbers, addresses (rtsp, rtmp, http ...) and files, which are played at their own speed.
        settings: see :class:`LiveSettings`.
        opener: makes the reader of an address.

    Raises:
        InputError: no address, or one of them twice.
    """

    live = True

    def __init__(
        self, addresses: Sequence[str], settings: LiveSettings | None = None, opener: Opener = open_address
    ) -> None:
        super().__init__()
        if not addresses:
            raise InputError("no stream is named: expected camera numbers or addresses such as rtsp://host/path")
        if twice := next((address for address in addresses if addresses.count(address) > 1), None):
            raise InputError(f"{without_password(twice)} is listed twice: a camera can be read once")
        self.settings = settings or LiveSettings()
        self._changed = threading.Condition()
        self.readers = [_Reader(address, self.settings, self._changed, opener) for address in addresses]
        self.relatives = _unique_names(addresses)
        self._started = False

    @property
    def total(self) -> None:
        return None

    @property
    def dropped(self) -> int:
        """Frames for which a newer one came before anybody took them."""
        return sum(reader.dropped for reader in self.readers)

    def start(self) -> None:
        """Begin to read, if that has not been done; :meth:`batches` does it as well."""
        if not self._started:
            self._started = True
            for reader in self.readers:
                reader.start()

    def batches(self, size: int = 1) -> Iterator[list[Frame]]:
        """One frame of every camera that has a new one; ``size`` is of no importance."""
        self.start()
        while True:
            with self._changed:
                self._changed.wait_for(self._worth_a_look, timeout=_PATIENCE_S)
                frames = [frame for index in range(len(self.readers)) if (frame := self._take(index))]
                over = not frames and all(reader.ended for reader in self.readers)
            if frames:
                yield frames
            elif over:
                return

    def _worth_a_look(self) -> bool:
        return any(reader.waiting for reader in self.readers) or all(reader.ended for reader in self.readers)

    def _take(self, index: int) -> Frame | None:
        reader = self.readers[index]
        newest = reader.take()
        if newest is None:
            return None
        clip = Clip(name=reader.title, fps=reader.fps, stride=self.settings.stride, live=True)
        return Frame(newest[1], Path(reader.title), self.relatives[index], clip, newest[0])

    def close(self) -> None:
        """Stop the threads. One that is still waiting for its camera ends when its time is over."""
        for reader in self.readers:
            reader.stop()
        for reader in self.readers:
            if reader.is_alive():
                reader.join(timeout=2.0)
            if reader.bad:
                self.skipped.add(f"{reader.title}: {counted(reader.bad, 'frame')} could not be decoded", reader.bad)
                reader.bad = 0


def _unique_names(addresses: Sequence[str]) -> list[Path]:
    """A file name without suffix for each address; those that would be equal get a number."""
    names: list[Path] = []
    for address in addresses:
        stem, number = file_name_for(address), 1
        while (name := Path(stem if number == 1 else f"{stem}-{number}")) in names:
            number += 1
        names.append(name)
    return names
