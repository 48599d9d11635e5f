"""Parameters and GFLOPs of a model, dynamic layers and attention included.

GFLOPs are 2 x the multiply-adds of convolutions and matrix products for one image, in modules or functions. Norms,
activations, pooling, upsampling and additions are not counted: norms are fused before use, and the rest is small (a
dynamic layer counts its mean over H and W, as part of it). So the number is the same before and after fusing, except
for the biases that a dynamic layer then has to mix, and within 1 % of the numbers published for v6.1.

thop runs the model; what a layer counts is decided here, by :func:`_macs_rule`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from models.attention import KernelRouting

LOG = logging.getLogger(__name__)

Macs = Callable[[Any, tuple[Tensor, ...], Any], int]
Counter = Callable[[nn.Module, tuple[Tensor, ...], Any], None]


@dataclass(frozen=True)
class ModelSummary:
    layers: int  # modules, containers and the model itself included, as v6.1 counts
    parameters: int
    trainable: int
    gflops: float  # 2 x multiply-adds for one square image of the given size

    def __str__(self) -> str:
        counts = f"{self.layers} layers, {self.parameters:,} parameters, {self.trainable:,} trainable"
        return f"{counts}, {self.gflops:.1f} GFLOPs"


def _convolution(layer: _ConvNd, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """Each value of the output (of a transposed convolution: of the input) is multiplied with one kernel."""
    places = inputs[0] if isinstance(layer, _ConvTransposeNd) else output
    return places.numel() * layer.weight[0].numel()


def _linear(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    return output.numel() * layer.in_features


def _attention(layer: nn.MultiheadAttention, inputs: tuple[Tensor, ...], output: tuple[Tensor, Any]) -> int:
    """Projections of q, k and v, the products q k^T and weights v of all heads together, the projection out."""
    query = output[0]
    key, value = (inputs[1], inputs[2]) if len(inputs) > 2 else (query, query)
    batched = query.ndim == 3
    batch = query.shape[0 if layer.batch_first else 1] if batched else 1
    rows, seen = query.numel() // layer.embed_dim, key.numel() // layer.kdim  # tokens of the whole batch
    projected = rows * layer.embed_dim + key.numel() + value.numel()
    products = 2 * rows * (seen // batch)
    return (projected + products + rows * layer.embed_dim) * layer.embed_dim


def _own(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    return int(layer.macs(inputs[0], output))


def _nothing(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> int:
    return 0


def _macs_rule(layer: nn.Module) -> Macs | None:
    """How to count a layer, its children included; None: the sum of its children."""
    if callable(getattr(layer, "macs", None)) and not isinstance(layer, KernelRouting):  # its layer counts a routing
        return _own
    for kind, macs in ((_ConvNd, _convolution), (nn.Linear, _linear), (nn.MultiheadAttention, _attention)):
        if isinstance(layer, kind):
            return macs
    of_torch = type(layer).__module__.startswith("torch.nn.")
    is_leaf = next(layer.children(), None) is None
    # By default thop counts norms, activations and pooling as well; recurrent layers it counts as we do.
    return _nothing if of_torch and is_leaf and not isinstance(layer, (nn.RNNBase, nn.RNNCellBase)) else None


def _rules(model: nn.Module) -> dict[type[nn.Module], Macs]:
    """How to count each kind of layer; the modules inside a counted layer are part of it."""
    rules: dict[type[nn.Module], Macs] = {}
    pending = [model]
    while pending:
        layer = pending.pop()
        macs = _macs_rule(layer)
        if macs is None:
            pending.extend(layer.children())
        else:
            rules[type(layer)] = macs
    return rules


def _counter(macs: Macs) -> Counter:
    """``macs`` in the form that thop takes: a hook that adds to ``total_ops``."""

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        layer.get_buffer("total_ops").add_(macs(layer, inputs, output))

    return count


def count_gflops(model: nn.Module, imgsz: int = 640, channels: int | None = None) -> float:
    """2 x multiply-adds / 1e9 for one image of ``imgsz`` x ``imgsz`` px.

    Runs on meta tensors, so nothing is computed and the size is the real one (the constant cost of mixing kernels is
    not scaled up from a small image). A layer that computes by functions on its own parameters, not by modules of
    torch, has a method ``macs(x, y) -> int`` that returns the cost of a call, its children included.

    Args:
        channels: of the image; None: those of the model's yaml, else 3.
    """
    if channels is None:
        channels = int(getattr(model, "yaml", {}).get("ch", 3))
    return count_macs(model, torch.zeros(1, channels, imgsz, imgsz, device="meta")) * 2 / 1e9


def count_macs(model: nn.Module, x: Tensor) -> float:
    """Multiply-adds of a call with a tensor of the shape of ``x``; see :func:`count_gflops`."""
    import thop  # slow to import; only needed here

    shadow = nn.Sequential(copy.deepcopy(model).to("meta").float().eval())  # thop adds the children of the outermost
    counters = {kind: _counter(macs) for kind, macs in _rules(shadow).items()}
    given = torch.zeros(x.shape, device="meta")
    macs, _ = thop.profile(shadow, inputs=(given,), custom_ops=counters, verbose=False)
    return float(macs)


def summarize(model: nn.Module, imgsz: int = 640) -> ModelSummary:
    """Count layers, parameters and GFLOPs."""
    parameters = list(model.parameters())
    return ModelSummary(
        layers=len(list(model.modules())),
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        gflops=count_gflops(model, imgsz),
    )


def unused_layers(sources: Sequence[Sequence[int]]) -> list[int]:
    """The layers, except the last, whose output no later one takes, by the 'from' of every layer."""
    used = {source if source >= 0 else index + source for index, froms in enumerate(sources) for source in froms}
    return [index for index in range(len(sources) - 1) if index not in used]


def log_unused(model: nn.Module) -> None:
    """Warn of layers that change nothing: mostly a row was inserted and the numbers behind it were not moved."""
    for index in unused_layers([layer.f for layer in model.model]):  # type: ignore[union-attr]
        LOG.warning(
            "layer %d (%s) changes nothing: no later layer takes its output; after a row was added or removed, the "
            "numbers in 'from' of the rows behind it must move with it",
            index,
            model.model[index].type,  # type: ignore[index]
        )


def log_layer_table(model: nn.Module) -> None:
    """Log a line per layer of the yaml: index, source, parameters, module; also those trained if some are frozen."""
    some_frozen = not all(parameter.requires_grad for parameter in model.parameters())
    trained = f" {'trained':>11}" if some_frozen else ""
    LOG.info("%4s %14s %11s%s  %s", "", "from", "parameters", trained, "module")
    for layer in model.model:  # type: ignore[union-attr]
        sources = list(layer.f) if len(layer.f) > 1 else layer.f[0]
        if some_frozen:
            trained = f" {sum(p.numel() for p in layer.parameters() if p.requires_grad):>11}"
        LOG.info("%4d %14s %11d%s  %s", layer.i, sources, layer.np, trained, layer.type)
    log_unused(model)
