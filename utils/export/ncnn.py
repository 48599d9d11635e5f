"""ncnn, for phones and small boards: a folder with the graph (``.param``), the weights (``.bin``) and a description."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from models.dynamic_convolution import DynamicForm
from utils.core.errors import InputError, describe_exit_code
from utils.core.yaml_names import dump_yaml
from utils.export.base import Exporter, missing
from utils.export.export_job import ExportJob
from utils.inference.backends.ncnn import BIN, HALF, NCNN_METADATA, PARAM, SUMS, checksum

_SECONDS = 900  # more than the largest models take on a slow machine
_TRACED = "model.pt"


class NcnnExporter(Exporter):
    """A folder ``<name>_ncnn_model`` for one image of one size; ``--half`` stores and computes in half precision."""

    name = "ncnn"
    ending = "_ncnn_model"
    packages: ClassVar[dict[str, str]] = {"pnnx": "pnnx", "ncnn": "ncnn"}
    forms = (DynamicForm.SINGLE, DynamicForm.MERGED, DynamicForm.MATMUL, DynamicForm.PATCHES)
    can_free = ()
    content_is_checked = True

    def obstacle(self, job: ExportJob) -> str | None:
        needed = {
            module: name for module, name in self.packages.items() if module != "pnnx" or not shutil.which("pnnx")
        }
        if reason := missing(needed):
            return reason
        if job.options.batch_size > 1:
            return "an ncnn file takes one image a call (a batch is cut into ones when it is used): no --batch-size"
        return None

    def write(self, job: ExportJob, path: Path) -> list[str]:
        half, verbose = job.options.half, job.options.verbose
        job = job.on_cpu()  # images stay float32
        network = job.network(self.form(job.options), ())
        path.mkdir()
        with tempfile.TemporaryDirectory(prefix="ncnn-") as folder:
            trace(network, job.images(), Path(folder) / _TRACED)
            run_pnnx(Path(folder), tuple(job.images().shape), half, verbose)
            for name in (PARAM, BIN):
                shutil.move(Path(folder) / name, path / name)
        check_layers(path / PARAM)
        about = {
            **job.about((), network).to_plain(),
            HALF: half,
            SUMS: {name: checksum(path / name) for name in (PARAM, BIN)},
        }
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in about.items()}
        (path / NCNN_METADATA).write_text(dump_yaml(plain), encoding="utf-8")
        notes = {"one image of one size": bool(job.options.free_axes), "half precision": half}
        return [note for note, holds in notes.items() if holds]


def trace(network: nn.Module, images: torch.Tensor, file: Path) -> None:
    """The network as TorchScript, which pnnx reads."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecation; the file is checked
        torch.jit.save(torch.jit.trace(network, images, check_trace=False), str(file))


def pnnx_command() -> list[str]:
    """The command that starts pnnx: that of the package of this Python, else one on the path.

    Raises:
        InputError: there is none.
    """
    package = importlib.util.find_spec("pnnx")
    for folder in (*((package and package.submodule_search_locations) or ()), None):
        if executable := shutil.which("pnnx", path=folder):
            return [executable]
    raise InputError("the program pnnx is missing: pip install pnnx")


def run_pnnx(folder: Path, shape: Sequence[int], half: bool, verbose: bool = False) -> None:
    """Let pnnx write ``PARAM`` and ``BIN`` beside the traced network in ``folder``.

    Names are relative to the folder: pnnx takes no others everywhere.

    Raises:
        InputError: it fails or takes too long; with the last line that it prints.
    """
    sides = ",".join(map(str, shape))
    command = [
        *pnnx_command(),
        _TRACED,
        f"inputshape=[{sides}]",
        f"fp16={int(half)}",
        f"ncnnparam={PARAM}",
        f"ncnnbin={BIN}",
    ]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"pnnx did not end within {_SECONDS} seconds") from None
    except OSError as error:
        raise InputError(f"{command[0]}: cannot be started ({error.strerror})") from error
    if verbose:
        print(done.stdout)
    absent = [name for name in (PARAM, BIN) if not (folder / name).is_file()]
    if done.returncode or absent:
        said = [line for line in done.stdout.splitlines() if line.strip()] or ["it printed nothing"]
        ended = describe_exit_code(done.returncode) if done.returncode else f"wrote no {' and no '.join(absent)}"
        raise InputError(f"pnnx {ended}: {said[-1].strip()}")


def check_layers(file: Path) -> None:
    """Raise InputError: pnnx could not translate a layer, and wrote it under the name it has in PyTorch."""
    kinds = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines()[2:] if line.strip()]
    foreign = sorted({kind for kind in kinds if "::" in kind or "." in kind})
    if foreign:
        raise InputError(f"ncnn has no layer for {', '.join(foreign)}")
