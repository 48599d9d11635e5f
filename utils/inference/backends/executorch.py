"""ExecuTorch programs (``.pte``), for phones and small devices; here run by the runtime for Python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.core.packages import import_optional
from utils.inference.backends.base import checking_content, reading
from utils.inference.backends.checked_executorch import FORWARD, check_program
from utils.inference.backends.checked_graph import run_in_sandbox
from utils.inference.backends.metadata import from_json, from_text
from utils.inference.backends.size_limits import BoundedBackend

ABOUT = "about"  # the method of the program that returns what it says of itself


class ExecuTorchBackend(BoundedBackend):
    """One ``.pte`` file, on the CPU.

    Args:
        trust: do not check its content and do not run it in the sandbox.
    """

    own_threads = True

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that its interface may change
            runtime = import_optional("executorch.runtime", "executorch", f"{file}")
        with checking_content(file, "an ExecuTorch program"):
            content = file.read_bytes()  # a changed file would change the running program
            if not trust:
                images = check_program(content)
                run_in_sandbox("executorch", {"model.pte": content}, images.sizes, images.half)
        with reading(file, "an ExecuTorch program"):
            program = runtime.Runtime.get().load_program(content)
            said = program.load_method(ABOUT).execute([])[0] if ABOUT in program.method_names else ""
            method = program.load_method(FORWARD)
            sides = list(method.metadata.input_tensor_meta(0).sizes())  # where an axis is free, its end
            width = list(method.metadata.output_tensor_meta(0).sizes())[-1]
        info = from_text(from_json(said), file, names, sides, width - 5 if width > 5 else None)
        super().__init__(info, file, device, (sides[0], sides[2], sides[3]))
        self.program, self.method = program, method

    def run(self, images: Tensor) -> Sequence[Any]:
        outputs: Sequence[Any] = self.method.execute([images.cpu().contiguous()])
        return outputs
