"""Detect objects in pictures.

    python detect.py --weights runs/train/exp/weights/best.pt --source pictures/
    python detect.py --weights a.pt b.pt --augment          # an ensemble, every picture in three views
    python detect.py --visualize                            # what every layer sees

Pictures with boxes drawn in, and label files, crops and feature maps when asked for, go to ``runs/detect/exp``.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from models.user_modules import load_modules
from utils.checkpoint.detector import load_detector
from utils.config.cli import run_script
from utils.config.keywords import options_from
from utils.config.options import DetectOptions
from utils.config.paths import ROOT
from utils.config.sizes import check_img_size
from utils.datasets.sources import Frame, ImageSource
from utils.device import select_device
from utils.errors import InputError
from utils.files import increment_path
from utils.inference import Crops, Detections, DrawnImages, Predictor, TextLabels
from utils.plots.features import FeatureFiles, FeatureMaps

LOG = logging.getLogger(__name__)


class Outputs:
    """Everything that is written for a picture, as the options ask."""

    def __init__(self, options: DetectOptions, folder: Path) -> None:
        self.save, self.view = not options.nosave, options.view_img
        self.images = DrawnImages(folder, options.line_thickness, options.hide_labels, options.hide_conf)
        self.text = TextLabels(folder / "labels", options.save_conf) if options.save_txt else None
        self.crops = Crops(folder / "crops") if options.save_crop else None
        self.features = FeatureFiles(folder) if options.visualize else None

    def find(self, predictor: Predictor, frame: Frame) -> Detections:
        """What is in the picture; on the way the feature maps are written, if asked for."""
        if self.features is None:
            return predictor(frame.image)
        with FeatureMaps(predictor.model) as maps:
            found = predictor(frame.image)
        self.features.write(frame.relative, maps)
        return found

    def write(self, frame: Frame, found: Detections) -> None:
        if self.text:
            self.text.write(frame.relative, found)
        if self.crops:
            self.crops.write(frame, found)
        if not (self.save or self.view):
            return
        drawn = self.images.draw(frame, found)
        if self.save:
            self.images.write(frame, drawn)
        if self.view and not show(str(frame.relative), drawn):
            self.view = False


def show(title: str, image: np.ndarray) -> bool:
    """Show a picture until a key is pressed; False when this machine has no window system."""
    try:
        cv2.imshow(title, image)
        cv2.waitKey(0)
        cv2.destroyAllWindows()
    except cv2.error as error:
        LOG.warning("--view-img: no window can be opened here (%s); results are still saved", error.err)
        return False
    return True


def build_predictor(options: DetectOptions) -> Predictor:
    device = select_device(options.device)
    model, _ = load_detector(options.weights, device, ROOT / "runs/train", options.augment)
    sides = [check_img_size(side, int(model.stride.max())) for side in options.imgsz]
    for index in options.classes or ():
        if index >= model.nc:
            raise InputError(f"--classes {index}: the model has {model.nc} classes, 0 to {model.nc - 1}")
    half = options.half and device.type != "cpu"
    if options.half and not half:
        LOG.warning("--half needs a GPU: running in float32")
    return Predictor(
        model, device, (sides[0], sides[-1]), conf=options.conf_thres, iou=options.iou_thres, max_det=options.max_det,
        classes=options.classes, agnostic=options.agnostic_nms, half=half,
    )  # fmt: skip


def main(options: DetectOptions) -> None:
    load_modules(options.modules)
    source = ImageSource(options.source)
    predictor = build_predictor(options)
    folder = increment_path(Path(options.project) / options.name, options.exist_ok, mkdir=True)
    outputs, pictures, objects = Outputs(options, folder), 0, 0
    progress = tqdm(source, desc="detecting", unit="picture", dynamic_ncols=True)
    for frame in progress:
        found = outputs.find(predictor, frame)
        outputs.write(frame, found)
        progress.write(f"{frame.path}: {found.summary()}", file=sys.stdout)
        pictures += 1
        objects += len(found)
    for problem in source.skipped:
        LOG.warning("skipped: %s", problem)
    times = ", ".join(f"{ms:.1f} ms {stage}" for stage, ms in predictor.timer.per_image_ms().items())
    LOG.info("%d pictures, %d objects%s", pictures, objects, f"; {times} per picture" if pictures else "")
    if pictures == 0:
        raise InputError(f"--source {options.source}: none of its {len(source)} pictures could be read")
    if outputs.save or outputs.text or outputs.crops or outputs.features:
        LOG.info("results are in %s", folder)


def run(**options: Any) -> None:
    """Detect from Python, with the options by their names: ``detect.run(weights="best.pt", source="pictures/")``."""
    main(options_from(DetectOptions, options))


if __name__ == "__main__":
    sys.exit(run_script(main, DetectOptions))
