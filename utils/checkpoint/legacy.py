"""Reading of official YOLOv5 files (v5 to v7), which are pickled modules, without running their code.

The names in the pickle are listed first. Classes of the original become empty stand-ins that only store attributes;
torch.nn classes and numpy's array reconstruction are allowed; any other name refuses the file. No class of torch is
called: its stand-in refuses, since an argument could allocate any amount of memory.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import re
from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from models.limits import LARGEST
from models.registry import LAYERS
from utils.checkpoint.archive import check_tensors, load_pickle
from utils.checkpoint.foreign import by_class, refusal
from utils.core.errors import InputError
from utils.core.names import counted

LOG = logging.getLogger(__name__)
OWN_PACKAGES = ("models.", "utils.", "ultralytics.")
TORCH_PACKAGES = ("torch.nn.modules.", "torch._C.")
YAML_KEYS = ("nc", "depth_multiple", "width_multiple", "anchors", "backbone", "head", "ch")
_HARMLESS = frozenset({
    "__builtin__.set", "builtins.set", "torch.nn.parameter.Parameter", "torch.Size", "torch.device", "torch.float16",
    "torch.float32", "torch.float64",
})  # fmt: skip
STALE_BUFFERS = ("anchor_grid",)  # a derived value in files before v6.1


def stand_in(dotted: str, base: type[nn.Module] = nn.Module) -> type[nn.Module]:
    """Return a class of that name that only stores attributes; one of torch (``base``) cannot be called."""
    module, _, name = dotted.rpartition(".")
    about = {"__module__": module, "__doc__": f"Inert stand-in for {dotted}."}
    return type(name, (base,), about if base is nn.Module else {**about, "__init__": _never})


def _never(self: nn.Module, *arguments: Any) -> None:
    raise ValueError(f"refused, {type(self).__name__} would be called")


def _numpy_names() -> dict[str, Any]:
    """Return the names in pickles of numpy arrays and scalars, with the old and the new module path."""
    own = "numpy._core" if importlib.util.find_spec("numpy._core") else "numpy.core"  # before numpy 2
    multiarray = importlib.import_module(f"{own}.multiarray")
    names: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": _dtype}
    for package in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[f"{package}._reconstruct"] = multiarray._reconstruct
        names[f"{package}.scalar"] = multiarray.scalar
    for kind in ("Float64", "Float32", "Float16", "Int64", "Int32", "UInt8", "Bool"):
        names[f"numpy.dtypes.{kind}DType"] = getattr(np.dtypes, f"{kind}DType")
    return names


def _dtype(kind: str, *_: bool) -> np.dtype[Any]:
    """Return a plain numpy type; types of text or bytes are refused, since one value may need any amount of memory."""
    if not isinstance(kind, str) or not re.fullmatch("[<>|=]?[biuf][1248]", kind):
        raise ValueError(f"refused, it has numbers of the kind {str(kind)[:50]!r}")
    return np.dtype(kind)


def _encode(text: str, encoding: str) -> bytes:
    """Encode latin1: old numpy pickles rebuild bytes through ``_codecs.encode``, and need no other encoding."""
    if encoding != "latin1":
        raise ValueError(f"refused, it would use the encoding {encoding!r}")
    return text.encode("latin1")


def _resolve(path: Path, names: Iterable[str]) -> list[Any]:
    """Return the allow-list entries of dotted names; raise an InputError that names those that are refused."""
    numpy_names = _numpy_names()
    allowed: list[Any] = []
    refused: list[str] = []
    for dotted in names:
        leaf = dotted.rpartition(".")[2]
        if dotted.startswith(OWN_PACKAGES):
            allowed.append((stand_in(dotted), dotted))
        elif dotted.startswith(TORCH_PACKAGES) and isinstance(getattr(nn, leaf, None), type):
            allowed.append((stand_in(dotted, getattr(nn, leaf)), dotted))
        elif dotted in numpy_names:
            allowed.append((numpy_names[dotted], dotted))
        elif dotted == "_codecs.encode":
            allowed.append((_encode, dotted))
        elif dotted in _HARMLESS:  # on torch's own allow-list
            continue
        elif dotted in ("pathlib.PosixPath", "pathlib.WindowsPath", "argparse.Namespace", "datetime.datetime"):
            allowed.append((_Inert, dotted))
        else:
            refused.append(dotted)
    if refused:
        raise InputError(
            f"{path}: refused, it names {', '.join(sorted(refused))}, which an official YOLOv5 file does not need; "
            "export its state dict with the program that made it"
        )
    # The class of a dtype is only needed while an array is rebuilt, so it is not in the list of names.
    return [*allowed, *((v, k) for k, v in numpy_names.items() if k.startswith("numpy.dtypes"))]


class _Inert:
    """Stand-in for harmless values that are not needed (paths, option namespaces)."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_legacy(path: Path, records: MutableMapping[str, bytes], names_used: Iterable[str]) -> dict[str, Any]:
    """Read the fields of a :class:`~utils.checkpoint.format.Checkpoint` from an official file.

    Args:
        path: the file.
        records: of its archive; the dict is emptied.
        names_used: names in its pickle, without those of tensors.

    Raises:
        InputError: a name is not accepted, or there is no YOLOv5 model in the file.
    """
    names_used = list(names_used)
    if foreign := by_class(names_used):
        raise InputError(f"{path}: {foreign}")
    content = load_pickle(records, _resolve(path, names_used))
    holder = (content.get("ema") or content.get("model")) if isinstance(content, dict) else content
    model_yaml, strides = getattr(holder, "yaml", None), getattr(holder, "stride", ())
    if not isinstance(holder, nn.Module) or not isinstance(model_yaml, dict):
        raise InputError(f"{path}: holds no YOLOv5 detection model (no model with a yaml in it)")
    head = _head_of(model_yaml)
    if head is not None and head not in LAYERS:
        raise InputError(f"{path}: {refusal('a model of another kind', f'its head is {head}')}")
    state = _state_of(holder)
    options = content.get("opt") if isinstance(content, dict) else None  # v7 records those of the training
    names = _names_of(holder, model_yaml, path)
    LOG.info(
        "%s: official YOLOv5 file, %d tensors, %d classes, read without executing it", path, len(state), len(names)
    )
    return {
        "model_yaml": _clean_yaml(model_yaml) | _activation_of(holder, path),
        "nc": len(names),
        "names": names,
        "stride": [float(s) for s in strides],
        "model": state,
        "options": {"imgsz": options.get("imgsz")} if isinstance(options, dict) else {},
        "origin": "official",
    }


