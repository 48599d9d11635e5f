"""From a model yaml to layers: find and check the file, read its rows, make a layer of each row."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from models.argument_orders import BLOCKS, by_name
from models.limits import LARGEST, MOST_MULTIPLE, MOST_REPEATS
from models.registry import LayerRow, Scale, look_up
from models.user_modules import line_in_module, resolve_modules
from utils.core.errors import InputError, first_line, suggestion
from utils.core.files import every_value, read_yaml

MODELS_DIR = Path(__file__).resolve().parent
REQUIRED_KEYS = ("nc", "anchors", "backbone", "head")
OPTIONAL_KEYS = ("depth_multiple", "width_multiple", "ch", "act", "imports", "modules")


def find_model_yaml(cfg: str | Path) -> Path:
    """``cfg`` as a path, or as the bare name of a yaml anywhere inside ``models/``."""
    path = Path(cfg).expanduser()
    if path.is_file():
        return path
    shipped = {p.name: p for p in sorted(MODELS_DIR.rglob("*.yaml"))}
    if path.name == str(cfg) and path.name in shipped:
        return shipped[path.name]
    hint = suggestion(path.name, shipped)
    raise FileNotFoundError(f"--cfg {cfg}: no such model yaml (tried {path.absolute()} and the folder models/){hint}")


def read_model_yaml(cfg: str | Path | Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The checked content of a model yaml and the name to use for it in messages."""
    if isinstance(cfg, Mapping):
        content, source, folder = dict(cfg), str(cfg.get("yaml_file", "model yaml")), None
        content.pop("yaml_file", None)
    else:
        path = find_model_yaml(cfg)
        content, source, folder = read_yaml(path), path.name, path.parent
    if not isinstance(content, dict):
        raise InputError(f"{source}: a model yaml must be a mapping with the keys {', '.join(REQUIRED_KEYS)}")
    _check_numbers(content, source)
    if "activation" in content:  # the later spelling of the same key
        content["act"] = content.pop("activation")
    known = (*REQUIRED_KEYS, *OPTIONAL_KEYS)
    for key in REQUIRED_KEYS:
        if key not in content:
            foreign = "; it is of an anchor-free ultralytics model, which is not supported"
            later = foreign if key == "anchors" and "scales" in content else ""
            raise InputError(f"{source}: key '{key}' is missing{later}; a model yaml needs {', '.join(REQUIRED_KEYS)}")
    for key in content:
        if key not in known:
            instead = "; give depth_multiple and width_multiple in its place"
            cure = instead if key == "scales" else suggestion(str(key), known)
            raise InputError(f"{source}: unknown key '{key}'{cure}; known: {', '.join(known)}")
    _check_values(content, source)
    resolve_modules(content, source, folder)
    return content, source


