"""Ctrl-C and the signals of a machine that goes down, turned into a wish that the loop reads between two steps."""

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
# SIGHUP: the terminal or the connection is gone. Windows has none.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_ECHO_S = 3.0  # a terminal sends Ctrl-C to torchrun and its processes, and torchrun passes it on to them once more


class StopSignals:
    """While entered, the first signal only sets ``requested``; the second one raises KeyboardInterrupt at once.

    Until ``armed`` there is nothing worth saving, and the first signal raises as well. A signal that was ignored
    before (``nohup``) stays so, and outside of the main thread, where Python has no signals, nothing happens at all.

    Of several processes any may get the signal, and all have to stop at the same step: ``requested`` is set on all of
    them when they :meth:`agree`.

    Torch reports a loader process that has died by a signal handler as well, which raises wherever the program stands:
    in the middle of a step or of a save, all since the save before would be lost with it. Between
    :meth:`hold_reports` and :meth:`let_reports_through` such a report waits.

    Attributes:
        requested: name of the signal that came, "" when none did.
        armed: set it when the first step is done.
        came: as ``requested``, of the signals of this process only.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.requested = ""
        self.armed = False
        self.ranks = ranks
        self.came, self._came_at = "", 0.0
        self._before: dict[int, Any] = {}
        self._owner = 0
        self._reporter: Callable[..., Any] | None = None
        self._held = False
        self._report: RuntimeError | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._owner = os.getpid()
            for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    self._before[number] = before
                    signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            # torchrun's echo must not cut short the end of a run that is ending already.
            ending = self.ranks.size > 1 and (self.came or self.requested) and signal.Signals(number).name in _NAMES
            signal.signal(number, signal.SIG_IGN if ending else before)
        self._before, self._owner, self._reporter = {}, 0, None

    def hold_reports(self) -> None:
        """Call before what must not be broken off."""
        self._held = True
        if self._reporter is None and self._owner and not self.requested and hasattr(signal, "SIGCHLD"):
            reporter = signal.getsignal(signal.SIGCHLD)
            if callable(reporter):  # torch's, set with the first loader that has processes
                self._reporter = reporter
                self._before[signal.SIGCHLD] = reporter
                signal.signal(signal.SIGCHLD, self._child_ended)

    def let_reports_through(self) -> None:
        """Call before waiting for a loader, which would otherwise wait in vain.

        Raises:
            RuntimeError: torch's report of a loader process that has died meanwhile.
        """
        self._held = False
        report, self._report = self._report, None
        if report is not None:
            raise report

    def _child_ended(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner or self._reporter is None:
            return
        try:
            self._reporter(number, frame)
        except RuntimeError as error:
            if not self._held:
                raise
            self._report = error

    def agree(self) -> None:
        """Set ``requested`` on all processes when the signal has come to one; for all of them to call together."""
        if self.ranks.size == 1 or self.requested or not self.ranks.any(bool(self.came)):
            return
        self.requested = next(name for name in self.ranks.gather(self.came) if name)
        self._tell()

    def _receive(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._owner:
            return  # a loader process, which Ctrl-C in a terminal reaches too: it is told to end when its work is done
        if self.came and self.ranks.size > 1 and time.monotonic() - self._came_at < _ECHO_S:
            return
        if self.came or not self.armed:
            raise KeyboardInterrupt
        self.came, self._came_at = signal.Signals(number).name, time.monotonic()
        if hasattr(signal, "SIGCHLD"):
            # Loader processes may have got the signal as well; torch would raise on their end, wherever we are.
            self._before.setdefault(signal.SIGCHLD, signal.getsignal(signal.SIGCHLD))
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if self.ranks.size == 1:
            self.requested = self.came
            self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(OSError):  # the terminal may be what is gone
            LOG.info("%s: finishing this step, then saving; once more stops at once", self.requested)
