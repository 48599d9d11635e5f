"""From a picture to boxes: letterbox, model, suppression, back to the picture's own pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.ensemble import Detector
from models.fuse import fuse
from utils.boxes import scale_coords
from utils.image import letterbox, to_model_input
from utils.nms import non_max_suppression
from utils.timing import StageTimer


@dataclass(frozen=True)
class Detections:
    """What was found in one picture.

    ``boxes`` [k, 6]: x1 y1 x2 y2 in pixels of the picture, confidence, class; the most confident first.
    """

    boxes: Tensor
    names: Sequence[str]
    hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def summary(self) -> str:
        """ "3 cats, 1 dog", in order of class; "nothing" without detections."""
        counts = Counter(self.boxes[:, 5].int().tolist())
        return ", ".join(f"{n} {self.names[c]}{'s' * (n > 1)}" for c, n in sorted(counts.items())) or "nothing"


class Predictor:
    """A model ready for single pictures.

    Args:
        model: one model, an augmented one or an ensemble, in float32; batch norm is folded in here.
        imgsz: longest side, or (height, width), of the network input in pixels; multiples of the stride.
        conf, iou, max_det, classes, agnostic: as for :func:`utils.nms.non_max_suppression`.
        half: half precision, on a GPU.
    """

    def __init__(
        self,
        model: Detector,
        device: torch.device,
        imgsz: int | tuple[int, int] = 640,
        *,
        conf: float = 0.25,
        iou: float = 0.45,
        max_det: int = 1000,
        classes: Sequence[int] | None = None,
        agnostic: bool = False,
        half: bool = False,
    ) -> None:
        self.names, self.stride = model.names, int(model.stride.max())
        self.device, self.half = device, half
        fuse(model.to(device).eval())
        self.model = model.half() if half else model
        self.imgsz = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        self.conf, self.iou, self.max_det, self.classes, self.agnostic = conf, iou, max_det, classes, agnostic
        self.timer = StageTimer(device)

    @torch.no_grad()
    def __call__(self, image: np.ndarray) -> Detections:
        """``image``: HWC BGR uint8, any size."""
        with self.timer.stage("pre-process", 1):
            boxed, _, _ = letterbox(image, self.imgsz, stride=self.stride, auto=True)
            chw = torch.from_numpy(np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1)))  # BGR -> RGB
            batch = to_model_input(chw[None], self.device, self.half)
        with self.timer.stage("inference", 1):
            decoded, _ = self.model(batch)
        with self.timer.stage("NMS", 1):
            boxes = non_max_suppression(
                decoded, self.conf, self.iou, self.classes, self.agnostic, max_det=self.max_det
            )[0].cpu()
        boxes = scale_coords(boxed.shape[:2], boxes, image.shape[:2])
        return Detections(boxes, self.names, image.shape[:2])
