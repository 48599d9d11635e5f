"""A model that another interpreter runs by :mod:`utils.inference.backend_worker`."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from utils.core.errors import InputError, describe_exit_code
from utils.core.memory import free_memory
from utils.inference.backend_worker import read_message, write_message
from utils.inference.venvs import error_line, isolated_command, quiet_environment, stop_process

WORKER_PROGRAM = Path(__file__).with_name("backend_worker.py")
_EXIT_TIME_S = 10


class RemoteModel:
    """A model file in a separate process, which ends with this one, or with this object.

    The process does not get Ctrl-C: it ends when its input does, that is when this process ends in whatever way.

    Args:
        python: the interpreter that has the packages.
        kind, file, threads: arguments of the program.
        program: its file.
        content: the model itself, which the program then gets in place of the name of the file.

    Attributes:
        about: ``inputs`` and ``outputs`` of the model: their shapes with -1 for any.

    Raises:
        InputError: the file cannot be read, also where reading it ends the process.
    """

    def __init__(
        self,
        python: Path,
        kind: str,
        file: Path,
        threads: int,
        program: Path = WORKER_PROGRAM,
        content: bytes | None = None,
    ) -> None:
        self._file, self._stderr, self._lock = file, tempfile.TemporaryFile(), threading.Lock()  # noqa: SIM115
        words = [str(file.absolute())] if content is None else ["-"]
        memory = free_memory(torch.device("cpu")) or 0
        self._process = subprocess.Popen(
            isolated_command(python, str(program), kind, *words, str(threads), str(memory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=quiet_environment(python),
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _close, self._process, self._stderr)
        self.about, _ = self._exchange(None if content is None else [np.frombuffer(content, np.uint8)])

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the outputs of the model.

        Raises:
            InputError: it cannot be run on these, or running it ended the process.
        """
        return self._exchange(arrays)[1]

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _exchange(self, arrays: Sequence[np.ndarray] | None) -> tuple[dict[str, Any], list[np.ndarray]]:
        source, target = self._process.stdout, self._process.stdin
        assert source is not None and target is not None
        with self._lock:
            if not self._finalizer.alive:
                raise InputError(f"{self._file}: the process that runs it was ended")
            try:
                if arrays is not None:
                    write_message(target, {}, arrays)
                head, results = read_message(source)
            except (EOFError, OSError) as error:
                raise InputError(self._exit_message()) from error
            except BaseException:  # Ctrl-C in between: the next message would be the answer to this one
                self._finalizer()
                raise
        if "error" in head:
            raise InputError(str(head["error"]))
        return head, results

    def _exit_message(self) -> str:
        try:
            code = self._process.wait(_EXIT_TIME_S)
        except subprocess.TimeoutExpired:
            code = 0
        message = f"the process that runs it {describe_exit_code(code)}: {error_line(self._stderr)}"
        self._finalizer()
        return message


def _close(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    stop_process(process)
    stderr.close()
