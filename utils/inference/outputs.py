"""Everything detect.py does with what was found, as the options ask."""

from __future__ import annotations

from collections.abc import Sequence

from utils.config.detect_options import DetectOptions
from utils.core.output import OutputFolder
from utils.datasets.sources.base import Frame
from utils.inference.predictor import Detections, Finder, Predictor
from utils.inference.tables import CsvTable, JsonTable
from utils.inference.videos import VideoFiles
from utils.inference.window import Window
from utils.inference.writers import Crops, DrawnImages, TextLabels
from utils.plots.features import FeatureFiles, FeatureMaps


class Outputs:
    """The writers of one run. To be closed, or videos and tables lack their end.

    Attributes:
        folder: where everything goes.
        quit: somebody pressed q in the window.
    """

    def __init__(self, options: DetectOptions, folder: OutputFolder) -> None:
        self.folder, self.save = folder.folder, not options.nosave
        self.images = DrawnImages(folder, options.line_thickness, options.hide_labels, options.hide_conf)
        self.videos = VideoFiles(folder)
        self.window = Window() if options.view_img else None
        self.text = TextLabels(folder.below("labels"), options.save_conf) if options.save_txt else None
        self.crops = Crops(folder.below("crops")) if options.save_crop else None
        self.features = FeatureFiles(folder) if options.visualize else None
        self.tables: list[CsvTable | JsonTable] = []
        if options.save_csv:
            self.tables.append(CsvTable(folder.path("detections.csv")))
        if options.save_json:
            self.tables.append(JsonTable(folder.path("detections.json")))

    @property
    def quit(self) -> bool:
        return self.window is not None and self.window.quit

    @property
    def any_file(self) -> bool:
        """Whether something is written at all."""
        return bool(self.save or self.text or self.crops or self.features or self.tables)

    def find(self, finder: Finder, frames: Sequence[Frame]) -> list[Detections]:
        """What is in the images; on the way the feature maps are written, if asked for."""
        if self.features is None or not isinstance(finder, Predictor):
            return finder.predict([frame.image for frame in frames])
        found = []
        for frame in frames:  # one by one: each image has maps of its own
            with FeatureMaps(finder.model) as maps:
                found.append(finder(frame.image))
            name = frame.relative
            self.features.write(name.with_name(f"{name.stem}_{frame.number}.mp4") if frame.clip else name, maps)
        return found

    def write(self, frame: Frame, found: Detections) -> None:
        for table in self.tables:
            table.write(frame, found)
        if self.text:
            self.text.write(frame, found)
        if self.crops:
            self.crops.write(frame, found)
        if not (self.save or (self.window and self.window.works)):
            return
        drawn = self.images.draw(frame, found)
        if self.save and frame.clip:
            self.videos.write(frame, drawn)
        elif self.save:
            self.images.write(frame, drawn)
        if self.window:
            self.window.show(frame.title, drawn, wait=frame.clip is None)

    def close(self) -> None:
        self.videos.close()
        for table in self.tables:
            table.close()
        if self.window:
            self.window.close()
