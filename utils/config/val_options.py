"""The options of ``val.py``."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.flags import (
    IMAGE_SIZE_FLAGS,
    TASKS,
    at_least,
    check_download,
    fraction,
    one_of,
    option,
    plain_name,
    switch,
)
from utils.config.paths import ROOT


@dataclass(frozen=True, kw_only=True)
class ValOptions:
    """Options of ``val.py``. Raises InputError naming the flag when a value is out of range."""

    data: str = option("", str, "--data", "data yaml; empty: the one recorded in the checkpoint, else digits")
    weights: tuple[str, ...] = option(
        (),
        str,
        "--weights",
        "model file; several .pt: an ensemble; none: the newest best.pt below runs/train",
        nargs="+",
    )
    batch_size: int = option(32, int, "--batch-size", "pictures per batch")
    imgsz: int = option(640, int, IMAGE_SIZE_FLAGS, "longer side of the pictures in pixels")
    conf_thres: float = option(0.001, float, "--conf-thres", "drop detections below this confidence")
    iou_thres: float = option(0.6, float, "--iou-thres", "IoU above which NMS takes two boxes for one object")
    task: str = option("val", str, "--task", "split to validate on", choices=TASKS)
    device: str = option("", str, "--device", "cpu or 0; empty: the first GPU if there is one")
    workers: int = option(8, int, "--workers", "loader processes; 0: load in the main process")
    cache_dir: str = option("", str, "--cache-dir", "folder for the label cache, for read-only data")
    single_cls: bool = switch("--single-cls", "treat all classes as one")
    augment: bool = switch("--augment", "look at every picture in three sizes, once mirrored")
    verbose: bool = switch("--verbose", "print the figures of every class")
    save_txt: bool = switch("--save-txt", "write the detections as label files")
    save_conf: bool = switch("--save-conf", "with --save-txt: write the confidence as well")
    project: str = option(str(ROOT / "runs/val"), str, "--project", "folder of the runs")
    name: str = option("exp", str, "--name", "name of this run; a number is added when it is taken")
    exist_ok: bool = switch("--exist-ok", "write into an existing run folder")
    half: bool = switch("--half", "half precision on a GPU")
    download: bool = switch("--download", "fetch the pictures from the download: address of the data yaml if missing")
    allow_scripts: bool = switch("--allow-scripts", "with --download: run the script that stands under download:")
    download_limit: int = option(50, int, "--download-limit", "most GB that one download may have, packed or unpacked")
    dnn: bool = switch("--dnn", "run an .onnx file by OpenCV instead of ONNX Runtime")
    modules: tuple[str, ...] = option(
        (), str, "--modules", "python files with layers of your own, which are run", nargs="+", repeat=True
    )

    def __post_init__(self) -> None:
        at_least("--batch-size", self.batch_size, 1)
        at_least("--imgsz", self.imgsz, 32)
        at_least("--workers", self.workers, 0)
        fraction("--conf-thres", self.conf_thres)
        fraction("--iou-thres", self.iou_thres)
        one_of("--task", self.task, TASKS)
        plain_name(self.name)
        check_download(self.download, self.allow_scripts, self.download_limit)
