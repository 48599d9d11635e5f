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
        metadata = job.about(free, network).to_text() | {PROCESSOR: torch.backends.cpu.get_cpu_capability()}
        program = captured(network, job, free)
        # The compiler takes no folder with spaces in its name, and leaves many files behind.
        with tempfile.TemporaryDirectory(prefix="aoti-") as folder, fresh_inductor_cache(dir=folder):
            try:
                aoti_compile_and_package(program, package_path=str(path), inductor_configs=compiler_settings(metadata))
            except Exception as error:  # torch wraps it in several other exceptions
                reason = compiler_error(error)
                if reason is None:
                    raise
                raise reason from error
        return []


def compiler_error(error: BaseException) -> InputError | None:
    """The exit code and the message of the C++ compiler, if it caused ``error``; torch only reports that it failed."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, subprocess.CalledProcessError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    output = cause.output or ""
    text = output if isinstance(output, str) else output.decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
    message = next((line for line in lines if "error" in line.lower() or "No space left" in line), lines[-1])
    return InputError(f"the C++ compiler {describe_exit_code(cause.returncode)}: {message}")


def compiler_settings(metadata: dict[str, str]) -> dict[str, Any]:
    """Settings of the compiler, and the metadata that go into the package.

    No flags for this processor alone: the vector instructions are those of its capability, which is checked when the
    package is loaded. No precompiled headers, which would stay in the folder for temporary files.
    """
    from torch._inductor import config

    wanted = {"cpp.march": "", "aot_inductor.precompile_headers": False}
    known = config.get_config_copy()  # older releases have fewer
    return {"aot_inductor.metadata": metadata} | {key: value for key, value in wanted.items() if key in known}
