"""The source code in ``.torchscript`` files, as :mod:`utils.inference.backends.graph_program` runs it.

Tracing writes straight-line code: values get names and are passed to operations and to the parts of the network. Only
such code is read here. Everything else of the language (branches, loops, classes that run code when they are loaded) is
refused.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from utils.checkpoint.archive import PICKLE, PLAIN_NAMES, check_values, load_pickle, names_in
from utils.checkpoint.legacy import stand_in
from utils.core.errors import InputError
from utils.inference.backends.graph_program import (
    DEVICE,
    FACTORIES,
    MOST_STEPS,
    Program,
    Step,
    Value,
    aten_operation,
    checked_literal,
)

CODE = r"code/__torch__(/\w+)*\.py"
# Every record that torch writes; debug information and the images of the tracing are not read.
TORCHSCRIPT_RECORDS = (
    rf"{PICKLE}|{CODE}(\.debug_pkl)?|constants\.pkl|constants/\d+|extra/config\.txt"
    r"|traced_inputs\.pkl|traced_inputs/\d+"
)
_MAY_NAME = PLAIN_NAMES | {"torch.jit._pickle.restore_type_tag"}
_METHOD = re.compile(r"forward\d*", re.ASCII)
_DEEPEST = 100  # nested parts
_MOST_CODE = 4 << 20  # bytes; that of yolov5x6 has 200,000


def read_script(records: Mapping[str, bytes]) -> Program:
    """Read the network of an archive; the calls of its parts become one list of steps.

    Raises:
        InputError, KeyError, SyntaxError: it holds anything but straight-line code of known operations.
    """
    root = _unpickled({name: content for name, content in records.items() if re.fullmatch(PICKLE, name)})
    constants = {
        "data.pkl" if name == "constants.pkl" else name.replace("constants/", "data/"): content
        for name, content in records.items()
        if name.startswith("constants") or name in ("version", "byteorder")
    }
    methods: dict[tuple[str, str], ast.FunctionDef] = {}
    code = {name: content for name, content in records.items() if name.startswith("code/") and name.endswith(".py")}
    if sum(map(len, code.values())) > _MOST_CODE:
        raise InputError(f"refused, its code has more than {_MOST_CODE >> 20} MiB")
    for name, content in code.items():
        methods.update(_methods(name, content))
    reader = _Reader(methods, _unpickled(constants) if "data.pkl" in constants else ())
    results = reader.call(root, "forward", [Value("input")])
    return Program(reader.tensors, "input", reader.steps, results)


def _unpickled(records: dict[str, bytes]) -> Any:
    """Load a pickle in which the parts of a network are objects without code."""
    names = names_in(records["data.pkl"]) - _MAY_NAME
    if others := sorted(name for name in names if not name.startswith("__torch__.") or ".torch.classes." in name):
        raise InputError(f"refused, it names {others[0][:100]}")
    parts = [(stand_in(name), name) for name in names]
    content = load_pickle(records, [*parts, (_untagged, "torch.jit._pickle.restore_type_tag")])
    check_values(content)
    return content


def _untagged(value: Any, tag: str) -> Any:
    return value


def _methods(record: str, content: bytes) -> dict[tuple[str, str], ast.FunctionDef]:
    """Return the methods in a file of source code by the dotted name of the class and the name of the method."""
    module = record.removeprefix("code/").removesuffix(".py").replace("/", ".")
    methods: dict[tuple[str, str], ast.FunctionDef] = {}
    for kind in ast.parse(content.decode("ascii")).body:
        if not isinstance(kind, ast.ClassDef):
            raise InputError(f"refused, its code holds more than the classes of a network ({module}:{kind.lineno})")
        for part in kind.body:
            if isinstance(part, ast.FunctionDef):
                if not _METHOD.fullmatch(part.name) or (f"{module}.{kind.name}", part.name) in methods:
                    raise InputError(f"refused, its code holds a method {part.name[:50]!r} ({module})")
                methods[f"{module}.{kind.name}", part.name] = part
    return methods


class _Reader:
    """Follows methods as if they were called, and records their operations as steps."""

    def __init__(self, methods: Mapping[tuple[str, str], ast.FunctionDef], constants: Sequence[Any]) -> None:
        self.methods, self.constants = methods, constants
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensor] = {}
        self._numbers: dict[int, str] = {}  # names of the stored tensors
        self._depth = self._calls = 0
        self._module: Any = None
        self._names: dict[str, Any] = {}

    def call(self, module: Any, method: str, args: Sequence[Any]) -> Any:
        """Return the result of a method of a part of the network."""
        if not isinstance(module, nn.Module) or not _METHOD.fullmatch(method):
            raise InputError(f"refused, its code calls {method[:50]!r}")
        function = self.methods[f"{type(module).__module__}.{type(module).__name__}", method]
        given = function.args
        if given.vararg or given.kwarg or given.kwonlyargs or given.defaults or len(given.args) != len(args) + 1:
            raise InputError(f"refused, the arguments of {method} of {type(module).__name__} are uncommon")
        self._depth, self._calls = self._depth + 1, self._calls + 1
        if self._depth > _DEEPEST or self._calls > MOST_STEPS:
            raise InputError("refused, its parts call each other too often")
        before, self._names = self._names, dict(zip((one.arg for one in given.args), (module, *args)))
        for statement in function.body[:-1]:
            self._assign(statement)
        last = function.body[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            raise self._refusal(last)
        result = self._value(last.value)
        self._names, self._depth = before, self._depth - 1
        return result

    def _refusal(self, node: ast.AST) -> InputError:
        text = " ".join(ast.unparse(node).split())[:80]
        return InputError(f"refused, its code holds more than the operations of a detector: {text}")

    def _assign(self, statement: ast.stmt) -> None:
        if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
            raise self._refusal(statement)
        target = statement.targets[0]
        value = self._value(statement.value)
        if isinstance(target, ast.Name):
            self._names[target.id] = value
            return
        if not isinstance(target, (ast.Tuple, ast.List)) or not all(isinstance(one, ast.Name) for one in target.elts):
            raise self._refusal(statement)
        if isinstance(value, Value):  # the operation before returns a list
            step = self.steps[-1]
            if step.results != (value.name,):
                raise self._refusal(statement)
            parts = tuple(f"{value.name}.{index}" for index in range(len(target.elts)))
            self.steps[-1] = Step(step.call, step.what, step.args, step.kwargs, parts, listed=True)
            value = [Value(name) for name in parts]
        self._names.update(zip((one.id for one in target.elts if isinstance(one, ast.Name)), value, strict=True))

    def _value(self, node: ast.expr) -> Any:
        """Return what an expression names: a value of the program, a number, a part of the network, a list of these."""
        if isinstance(node, ast.Name) and node.id in self._names:
            return self._names[node.id]
        if isinstance(node, ast.Constant):
            return checked_literal(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            return -checked_literal(node.operand.value)
        if isinstance(node, (ast.List, ast.Tuple)):
            parts = [self._value(one) for one in node.elts]
            if any(isinstance(one, list) and any(isinstance(inner, list) for inner in one) for one in parts):
                raise self._refusal(node)
            return parts
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "CONSTANTS" and re.fullmatch(r"c\d+", node.attr):
                return self._kept(self.constants[int(node.attr[1:])])
            return self._part(self._value(node.value), node.attr)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            value, index = self._value(node.value), node.slice.value
            if isinstance(value, list) and isinstance(index, int):
                return value[index]
            return self._step(operator.getitem, "item", (value, checked_literal(index)))
        if isinstance(node, ast.Call):
            return self._called(node)
        raise self._refusal(node)

    def _called(self, node: ast.Call) -> Any:
        name = ast.unparse(node.func)
        if name == "getattr" and len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
            return self._part(self._value(node.args[0]), str(node.args[1].value))
        if name == "torch.device":
            return DEVICE
        if name in ("annotate", "unchecked_cast") and len(node.args) == 2:
            value = self._value(node.args[1])
            number = isinstance(value, Value) and ast.unparse(node.args[0]) == "number"
            return self._step(_number, name, (value,)) if number else value
        args = [self._value(one) for one in node.args]
        if isinstance(node.func, ast.Attribute) and name.startswith("torch.") and name.count(".") == 1:
            kwargs = {str(one.arg): self._value(one.value) for one in node.keywords}
            if "out" in kwargs:
                raise self._refusal(node)
            return self._operation(node.func.attr, args, {k: v for k, v in kwargs.items() if v is not None})
        if node.keywords:
            raise self._refusal(node)
        if name in _CONVERSIONS and len(args) == 1:
            return self._step(_CONVERSIONS[name], name, tuple(args))
        if isinstance(node.func, ast.Attribute):
            return self.call(self._value(node.func.value), node.func.attr, args)
        raise self._refusal(node)

    def _operation(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Value:
        if name == "size":
            return self._step(torch.Tensor.size, name, tuple(args))
        if name in FACTORIES:
            kwargs["device"] = DEVICE
        return self._step(aten_operation(name), name, tuple(args), kwargs)

    def _step(
        self, call: Callable[..., Any], what: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> Value:
        if len(self.steps) >= MOST_STEPS:
            raise InputError(f"refused, it has more than {MOST_STEPS} steps")
        name = f"step{len(self.steps)}"
        if any(isinstance(one, nn.Module) for one in (*args, *(kwargs or {}).values())):
            raise InputError(f"refused, it gives a part of the network to {what}")
        self.steps.append(Step(call, what, args, kwargs or {}, (name,)))
        return Value(name)

    def _part(self, module: Any, name: str) -> Any:
        """Return a tensor, number or part that is an attribute of a part of the network."""
        if not isinstance(module, nn.Module) or name not in module.__dict__ or name.startswith("__"):
            raise InputError(f"refused, its code reads {name[:50]!r} of an object without it")
        return self._kept(module.__dict__[name])

    def _kept(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            name = f"tensor{len(self.tensors)}"
            if self._numbers.setdefault(id(value), name) == name:
                self.tensors[name] = value.detach()
            return Value(self._numbers[id(value)])
        if isinstance(value, list):
            return [self._kept(one) for one in value]
        return value if isinstance(value, nn.Module) else checked_literal(value)


def _number(value: Any) -> Any:
    """Convert a tensor of one number to that number."""
    return value.item() if isinstance(value, Tensor) else value


# Sizes are numbers, which traced code sometimes treats as tensors.
_CONVERSIONS: Mapping[str, Callable[..., Any]] = {
    "ops.prim.NumToTensor": lambda value: torch.tensor(value, device="cpu"),
    "int": int,
    "float": float,
    "bool": bool,
}
