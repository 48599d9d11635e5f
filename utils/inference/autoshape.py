"""``AutoShape``: a model that takes images in any form and returns their detections, as in v6.1."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from models.registry import make_divisible
from models.tta import augmented_forward
from models.yolo import Model
from utils.config.class_names import ClassNames
from utils.config.sizes import DEFAULT_SIZE, size_text
from utils.core.boxes import scale_coords
from utils.core.errors import InputError
from utils.core.image import decode_image, letterbox, read_image, to_model_input, to_uint8
from utils.core.nms import non_max_suppression
from utils.core.timing import StageTimer
from utils.inference.results import Detections

LOG = logging.getLogger(__name__)
Picture: TypeAlias = "str | Path | bytes | BytesIO | Image.Image | np.ndarray"


class AutoShape(nn.Module):
    """A model with everything around it: reading, letterbox, suppression, back to the images' own pixels.

    ``names`` are the classes, as list and as mapping. Attributes that may be set at any time: ``conf`` and ``iou``
    thresholds, ``agnostic`` (boxes of different classes suppress one another), ``multi_label`` (several classes for a
    box), ``classes`` (numbers to keep, None for all), ``max_det`` (most detections in an image), ``amp`` (mixed
    precision on a GPU).

    Args:
        model: :class:`DetectMultiBackend`, what ``attempt_load`` returns, or a Model; put into evaluation mode.
        verbose: log that the model was wrapped.
    """

    __module__ = "models.common"  # where scripts import it from; clients such as sahi know it by this name

    def __init__(self, model: nn.Module, verbose: bool = True) -> None:
        super().__init__()
        self.model = model.eval()
        self.imgsz: tuple[int, int] = getattr(model, "imgsz", None) or (DEFAULT_SIZE, DEFAULT_SIZE)
        if verbose:
            LOG.info(
                "AutoShape: the model takes files, PIL images, arrays and lists of them, at image size %s unless "
                "size= sets another", size_text(self.imgsz),
            )  # fmt: skip
        self.names = ClassNames(model.names)  # type: ignore[arg-type]
        self.stride: int | Tensor = model.stride  # type: ignore[assignment]
        self.conf, self.iou = 0.25, 0.45
        self.agnostic, self.multi_label, self.amp = False, False, False
        self.classes: Sequence[int] | None = None
        self.max_det = 1000

    @torch.no_grad()
    def forward(
        self,
        imgs: Picture | Tensor | Sequence[Picture],
        size: int | Sequence[int] | None = None,
        augment: bool = False,
        profile: bool = False,
    ) -> Any:
        """Detect.

        Args:
            imgs: an image or a list of them: file name, the bytes of a file, PIL image, or array HWC (also CHW or
                HW) **RGB**, whose values :func:`utils.core.image.to_uint8` brings to 0..255. Turn an array that OpenCV
                read round first: ``image[..., ::-1]``. A tensor [B, 3, H, W] in 0..1 goes to the model as it is.
            size: longest side, or (height, width), of the network's input in pixels, rounded up to multiples of the
                stride; None: that of the model file, 640 where it records none.
            augment: look in three views.
            profile: without effect, kept for old scripts.

        Returns:
            :class:`Detections`; for a tensor whatever the model returns.

        Raises:
            FileNotFoundError, InputError: an image is missing, unreadable or of another form.
        """
        parameter = _reference(self.model)
        if isinstance(imgs, Tensor):
            with torch.autocast(parameter.device.type, enabled=self._mixed(parameter)):
                return self._run(imgs.to(parameter), augment)
        timer = StageTimer(parameter.device)
        with timer.stage("pre-process"):
            items = list(imgs) if isinstance(imgs, (list, tuple)) else [imgs]
            if not items:
                raise InputError("no images: the list is empty")
            pictures, files = zip(*(read_rgb(item, number) for number, item in enumerate(items)))
            batch = self._letterboxed(pictures, self.imgsz if size is None else size)  # [B, 3, H, W] uint8
            images = to_model_input(batch, parameter.device, parameter.dtype == torch.float16)
        with timer.stage("inference"), torch.autocast(parameter.device.type, enabled=self._mixed(parameter)):
            found = self._run(images, augment)
            decoded = found if isinstance(found, Tensor) else found[0]
        with timer.stage("NMS"):
            boxes = non_max_suppression(
                decoded, self.conf, self.iou, self.classes, self.agnostic, self.multi_label, max_det=self.max_det
            )
            pred = [scale_coords(batch.shape[2:], rows, image.shape[:2]) for rows, image in zip(boxes, pictures)]
        before, inference, after = timer.seconds.values()
        sources = [i if isinstance(i, (str, Path)) else str(getattr(i, "filename", "")) for i in items]
        times = before, inference, after
        return Detections(pictures, pred, files, self.names, times, tuple(batch.shape), sources)

    def _mixed(self, parameter: Tensor) -> bool:
        return self.amp and parameter.device.type == "cuda"

    def _run(self, images: Tensor, augment: bool) -> Any:
        if not augment:
            return self.model(images)
        if isinstance(self.model, Model):
            return augmented_forward(self.model, images), None
        return self.model(images, augment=True)

    def _letterboxed(self, pictures: Sequence[np.ndarray], size: int | Sequence[int]) -> Tensor:
        """[B, 3, H, W] uint8: all on the smallest common canvas within ``size``."""
        stride = int(self.stride.max()) if isinstance(self.stride, Tensor) else int(self.stride)
        sides = [size, size] if isinstance(size, int) else [size[0], size[-1]]
        if min(sides) < 1:
            raise InputError(f"size is {size}; expected the longest side in pixels, or (height, width)")
        side = [make_divisible(one, stride) for one in sides]
        fixed = getattr(self.model, "fixed_hw", None)
        if fixed is not None:  # an exported file that takes one size only
            whole = [letterbox(picture, fixed, auto=False)[0] for picture in pictures]
            return torch.from_numpy(np.stack(whole).transpose(0, 3, 1, 2).copy())
        boxed = [letterbox(picture, side, stride=stride)[0] for picture in pictures]
        canvas = np.array([picture.shape[:2] for picture in boxed]).max(0).tolist()
        for index, picture in enumerate(pictures):
            if list(boxed[index].shape[:2]) != canvas:
                boxed[index] = letterbox(picture, canvas, auto=False)[0]
        return torch.from_numpy(np.stack(boxed).transpose(0, 3, 1, 2).copy())


def _reference(model: nn.Module) -> Tensor:
    """A tensor of the device and precision that the model wants its images in."""
    for parameter in model.parameters():
        return parameter
    half, device = getattr(model, "fp16", False), getattr(model, "device", "cpu")
    return torch.zeros(1, device=device, dtype=torch.float16 if half else torch.float32)


def read_rgb(item: Any, number: int) -> tuple[np.ndarray, str]:
    """One image of any form as HWC RGB uint8, and its name ending in ``.jpg`` (``image3.jpg`` without one).

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, an address on the net, or an array of another shape or type.
    """
    name = f"image{number}"
    if isinstance(item, (str, Path)):
        if "://" in str(item):
            raise InputError(f"{item}: nothing is downloaded; save the image and give its file name")
        image, name = read_image(Path(item).expanduser())[..., ::-1], Path(item).name
    elif isinstance(item, (bytes, bytearray, memoryview, BytesIO)):
        content = item.getvalue() if isinstance(item, BytesIO) else bytes(item)
        image = decode_image(content, f"image {number}")[..., ::-1]
    elif isinstance(item, Image.Image):
        upright = ImageOps.exif_transpose(item)
        image, name = _rgb_pil(upright, number), Path(getattr(item, "filename", "") or name).name
    elif isinstance(item, np.ndarray):
        image = _rgb_array(item, number)
    else:
        kind = type(item).__name__
        raise InputError(f"image {number}: expected a file name, bytes, a PIL image or an array, got {kind}")
    return np.ascontiguousarray(image), str(Path(name).with_suffix(".jpg"))


def _rgb_pil(image: Image.Image, number: int) -> np.ndarray:
    """A PIL image of any mode as HWC RGB uint8; transparency is dropped."""
    if image.mode.startswith("I"):  # what Pillow makes of 16-bit files; its own conversion cuts off at 255
        values = np.asarray(image)
        if values.size and values.min() >= 0 and values.max() <= 65535:
            values = values.astype(np.uint16)
        return _rgb_array(values, number)
    if image.mode == "F":
        return _rgb_array(np.asarray(image), number)
    try:
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        return np.asarray(straight.convert("RGB"))
    except ValueError as error:
        raise InputError(f"image {number}: a PIL image of mode {image.mode} cannot become RGB") from error


def _rgb_array(array: np.ndarray, number: int) -> np.ndarray:
    """HWC, CHW or HW, with one, three or four channels -> HWC RGB uint8; transparency is dropped."""
    array = to_uint8(array, f"image {number}")
    image = array[..., None] if array.ndim == 2 else array
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise InputError(f"image {number}: expected an array [height, width, 3], got {list(array.shape)}")
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3]
