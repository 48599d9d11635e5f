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

from models.memory_format import prepare_for_inference
from models.registry import make_divisible
from models.tta import augmented_forward
from models.yolo import Model
from utils.config.class_names import ClassNames
from utils.config.sizes import DEFAULT_SIZE, size_text
from utils.core.boxes import scale_coords
from utils.core.errors import InputError
from utils.core.image import decode_image, letterbox, read_image, to_model_input, to_uint8
from utils.core.nms import non_max_suppression
from utils.core.nms_defaults import CONF_THRES, IOU_THRES, MAX_DET
from utils.core.threads import limit_torch_threads
from utils.core.timing import StageTimer
from utils.inference.results import Detections

LOG = logging.getLogger(__name__)
ImageInput: TypeAlias = "str | Path | bytes | BytesIO | Image.Image | np.ndarray"


class AutoShape(nn.Module):
    """A model with the steps around it: reading images, letterbox, NMS, scaling boxes to the image.

    Args:
        model: :class:`DetectMultiBackend`, the result of ``attempt_load``, or a Model; set to evaluation mode.
        verbose: log that the model was wrapped.

    Attributes:
        names: of the classes, as list and as mapping.
        conf, iou: thresholds; like all below, they may be set at any time.
        agnostic: NMS across classes.
        multi_label: several classes for one box.
        classes: class indices to keep, None for all.
        max_det: most detections in an image.
        amp: mixed precision on a GPU.
    """

    __module__ = "models.common"  # where scripts import it from; clients such as sahi know it by this name

    def __init__(self, model: nn.Module, verbose: bool = True) -> None:
        super().__init__()
        self.model = model.eval()
        self.imgsz: tuple[int, int] = getattr(model, "imgsz", None) or (DEFAULT_SIZE, DEFAULT_SIZE)
        if verbose:
            text = (
                "AutoShape: the model takes files, PIL images, arrays and lists of them, at image size %s unless size= "
            )
            LOG.info(text + "sets another", size_text(self.imgsz))
        self.names = ClassNames(model.names)  # type: ignore[arg-type]
        self.stride: int | Tensor = model.stride  # type: ignore[assignment]
        self.conf, self.iou = CONF_THRES, IOU_THRES
        self.agnostic, self.multi_label, self.amp = False, False, False
        self.classes: Sequence[int] | None = None
        self.max_det = MAX_DET

    @torch.no_grad()
    def forward(
        self,
        imgs: ImageInput | Tensor | Sequence[ImageInput],
        size: int | Sequence[int] | None = None,
        augment: bool = False,
        profile: bool = False,
    ) -> Any:
        """Detect objects.

        Args:
            imgs: an image or a list of them: file name, the bytes of a file, PIL image, or array HWC (also CHW or
                HW) **RGB**, whose values :func:`utils.core.image.to_uint8` scales to 0..255. Reverse the channels of an
                array that OpenCV read: ``image[..., ::-1]``. A tensor [B, 3, H, W] in 0..1 goes to the model unchanged.
            size: longest side, or (height, width), of the network's input in pixels, rounded up to multiples of the
                stride; None: that of the model file, 640 where it records none.
            augment: predict three views of each image.
            profile: without effect, kept for old scripts.

        Returns:
            :class:`Detections`; for a tensor the output of the model.

        Raises:
            FileNotFoundError, InputError: an image is missing, unreadable or of another form.
        """
        with limit_torch_threads(self.model):
            return self._detect(imgs, size, augment)

    def _detect(
        self, imgs: ImageInput | Tensor | Sequence[ImageInput], size: int | Sequence[int] | None, augment: bool
    ) -> Any:
        parameter = _reference(self.model)
        device = parameter.device
        autocast = torch.autocast(device.type, enabled=self.amp and device.type == "cuda")
        if isinstance(imgs, Tensor):
            with autocast:
                return self._run(imgs.to(parameter), augment)
        timer = StageTimer(device)
        with timer.stage("pre-process"):
            items = list(imgs) if isinstance(imgs, (list, tuple)) else [imgs]
            if not items:
                raise InputError("no images: the list is empty")
            images, files = zip(*(read_rgb(item, number) for number, item in enumerate(items)))
            batch = self._letterboxed(images, self.imgsz if size is None else size)  # [B, 3, H, W] uint8
            layout = prepare_for_inference(self.model, device)
            x = to_model_input(batch, device, parameter.dtype == torch.float16, layout)
        with timer.stage("inference"), autocast:
            output = self._run(x, augment)
            decoded = output if isinstance(output, Tensor) else output[0]
        with timer.stage("NMS"):
            boxes = non_max_suppression(
                decoded, self.conf, self.iou, self.classes, self.agnostic, self.multi_label, max_det=self.max_det
            )
            pred = [scale_coords(batch.shape[2:], rows, image.shape[:2]) for rows, image in zip(boxes, images)]
        sources = [i if isinstance(i, (str, Path)) else str(getattr(i, "filename", "")) for i in items]
        return Detections(images, pred, files, self.names, tuple(timer.seconds.values()), tuple(batch.shape), sources)

    def _run(self, x: Tensor, augment: bool) -> Any:
        if not augment:
            return self.model(x)
        return (
            (augmented_forward(self.model, x), None) if isinstance(self.model, Model) else self.model(x, augment=True)
        )

    def _letterboxed(self, images: Sequence[np.ndarray], size: int | Sequence[int]) -> Tensor:
        """Return [B, 3, H, W] uint8: all images on the smallest common canvas within ``size``."""
        stride = int(self.stride.max()) if isinstance(self.stride, Tensor) else int(self.stride)
        sides = [size, size] if isinstance(size, int) else [size[0], size[-1]]
        if min(sides) < 1:
            raise InputError(f"size is {size}; expected the longest side in pixels, or (height, width)")
        sides = [make_divisible(side, stride) for side in sides]
        fixed = getattr(self.model, "fixed_hw", None)  # of an exported file that takes one size only
        boxed = [letterbox(image, fixed or sides, auto=fixed is None, stride=stride)[0] for image in images]
        canvas = np.array([image.shape[:2] for image in boxed]).max(0).tolist()
        for index, image in enumerate(images):
            if list(boxed[index].shape[:2]) != canvas:
                boxed[index] = letterbox(image, canvas, auto=False)[0]
        return torch.from_numpy(np.stack(boxed).transpose(0, 3, 1, 2).copy())


