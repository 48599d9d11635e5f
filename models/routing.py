"""Which kernels the dynamic layers of a model use: record the weights of each image, and compute statistics of them.

with RoutingRecorder(model) as recorder:
    for images in batches:
        model(images)
for layer in recorder.stats():
    print(layer.name, layer.verdict)
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from models.dynamic import attention_layers

LOG = logging.getLogger(__name__)
RecorderT = TypeVar("RecorderT", bound="RoutingRecorder")

# Thresholds of the verdicts; weights are relative to 1 / K, entropies to ln K, so that they are the same for any K.
UNUSED_SHARE = 0.05  # a kernel with a mean weight below this part of 1 / K, and never the strongest, is nearly unused
COLLAPSED = 0.1  # entropy of the mean below this part of ln K: (almost) all images use one and the same kernel
UNIFORM, UNIFORM_SPREAD = 0.99, 0.01  # every image mixes all kernels evenly
FIXED_SHARE = 0.02  # spread below this part of 1 / K: the same mixture for all images, a static convolution

_SUM_TOLERANCE = 1e-3  # softmax in float32 is far closer to one than this, a sigmoid is not
_TIE = 1e-6


@dataclass(frozen=True, eq=False)
class RoutingStats:
    """How a dynamic layer uses its K kernels over a number of images.

    Attributes:
        name: the layer, by its place in the model: ``10`` is row 10 of the model yaml, ``2.m.0.cv2`` lies within row 2.
        kernels: K.
        samples: number of images.
        mean: [K] mean weight of each kernel.
        entropy: mean over the images of -sum p ln p; 0 is one kernel per image, ln K is all of them evenly.
        entropy_of_mean: the same of ``mean``: low when all images use the same kernel.
        dominant: [K] fraction of the images in which the kernel has the largest weight; equal weights share the image.
        spread: standard deviation of a kernel's weight over the images, mean over the kernels.
        per_class: [nc, K] mean over the images that contain the class, nan for a class without any.
        temperature: T of the softmax, None for a layer without one.
        normalized: the weights did not sum to one (sigmoid routing), so each row was divided by its sum first.
    """

    name: str
    kernels: int
    samples: int
    mean: np.ndarray
    entropy: float
    entropy_of_mean: float
    dominant: np.ndarray
    spread: float
    per_class: np.ndarray
    temperature: float | None = None
    normalized: bool = False

    @property
    def relative_entropy(self) -> float:
        """``entropy`` / ln K, 0..1; 0 for a single kernel."""
        return self.entropy / math.log(self.kernels) if self.kernels > 1 else 0.0

    @property
    def class_contrast(self) -> float:
        """How much the mixture depends on the class: deviation of ``per_class`` between classes, mean over kernels."""
        seen = self.per_class[np.isfinite(self.per_class).all(axis=1)]
        return float(seen.std(axis=0).mean()) if len(seen) else 0.0

    @property
    def collapsed(self) -> bool:
        """(Almost) all images use one and the same kernel."""
        return self.kernels > 1 and self.entropy_of_mean < COLLAPSED * math.log(self.kernels)

    @property
    def unvaried(self) -> bool:
        """The mixture does not depend on the image."""
        return self.samples > 1 and not self.collapsed and self.spread < FIXED_SHARE / self.kernels

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the layer gains nothing from its kernels, one text per reason; empty where it may gain."""
        k, most = self.kernels, int(self.mean.argmax())
        if k < 2:
            return ("has a single kernel, so there is nothing to choose",)
        if self.collapsed:
            return (f"collapsed to kernel {most}, mean weight {self.mean[most]:.3f}: the other {k - 1} are idle",)
        if self.relative_entropy > UNIFORM and self.spread < UNIFORM_SPREAD:
            return ("stays uniform: every image mixes all kernels evenly, like a static convolution",)
        idle = np.flatnonzero((self.mean < UNUSED_SHARE / k) & (self.dominant == 0))
        reasons = [f"kernel {i} is nearly unused, mean weight {self.mean[i]:.4f}" for i in idle]
        if self.unvaried:
            reasons.append("mixes the kernels alike for every image, like a static convolution")
        return tuple(reasons)

    @property
    def verdict(self) -> str:
        """The warnings in one line, or ``ok``."""
        return "; ".join(self.warnings) or "ok"


def routing_stats(
    name: str, weights: Tensor, presence: Tensor | None = None, temperature: float | None = None
) -> RoutingStats:
    """Statistics of the kernel weights of a layer.

    Args:
        name: the layer.
        weights: [n, K], a row per image. Rows that are not finite (images for which the layer did not run) are skipped.
        presence: [n, nc] bool, whether image n contains the class; None: no classes.
        temperature: T of the layer.

    Raises:
        ValueError: no rows left, negative weights, or ``presence`` of another length.
    """
    presence = torch.zeros(len(weights), 0, dtype=torch.bool) if presence is None else presence
    if len(presence) != len(weights):
        raise ValueError(f"{name}: {len(weights)} rows of weights for {len(presence)} images")
    seen = weights.isfinite().all(dim=1)
    p, presence = weights[seen].double(), presence[seen].double()  # [n, K], [n, nc]
    if not len(p) or (p < 0).any():
        raise ValueError(f"{name}: weights [n, K], n > 0, not negative expected, got {tuple(p.shape)}")
    sums, kernels = p.sum(dim=1, keepdim=True), p.shape[1]
    normalized = bool(((sums - 1).abs() > _SUM_TOLERANCE).any())
    if normalized:
        p = torch.where(sums > 0, p / sums, 1 / kernels)
    mean = p.mean(dim=0)
    strongest = (p >= p.amax(dim=1, keepdim=True) - _TIE).double()
    counts = presence.sum(dim=0)[:, None]  # [nc, 1]
    return RoutingStats(
        name=name,
        kernels=kernels,
        samples=len(p),
        mean=mean.numpy(),
        entropy=float(torch.special.entr(p).sum(dim=1).mean()),
        entropy_of_mean=float(torch.special.entr(mean).sum()),
        dominant=(strongest / strongest.sum(dim=1, keepdim=True)).mean(dim=0).numpy(),
        spread=float(p.std(dim=0, correction=0).mean()),
        per_class=(presence.T @ p / counts).numpy(),  # 0 / 0 is nan, as documented
        temperature=temperature,
        normalized=normalized,
    )


