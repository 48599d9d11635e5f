"""Files of ``torch.export`` (``.pt2``), read as data; see :mod:`utils.inference.backends.graph_program`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.checkpoint.archive import read_records
from utils.core.errors import InputError
from utils.core.files import every_value
from utils.inference.backends.base import FileBackend, reading
from utils.inference.backends.graph_program import (
    DEVICE,
    FACTORIES,
    NUMBER_OPERATIONS,
    Program,
    Step,
    Value,
    aten_operation,
    checked_literal,
)
from utils.inference.backends.metadata import METADATA_FILE, from_json, from_text

# Every record that torch 2.9 and later write for one model; sample images are not read.
PT2_RECORDS = (
    r"models/model\.json|extra/about\.json|archive_format|archive_version|byteorder|version|data/sample_inputs/model\.pt"
    r"|data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
# Names in the expressions of sizes that depend on those of the images.
_NAMES = """
Symbol Integer Float Rational positive nonnegative integer real precision Add Mul Pow Mod PythonMod FloorDiv CleanDiv
CeilDiv Max Min Eq Ne Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan Not And Or
ModularIndexing Where CeilToInt FloorToInt TruncToInt RoundToInt ToFloat IntTrueDiv FloatTrueDiv PowByNatural Identity
true false True False L images size torch sym_max sym_min sym_not not and or
"""
_SIZES = frozenset(_NAMES.split())
_ARITHMETIC = re.compile(r"\w+(\.\w+)?|'\w+'|\]\.size\(\)|[][(),*+/%<>=!&|~\s-]", re.ASCII)
_WORD, _SYMBOL = re.compile(r"[^\W\d]\w*", re.ASCII), re.compile(r"[a-z]+\d+", re.ASCII)
# The numbers of the file format for types and layouts of memory.
_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_STRIDED = 7
_PLAIN = {"as_int": int, "as_float": (int, float), "as_bool": bool, "as_string": str}


class ExportedProgramBackend(FileBackend):
    """One ``.pt2`` file of this program."""

    def __init__(self, file: Path, device: torch.device, names: Sequence[str] | None = None) -> None:
        with reading(file, "a torch.export file"):
            records = read_records(file, PT2_RECORDS)
            if f"extra/{METADATA_FILE}" not in records:
                raise InputError(f"{file}: not exported by this program; make it with export.py --include pt2")
            program = read_program(records)
            info = from_text(from_json(records[f"extra/{METADATA_FILE}"]), file, names)
        super().__init__(info, file, device)
        self.program = program.to(device)

    def run(self, images: Tensor) -> Sequence[Any]:
        output = self.program(images.to(self.device))
        return output if isinstance(output, (tuple, list)) else [output]


def read_program(records: Mapping[str, bytes]) -> Program:
    """Read the graph of an archive with its tensors.

    Raises:
        InputError, KeyError, TypeError, ValueError: a record is missing, or holds something else than a graph of
            operations of detectors.
    """
    if records.get("byteorder", b"little") != b"little":
        raise InputError("refused, its numbers are stored in another order than that of this computer")
    program = json.loads(records["models/model.json"])
    _check_sizes(program)
    stored = _stored(records, "weights") | _stored(records, "constants")
    module = program["graph_module"]
    graph, inputs, tensors = module["graph"], [], {}
    for spec in module["signature"]["input_specs"]:
        ((kind, about),) = spec.items()
        name = _name(about["arg"].get("as_tensor") if kind == "user_input" else about["arg"])
        if kind == "user_input":
            inputs.append(name)
        elif kind in ("parameter", "buffer", "tensor_constant"):
            tensors[name] = stored[about[f"{kind}_name"]]
        else:
            raise InputError(f"refused, it takes {kind[:50]!r}")
    for spec in module["signature"]["output_specs"]:
        if [*spec] != ["user_output"]:
            raise InputError(f"refused, it returns {', '.join(spec)[:50]!r}")
    if len(inputs) != 1:
        raise InputError(f"takes {len(inputs)} inputs, expected one")
    steps = [step for node in graph["nodes"] if (step := _step(node)) is not None]
    return Program(tensors, inputs[0], steps, [Value(_name(output["as_tensor"])) for output in graph["outputs"]])


def _check_sizes(program: Any) -> None:
    """Raise InputError: an expression of a free size is no arithmetic. It is not used here, but torch evaluates it."""
    for value in every_value(program):
        if isinstance(value, dict):
            texts = [value.get("expr_str", ""), *(value.get("guards_code") or [])]
            for text in texts:
                names = ["?"] if _ARITHMETIC.sub("", text) else _WORD.findall(text)  # reads each character once
                if others := [name for name in names if name not in _SIZES and not _SYMBOL.fullmatch(name)]:
                    raise InputError(f"refused, it has {others[0][:50]!r} in the size {text[:100]!r}")


def _stored(records: Mapping[str, bytes], kind: str) -> dict[str, Tensor]:
    """Return the tensors that a record of ``data/weights`` or ``data/constants`` lists, by their names in the model."""
    tensors, flat = {}, dict[str, Tensor]()
    for name, about in json.loads(records[f"data/{kind}/model_{kind}_config.json"])["config"].items():
        meta, record = about["tensor_meta"], f"data/{kind}/{about['path_name']}"
        if about.get("use_pickle") or meta["layout"] != _STRIDED:
            raise InputError("refused, it holds tensors of an uncommon kind")
        sizes, strides = ([_number(side) for side in meta[key]] for key in ("sizes", "strides"))
        dtype, start = _TYPES[meta["dtype"]], _number(meta["storage_offset"])
        if record not in flat:
            content = bytearray(records[record])
            flat[record] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        if flat[record].dtype != dtype or torch.Size(sizes).numel() > flat[record].numel():
            raise InputError(f"refused, a tensor {sizes} is larger than what is stored of it")
        tensors[name] = flat[record].as_strided(sizes, strides, start)
    return tensors


def _number(said: Mapping[str, Any]) -> int:
    value = said["as_int"]
    if type(value) is not int or value < 0:
        raise InputError(f"refused, it has the size {str(value)[:50]}")
    return value


def _name(said: Any) -> str:
    name = said["name"]
    if not isinstance(name, str):
        raise InputError("refused, a value in it has no name")
    return name


def _step(node: Mapping[str, Any]) -> Step | None:
    """Read a node of the graph; None for one that only checks sizes and returns nothing."""
    results, listed = _results(node["outputs"])
    target = str(node["target"])
    if not results:
        return None
    family, _, name = target.rpartition(".")
    if family == "_operator" and name in NUMBER_OPERATIONS:
        call: Any = NUMBER_OPERATIONS[name]
        return Step(call, target, tuple(_argument(given["arg"]) for given in node["inputs"]), {}, results, listed)
    if target == "torch.ops.aten.sym_size.int":
        call = torch.Tensor.size
    elif family.startswith("torch.ops.aten.") and family.count(".") == 3:
        call = aten_operation(family.rpartition(".")[2], name)
    else:
        raise InputError(f"refused, it uses {target[:100]!r}, which is not among the operations of detectors")
    args = tuple(_argument(given["arg"]) for given in node["inputs"] if given.get("kind", 1) != 2)
    kwargs = {str(given["name"]): _argument(given["arg"]) for given in node["inputs"] if given.get("kind", 1) == 2}
    if target.split(".")[3] in FACTORIES:
        kwargs["device"] = DEVICE
    return Step(call, target, args, kwargs, results, listed)


def _results(outputs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """Return the names of the results of a node, and whether it returns a list."""
    names = []
    for output in outputs:
        ((kind, said),) = output.items()
        if kind == "as_tensors":
            return tuple(_name(one) for one in said), True
        if kind == "as_tensor":
            names.append(_name(said))
        elif kind == "as_sym_int":
            names.append(_name({"name": said["as_name"]}))
        elif kind != "as_none":
            raise InputError(f"refused, a step returns {kind[:50]!r}")
    return tuple(names), len(names) > 1


def _argument(said: Mapping[str, Any]) -> Any:
    """Read an argument of a node."""
    ((kind, value),) = said.items()
    if kind == "as_tensor":
        return Value(_name(value))
    if kind == "as_tensors":
        return [Value(_name(one)) for one in value]
    if kind == "as_optional_tensors":
        return [_argument(one) for one in value]
    if kind == "as_sym_int":
        return Value(_name({"name": value["as_name"]})) if "as_name" in value else _argument(value)
    if kind == "as_sym_ints":
        return [_argument({"as_sym_int": one}) for one in value]
    if kind in ("as_ints", "as_floats", "as_bools"):
        return [_argument({kind[:-1]: one}) for one in value]
    if kind in _PLAIN and isinstance(value, _PLAIN[kind]):  # type: ignore[arg-type]
        return checked_literal(value)
    if kind == "as_none":
        return None
    if kind == "as_scalar_type":
        return _TYPES[value]
    if kind == "as_memory_format":
        return _FORMATS[value]
    if kind == "as_layout" and value == _STRIDED:
        return torch.strided
    if kind == "as_device":
        return DEVICE
    raise InputError(f"refused, it gives {kind[:50]!r} to an operation")
