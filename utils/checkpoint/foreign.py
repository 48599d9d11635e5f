"""Recognition of checkpoints of other programs, for the message that refuses them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ANCHOR_FREE = "an anchor-free ultralytics model"
# Beginning of a class name in a pickle -> kind of the file; the first match counts.
_BY_CLASS = (
    ("ultralytics.nn.", _ANCHOR_FREE),
    ("yolox.", "a YOLOX model"),
    ("yolov6.", "a YOLOv6 model"),
    ("mmdet.", "an MMDetection model"),
    ("mmengine.", "an OpenMMLab model"),
    ("models.models.Darknet", "a Darknet model (YOLOv3, YOLOv4, YOLOR)"),
    *((f"models.yolo.{head}", "a YOLOv7 model") for head in ("IDetect", "IAuxDetect", "IBin", "IKeypoint")),
    *((f"models.yolo.{head}", "a YOLOv9 model") for head in ("DDetect", "Dual", "Triple", "Panoptic")),
    ("models.common.SPPCSPC", "a YOLOv7 model"),
    ("models.common.RepNCSPELAN", "a YOLOv9 model"),
    ("models.yolo.Segment", "a segmentation model"),
    ("models.yolo.Classification", "a classification model"),
)
# Part of a tensor name -> kind of the file.
_BY_TENSOR = (
    (".dfl.conv.weight", _ANCHOR_FREE),
    ("head.cls_preds.", "a YOLOX model"),
    ("detect.proj_conv.", "a YOLOv6 model"),
    ("bbox_head.", "an MMDetection model"),
    ("rpn.head.", "a torchvision detector"),
    ("class_embed.", "a DETR model"),
    ("module_list.", "a Darknet model (YOLOv3, YOLOv4, YOLOR)"),
    ("model.0.conv.weight", "a state dict without its model yaml"),
)
_READ = "read are this program's own files and official YOLOv5 detection models with anchors (v5 to v7)"


def refusal(what: str, detail: str = "") -> str:
    """Return the end of a message that refuses a file: its kind, and the supported kinds."""
    return f"{what}{f' ({detail})' if detail else ''}: not supported; {_READ}"


def by_class(names: Iterable[str]) -> str | None:
    """Return the refusal of a pickle by the names of its classes; None when it may be an official model."""
    sorted_names = sorted(names)
    for begin, what in _BY_CLASS:
        fits = [name for name in sorted_names if name.startswith(begin)]
        if fits:
            models = [name for name in fits if name.endswith(("Model", "Detect", "Detect2", "Decoder"))] or fits[:1]
            return refusal(what, ", ".join(name.rpartition(".")[2] for name in models))
    return None


def by_content(content: Any) -> str | None:
    """Return the refusal of a file by the names of its tensors; None when they are unknown."""
    parts = [content, *content.values()] if isinstance(content, Mapping) else []
    keys = [str(key) for part in parts if isinstance(part, Mapping) for key in part]
    what = next((what for text, what in _BY_TENSOR if any(text in key for key in keys)), None)
    return None if what is None else refusal(what)