def _check_values(content: Mapping[str, Any], source: str) -> None:
    for key in ("nc", "ch"):
        value = content.get(key, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{source}: {key} must be a whole number of at least 1, got {value!r}")
    for key in ("depth_multiple", "width_multiple"):
        value = content.get(key, 1.0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise InputError(f"{source}: {key} must be a number above 0, got {value!r}")
        if value > MOST_MULTIPLE:
            raise InputError(f"{source}: {key} must be at most {MOST_MULTIPLE}, got {value!r}")
    for key in ("backbone", "head"):
        if not isinstance(content[key], list) or not content[key]:
            raise InputError(f"{source}: {key} must be a list of rows [from, number, module, [arguments]]")
    anchors = content["anchors"]
    if isinstance(anchors, list):
        sizes = {len(row) if isinstance(row, list) else 0 for row in anchors}
        if len(sizes) == 1 and (size := sizes.pop()) > 0 and size % 2 == 0:
            return
    elif isinstance(anchors, int) and not isinstance(anchors, bool) and anchors > 0:
        return
    raise InputError(
        f"{source}: anchors must be their number per level, or one row of width,height pairs per level, all of one "
        f"length; got {anchors!r}"
    )


def _check_numbers(content: Mapping[str, Any], source: str) -> None:
    """Raise InputError: more values than are checked, or a number or text of a size that no model needs."""
    for key, part in content.items():
        try:
            for value in every_value(part):
                if isinstance(value, (int, float)) and not abs(value) <= LARGEST:
                    raise InputError(f"must be at most {LARGEST}, got {str(value)[:50]}")
                if isinstance(value, str) and len(value) > LARGEST:
                    raise InputError(f"holds a text of {len(value)} characters")
        except InputError as error:
            raise InputError(f"{source}: {str(key)[:50]} {error}") from error


def _literal(value: Any, tokens: Mapping[str, Any]) -> Any:
    """The value of a string in a row: a token (nc, anchors), a python literal such as None, else the text itself."""
    if not isinstance(value, str):
        return value
    if value in tokens:
        return tokens[value]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two: nested too deeply
        return value


def read_rows(content: Mapping[str, Any], source: str) -> list[LayerRow]:
    """The rows of a checked model yaml, backbone first, with tokens and literals resolved."""
    tokens = {"nc": content["nc"], "anchors": content["anchors"]}
    rows: list[LayerRow] = []
    for section in ("backbone", "head"):
        for number, raw in enumerate(content[section]):
            origin = f"{source}: {section} row {number}"
            if not (isinstance(raw, list) and len(raw) == 4 and isinstance(raw[3], list)):
                raise InputError(f"{origin}: expected [from, number, module, [arguments]], got {raw}")
            if isinstance(raw[1], bool) or not isinstance(raw[1], int) or raw[1] < 1:
                raise InputError(f"{origin}: the number must be a whole number of at least 1, got {raw[1]!r}")
            if raw[1] > MOST_REPEATS:
                raise InputError(f"{origin}: the number must be at most {MOST_REPEATS}, got {raw[1]}")
            listed = isinstance(raw[0], list)
            froms = tuple(raw[0]) if listed else (raw[0],)
            *given, last = raw[3] or [None]
            options = {str(k): _literal(v, tokens) for k, v in last.items()} if isinstance(last, dict) else {}
            args = tuple(_literal(arg, tokens) for arg in (given if isinstance(last, dict) else raw[3]))
            _check_numbers({f"{section} row {number}": [*args, *options.values()]}, source)  # those in quotes as well
            rows.append(LayerRow(len(rows), froms, raw[1], str(raw[2]), args, origin, options, listed))
    return rows


# Usual rows: kernel, stride and padding of convolutions, and layers that keep the size of a feature map.
_CONVOLUTIONS = frozenset({"Conv", "DWConv", "GhostConv", "DynamicConv", "CondConv", "ODConv", "Dynamic_conv2d"})
_TAILS = frozenset({(), (1,), (3,), (1, 1), (3, 1), (3, 2), (6, 2, 2), (1, 0.25)})
_KEEPING = frozenset(
    {"C3", "C3Dynamic", "C3Ghost", "C3SPP", "Bottleneck", "BottleneckCSP", "SPP", "SPPF", "Concat", "Sum"}
)
_MOST_NUMBERS = 1 << 22  # in a feature map of an ordinary row


def is_ordinary(content: Mapping[str, Any], layers: Sequence[LayerRow], ch: int, side: int) -> bool:
    """Whether channels and strides alone show that a model is of a usual size, so that ``check_limits`` is not needed.

    Args:
        content: a checked model yaml.
        layers: its rows.
        ch: channels of the image.
        side: of the image in pixels.
    """
    scale = Scale(content.get("depth_multiple", 1.0), content.get("width_multiple", 1.0))
    *rows, last = layers
    outputs = [(ch, side)]  # channels and side: of the image, then of each row
    for row in rows:
        try:
            sources = [outputs[s + 1 if s >= 0 else s] for s in row.sources]
            plan = look_up(row).rule(row, [channels for channels, _ in sources], scale)
            largest, tail = max(given for _, given in sources), row.args[1:]
        except (InputError, TypeError, ValueError, IndexError, OverflowError):
            return False  # the construction reports what is wrong
        numbers = [value for value in every_value([*tail, dict(row.options)]) if isinstance(value, (int, float))]
        if row.module in _CONVOLUTIONS and any(tail == usual for usual in _TAILS) and not row.options:
            largest = -(-largest // 2) if 2 in tail else largest
        elif row.module == "nn.Upsample" and row.args == (None, 2, "nearest"):
            largest *= 2
        elif row.module not in _KEEPING or row.options or any(not 0 <= n <= 13 for n in numbers):
            return False
        if plan.copies > 20 or scale.repeats(row.number) > 50 or plan.out_channels * largest**2 > _MOST_NUMBERS:
            return False
        outputs.append((plan.out_channels, largest))
    return last.module == "Detect" and content["nc"] <= 4096 and len(rows) < 200


def parse_model(content: Mapping[str, Any], ch: int, source: str = "model yaml") -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model yaml.

    Args:
        content: the yaml's dict with nc, anchors, backbone, head and optional multiples.
        ch: channels of the image.
        source: name for messages.

    Returns:
        The layers, each with ``i`` (index), ``f`` (sources), ``type`` and ``np`` (parameters), and the indices of the
        layers whose output later rows need.
    """
    scale = Scale(content.get("depth_multiple", 1.0), content.get("width_multiple", 1.0))
    outputs: list[int] = []  # channels by layer
    layers: list[nn.Module] = []
    needed: list[int] = []
    for row in read_rows(content, source):
        for s in row.sources:
            if not isinstance(s, int) or s >= row.index or row.index + s < (-1 if row.index == 0 else 0):
                raise row.fail(f"'from' {s} does not name an earlier layer; there are {row.index} before this one")
        channels = [ch if row.index == 0 else outputs[s if s >= 0 else row.index + s] for s in row.sources]
        layer, out = _build_layer(row, channels, scale)
        outputs.append(out)
        layers.append(layer)
        needed.extend(s % row.index for s in row.sources if s != -1)
    return nn.Sequential(*layers), sorted(needed)


def _build_layer(row: LayerRow, channels: Sequence[int], scale: Scale) -> tuple[nn.Module, int]:
    """The layer of a row, and the channels of its output."""
    entry = look_up(row)
    if not row.sources:
        raise row.fail("'from' is an empty list; name at least one layer")
    try:
        plan = entry.rule(row, channels, scale)
    except InputError:
        raise
    except (TypeError, ValueError, IndexError, ArithmeticError) as error:
        problem = f"{line_in_module(error)}{first_line(error)}"
        raise row.fail(f"cannot be read with arguments {list(row.args)}: {problem}; check them") from error
    later = plan.args if plan.later_args is None else plan.later_args
    try:
        if plan.copies > MOST_REPEATS:
            raise row.fail(f"would be repeated {plan.copies} times, at most are {MOST_REPEATS}")
        copies = [entry.cls(*(later if copy else plan.args), **row.options) for copy in range(plan.copies)]
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        problem = f"cannot be built with arguments {list(plan.args)}: {line_in_module(error)}{first_line(error)}"
        meant = by_name(row.module, row.args) if row.module in BLOCKS else ""
        takes = f"it takes ({', '.join(signature(entry.cls).parameters)})"
        raise row.fail("; ".join(filter(None, (problem, takes, meant)))) from error
    layer = copies[0] if plan.copies == 1 else nn.Sequential(*copies)
    _set_row_attributes(layer, row, plan.out_channels)
    return layer, plan.out_channels


def _set_row_attributes(layer: nn.Module, row: LayerRow, out_channels: int) -> None:
    """Set attributes on a layer that say which row of the yaml it is."""
    parameters = sum(p.numel() for p in layer.parameters())
    attributes = {"i": row.index, "f": row.sources, "type": row.module, "np": parameters}
    for name, value in {**attributes, "takes_list": row.listed, "promised": out_channels}.items():
        if name in layer._modules or name in layer._parameters or name in layer._buffers:
            raise row.fail(f"the layer calls a part of itself '{name}', which the model sets on every layer; rename it")
        setattr(layer, name, value)
