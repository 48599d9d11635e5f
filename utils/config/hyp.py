"""Hyper-parameters of a training run: one typed record, read from a yaml in the format of YOLOv5 v6.1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.config.paths import find_yaml
from utils.core.errors import InputError, suggestion
from utils.core.files import read_yaml

_BOOLEANS = frozenset({"warmup_v61", "attention_decay"})
_OPTIONAL = frozenset({"anchors", "routing_deviation"})
_ADDED = ("mosaic9", "cutout", "hist_equalize", "albumentations")
# Inclusive bounds per key. Other keys take any finite number.
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("lr0", "lrf", "weight_decay", "warmup_epochs", "warmup_bias_lr"), (0.0, math.inf)),
    **dict.fromkeys(("box", "cls", "cls_pw", "obj", "obj_pw", "fl_gamma"), (0.0, math.inf)),
    **dict.fromkeys(("momentum", "warmup_momentum", "iou_t", "label_smoothing"), (0.0, 1.0)),
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v", "translate", "scale"), (0.0, 1.0)),
    **dict.fromkeys(("flipud", "fliplr", "mosaic", "mixup", "copy_paste", *_ADDED), (0.0, 1.0)),
    **dict.fromkeys(("degrees", "shear"), (0.0, 180.0)),
    "perspective": (0.0, 0.01),
    "anchor_t": (1.0, math.inf),
    "anchors": (0.0, 100.0),
    # Below 1 the softmax sharpens instead of smoothing and its gradients vanish.
    **dict.fromkeys(("temperature_start", "temperature_end"), (1.0, math.inf)),
    **dict.fromkeys(("temperature_step", "kernel_spread", "routing_deviation"), (0.0, math.inf)),
    "temperature_span": (0.0, 1.0),
    **dict.fromkeys(("kernel_lr", "attention_lr"), (0.01, 100.0)),
    "nominal_batch": (1.0, math.inf),
    "grad_clip": (0.0, math.inf),
}


@dataclass(frozen=True, kw_only=True)
class Hyp:
    """Hyper-parameters. The defaults are those of ``data/hyps/hyp.scratch-low.yaml``.

    Attributes:
        lr0: learning rate after the warm-up; ``lrf``: the last learning rate as a fraction of it.
        momentum: SGD momentum, or Adam's first beta. ``weight_decay``: L2 on convolution weights.
        warmup_epochs: length of the warm-up, with ``warmup_momentum`` and, for biases, ``warmup_bias_lr`` at its start.
        box, cls, obj: gains of the three losses; ``cls_pw``, ``obj_pw``: weight of positives in the last two.
        iou_t: IoU threshold of training targets, kept for old files. ``anchor_t``: largest side ratio box to anchor.
        anchors: anchors per level to fit afresh; None keeps those of the model. ``fl_gamma``: focal loss, 0 is off.
        hsv_h, hsv_s, hsv_v: colour jitter as fractions. ``degrees``, ``shear``: +- degrees. ``translate``, ``scale``:
            +- fractions. ``perspective``: +- fraction, 0 to 0.001 is usual.
        flipud, fliplr, mosaic, mixup, copy_paste: probabilities.
        mosaic9: share of the mosaics that are made of nine images instead of four.
        cutout, hist_equalize: probabilities of hiding random patches and of equalising the histogram.
        albumentations: probability of each of its blur, median blur, grey and CLAHE, if that package is installed.
        label_smoothing: epsilon of the class targets, 0 to 1.
        nominal_batch: images per optimizer step; smaller batches are gathered up to it. 64 in v6.1; fewer make more
            steps on a small set.
        grad_clip: longest gradient (norm over all parameters) that an optimizer step may have; 0 is off, as in v6.1.
        warmup_v61: True keeps the floor of 1000 warm-up iterations of v6.1, however short the run, and its rates after
            the warm-up, which are always those of the epoch before.
        temperature_start, temperature_end, temperature_step: softmax temperature of dynamic convolution,
            T(epoch) = max(end, start - step * epoch), arXiv 1912.03458 section 3.2.
        temperature_span: share of the run in which T falls evenly, batch by batch, from start to end; 0: by epoch, by
            the step.
        kernel_lr, attention_lr: rates of kernels and attention of dynamic layers as multiples of that of all others.
            Under SGD each of K kernels gets about a K-th of the gradient of a static one, which ``kernel_lr: K`` evens.
        kernel_spread: how much the kernels of an inflated layer differ at the start, in standard deviations of the
            static kernel; above 0 the routing starts uniform.
        routing_deviation: standard deviation of the logits of the routing over training images at the start of a run;
            None: 2 in inflated layers of equal kernels, others as drawn. 0: uniform.
        attention_decay: True applies the weight decay to the attention of dynamic convolution as well.
    """

    lr0: float = 0.01
    lrf: float = 0.01
    momentum: float = 0.937
    weight_decay: float = 0.0005
    warmup_epochs: float = 3.0
    warmup_momentum: float = 0.8
    warmup_bias_lr: float = 0.1
    box: float = 0.05
    cls: float = 0.5
    cls_pw: float = 1.0
    obj: float = 1.0
    obj_pw: float = 1.0
    iou_t: float = 0.2
    anchor_t: float = 4.0
    anchors: float | None = None
    fl_gamma: float = 0.0
    hsv_h: float = 0.015
    hsv_s: float = 0.7
    hsv_v: float = 0.4
    degrees: float = 0.0
    translate: float = 0.1
    scale: float = 0.5
    shear: float = 0.0
    perspective: float = 0.0
    flipud: float = 0.0
    fliplr: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.0
    copy_paste: float = 0.0
    mosaic9: float = 0.0
    cutout: float = 0.0
    hist_equalize: float = 0.0
    albumentations: float = 0.0
    label_smoothing: float = 0.0
    warmup_v61: bool = False
    nominal_batch: float = 64.0
    grad_clip: float = 0.0
    temperature_start: float = 34.0
    temperature_end: float = 1.0
    temperature_step: float = 3.0
    temperature_span: float = 0.0
    kernel_lr: float = 1.0
    attention_lr: float = 1.0
    kernel_spread: float = 0.0
    routing_deviation: float | None = None
    attention_decay: bool = False

    @classmethod
    def load(cls, path: str | Path) -> Hyp:
        """Read a hyper-parameter yaml, given by path or by its bare name in ``data/hyps``.

        Raises:
            FileNotFoundError: no such file.
            InputError: unknown key or impossible value; the message names file, key and cure.
        """
        file = find_yaml(path, "data/hyps")
        return cls.from_dict(read_yaml(file), str(file))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None, source: str = "hyp") -> Hyp:
        """Build from plain values; missing keys have their defaults. ``source`` names the origin in messages.

        Raises:
            InputError: unknown key or impossible value.
        """
        if not isinstance(values, Mapping):
            kind = "nothing" if values is None else type(values).__name__
            raise InputError(f"{source}: expected 'key: value' lines, found {kind}")
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(f"{source}: unknown hyper-parameter '{key}'{suggestion(str(key), known)}")
        typed: dict[str, Any] = {key: _typed(key, value, source) for key, value in values.items()}
        hyp = cls(**typed)
        if hyp.temperature_start < hyp.temperature_end:
            raise InputError(
                f"{source}: temperature_start {hyp.temperature_start:g} is below temperature_end "
                f"{hyp.temperature_end:g}; the temperature can only fall"
            )
        if hyp.kernel_spread and hyp.routing_deviation:
            raise InputError(
                f"{source}: kernel_spread {hyp.kernel_spread:g} needs a uniform routing, and routing_deviation "
                f"{hyp.routing_deviation:g} makes another: an inflated layer would not start as the static one; set "
                "one of them to 0"
            )
        return hyp

    def to_dict(self) -> dict[str, float | bool | None]:
        """Plain values in field order, ready for a yaml or a checkpoint."""
        return asdict(self)


def _typed(key: str, value: Any, source: str) -> float | bool | None:
    """Convert one yaml value to the type of its field, or raise InputError naming it."""
    if key in _BOOLEANS:
        if isinstance(value, bool):
            return value
        raise InputError(f"{source}: {key}: {value!r} is not true or false")
    if value is None and key in _OPTIONAL:
        return None
    # YAML 1.1 reads 1e-3 (without a point) as text, so text is given a chance.
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{source}: {key}: {value!r} is not a number")
    low, high = _BOUNDS.get(key, (-math.inf, math.inf))
    if not low <= number <= high:
        allowed = f"at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InputError(f"{source}: {key}: {value!r} is out of range; allowed is {allowed}")
    return number
