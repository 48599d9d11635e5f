"""Where a script of v6.1 runs, and helpers around its functions."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from utils.compat.general.logger import LOGGER
from utils.core.timing import StageTimer


class Profile:
    """``with Profile() as timer: ...`` times the body; ``@Profile()`` also prints the seconds of each call.

    Args:
        t: seconds to begin with.
        device: a GPU whose queue is drained before the clock is read.

    Attributes:
        dt: seconds of the latest body. t: of all of them.
    """

    def __init__(self, t: float = 0.0, device: torch.device | None = None) -> None:
        self.t, self.dt, self.device = t, 0.0, device

    def __enter__(self) -> Profile:
        self._timer = StageTimer(self.device)
        self._body = self._timer.stage("body")
        self._body.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._body.__exit__(None, None, None)
        self.dt = self._timer.seconds["body"]
        self.t += self.dt

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self:
                result = function(*args, **kwargs)
            print(f"took {self.dt:.5f} s")
            return result

        return timed


class Timeout(contextlib.ContextDecorator):
    """``with Timeout(5): ...``: TimeoutError after so many seconds, in the main thread of a system with alarms (not
    Windows); elsewhere the body just runs.

    Args:
        seconds: the limit.
        timeout_msg: text of the error.
        suppress_timeout_errors: leave the block silently instead.
    """

    def __init__(self, seconds: float, *, timeout_msg: str = "", suppress_timeout_errors: bool = True) -> None:
        self.seconds = float(seconds)
        self.message = timeout_msg or f"took more than {seconds:g} s"
        self.suppress = bool(suppress_timeout_errors)

    def __enter__(self) -> Timeout:
        import signal

        self._armed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        if self._armed:
            self._before = signal.signal(signal.SIGALRM, self._raise)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)
        return self

    def _raise(self, *_: object) -> None:
        raise TimeoutError(self.message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        import signal

        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        return self.suppress and kind is not None and issubclass(kind, TimeoutError)


class WorkingDirectory(contextlib.ContextDecorator):
    """``with WorkingDirectory(folder): ...`` or ``@WorkingDirectory(folder)``: the body runs in that folder."""

    def __init__(self, new_dir: str | Path) -> None:
        self.folder = Path(new_dir).resolve()
        self._before: list[Path] = []

    def __enter__(self) -> WorkingDirectory:
        self._before.append(Path.cwd())
        os.chdir(self.folder)
        return self

    def __exit__(self, *exception: object) -> None:
        os.chdir(self._before.pop())


def try_except(func: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator: what the function raises is logged instead, and its answer is None."""

    @functools.wraps(func)
    def careful(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except Exception as error:
            LOGGER.error("%s: %s", func.__name__, error)
            return None

    return careful


def methods(instance: Any) -> list[str]:
    """Names of the methods of an object or class, those of Python itself left out."""
    return [name for name, _ in inspect.getmembers(instance, callable) if not name.startswith("__")]


def is_colab() -> bool:
    """Whether this is a Google Colab notebook."""
    return "COLAB_GPU" in os.environ or "google.colab" in sys.modules


def is_kaggle() -> bool:
    """Whether this is a Kaggle notebook."""
    return os.environ.get("KAGGLE_URL_BASE") == "https://www.kaggle.com" or "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def is_docker() -> bool:
    """Whether this process is in a container of Docker or Podman."""
    return any(Path(name).exists() for name in ("/.dockerenv", "/run/.containerenv", "/workspace/.dockerenv"))


def is_pip() -> bool:
    """Whether this repository is installed as a package, not a checkout."""
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(__file__).parts)


def is_writeable(dir: str | Path, test: bool = False) -> bool:
    """Whether files can be made in a folder: by its permissions, or by making one for a moment with ``test``."""
    if not test:
        return os.access(dir, os.W_OK)
    try:
        with tempfile.TemporaryFile(dir=dir):
            return True
    except OSError:
        return False


def user_config_dir(dir: str = "Ultralytics", env_var: str = "YOLOV5_CONFIG_DIR") -> Path:
    """The folder for settings of a program, made if need be: what ``env_var`` says, else the usual place of the system.

    Nothing of this repository is kept there.
    """
    folder = config_dir(dir, env_var)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def config_dir(dir: str = "Ultralytics", env_var: str = "YOLOV5_CONFIG_DIR") -> Path:
    """As :func:`user_config_dir`, but it is not made."""
    if named := os.environ.get(env_var):
        return Path(named)
    usual = {"win32": "AppData/Roaming", "darwin": "Library/Application Support"}.get(sys.platform, ".config")
    base = Path.home() / usual
    return (base if is_writeable(base) else Path(tempfile.gettempdir())) / dir


def emojis(text: str = "") -> str:
    """The text, on Windows without characters beyond ASCII, which its consoles may not show."""
    return "".join(filter(str.isascii, text)) if sys.platform == "win32" else text


_AWKWARD = {ord(sign): "_" for sign in "!#$%&()*+,:;<=>?@^|¡¨´·¿€"}


def clean_str(s: str) -> str:
    """The text with an underscore for every sign that does not go into file names or titles."""
    return s.translate(_AWKWARD)
