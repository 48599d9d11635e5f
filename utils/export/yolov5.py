"""``--include yolov5``: a pickled model, as the official YOLOv5 v6.1 to v7 reads it.

There the classes are found by their names. No code of theirs is needed to write them: inert stand-ins with these names
get the attributes that official files have, and a pickler that writes a stand-in as its name.
"""

from __future__ import annotations

import copy
import datetime
import logging
import pickle
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.common import C3, SPPF, Bottleneck, Concat, Conv
from models.dynamic_convolution import DynamicConvolution
from models.fuse import fuse
from models.yolo import Detect, Model
from utils.checkpoint import load_model
from utils.checkpoint.legacy import TORCH_PACKAGES, YAML_KEYS, stand_in
from utils.config.export_options import ExportOptions
from utils.core.errors import InputError
from utils.export.base import Exporter
from utils.export.check import Proof, Reference, sample_images, time_ms
from utils.export.export_job import ExportJob

LOG = logging.getLogger(__name__)
# Layers whose official form is known from files -> its class, and the attributes it has beside its parts.
OFFICIAL: dict[type[nn.Module], tuple[str, tuple[str, ...]]] = {
    Conv: ("models.common.Conv", ()),
    C3: ("models.common.C3", ()),
    Bottleneck: ("models.common.Bottleneck", ("add",)),
    SPPF: ("models.common.SPPF", ()),
    Concat: ("models.common.Concat", ("d",)),
    Detect: ("models.yolo.Detect", ("nc", "no", "nl", "na")),
}


class YOLOv5Exporter(Exporter):
    """A ``.pt`` file for the official code; read back here, it is an official file like any other."""

    name = "yolov5"
    ending = "_yolov5.pt"

    def obstacle(self, job: ExportJob) -> str | None:
        dynamic = [name for name, module in job.model.named_modules() if isinstance(module, DynamicConvolution)]
        if dynamic:
            return (
                f"YOLOv5 has no dynamic layers ({_some(dynamic)}): make a static file first (--include static --data "
                "my.yaml) and export that"
            )
        others = [
            f"{name} {type(module).__name__}"
            for name, module in job.model.named_modules()
            if name and type(module) not in OFFICIAL and not _of_torch(module)
        ]
        return f"not known of YOLOv5's own files: {_some(others)}" if others else None

    def free(self, options: ExportOptions) -> tuple[str, ...]:
        return self.can_free

    def write(self, job: ExportJob, path: Path) -> list[str]:
        by_name = types.ModuleType("by_name")  # of a pickle module torch.save uses the Pickler only
        vars(by_name)["Pickler"] = _NamePickler
        torch.save(official_content(job), path, pickle_module=by_name, pickle_protocol=2)
        return ["never opened by the official code"]

    def check(self, job: ExportJob, path: Path) -> tuple[nn.Module, Proof]:
        model = load_model(path, job.device)[0]
        fuse(model)
        images = sample_images(job.options.batch_size, job.hw).to(job.device)
        difference = Reference(job).gap(model, images)
        if difference.fault:
            raise InputError(f"differs from PyTorch {difference.fault}: not kept")
        return model, Proof(
            difference.worst, time_ms(model, images), limit=difference.limit, exact=not job.options.half
        )


class _NamePickler(pickle._Pickler):  # the one in Python: that in C does not ask how a class is to be written
    def save_global(self, obj: Any, name: str | None = None) -> None:
        """Write a stand-in as the name of the class it stands for, which exists elsewhere."""
        if isinstance(obj, type) and issubclass(obj, nn.Module) and obj.__module__.startswith("models."):
            self.write(pickle.GLOBAL + f"{obj.__module__}\n{obj.__name__}\n".encode())  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]
        else:
            super().save_global(obj, name)  # type: ignore[misc]


def official_content(job: ExportJob) -> dict[str, Any]:
    """What an official file holds after training: a finished model, nothing to resume."""
    model = copy.deepcopy(job.model).cpu()
    holder = stand_in("models.yolo.Model")()
    holder.add_module("model", nn.Sequential(*[_layer(layer) for layer in model.model]))
    nc = model.nc
    attributes = {
        "yaml_file": Path(model.yaml_file).name,
        "yaml": _official_yaml(model),
        "save": list(model.save),
        "names": [str(name) for name in model.names],
        "inplace": True,
        "stride": model.stride.clone().float(),
        "nc": nc,
        "hyp": {},
        "class_weights": torch.ones(nc),
    }
    for name, value in attributes.items():
        setattr(holder, name, value)
    holder = (holder.half() if job.options.half else holder.float()).eval().requires_grad_(False)
    empty = dict.fromkeys(("best_fitness", "ema", "updates", "optimizer", "wandb_id"))
    date = datetime.datetime.now().isoformat()
    size = max(job.model.imgsz or job.hw)
    return {"epoch": -1, "model": holder, **empty, "opt": {"imgsz": size}, "git": {}, "date": date}


def _official_yaml(model: Model) -> dict[str, Any]:
    """The model yaml with the keys that the official parser knows."""
    content = {key: copy.deepcopy(model.yaml[key]) for key in YAML_KEYS if key in model.yaml}
    return content | ({"activation": model.yaml["act"]} if "act" in model.yaml else {})


def _layer(layer: nn.Module) -> nn.Module:
    """A layer of the model as the official one, with what its parser notes on it."""
    made = _official(layer)
    kind = type(made[0]) if isinstance(made, nn.Sequential) else type(made)
    sources = list(layer.f)  # type: ignore[arg-type]
    notes = {
        "i": layer.i,
        "f": sources if layer.takes_list else sources[0],
        "type": f"{kind.__module__}.{kind.__name__}",
        "np": sum(parameter.numel() for parameter in layer.parameters()),
    }
    for name, value in notes.items():
        setattr(made, name, value)
    return made


def _official(module: nn.Module) -> nn.Module:
    """A module as its official counterpart, and all of its parts."""
    if _of_torch(module):
        made = copy.copy(module)
        made.__dict__["_modules"] = {name: _official(part) for name, part in module.named_children()}
        for ours in ("takes_list", "promised"):
            made.__dict__.pop(ours, None)
        return made
    dotted, attributes = OFFICIAL[type(module)]
    made = stand_in(dotted)()
    for name in attributes:
        setattr(made, name, getattr(module, name))
    for name, part in module.named_children():
        made.add_module(name, _official(part))
    if isinstance(module, Detect):
        grids: list[Tensor] = [torch.zeros(1) for _ in range(module.nl)]  # made anew at the first image
        for name, value in {"grid": grids, "anchor_grid": list(grids), "inplace": True}.items():
            setattr(made, name, value)
        made.register_buffer("anchors", module.anchors.clone())
        made.stride = module.stride.clone()
    return made


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith(TORCH_PACKAGES)


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
