"""``--include static``: a static checkpoint of a dynamic model, each layer with the kernel it uses on average.

For hardware that takes nothing else. The attentions are averaged over images of the data set; the table shows the mAP
beside that of the dynamic model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.dynamic import DynamicBlock
from models.dynamic_convolution import DynamicConvolution
from models.fuse import fuse
from models.yolo import Model
from utils.checkpoint import Checkpoint, load_model, save_checkpoint
from utils.config.export_options import ExportOptions
from utils.core.errors import InputError
from utils.core.names import counted
from utils.export.base import Exporter
from utils.export.calibration import calibration_batches
from utils.export.check import Proof, Reference, sample_images, time_ms
from utils.export.export_job import ExportJob

# Dynamic layer -> the static one of the same arguments; a bare convolution becomes a Conv without activation.
COUNTERPARTS = {
    "DynamicConv": "Conv",
    "CondConv": "Conv",
    "ODConv": "Conv",
    "DynamicBottleneck": "Bottleneck",
    "C3Dynamic": "C3",
}
BARE = ("Dynamic_conv2d", "CondConv2d", "ODConv2d")


class StaticExporter(Exporter):
    """A ``.pt`` file of a model without dynamic layers, to be used, trained or exported like any other."""

    name = "static"
    ending = "_static.pt"

    def obstacle(self, job: ExportJob) -> str | None:
        if not any(isinstance(module, DynamicConvolution) for module in job.model.modules()):
            return "the model has no dynamic layers"
        return None if job.options.data else "it takes the mean attention over a data set: name one with --data"

    def free(self, options: ExportOptions) -> tuple[str, ...]:
        return self.can_free

    def write(self, job: ExportJob, path: Path) -> list[str]:
        model, seen = collapse(job)
        save_checkpoint(
            path,
            Checkpoint(
                model_yaml=model.yaml,
                nc=model.nc,
                names=list(job.model.names),
                stride=model.stride.tolist(),
                model=dict(model.state_dict()),
                imgsz=max(job.model.imgsz or job.hw),
            ),
        )
        return [f"mean attention of {counted(seen, 'image')}"]

    def check(self, job: ExportJob, path: Path) -> tuple[nn.Module, Proof]:
        model = load_model(path, job.device)[0]
        fuse(model)
        images = sample_images(job.options.batch_size, job.hw).to(job.device)
        return model, Proof(Reference(job).gap(model, images).worst, time_ms(model, images))


@dataclass
class Means:
    """Sums of the outputs of a layer's attention, and the number of images."""

    sums: list[Tensor | None] = field(default_factory=list)
    images: int = 0

    def add(self, given: tuple[Tensor | None, ...]) -> None:
        sums = [None if one is None else one.double().sum(0) for one in given]
        self.sums = sums if not self.sums else [a if b is None else a + b for a, b in zip(self.sums, sums)]  # type: ignore[operator]
        self.images += len(given[-1]) if given[-1] is not None else 0

    def __iter__(self) -> Iterator[Tensor | None]:
        return (None if one is None else one / self.images for one in self.sums)


@torch.no_grad()
def collapse(job: ExportJob) -> tuple[Model, int]:
    """The static model, and the number of images its attentions are averaged over."""
    dynamic = {name: module for name, module in job.model.named_modules() if isinstance(module, DynamicConvolution)}
    means = {name: Means() for name in dynamic}
    hooks = [
        layer.attention.register_forward_hook(
            lambda _, __, given, mean=means[name]: mean.add(given if isinstance(given, tuple) else (given,))
        )
        for name, layer in dynamic.items()
    ]
    for batch in calibration_batches(job):
        job.model(batch)
    for hook in hooks:
        hook.remove()
    state = {key: tensor for key, tensor in job.model.state_dict().items() if not _belongs(key, dynamic)}
    for name, layer in dynamic.items():
        state |= _static_tensors(name, layer, means[name], job.model)
    model = Model(static_yaml(job.model), nc=job.model.nc).to(job.device).eval()
    # A bare layer's Conv has a norm that does nothing but add the bias; its count of batches is not used.
    fresh = {key: tensor for key, tensor in model.state_dict().items() if key.endswith("num_batches_tracked")}
    try:
        model.load_state_dict(fresh | state, strict=True)
    except RuntimeError as error:
        raise InputError(f"a layer with a dynamic convolution in it has no static counterpart: {error}") from error
    return model, next(iter(means.values())).images


def _belongs(key: str, layers: dict[str, DynamicConvolution]) -> bool:
    return any(key.startswith(f"{name}.") for name in layers)


def _static_tensors(name: str, layer: DynamicConvolution, mean: Means, model: Model) -> dict[str, Tensor]:
    """Kernel, and bias if any, under the names of the static layer in its place."""
    *around, pi = mean
    assert pi is not None
    kernel = torch.einsum("k,koihw->oihw", pi, layer.kernels.double())
    if around:  # ODConv: over inputs [in, 1, 1], outputs [out, 1, 1], places [1, 1, k, k] or none
        inputs, outputs, places = around
        assert inputs is not None and outputs is not None
        per_group = inputs.view(layer.groups, 1, -1).expand(-1, layer.out_planes // layer.groups, -1)
        kernel = kernel * per_group.reshape(layer.out_planes, -1, 1, 1) * outputs.view(-1, 1, 1, 1)
        kernel = kernel if places is None else kernel * places
    parent = model.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, DynamicBlock):
        return {f"{name}.weight": kernel.float()}
    bias = torch.zeros(layer.out_planes) if layer.bias is None else (pi @ layer.bias.double()).float()
    one = torch.ones_like(bias)
    norm = {"weight": one, "bias": bias, "running_mean": 0 * one, "running_var": one - 1e-3}  # eps is 1e-3
    return {f"{name}.conv.weight": kernel.float()} | {f"{name}.bn.{key}": value for key, value in norm.items()}


def static_yaml(model: Model) -> dict[str, Any]:
    """The model yaml with every dynamic layer replaced by its static counterpart."""
    rows = [*model.yaml["backbone"], *model.yaml["head"]]
    made = [_static_row(list(row), model.model[index]) for index, row in enumerate(rows)]
    split = len(model.yaml["backbone"])
    return {**model.yaml, "backbone": made[:split], "head": made[split:]}


def _static_row(row: list[Any], layer: nn.Module) -> list[Any]:
    source, number, module, args = row
    args = [arg for arg in args if not isinstance(arg, dict)]  # {K: 8} and the like
    if module in COUNTERPARTS:
        return [source, number, COUNTERPARTS[module], args]
    if module in BARE:
        one = layer[0] if isinstance(layer, nn.Sequential) else layer
        if one.dilation != 1:
            raise InputError(f"{module} with dilation {one.dilation} has no static counterpart")
        return [source, number, "Conv", [args[0], one.kernel_size, one.stride, one.padding, one.groups, False]]
    return row
