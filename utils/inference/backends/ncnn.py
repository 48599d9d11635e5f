"""ncnn models: a folder ``<name>_ncnn_model`` with the graph (``.param``), the weights (``.bin``) and metadata.

ncnn does not check files and may crash on a broken one, so both files are checked before ncnn opens them, and are run
once in a separate process. It trusts the settings of a layer, so a file made to do harm may still do it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.core.errors import InputError
from utils.core.files import read_yaml
from utils.core.packages import import_optional
from utils.inference import sandbox
from utils.inference.backends.base import FileBackend, UnknownPartError, checking_content
from utils.inference.backends.checked_graph import run_file_in_sandbox
from utils.inference.backends.metadata import KEY, as_text, from_text

PARAM, BIN, NCNN_METADATA = "model.ncnn.param", "model.ncnn.bin", "metadata.yaml"
HALF, SUMS = "half_weights", "sha256"  # keys of the metadata beside those of every format
MAGIC = "7767517"
_SECONDS = 600  # for one image
# Layers that compute tensors from tensors.
_LAYERS = """
AbsVal BatchNorm Bias BinaryOp BNLL Cast CELU Clip Concat Convolution Convolution1D ConvolutionDepthWise
ConvolutionDepthWise1D Crop CumulativeSum Deconvolution DeconvolutionDepthWise DeepCopy Dequantize Dropout Eltwise ELU
Erf Exp ExpandDims Flatten GELU Gemm GLU GroupNorm HardSigmoid HardSwish InnerProduct Input InstanceNorm Interp
LayerNorm Log LRN MatMul MemoryData Mish MVN Noop Normalize Packing Padding Permute PixelShuffle Pooling Pooling1D Power
PReLU Quantize Reduction ReLU Reorg Requantize Reshape Scale SELU Shrink ShuffleChannel Sigmoid Slice Softmax Softplus
Split Squeeze Swish TanH Threshold Tile UnaryOp
"""
NCNN_LAYERS = frozenset(_LAYERS.split())
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SETTING = re.compile(rf"(-?\d{{1,6}})=({_NUMBER}(?:,{_NUMBER})*)", re.ASCII)
_LIST_KEYS, _LARGEST = -23300, 1 << 31  # a key from there downwards has a list, which begins with its length


class NcnnBackend(FileBackend):
    """One model, on the CPU, an image at a time; in half precision only where its weights are.

    Args:
        trust: do not check its layers and do not run it in the sandbox.
    """

    own_threads = True

    def __init__(
        self, file: Path, device: torch.device, names: Sequence[str] | None = None, trust: bool = False
    ) -> None:
        with checking_content(file, "an ncnn model"):
            about = read_metadata(file)
            if not trust:
                check_graph(file / PARAM)
            check_checksums(file, about)
            info = from_text(as_text(about), file, names)
        super().__init__(info, file, device)
        ncnn = import_optional("ncnn", "ncnn", f"{file}")
        half = bool(about.get(HALF))
        if not trust:
            run_ncnn_in_sandbox(file, half, info.imgsz)
        net = sandbox.open_ncnn(ncnn, file / PARAM, half, torch.get_num_threads())
        if net is None:
            raise InputError(f"{file}: cannot be read as an ncnn model by the installed ncnn; export it anew")
        self.library, self.net = ncnn, net

    def run(self, images: Tensor) -> Sequence[Any]:
        image = np.ascontiguousarray(images[0].float().cpu().numpy())  # [3, H, W]; a batch is one image
        code, boxes = sandbox.run_ncnn(self.library, self.net, image)
        if code:
            raise InputError(f"{self.file}: ncnn cannot run it (code {code}); export it anew")
        return [np.array(boxes)[None]]


def run_ncnn_in_sandbox(folder: Path, half: bool, hw: tuple[int, int]) -> None:
    """Let ncnn run the model on one image of size ``hw`` in a separate process.

    Raises:
        InputError: this crashed the process, as it would have crashed ours.
    """
    size, what = (folder / BIN).stat().st_size, "ncnn, in a separate process,"
    try:
        run_file_in_sandbox("ncnn", folder / PARAM, size, (3, *hw), half, _SECONDS, what)
    except InputError as error:
        raise InputError(f"{folder}: cannot be read as an ncnn model: {error}; export it anew") from error


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read the metadata in the folder.

    Raises:
        InputError: no folder, a file of it is missing, or the metadata is not by this program.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with {PARAM}, {BIN} and {NCNN_METADATA}, found a file")
    missing = [name for name in (PARAM, BIN, NCNN_METADATA) if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {' and '.join(missing)} missing; make it with export.py --include ncnn")
    said = read_yaml(folder / NCNN_METADATA)
    if not isinstance(said, dict) or KEY not in said:
        raise InputError(f"{folder}: not exported by this program; make it with export.py --include ncnn")
    return said


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_checksums(folder: Path, about: dict[str, Any]) -> None:
    """Raise InputError: a file is not the one that the metadata was written for."""
    sums = about.get(SUMS)
    if not isinstance(sums, dict):
        raise InputError(f"{folder}: {NCNN_METADATA} says nothing of {SUMS} (cut off or changed); export it anew")
    for name in (PARAM, BIN):
        if sums.get(name) != checksum(folder / name):
            raise InputError(f"{folder}: {name} is not the file that was exported (cut off or changed); export it anew")


def check_graph(file: Path) -> None:
    """Refuse a graph on which ncnn may crash: unknown layers, wrong counts, or values that no layer before returns.

    After the magic number and a line with the number of layers and of values, each line is a layer: its type and name,
    the numbers of its inputs and outputs, their names, and ``key=value`` settings.

    Raises:
        InputError: with the number of the line.
        UnknownPartError: a layer is not on the list.
    """
    lines = file.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].strip() != MAGIC:
        raise InputError(f"{file}: cannot be read as an ncnn model: it does not begin with {MAGIC}")
    given: set[str] = set()
    rows = [line.split() for line in lines[2:] if line.strip()]
    for number, row in enumerate(rows, start=3):
        takes, gives = _values(file, number, row)
        if row[0] not in NCNN_LAYERS:
            raise UnknownPartError(f"it has a layer {row[0][:100]!r} in line {number}, which no detector needs")
        _check_settings(file, number, row[4 + len(takes) + len(gives) :])
        if not given.issuperset(takes) or not given.isdisjoint(gives):
            raise InputError(f"{file}:{number}: cannot be read as an ncnn model: it takes or gives an impossible value")
        given.update(gives)
    if lines[1].split() != [str(len(rows)), str(len(given))]:
        raise InputError(f"{file}:2: cannot be read as an ncnn model: the numbers of layers or values are wrong")


def _values(file: Path, number: int, row: list[str]) -> tuple[list[str], list[str]]:
    """Return the names of the inputs and outputs of a layer."""
    try:
        takes, gives = int(row[2]), int(row[3])
        names = row[4 : 4 + takes + gives]
        if min(takes, gives) < 0 or len(names) < takes + gives or any("=" in name for name in names):
            raise ValueError
    except (ValueError, IndexError):
        raise InputError(f"{file}:{number}: cannot be read as an ncnn model: it is no layer") from None
    return names[:takes], names[takes:]


def _check_settings(file: Path, number: int, words: list[str]) -> None:
    """Raise InputError: a setting is no number, or a list that is longer or shorter than it says."""
    for word in words:
        match = _SETTING.fullmatch(word)
        key, values = (int(match[1]), match[2].split(",")) if match else (0, [])
        length = float(values[0]) + 1 if values and key <= _LIST_KEYS else 1
        if len(values) != length or any(abs(float(value)) > _LARGEST for value in values):
            raise InputError(
                f"{file}:{number}: cannot be read as an ncnn model: the setting {word[:50]!r} is not valid"
            )
