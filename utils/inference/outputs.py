"""Everything that detect.py does with the detections, by its options."""

from __future__ import annotations

from collections.abc import Sequence

from utils.config.detect_options import DetectOptions
from utils.core.output import OutputFolder
from utils.datasets.sources.base import Frame
from utils.inference.predictor import ImageDetections, Predictor
from utils.inference.tables import CsvTable, JsonTable
from utils.inference.tiles import SlicedPredictor
from utils.inference.videos import VideoFiles
from utils.inference.window import ImageWindow
from utils.inference.writers import Crops, DrawnImages, TextLabels
from utils.plots.features import FeatureFiles, FeatureMaps


class Outputs:
    """The writers of one run. To be closed: else videos and tables are not complete.

    Attributes:
        folder: of all files.
        quit: whether the user pressed q in the window.
        any_file: whether a file is written at all.
    """

    def __init__(self, options: DetectOptions, folder: OutputFolder) -> None:
        self.folder, self.save = folder.folder, not options.nosave
        self.images = DrawnImages(folder, options.line_thickness, options.hide_labels, options.hide_conf)
        self.videos = VideoFiles(folder)
        self.window = ImageWindow() if options.view_img else None
        self.text = TextLabels(folder.below("labels"), options.save_conf) if options.save_txt else None
        self.crops = Crops(folder.below("crops")) if options.save_crop else None
        self.features = FeatureFiles(folder) if options.visualize else None
        self.tables: list[CsvTable | JsonTable] = []
        if options.save_csv:
            self.tables.append(CsvTable(folder.path("detections.csv")))
        if options.save_json:
            self.tables.append(JsonTable(folder.path("detections.json")))
        self.any_file = bool(self.save or self.text or self.crops or self.features or self.tables)

    @property
    def quit(self) -> bool:
        return self.window is not None and self.window.quit

    def predict(self, predictor: Predictor | SlicedPredictor, frames: Sequence[Frame]) -> list[ImageDetections]:
        """Return the detections of each frame; with ``--visualize`` write the feature maps as well."""
        if self.features is None or not isinstance(predictor, Predictor):
            return predictor.predict([frame.image for frame in frames])
        detections = []
        for frame in frames:  # one by one: each image has its own feature maps
            with FeatureMaps(predictor.model) as feature_maps:
                detections.append(predictor(frame.image))
            name = frame.relative
            self.features.write(name.with_name(f"{name.stem}_{frame.number}.mp4") if frame.clip else name, feature_maps)
        return detections

    def write(self, frame: Frame, detections: ImageDetections) -> None:
        """Write or show the detections of one frame in every form that the options request."""
        for writer in (*self.tables, self.text, self.crops):
            if writer is not None:
                writer.write(frame, detections)
        if not (self.save or (self.window and self.window.works)):
            return
        drawn = self.images.draw(frame, detections)
        if self.save and frame.clip:
            self.videos.write(frame, drawn)
        elif self.save:
            self.images.write(frame, drawn)
        if self.window:
            self.window.show(frame.title, drawn, wait=frame.clip is None)

    def close(self) -> None:
        """Complete all files, and close the window."""
        self.videos.close()
        for table in self.tables:
            table.close()
        if self.window:
            self.window.close()
