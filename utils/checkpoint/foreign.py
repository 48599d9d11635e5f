"""What a checkpoint of another program is, so that the line that refuses it can say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ANCHOR_FREE = "an anchor-free ultralytics model"
# Beginnings of class names in a pickle -> what the file is; the first that fits.
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
# Parts of tensor names that only such a model has.
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
    """The end of a line that refuses a file: what it is, and what is read."""
    return f"{what}{f' ({detail})' if detail else ''}: not supported; {_READ}"


def by_class(names: Iterable[str]) -> str | None:
    """The refusal of a pickle by the dotted names of its classes; None when they may be an official model's."""
    found = sorted(names)
    for begin, what in _BY_CLASS:
        fits = [name for name in found if name.startswith(begin)]
        if fits:
            telling = [name for name in fits if name.endswith(("Model", "Detect", "Detect2", "Decoder"))] or fits[:1]
            return refusal(what, ", ".join(name.rpartition(".")[2] for name in telling))
    return None


def by_content(content: Any) -> str | None:
    """The refusal of a file of plain values by the names of its tensors; None when they tell nothing."""
    parts = [content, *content.values()] if isinstance(content, Mapping) else []
    keys = [str(key) for part in parts if isinstance(part, Mapping) for key in part]
    what = next((what for text, what in _BY_TENSOR if any(text in key for key in keys)), None)
    return None if what is None else refusal(what)
