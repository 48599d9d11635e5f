"""The options of ``val.py``."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.flags import (
    TASKS,
    Named,
    at_least,
    check_download,
    check_image_size,
    fraction,
    image_size_option,
    one_of,
    option,
    path,
    plain_name,
    switch,
    yes_or_no,
)
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.nms_defaults import EVAL_CONF_THRES, EVAL_IOU_THRES

STUDY_SIZES = tuple(range(256, 1536 + 1, 128))  # v6.1's


@dataclass(frozen=True, kw_only=True)
class ValOptions(Named):
    """Options of ``val.py``.

    Raises:
        InputError: a value out of range, or options that do not go together; the message names the flags.
    """

    data: str = option("", path, "--data", "data yaml; without it: the one recorded in the checkpoint, else digits")
    weights: tuple[str, ...] = option(
        (),
        path,
        "--weights",
        "model file; several .pt: an ensemble; none: the newest best.pt below runs/train",
        nargs="+",
    )
    batch_size: int = option(32, int, "--batch-size", "images per batch")
    imgsz: int | None = image_size_option("longer side of the images in pixels")
    conf_thres: float = option(EVAL_CONF_THRES, float, "--conf-thres", "drop detections below this confidence")
    iou_thres: float = option(
        EVAL_IOU_THRES, float, "--iou-thres", "IoU above which NMS takes two boxes for one object"
    )
    task: str = option(
        "val", str, "--task", "split to score; speed: time each model; study: each model at many sizes", choices=TASKS
    )
    study_sizes: tuple[int, ...] = option(
        STUDY_SIZES, int, "--study-sizes", "with --task study: the longer sides in pixels", nargs="+"
    )
    rect: bool | None = yes_or_no("--rect", "images of like shape together with little border (default), or squares")
    v61_matching: bool = switch("--v61-matching", "pair detections and labels once, at IoU 0.5, as v6.1 did")
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one", may_be_empty=True)
    workers: int = option(8, int, "--workers", "workers that load images; 0: load in the main process")
    cache_dir: str = option("", path, "--cache-dir", "folder for the label cache, for read-only data")
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    augment: bool = switch("--augment", "look at every image in three sizes, once mirrored")
    verbose: bool = switch("--verbose", "print the metrics of every class")
    save_txt: bool = switch("--save-txt", "write the detections as label files")
    save_hybrid: bool = switch("--save-hybrid", "as --save-txt, with the labels mixed in; scores are without them")
    save_conf: bool = switch("--save-conf", "with --save-txt: write the confidence as well")
    save_json: bool = switch("--save-json", "write COCO results, and score them with a COCO evaluator")
    annotations: str = option(
        "",
        path,
        "--annotations",
        "with --save-json: COCO annotation file; without it: the one of the set, else the labels",
    )
    project: str = option(str(ROOT / "runs/val"), path, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    half: bool = switch("--half", "half precision on a GPU; bfloat16 of an OpenVINO model")
    seed: int = option(0, int, "--seed", "seed of what layers of your own may draw")
    download: bool = switch("--download", "fetch missing files: official weights (yolov5n.pt), images of the data yaml")
    allow_scripts: bool = switch("--allow-scripts", "with --download: run the script that stands under download:")
    download_limit: int = option(50, int, "--download-limit", "most GB that one download may have, packed or unpacked")
    dnn: bool = switch("--dnn", "run an .onnx file by OpenCV instead of ONNX Runtime")
    trust: bool = switch("--trust", "open a model file that may run code of its maker")
    modules: tuple[str, ...] = option(
        (), path, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        at_least("--batch-size", self.batch_size, 1)
        check_image_size(self.imgsz)
        at_least("--workers", self.workers, 0)
        fraction("--conf-thres", self.conf_thres)
        fraction("--iou-thres", self.iou_thres)
        one_of("--task", self.task, TASKS)
        plain_name(self.name)
        at_least("--seed", self.seed, 0)
        for size in self.study_sizes:
            at_least("--study-sizes", size, 32)
        if self.study_sizes != STUDY_SIZES and self.task != "study":
            raise InputError("--study-sizes does nothing without --task study; give both, or none")
        if self.annotations and not self.save_json:
            raise InputError("--annotations does nothing without --save-json; give both, or none")
        if self.annotations and self.single_cls:
            raise InputError("--annotations and --single-cls exclude each other: the file has classes; omit one")
        check_download(self.download, self.allow_scripts, self.download_limit)
