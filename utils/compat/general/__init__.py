"""Names that scripts written for YOLOv5 v6.1 import from here. Nothing inside this repository does.

Most are the functions of other modules; the rest adapt them to v6.1's order of arguments.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from utils.checkpoint.transfer import intersect_dicts
from utils.compat.general.checks import (
    check_dataset,
    check_file,
    check_font,
    check_git_status,
    check_imshow,
    check_online,
    check_python,
    check_requirements,
    check_suffix,
    check_version,
    check_yaml,
    is_ascii,
    is_chinese,
)
from utils.compat.general.environment import (
    Profile,
    Timeout,
    WorkingDirectory,
    clean_str,
    config_dir,
    emojis,
    is_colab,
    is_docker,
    is_kaggle,
    is_pip,
    is_writeable,
    methods,
    try_except,
    user_config_dir,
)
from utils.compat.general.evolution import print_mutation
from utils.compat.general.logger import NCOLS, colorstr, print_args, set_logging
from utils.compat.general.numbers import (
    clip_coords,
    coco80_to_coco91_class,
    init_seeds,
    labels_to_class_weights,
    labels_to_image_weights,
    make_divisible,
    one_cycle,
    scale_coords,
)
from utils.compat.general.paths import download, file_size, get_latest_run, increment_path, strip_optimizer, url2file
from utils.compat.general.second_stage import apply_classifier
from utils.config.paths import ROOT
from utils.config.sizes import check_img_size
from utils.core.boxes import (
    box_iou,
    resample_segments,
    segment2box,
    segments2boxes,
    xyn2xy,
    xywh2xyxy,
    xywhn2xyxy,
    xyxy2xywh,
    xyxy2xywhn,
)
from utils.core.nms import non_max_suppression
from utils.metrics import fitness

FILE = Path(__file__).resolve()
DATASETS_DIR = ROOT.parent / "datasets"
clip_boxes, scale_boxes = clip_coords, scale_coords  # the names since v6.2
FONT = "Arial.ttf"  # v6.1's; without effect here, see ``check_font``


def __getattr__(name: str) -> Any:
    """What depends on the machine or its environment is looked up when it is asked for."""
    if name == "NUM_THREADS":
        return min(8, max(1, (os.cpu_count() or 1) - 1))
    if name == "VERBOSE":
        return os.environ.get("YOLOv5_VERBOSE", "true").lower() == "true"  # noqa: SIM112 (v6.1 spells it so)
    if name == "CONFIG_DIR":
        return config_dir()
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = [
    "CONFIG_DIR", "DATASETS_DIR", "FILE", "FONT", "NCOLS", "NUM_THREADS", "ROOT", "VERBOSE",
    "Profile", "Timeout", "WorkingDirectory",
    "apply_classifier", "box_iou", "check_dataset", "check_file", "check_font", "check_git_status", "check_img_size",
    "check_imshow", "check_online", "check_python", "check_requirements", "check_suffix", "check_version",
    "check_yaml", "clean_str", "clip_boxes", "clip_coords", "coco80_to_coco91_class", "colorstr", "download",
    "emojis", "file_size", "fitness", "get_latest_run", "increment_path", "init_seeds", "intersect_dicts", "is_ascii",
    "is_chinese", "is_colab", "is_docker", "is_kaggle", "is_pip", "is_writeable", "labels_to_class_weights",
    "labels_to_image_weights", "make_divisible", "methods", "non_max_suppression", "one_cycle", "print_args",
    "print_mutation", "resample_segments", "scale_boxes", "scale_coords", "segment2box", "segments2boxes",
    "set_logging", "strip_optimizer", "try_except", "url2file", "user_config_dir", "xyn2xy", "xywh2xyxy",
    "xywhn2xyxy", "xyxy2xywh", "xyxy2xywhn",
]  # fmt: skip