def class_presence(targets: Tensor, images: int, nc: int) -> Tensor:
    """[images, nc] bool: which classes the images of a batch contain, from its targets [N, 6] (image, class, ...)."""
    presence = torch.zeros(images, nc, dtype=torch.bool)
    presence[targets[:, 0].long(), targets[:, 1].long()] = True
    return presence


def layer_names(model: nn.Module) -> dict[str, str]:
    """Name of each routing module -> short name of the layer it belongs to, unique and in the order of the model."""
    names = [name for name, _ in attention_layers(model)]
    owners = [name.rpartition(".")[0].removeprefix("model.").removesuffix(".attention") for name in names]
    return {
        name: owner if owner not in ("", "model", "attention") and owners.count(owner) == 1 else name
        for name, owner in zip(names, owners)
    }


def entropy_metrics(model: nn.Module, stats: Sequence[RoutingStats]) -> dict[str, float]:
    """``routing/<layer>_entropy`` of every routing layer of ``model``, nan for those without statistics."""
    known = {layer.name: layer.entropy for layer in stats}
    return {f"routing/{name}_entropy": known.get(name, math.nan) for name in layer_names(model).values()}


class RoutingRecorder:
    """Record the kernel weights of every image that passes through ``model`` in a ``with`` block.

    Row n of every layer belongs to the n-th image, counted over all forward passes of ``model`` in their order. A layer
    that is called several times in a pass gives the mean of its calls; one that is not called gives a row of nan. A
    layer whose rows are not the images (one that cuts them into windows, say) is skipped, with a warning. Cost: a
    detached [B, K] per layer and one copy to the CPU per pass; nothing when no layer routes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._names = layer_names(model)
        self._modules: dict[str, nn.Module] = {self._names[name]: module for name, module in attention_layers(model)}
        self._handles: list[RemovableHandle] = []
        self._pending: dict[str, list[Tensor]] = {}
        self._rows: dict[str, dict[int, Tensor]] = {}  # layer -> pass -> [B, K]
        self._sizes: list[int] = []  # images of each pass
        self._unmatched: set[str] = set()

    def __enter__(self: RecorderT) -> RecorderT:
        if self._modules:
            self._handles = [module.register_forward_hook(self._record(name)) for name, module in self._modules.items()]
            self._handles.append(self._model.register_forward_pre_hook(lambda *_: self._pending.clear()))
            self._handles.append(self._model.register_forward_hook(self._end_of_pass, with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with at least one row."""
        return tuple(name for name in self._modules if name in self._rows and name not in self._unmatched)

    @property
    def samples(self) -> int:
        """Images recorded so far."""
        return sum(self._sizes)

    def weights(self, layer: str) -> Tensor:
        """[samples, K] float32 on the CPU, nan where the layer was not called.

        Raises:
            KeyError: nothing was recorded under this name.
        """
        rows = self._rows[layer]
        kernels = next(iter(rows.values())).shape[1]
        return torch.cat([rows.get(i, torch.full((n, kernels), math.nan)) for i, n in enumerate(self._sizes)])

    def stats(
        self, presence: Tensor | None = None, weights_of: Callable[[str], Tensor] | None = None
    ) -> tuple[RoutingStats, ...]:
        """Statistics of every layer with at least one finite row.

        Args:
            presence: [samples, nc] classes in each image.
            weights_of: returns the weights of a layer [samples, K] in place of :meth:`weights`, for instance of all
                processes together.
        """
        result, weights_of = [], weights_of or self.weights
        for name in self.layers:
            weights, temperature = weights_of(name), getattr(self._modules[name], "temperature", None)
            if weights.isfinite().all(dim=1).any():
                value = None if temperature is None else float(temperature)
                result.append(routing_stats(name, weights, presence, value))
        return tuple(result)

    def _record(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            self._pending.setdefault(name, []).append(output.detach() if isinstance(output, Tensor) else output)

        return keep

    def _end_of_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        images, index = len(next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))), len(self._sizes)
        rows = {
            name: torch.stack(calls).float().mean(dim=0)
            for name, calls in self._pending.items()
            if self._matches(name, calls, images)
        }
        self._pending.clear()
        self._sizes.append(images)
        if not rows:
            return
        # One copy for all layers: each copy from a GPU waits for everything queued there.
        together = torch.cat(list(rows.values()), dim=1).cpu()
        for name, part in zip(rows, together.split([row.shape[1] for row in rows.values()], dim=1)):
            self._rows.setdefault(name, {})[index] = part.clone()

    def _matches(self, name: str, calls: Sequence[Any], images: int) -> bool:
        """Whether every call of a layer in this pass gave one row per image."""
        fits = all(isinstance(call, Tensor) and call.dim() == 2 and len(call) == images for call in calls)
        if not fits and name not in self._unmatched:
            self._unmatched.add(name)
            LOG.warning("layer %s does not give one row of kernel weights per image: its routing is not shown", name)
        return fits and name not in self._unmatched
