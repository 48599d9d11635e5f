"""How many of the weights of a model can be wrong by 1 % before export.py notices.

python tests/faults/changed_weights.py --weights best.pt [more.pt ...] [--imgsz 320] [--factor 1.01] [--dynamic]

Each tensor of weights in the exported ONNX file is multiplied by the factor in turn, and the changed file goes through
the check of export.py. Prints how many were refused, by the kind of operation that takes the tensor, and names those
that were kept. Exits with 1 if the unchanged file is refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.user_modules import load_modules
from utils.checkpoint import load_model
from utils.config.export_options import ExportOptions
from utils.core.errors import InputError
from utils.core.rounding import DifferenceNorms
from utils.export import check
from utils.export.export_job import ExportJob
from utils.export.onnx import OnnxExporter
from utils.inference.backends import open_exported

CPU = torch.device("cpu")


def tensors_of(graph: Any) -> list[tuple[str, str]]:
    """(name, kind of operation that takes it) of every tensor of two or more dimensions and float numbers."""
    users: dict[str, str] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, node.op_type)
    return [
        (tensor.name, users[tensor.name])
        for tensor in graph.initializer
        if tensor.data_type == 1 and sum(side > 1 for side in tensor.dims) > 1 and tensor.name in users
    ]


class SameReference(check.Reference):
    """The reference of the check, which measures the rounding of the model once for all changed files."""

    def __init__(self, job: ExportJob) -> None:
        super().__init__(job)
        self.known: dict[torch.Size, list[DifferenceNorms]] = {}

    def rounding(self, images: Tensor) -> list[DifferenceNorms]:
        if images.shape not in self.known:
            self.known[images.shape] = super().rounding(images)
        return self.known[images.shape]


def verdict(job: ExportJob, file: Path) -> str:
    """Why the file is refused, "" where it is kept."""
    try:
        check.prove(open_exported(file, CPU, own=True), job)
    except InputError as error:
        return str(error)
    return ""


def sweep(weights: Path, options: ExportOptions, hw: tuple[int, int], factor: float, folder: Path) -> None:
    """Change the tensors of the file made of one checkpoint.

    Raises:
        InputError: the unchanged file is refused."""
    import onnx
    from onnx import numpy_helper

    job = ExportJob(load_model(weights)[0], options, hw, folder / weights.stem)
    file = folder / "a.onnx"
    exporter = OnnxExporter()
    with torch.no_grad():
        exporter.write(job, file)
    proof = check.prove(open_exported(file, CPU, own=True), job)
    title = f"{weights} {'dynamic' if options.dynamic else 'fixed'}"
    print(f"{title}: kept, differs by {proof.worst:.1e}, allowed {proof.limit:.1e}", flush=True)
    reference = SameReference(job)
    model = onnx.load(file)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    refused: dict[str, list[bool]] = defaultdict(list)
    for name, kind in tensors_of(model.graph):
        before = onnx.TensorProto()
        before.CopyFrom(tensors[name])
        values = numpy_helper.to_array(before)
        tensors[name].CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), name))
        file.write_bytes(model.SerializeToString())
        with mock.patch.object(check, "Reference", lambda _: reference):
            said = verdict(job, file)
        tensors[name].CopyFrom(before)
        refused[kind].append(bool(said))
        if not said:
            print(f"  kept: {kind} {name} {list(values.shape)}", flush=True)
    counts = ", ".join(f"{kind} {sum(each)} of {len(each)}" for kind, each in sorted(refused.items()))
    print(f"{title}: refused {counts}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", required=True)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--factor", type=float, default=1.01)
    parser.add_argument("--dynamic", action="store_true")
    parser.add_argument("--modules", nargs="*", default=[])
    given = parser.parse_args()
    load_modules(given.modules)
    failed = False
    for weights in map(Path, given.weights):
        with tempfile.TemporaryDirectory() as folder, mock.patch.object(check, "time_ms", lambda *_: 0.0):
            options = ExportOptions(
                weights=(str(weights),), include=("onnx",), imgsz=(given.imgsz,), dynamic=given.dynamic, output=folder
            )
            try:
                sweep(weights, options, (given.imgsz, given.imgsz), given.factor, Path(folder))
            except InputError as error:
                failed = True
                print(f"{weights}: the unchanged file is refused: {error}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
