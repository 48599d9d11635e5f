"""Separate virtual environments for packages that conflict with ours, and programs run in them.

Each is a folder of a fixed name below ``.venvs`` of the repository, below the folder in the environment variable
``YOLOV5_VENVS``, or below the one of ``export.py --venvs``. If the running interpreter has the packages itself, it is
used. Nothing is installed: an error names what is missing, with the commands to install it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from utils.config.paths import ROOT
from utils.core.errors import InputError, describe_exit_code

VENVS_VARIABLE = "YOLOV5_VENVS"
MAX_SECONDS = 3600  # a conversion that takes longer hangs
_ERROR = re.compile(r"^(?:Fatal Python error|[\w.]*(?:Error|Exception|Exit|Interrupt)): *(\S.*)")
_HAS_MODULES = "import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))"
_COMPLETE: set[tuple[Path, tuple[str, ...]]] = set()  # interpreters that have these modules


@dataclass(frozen=True)
class Stack:
    """Modules that must be importable together.

    Attributes:
        folder: of the virtual environment.
        modules: to be imported.
        packages: their names for pip.
        python: the interpreter to make the environment with.
    """

    folder: str
    modules: tuple[str, ...]
    packages: tuple[str, ...]
    python: str = "python3"

    def find_python(self, venvs: str = "") -> Path | None:
        """Return the interpreter that has all the packages, None if there is none.

        Args:
            venvs: folder of the environments; empty: the default.
        """
        if all(importlib.util.find_spec(module) for module in self.modules):
            return Path(sys.executable)
        folder = venvs_folder(venvs) / self.folder
        python = next((p for p in (folder / "bin/python", folder / "Scripts/python.exe") if p.exists()), None)
        return python if python and _has_all(python, self.modules) else None

    def missing(self, venvs: str = "") -> str | None:
        """Return a line about missing packages, with the commands to install them; None if none is missing."""
        return None if self.find_python(venvs) else self._install_commands(venvs)

    def _install_commands(self, venvs: str) -> str:
        folder, packages = venvs_folder(venvs) / self.folder, " ".join(map(shlex.quote, self.packages))
        place = shlex.quote(str(folder))
        pip = shlex.quote(str(folder / ("Scripts/pip" if os.name == "nt" else "bin/pip")))
        make = "" if folder.is_dir() else f"{self.python} -m venv {place} && "
        return f"needs {', '.join(self.packages)}, in a separate environment: {make}{pip} install {packages}"

    def require(self, why: str, venvs: str = "") -> Path:
        """Return the interpreter that has all the packages.

        Raises:
            InputError: there is none.
        """
        python = self.find_python(venvs)
        if python is None:
            raise InputError(f"{why}: {self._install_commands(venvs)}")
        return python


# To run .tflite files; to make them; to run and to make TensorFlow's own formats.
LITERT = Stack("litert", ("ai_edge_litert",), ("ai-edge-litert",))
LITERT_TORCH = Stack("litert", ("litert_torch", "ai_edge_litert"), ("litert-torch",))
TENSORFLOW = Stack("tf", ("tensorflow",), ("tensorflow-cpu",), "python3.12")
ONNX2TF = Stack("tf", ("onnx2tf", "tensorflow", "tf_keras"), ("onnx2tf[tensorflow]",), "python3.12")


def _has_all(python: Path, modules: tuple[str, ...]) -> bool:
    """Return whether an interpreter has all modules. It is started for this, so only a positive answer is kept."""
    if (python, modules) not in _COMPLETE:
        done = subprocess.run(isolated_command(python, "-c", _HAS_MODULES, *modules), capture_output=True, check=False)
        if done.returncode:
            return False
        _COMPLETE.add((python, modules))
    return True


def venvs_folder(given: str = "") -> Path:
    """Return the folder of the environments: as given, else of the environment variable, else of the repository."""
    return Path(given or os.environ.get(VENVS_VARIABLE) or ROOT / ".venvs").expanduser().absolute()


def isolated_command(python: Path, *words: str) -> list[str]:
    """Return the command line of an interpreter that imports its own packages only.

    It ignores ``PYTHONPATH`` and the folder of the script, where modules have the names of packages.
    """
    return [str(python), "-I", "-X", "utf8", *words]


def quiet_environment(python: Path) -> dict[str, str]:
    """Return environment variables for it: few start messages, CPU only, its folder of programs on the PATH."""
    path = os.pathsep.join([str(python.parent), os.environ.get("PATH", "")])
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **quiet, "PATH": path}


def run_program(
    python: Path, program: Path, words: Sequence[str], seconds: float = MAX_SECONDS, what: str = "the converter"
) -> None:
    """Run one of our programs in another interpreter, to its end.

    The program ends with this process, also when this is killed: it watches its standard input, which is closed then.

    Args:
        python: the interpreter.
        program: file of the program.
        words: its arguments.
        seconds: limit of its time.
        what: its name in messages.

    Raises:
        InputError: it failed, crashed, or took longer than ``seconds``.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            isolated_command(python, str(program), *words),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=quiet_environment(python),
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{what} took longer than {seconds:g} s and was ended") from error
        finally:
            stop_process(process)
        if process.returncode:
            raise InputError(f"{what} {describe_exit_code(process.returncode)}: {error_line(output)}")


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a process if it still runs, and close its pipes."""
    if process.poll() is None:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # bytes that were not sent yet cannot be sent any more
                continue


def error_line(output: IO[bytes]) -> str:
    """Return the most useful line of what a process wrote: that of its exception, else the last one."""
    output.seek(0)
    lines = [line.strip() for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [match for line in lines if (match := _ERROR.match(line))]
    return errors[-1][1] if errors else lines[-1] if lines else "it said nothing"