def _head_of(model_yaml: dict[str, Any]) -> str | None:
    """Return the class of the last row of a model yaml; None without rows."""
    try:
        return str(model_yaml["head"][-1][2])
    except (KeyError, IndexError, TypeError):
        return None


def _names_of(holder: nn.Module, model_yaml: dict[str, Any], path: Path) -> list[str]:
    """Return a name for each class of the model yaml; classes without a name are numbered, with a warning.

    Raises:
        InputError: the yaml has no number of classes.
    """
    nc, given = model_yaml.get("nc"), getattr(holder, "names", None)
    if not isinstance(nc, int) or not 1 <= nc <= LARGEST:
        raise InputError(f"{path}: its model yaml has no number of classes (nc is {str(nc)[:50]})")
    named = given if isinstance(given, dict) else dict(enumerate(given)) if isinstance(given, (list, tuple)) else {}
    names = [str(named.get(number, named.get(str(number), f"class{number}"))) for number in range(nc)]
    if len(named) != nc or names != [str(name) for name in named.values()]:
        classes = counted(len(named), "class") if named else "no classes"
        shown = ", ".join(names[:3]) + (", ..." if nc > 3 else "")
        LOG.warning("%s: names %s, its model has %d (nc of its yaml): they are called %s", path, classes, nc, shown)
    return names


def _state_of(holder: nn.Module) -> dict[str, Tensor]:
    """Return float32 tensors by name, without derived values of older versions; a shared module is used once."""
    state: dict[str, Tensor] = {}
    for prefix, module in holder.named_modules():
        kept = {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
        for name, value in {**module._parameters, **kept}.items():
            if value is not None and name not in STALE_BUFFERS:
                state[f"{prefix}.{name}".removeprefix(".")] = value.detach()
    check_tensors(list(state.values()))
    return {k: (v.float() if v.is_floating_point() else v).clone() for k, v in state.items()}


def _clean_yaml(model_yaml: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that a model yaml has here; the original adds others."""
    return {k: model_yaml[k] for k in YAML_KEYS if k in model_yaml}


def _activation_of(holder: nn.Module, path: Path) -> dict[str, str]:
    """Return the ``act:`` key of a model whose layers have another activation than SiLU.

    It is read from the layers: before v7 an activation was changed in the code, not in the yaml.

    Raises:
        InputError: the layers have several activations.
    """
    acts = [act for module in holder.modules() if (act := module._modules.get("act")) is not None]
    for act in acts:
        _complete(act)
    kinds = {re.sub(r"(, )?inplace=True", "", _described(act)) for act in acts if not isinstance(act, nn.Identity)}
    if len(kinds) > 1:
        raise InputError(f"{path}: its layers have different activations ({', '.join(sorted(kinds))}), not supported")
    kind = kinds.pop() if kinds else "SiLU()"
    return {} if kind == "SiLU()" else {"act": f"nn.{kind}"}


def _complete(act: nn.Module) -> None:
    """Add attributes such as ``inplace``, which ``repr`` needs, to an activation pickled by an older torch."""
    if type(act).__module__.startswith(TORCH_PACKAGES):
        with contextlib.suppress(TypeError):  # classes with required arguments have all attributes
            for name, value in vars(type(act).__bases__[0]()).items():
                act.__dict__.setdefault(name, value)


def _described(act: nn.Module) -> str:
    """Return the ``repr`` of an activation, or only its name if it has attributes that are not numbers."""
    settings = [value for key, value in vars(act).items() if not key.startswith("_")]
    simple = not act._modules and all(isinstance(value, (int, float)) for value in settings)
    return repr(act) if simple else type(act).__name__
