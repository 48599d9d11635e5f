"""The options of ``detect.py``."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.flags import (
    IMAGE_SIZE_FLAGS,
    at_least,
    fraction,
    option,
    plain_name,
    switch,
)
from utils.config.paths import ROOT
from utils.errors import InputError


@dataclass(frozen=True, kw_only=True)
class DetectOptions:
    """Options of ``detect.py``. Raises InputError naming the flag when a value is out of range."""

    weights: tuple[str, ...] = option(
        (), str, "--weights", "checkpoint; several: an ensemble; none: the newest best.pt below runs/train", nargs="+"
    )
    source: str = option(str(ROOT / "data/images"), str, "--source", "picture, folder or .txt list")
    imgsz: tuple[int, ...] = option(
        (640,), int, IMAGE_SIZE_FLAGS, "picture size in pixels: one side, or h w", nargs="+"
    )
    conf_thres: float = option(0.25, float, "--conf-thres", "drop detections below this confidence")
    iou_thres: float = option(0.45, float, "--iou-thres", "IoU above which NMS takes two boxes for one object")
    max_det: int = option(1000, int, "--max-det", "most detections in one picture")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one")
    view_img: bool = switch("--view-img", "show the results in a window")
    save_txt: bool = switch("--save-txt", "write the detections as label files")
    save_conf: bool = switch("--save-conf", "with --save-txt: write the confidence as well")
    save_crop: bool = switch("--save-crop", "write every detected object as a picture of its own")
    nosave: bool = switch("--nosave", "write no pictures")
    classes: tuple[int, ...] | None = option(None, int, "--classes", "keep only these class numbers", nargs="+")
    agnostic_nms: bool = switch("--agnostic-nms", "let boxes of different classes suppress each other")
    augment: bool = switch("--augment", "look at every picture in three sizes, once mirrored")
    visualize: bool = switch("--visualize", "write what every layer sees, as pictures and arrays")
    project: str = option(str(ROOT / "runs/detect"), str, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    line_thickness: int = option(3, int, "--line-thickness", "width of the box lines in pixels")
    hide_labels: bool = switch("--hide-labels", "draw boxes without labels")
    hide_conf: bool = switch("--hide-conf", "draw labels without the confidence")
    half: bool = switch("--half", "half precision on a GPU")
    modules: tuple[str, ...] = option(
        (), str, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        if len(self.imgsz) not in (1, 2):
            raise InputError(f"--imgsz takes one number, or height and width; {len(self.imgsz)} given")
        for side in self.imgsz:
            at_least("--imgsz", side, 32)
        for index in self.classes or ():
            at_least("--classes", index, 0)
        at_least("--max-det", self.max_det, 1)
        at_least("--line-thickness", self.line_thickness, 1)
        fraction("--conf-thres", self.conf_thres)
        fraction("--iou-thres", self.iou_thres)
        plain_name(self.name)
        if self.visualize and len(self.weights) > 1:
            raise InputError(f"--visualize shows layers of one model; --weights names {len(self.weights)}: name one")