def _reference(model: nn.Module) -> Tensor:
    """Return a tensor of the device and precision in which the model takes images."""
    for parameter in model.parameters():
        return parameter
    half, device = getattr(model, "fp16", False), getattr(model, "device", "cpu")
    return torch.zeros(1, device=device, dtype=torch.float16 if half else torch.float32)


def read_rgb(item: Any, number: int) -> tuple[np.ndarray, str]:
    """Return an image as HWC RGB uint8, and its name ending in ``.jpg``.

    Args:
        item: file name, bytes of a file, PIL image or array.
        number: for messages, and for the name ``image3.jpg`` of an image without a file.

    Raises:
        FileNotFoundError: no such file.
        InputError: not an image, a URL, or an array of another shape or type.
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
        image, name = _rgb_pil(ImageOps.exif_transpose(item), number), Path(getattr(item, "filename", "") or name).name
    elif isinstance(item, np.ndarray):
        image = _rgb_array(item, number)
    else:
        kind = type(item).__name__
        raise InputError(f"image {number}: expected a file name, bytes, a PIL image or an array, got {kind}")
    return np.ascontiguousarray(image), str(Path(name).with_suffix(".jpg"))


def _rgb_pil(image: Image.Image, number: int) -> np.ndarray:
    """Convert a PIL image of any mode to HWC RGB uint8; transparency is dropped."""
    if image.mode.startswith("I"):  # of 16-bit files; Pillow's own conversion clips at 255
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
    """Convert HWC, CHW or HW, with one, three or four channels, to HWC RGB uint8; transparency is dropped."""
    array = to_uint8(array, f"image {number}")
    image = array[..., None] if array.ndim == 2 else array
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
        raise InputError(f"image {number}: expected an array [height, width, 3], got {list(array.shape)}")
    return image.repeat(3, axis=2) if image.shape[2] == 1 else image[..., :3]
