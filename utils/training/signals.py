"""Signals that stop a run between two steps: Ctrl-C, SIGTERM and SIGHUP."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from utils.core.dist import ALONE, Ranks

LOG = logging.getLogger(__name__)
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # SIGHUP: the terminal or the connection was closed. Windows has none.
_REPEAT_S = 3.0  # a terminal sends Ctrl-C to torchrun and to its processes, and torchrun sends it to them again


class StopSignals:
    """Handles the signals while it is entered.

    The first signal sets ``requested``, which the training loop checks between two steps; the second one raises
    KeyboardInterrupt immediately. Until ``armed`` is set there is nothing to save, and the first one raises as well.
    Signals that were ignored before (``nohup``) stay ignored. Python handles signals in the main thread only, so in
    other threads nothing happens.

    Any of several ranks may receive the signal, and all have to stop at the same step: :meth:`synchronize` sets
    ``requested`` on all of them.

    Torch reports a dead worker by a signal handler too, which raises at any place of the program: in the middle of a
    step or of a save, everything since the last save would be lost. Between :meth:`defer_worker_errors` and
    :meth:`raise_worker_errors` the error waits.

    Attributes:
        requested: name of the signal that stops the run; "" before.
        received: name of the signal that this rank received; "" before.
        armed: set it when the first step is done.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.requested = ""
        self.armed = False
        self.ranks = ranks
        self.received, self._received_at = "", 0.0
        self._previous: dict[int, Any] = {}  # handlers by signal number
        self._owner = 0  # id of the process that entered
        self._torch_handler: Callable[..., Any] | None = None
        self._deferring = False
        self._worker_error: RuntimeError | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._owner = os.getpid()
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                previous = signal.getsignal(number)
                if previous is not signal.SIG_IGN:
                    self._previous[number] = previous
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            # The second signal of torchrun must not interrupt the end of a run that is already stopping.
            stopping = self.ranks.size > 1 and (self.received or self.requested)
            ignore = stopping and signal.Signals(number).name in _NAMES
            signal.signal(number, signal.SIG_IGN if ignore else previous)
        self._previous, self._owner, self._torch_handler = {}, 0, None

    def defer_worker_errors(self) -> None:
        """Call before work that an error of a worker must not interrupt."""
        self._deferring = True
        if self._torch_handler is None and self._owner and not self.requested and hasattr(signal, "SIGCHLD"):
            handler = signal.getsignal(signal.SIGCHLD)
            if callable(handler):  # torch sets it with the first loader that has workers
                self._torch_handler = handler
                self._previous[signal.SIGCHLD] = handler
                signal.signal(signal.SIGCHLD, self._child_ended)

    def raise_worker_errors(self) -> None:
        """Call before waiting for a loader, which would wait forever for a dead worker.

        Raises:
            RuntimeError: torch's error about a worker that has died meanwhile.
        """
        self._deferring = False
        error, self._worker_error = self._worker_error, None
        if error is not None:
            raise error

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner or self._torch_handler is None:
            return
        try:
            self._torch_handler(number, frame)
        except RuntimeError as error:
            if not self._deferring:
                raise
            self._worker_error = error

    def synchronize(self) -> None:
        """Set ``requested`` on all ranks when one of them has received a signal; all must call this together."""
        if self.ranks.size == 1 or self.requested or not self.ranks.any(bool(self.received)):
            return
        self.requested = next(name for name in self.ranks.gather(self.received) if name)
        self._log()

    def _receive(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # a worker, which Ctrl-C in a terminal reaches as well; the loader ends it
        if self.received and self.ranks.size > 1 and time.monotonic() - self._received_at < _REPEAT_S:
            return
        if self.received or not self.armed:
            raise KeyboardInterrupt
        self.received, self._received_at = signal.Signals(number).name, time.monotonic()
        if hasattr(signal, "SIGCHLD"):
            # Workers may have received the signal as well; torch would raise when they end, at any place.
            self._previous.setdefault(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self.ranks.size == 1:
            self.requested = self.received
            self._log()

    def _log(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be closed
            LOG.info("%s: finishing this step, then saving; once more stops at once", self.requested)
