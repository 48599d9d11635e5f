"""From images to boxes: letterbox, model, suppression, back to the images' own pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.ensemble import Detector
from models.fuse import fuse
from utils.core.boxes import scale_coords
from utils.core.errors import InputError
from utils.core.image import letterbox, to_model_input
from utils.core.names import printable
from utils.core.nms import non_max_suppression
from utils.core.timing import StageTimer
from utils.inference.backends.base import FileBackend

_LONGEST_NAME = 100  # characters of a class name in a line


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    ``boxes`` [k, 6]: x1 y1 x2 y2 in pixels of the image, confidence, class; the most confident first.
    """

    boxes: Tensor
    names: Sequence[str]
    hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def summary(self) -> str:
        """ "3 cats, 1 dog", in order of class; "nothing" without detections."""
        counts = Counter(self.boxes[:, 5].int().tolist())
        # A plural s is for latin names only.
        named = [(n, printable(self.names[c][:_LONGEST_NAME])) for c, n in sorted(counts.items())]
        return ", ".join(f"{n} {name}{'s' * (n > 1 and name.isascii())}" for n, name in named) or "nothing"


@dataclass(frozen=True)
class Thresholds:
    """What suppression keeps; as for :func:`utils.core.nms.non_max_suppression`."""

    conf: float = 0.25
    iou: float = 0.45
    max_det: int = 1000
    classes: Sequence[int] | None = None
    agnostic: bool = False


@dataclass(frozen=True)
class Candidates:
    """What the model proposes for one image, before suppression, so that thresholds can be tried on it.

    Attributes:
        rows: [n, nc + 5] xywh in pixels of the network's input, objectness, class scores.
        floor: the objectness that all of them are above.
        input_hw: of the network's input. hw: of the image. names: of the classes.
    """

    rows: Tensor
    floor: float
    input_hw: tuple[int, int]
    hw: tuple[int, int]
    names: Sequence[str]

    def detections(self, limits: Thresholds) -> Detections:
        """What :class:`Predictor` finds with these thresholds, to the last digit.

        Raises:
            InputError: a confidence below ``floor``, or a threshold outside 0..1.
        """
        if limits.conf < self.floor:
            raise InputError(f"conf is {limits.conf:g}, but candidates were kept from {self.floor:g} only")
        (kept,) = suppress(self.rows[None], limits)
        return Detections(scale_coords(self.input_hw, kept.cpu(), self.hw), self.names, self.hw)


def suppress(decoded: Tensor, limits: Thresholds) -> list[Tensor]:
    """[B, N, nc + 5] -> a tensor [k, 6] per image, in pixels of the network's input."""
    return non_max_suppression(
        decoded, limits.conf, limits.iou, limits.classes, limits.agnostic, max_det=limits.max_det
    )  # fmt: skip


class Finder(Protocol):
    """What finds objects in images: :class:`Predictor`, or one that cuts large images into tiles first."""

    timer: StageTimer

    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]: ...


class Predictor:
    """A model ready for images.

    Args:
        model: one model, an augmented one or an ensemble, in float32, whose batch norm is folded in here; or an
            exported file.
        imgsz: longest side, or (height, width), of the network input in pixels; multiples of the stride.
        conf, iou, max_det, classes, agnostic: as for :func:`utils.core.nms.non_max_suppression`.
        half: half precision, on a GPU.
    """

    def __init__(
        self,
        model: Detector | FileBackend,
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
        # A file of one fixed size takes the whole canvas, others as much of it as the image needs.
        self.whole_canvas = isinstance(model, FileBackend) and model.fixed_hw is not None
        self.imgsz = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        self.conf, self.iou, self.max_det, self.classes, self.agnostic = conf, iou, max_det, classes, agnostic
        self.timer = StageTimer(device)

    def __call__(self, image: np.ndarray) -> Detections:
        """``image``: HWC BGR uint8, any size."""
        return self.predict([image])[0]

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Detections of each image (HWC BGR uint8, any sizes), in their order.

        Only images whose letterboxed forms have one size go through the model together. So no image gets other
        margins than it would have alone, and its boxes do not depend on its neighbours.
        """
        alike: dict[tuple[int, ...], list[int]] = {}
        with self.timer.stage("pre-process", len(images)):
            fitted = (letterbox(image, self.imgsz, stride=self.stride, auto=not self.whole_canvas) for image in images)
            boxed = [each[0] for each in fitted]
            for index, picture in enumerate(boxed):
                alike.setdefault(picture.shape, []).append(index)
        found: dict[int, Tensor] = {}
        for indices in alike.values():
            boxes = self._boxes([boxed[index] for index in indices])
            for index, rows in zip(indices, boxes):
                found[index] = scale_coords(boxed[index].shape[:2], rows, images[index].shape[:2])
        return [
            Detections(found[index], self.names, (image.shape[0], image.shape[1])) for index, image in enumerate(images)
        ]

    @torch.no_grad()
    def candidates(self, image: np.ndarray, floor: float = 0.0) -> Candidates:
        """What the model proposes for one image (HWC BGR uint8) with an objectness above ``floor``."""
        with self.timer.stage("pre-process", 1):
            boxed, _, _ = letterbox(image, self.imgsz, stride=self.stride, auto=not self.whole_canvas)
        rows = self._decode([boxed])[0]
        hw, input_hw = (image.shape[0], image.shape[1]), (boxed.shape[0], boxed.shape[1])
        return Candidates(rows[rows[:, 4] > floor], floor, input_hw, hw, self.names)

    def _boxes(self, boxed: Sequence[np.ndarray]) -> list[Tensor]:
        """[k, 6] on the CPU for each of some images of one size, in pixels of the network's input."""
        limits = Thresholds(self.conf, self.iou, self.max_det, self.classes, self.agnostic)
        decoded = self._decode(boxed)
        with self.timer.stage("NMS", len(boxed)):
            return [rows.cpu() for rows in suppress(decoded, limits)]

    def _decode(self, boxed: Sequence[np.ndarray]) -> Tensor:
        """[B, N, nc + 5] candidates for some images of one size."""
        with self.timer.stage("pre-process"):
            chw = np.stack(boxed)[..., ::-1].transpose(0, 3, 1, 2)  # BGR -> RGB
            batch = to_model_input(torch.from_numpy(np.ascontiguousarray(chw)), self.device, self.half)
        with self.timer.stage("inference", len(boxed)):
            decoded, _ = self.model(batch)
        return decoded
