"""AOTInductor: the network compiled to machine code for this kind of processor or GPU."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import torch

from models.dynamic_convolution import DynamicForm
from utils.core.errors import InputError, describe_exit_code, first_line
from utils.export.base import Exporter
from utils.export.export_job import ExportJob
from utils.export.exported_program import captured
from utils.inference.backends.aoti import PROCESSOR


class AOTInductorExporter(Exporter):
    """A ``_aoti.pt2`` package. Form A would be compiled for the batch of the example and give other boxes at others."""

    name = "aoti"
    ending = "_aoti.pt2"
    fixed_forms: ClassVar[tuple[DynamicForm, ...]] = (DynamicForm.SINGLE,)

    def obstacle(self, job: ExportJob) -> str | None:
        from torch._inductor.cpp_builder import get_cpp_compiler

        try:
            get_cpp_compiler()
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            return f"it takes a C++ compiler (apt install g++, or CXX=path): {first_line(error)}"
        return None

    def write(self, job: ExportJob, path: Path) -> list[str]:
        from torch._inductor import aoti_compile_and_package
        from torch._inductor.utils import fresh_inductor_cache

        free = self.free(job.options)
        network = job.network(self.form(job.options), free)
        said = job.about(free, network).to_text() | {PROCESSOR: torch.backends.cpu.get_cpu_capability()}
        program = captured(network, job, free)
        # The compiler takes no folder with blanks in its name, and leaves a lot behind.
        with tempfile.TemporaryDirectory(prefix="aoti-") as folder, fresh_inductor_cache(dir=folder):
            try:
                aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings(said))
            except Exception as error:  # torch wraps what it gets in several of its own
                reason = by_the_compiler(error)
                if reason is None:
                    raise
                raise reason from error
        return []


def by_the_compiler(error: BaseException) -> InputError | None:
    """How the C++ compiler ended and what it said, where this is behind an error; torch only says that it failed."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, subprocess.CalledProcessError):
        found = found.__cause__ or found.__context__
    if found is None:
        return None
    said = found.output or ""
    text = said if isinstance(said, str) else said.decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]
    telling = next((line for line in lines if "error" in line.lower() or "No space left" in line), lines[-1])
    return InputError(f"the C++ compiler {describe_exit_code(found.returncode)}: {telling}")


def settings(said: dict[str, str]) -> dict[str, Any]:
    """What the compiler is told: ``said`` goes into the package.

    No flags for this very processor: the vectors are those of its capability, which is what is checked when the
    package is loaded. No precompiled headers, which would stay in the folder for temporary files.
    """
    from torch._inductor import config

    wanted = {"cpp.march": "", "aot_inductor.precompile_headers": False}
    known = config.get_config_copy()  # older releases have fewer
    return {"aot_inductor.metadata": said} | {key: value for key, value in wanted.items() if key in known}
