"""Detection in images: letterbox, model, NMS, boxes in pixels of the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.ensemble import Detector
from models.fuse import fuse
from models.memory_format import prepare_for_inference
from utils.core.boxes import scale_coords
from utils.core.errors import InputError
from utils.core.image import letterbox, to_model_input
from utils.core.names import printable
from utils.core.nms import Thresholds
from utils.core.threads import limit_torch_threads
from utils.core.timing import StageTimer
from utils.inference.backends.base import FileBackend

_LONGEST_NAME = 100  # characters of a class name in a line


@dataclass(frozen=True)
class ImageDetections:
    """Detections of one image.

    Attributes:
        boxes: [k, 6] x1 y1 x2 y2 in pixels of the image, confidence, class index; the most confident first.
        names: of the classes.
        hw: height and width of the image.
    """

    boxes: Tensor
    names: Sequence[str]
    hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def summary(self) -> str:
        """Return the number of objects of each class: "3 cats, 1 dog", or "nothing"."""
        counts = Counter(self.boxes[:, 5].int().tolist())
        # A plural s is for latin names only.
        named = [(n, printable(self.names[c][:_LONGEST_NAME])) for c, n in sorted(counts.items())]
        return ", ".join(f"{n} {name}{'s' * (n > 1 and name.isascii())}" for n, name in named) or "nothing"


@dataclass(frozen=True)
class Candidates:
    """Boxes of one image before NMS, on which several thresholds can be tried.

    Attributes:
        rows: [n, nc + 5] xywh in pixels of the network's input, objectness, class scores.
        min_objectness: the objectness of all rows is above.
        input_hw: height and width of the network's input.
        hw: height and width of the image.
        names: of the classes.
    """

    rows: Tensor
    min_objectness: float
    input_hw: tuple[int, int]
    hw: tuple[int, int]
    names: Sequence[str]

    def detections(self, thresholds: Thresholds) -> ImageDetections:
        """Return exactly the detections of a :class:`Predictor` with these thresholds.

        Raises:
            InputError: a confidence below ``min_objectness``, or a threshold outside 0..1.
        """
        if thresholds.conf < self.min_objectness:
            raise InputError(f"conf is {thresholds.conf:g}, but candidates were kept from {self.min_objectness:g} only")
        (kept,) = thresholds.nms(self.rows[None])
        return ImageDetections(scale_coords(self.input_hw, kept.cpu(), self.hw), self.names, self.hw)


class Predictor:
    """A model ready for images.

    Args:
        model: one model, an augmented one or an ensemble, in float32, whose batch norm is fused here; or an exported
            file.
        device: where it runs.
        imgsz: longest side, or (height, width), of the network's input in pixels; multiples of the stride.
        thresholds: of NMS.
        half: half precision, on a GPU.
    """

    def __init__(
        self,
        model: Detector | FileBackend,
        device: torch.device,
        imgsz: int | tuple[int, int] = 640,
        thresholds: Thresholds | None = None,
        half: bool = False,
    ) -> None:
        self.names, self.stride = model.names, int(model.stride.max())
        self.device, self.half = device, half
        fuse(model.to(device).eval())
        self.layout = prepare_for_inference(model, device)
        self.model = model.half() if half else model
        # A file of one fixed size takes the whole canvas, others as much of it as the image needs.
        self.whole_canvas = isinstance(model, FileBackend) and model.fixed_hw is not None
        self.imgsz = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        self.thresholds = thresholds or Thresholds()
        self.timer = StageTimer(device)

    def __call__(self, image: np.ndarray) -> ImageDetections:
        """Return the detections of one image, HWC BGR uint8 of any size."""
        return self.predict([image])[0]

    @torch.no_grad()
    def predict(self, images: Sequence[np.ndarray]) -> list[ImageDetections]:
        """Return the detections of each image (HWC BGR uint8, any sizes), in their order.

        Only images whose letterboxed forms have one size go through the model together. So no image gets other
        margins than it would have alone, and its boxes do not depend on the other images of the batch.
        """
        with limit_torch_threads(self.model):
            return self._predict(images)

    def _predict(self, images: Sequence[np.ndarray]) -> list[ImageDetections]:
        with self.timer.stage("pre-process", len(images)):
            boxed = [self._letterbox(image) for image in images]
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(boxed):
            by_shape.setdefault(image.shape, []).append(index)
        detections: dict[int, ImageDetections] = {}
        for shape, indices in by_shape.items():
            decoded = self._decode([boxed[index] for index in indices])
            with self.timer.stage("NMS", len(indices)):
                boxes = [rows.cpu() for rows in self.thresholds.nms(decoded)]
            for index, rows in zip(indices, boxes):
                hw = (images[index].shape[0], images[index].shape[1])
                detections[index] = ImageDetections(scale_coords(shape[:2], rows, hw), self.names, hw)
        return [detections[index] for index in range(len(images))]

    @torch.no_grad()
    def candidates(self, image: np.ndarray, min_objectness: float = 0.0) -> Candidates:
        """Return the boxes before NMS of one image (HWC BGR uint8) with an objectness above ``min_objectness``."""
        with self.timer.stage("pre-process", 1):
            boxed = self._letterbox(image)
        with limit_torch_threads(self.model):
            rows = self._decode([boxed])[0]
        hw, input_hw = (image.shape[0], image.shape[1]), (boxed.shape[0], boxed.shape[1])
        return Candidates(rows[rows[:, 4] > min_objectness], min_objectness, input_hw, hw, self.names)

    def _letterbox(self, image: np.ndarray) -> np.ndarray:
        return letterbox(image, self.imgsz, stride=self.stride, auto=not self.whole_canvas)[0]

    def _decode(self, boxed: Sequence[np.ndarray]) -> Tensor:
        """Letterboxed images of one size -> [B, N, nc + 5] boxes before NMS."""
        with self.timer.stage("pre-process"):
            chw = np.stack(boxed)[..., ::-1].transpose(0, 3, 1, 2)  # BGR -> RGB
            batch = to_model_input(torch.from_numpy(np.ascontiguousarray(chw)), self.device, self.half, self.layout)
        with self.timer.stage("inference", len(boxed)):
            decoded, _ = self.model(batch)
        return decoded
