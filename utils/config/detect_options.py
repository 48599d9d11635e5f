"""The options of ``detect.py``."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.flags import (
    Named,
    at_least,
    fraction,
    image_sides,
    image_size_option,
    number_or_name,
    option,
    path,
    plain_name,
    switch,
)
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.nms_defaults import CONF_THRES, IOU_THRES, MAX_DET


@dataclass(frozen=True, kw_only=True)
class DetectOptions(Named):
    """Options of ``detect.py``. Raises InputError naming the flag when a value is out of range."""

    weights: tuple[str, ...] = option(
        (),
        path,
        "--weights",
        "model file; several .pt: an ensemble; none: the newest best.pt below runs/train",
        nargs="+",
    )
    download: bool = switch("--download", "fetch official weights such as yolov5n.pt if they are missing")
    source: str = option(
        str(ROOT / "data/images"),
        path,
        "--source",
        "image, video, folder, pattern, .txt list, camera number, rtsp:// or http:// stream, .streams list, screen",
    )
    data: str = option("", path, "--data", "data yaml with the class names, for a file that holds none")
    imgsz: tuple[int, ...] = image_size_option("image size in pixels: one side, or h w", nargs="+")
    conf_thres: float = option(CONF_THRES, float, "--conf-thres", "drop detections below this confidence")
    iou_thres: float = option(IOU_THRES, float, "--iou-thres", "IoU above which NMS takes two boxes for one object")
    max_det: int = option(MAX_DET, int, "--max-det", "most detections in one image")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one", may_be_empty=True)
    view_img: bool = switch("--view-img", "show the results in a window")
    save_txt: bool = switch("--save-txt", "write the detections as label files")
    save_conf: bool = switch("--save-conf", "with --save-txt: write the confidence as well")
    save_crop: bool = switch("--save-crop", "write every detected object as a separate image")
    nosave: bool = switch("--nosave", "write no images")
    save_csv: bool = switch("--save-csv", "write all detections of the run as one table, detections.csv")
    save_json: bool = switch("--save-json", "the same with an entry per image, detections.json")
    classes: tuple[int | str, ...] | None = option(
        None, number_or_name, "--classes", "keep only these classes, by number or name", nargs="+"
    )
    agnostic_nms: bool = switch("--agnostic-nms", "let boxes of different classes suppress each other")
    augment: bool = switch("--augment", "look at every image in three sizes, once mirrored")
    visualize: bool = switch("--visualize", "write what every layer sees, as images and arrays")
    update: bool = switch("--update", "afterwards take the optimizer out of the files of --weights, which shrinks them")
    project: str = option(str(ROOT / "runs/detect"), path, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    line_thickness: int = option(3, int, "--line-thickness", "width of the box lines in pixels")
    hide_labels: bool = switch("--hide-labels", "draw boxes without labels")
    hide_conf: bool = switch("--hide-conf", "draw labels without the confidence")
    half: bool = switch("--half", "half precision on a GPU; bfloat16 of an OpenVINO model")
    vid_stride: int = option(1, int, "--vid-stride", "look at every n-th frame of videos and streams")
    batch_size: int = option(
        1, int, "--batch-size", "images, frames or tiles that go through the model together; the boxes stay the same"
    )
    slice: int = option(0, int, "--slice", "cut larger images into tiles of this side in pixels; 0: off")
    overlap: float = option(
        0.2, float, "--overlap", "with --slice: share of its side a tile has in common with the next"
    )
    slice_only: bool = switch("--slice-only", "with --slice: do not look at the whole image as well")
    reconnect: int = option(5, int, "--reconnect", "attempts in a row to get a lost stream back")
    dnn: bool = switch("--dnn", "run an .onnx file by OpenCV instead of ONNX Runtime")
    trust: bool = switch("--trust", "open a model file that may run code of its maker")
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        image_sides(self.imgsz)
        for chosen in self.classes or ():
            if isinstance(chosen, int):
                at_least("--classes", chosen, 0)
        at_least("--max-det", self.max_det, 1)
        at_least("--line-thickness", self.line_thickness, 1, 1000)
        fraction("--conf-thres", self.conf_thres)
        fraction("--iou-thres", self.iou_thres)
        at_least("--vid-stride", self.vid_stride, 1)
        at_least("--batch-size", self.batch_size, 1)
        at_least("--reconnect", self.reconnect, 0)
        self._check_slices()
        plain_name(self.name)
        if self.visualize and len(self.weights) > 1:
            raise InputError(f"--visualize shows layers of one model; --weights names {len(self.weights)}: name one")

    def _check_slices(self) -> None:
        if not self.slice:
            for name in sorted({"overlap", "slice_only"} & self.given):
                raise InputError(f"--{name.replace('_', '-')} does nothing without --slice; give both, or none")
            return
        at_least("--slice", self.slice, 32)
        fraction("--overlap", self.overlap)
        if self.overlap > 0.9:
            raise InputError(f"--overlap {self.overlap} makes too many tiles; allowed is 0 to 0.9")
        if self.visualize:
            raise InputError("--visualize shows the layers for one whole image; omit --slice")
