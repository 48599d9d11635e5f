"""Detect objects in images, videos and streams.

    python detect.py --weights runs/train/exp/weights/best.pt --source images/
    python detect.py --source video.mp4 --save-csv          # the video with boxes, and all of them in a table
    python detect.py --source rtsp://camera/1 --view-img    # live; q or Ctrl-C ends it
    python detect.py --source large.jpg --slice 640         # small objects in large images
    python detect.py --weights a.pt b.pt --augment          # an ensemble, every image in three views
    python detect.py --visualize                            # feature maps of every layer
    python detect.py --weights best.onnx                    # an exported file

Images and videos with boxes drawn in, and on request label files, crops, tables and feature maps, are written to
``runs/detect/exp``.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config.cli import answer_early, ended_by_signals, run_script
from utils.config.keywords import as_options, options_from
from utils.config.options import DetectOptions
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.v61 import import_served

if TYPE_CHECKING:
    from utils.datasets.sources import Source
    from utils.inference.outputs import Outputs
    from utils.inference.predictor import Predictor
    from utils.inference.tiles import SlicedPredictor

LOG = logging.getLogger(__name__)


@dataclass
class RunCounts:
    """Frames and objects of a run, both also for each video, and whether Ctrl-C ended it early."""

    frames: int = 0
    objects: int = 0
    videos: dict[str, tuple[int, int]] = field(default_factory=dict)
    stopped: bool = False

    def add(self, video: str | None, objects: int) -> None:
        """Count a frame; ``video`` is the title of its video, None for an image."""
        self.frames, self.objects = self.frames + 1, self.objects + objects
        if video is not None:
            before = self.videos.get(video, (0, 0))
            self.videos[video] = (before[0] + 1, before[1] + objects)


def main(options: DetectOptions | argparse.Namespace) -> None:
    options = as_options(DetectOptions, options)
    # Here and not above: torch takes seconds to import, and --help or a mistyped option should be answered at once.
    from models.user_modules import load_modules
    from utils.checkpoint.official import fetch_official
    from utils.core.output import OutputFolder, run_folder
    from utils.datasets.sources import open_source, without_password
    from utils.inference.outputs import Outputs
    from utils.inference.tiles import SlicedPredictor
    from utils.inference.weights import build_predictor, strip_weights

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # broken frames are counted, not reported one by one
    load_modules(options.modules)
    fetch_official(options.weights, options.download)
    source = open_source(options.source, options.vid_stride, options.reconnect)
    with source:
        single = build_predictor(options)
        predictor: Predictor | SlicedPredictor = single
        if options.slice:
            whole = not options.slice_only
            predictor = SlicedPredictor(single, options.slice, options.overlap, whole, options.batch_size)
        with run_folder(options.project, options.name, options.exist_ok) as folder:
            output = OutputFolder(folder, partial(input_files, source, options))
            with contextlib.closing(Outputs(options, output)) as outputs:
                counts = detect(source, predictor, outputs, options.batch_size)
    log_summary(counts, source, predictor)
    if counts.frames == 0 and not counts.stopped:
        problem = "no frame has arrived" if source.live else "none of its images and frames could be read"
        raise InputError(f"--source {without_password(options.source)}: {problem}")
    if outputs.any_file:
        LOG.info("results are in %s", folder)
    if options.update:
        strip_weights(options)
    if counts.stopped:
        raise KeyboardInterrupt  # the exit code shows scripts around this one that it was not complete


def input_files(source: Source, options: DetectOptions) -> Iterator[str | Path]:
    """Yield the files that must not be overwritten: all that are read, and the labels of images, which took work."""
    from utils.core.files import label_path_for

    yield from (options.source, options.data, *options.weights, *options.modules)
    for path in getattr(source, "paths", ()):
        yield from (path, label_path_for(path))


def detect(source: Source, predictor: Predictor | SlicedPredictor, outputs: Outputs, batch_size: int = 1) -> RunCounts:
    """Write the detections of every frame of a source, until its end, Ctrl-C, or q in the window."""
    from tqdm import tqdm

    from utils.core.names import printable

    counts = RunCounts()
    to_screen = sys.stderr.isatty()
    pace = 0.1 if to_screen else 10.0  # seconds between two states of the bar
    with tqdm(total=source.total, desc="detecting", unit="frame", dynamic_ncols=True, mininterval=pace) as bar:
        try:
            for batch in source.batches(batch_size):
                for frame, detections in zip(batch, outputs.predict(predictor, batch)):
                    outputs.write(frame, detections)
                    counts.add(frame.title if frame.clip else None, len(detections))
                    summary = printable(detections.summary())
                    line = f"{printable(frame.title)}: {summary}"
                    if frame.clip:
                        bar.set_postfix_str(summary[:40], refresh=False)
                    elif to_screen:  # above the bar
                        bar.write(line, file=sys.stdout)
                    else:
                        print(line)
                    bar.update()
                if outputs.quit:
                    break
        except KeyboardInterrupt:
            counts.stopped = not source.live  # cameras have no other end
    source.close()  # only now is it known what was skipped
    return counts


def log_summary(counts: RunCounts, source: Source, predictor: Predictor | SlicedPredictor) -> None:
    """Log the numbers of frames and objects, what was skipped, and the time per frame."""
    for title, (frames, objects) in counts.videos.items():
        LOG.info("%s: %s, %s", title, counted(frames, "frame"), counted(objects, "object"))
    for problem in source.skipped.lines:
        LOG.warning("skipped: %s", problem)
    unit = "frame" if counts.videos else "image"
    text = f"{counted(counts.frames, unit)}, {counted(counts.objects, 'object')}"
    if counts.frames:  # per frame and not per call of the model: with --slice a frame is many calls
        ms = {stage: 1000 * seconds / counts.frames for stage, seconds in predictor.timer.seconds.items()}
        text += f"; {', '.join(f'{value:.1f} ms {stage}' for stage, value in ms.items())} per {unit}"
    LOG.info("%s", text)


def run(**options: Any) -> None:
    """Detect from Python, with the options by their names: ``detect.run(weights="best.pt", source="images/")``."""
    with ended_by_signals():
        main(options_from(DetectOptions, options))


def __getattr__(name: str) -> Any:
    """Names that scripts import from here, see ``utils/compat``."""
    return import_served("detect", name)


if __name__ == "__main__":
    answer_early(DetectOptions, __name__)
    sys.exit(run_script(main, DetectOptions))
