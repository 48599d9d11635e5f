"""Detect objects in images, videos and streams.

    python detect.py --weights runs/train/exp/weights/best.pt --source images/
    python detect.py --source film.mp4 --save-csv           # the film with boxes, and all of them in a table
    python detect.py --source rtsp://camera/1 --view-img    # live; q or Ctrl-C ends it
    python detect.py --source large.jpg --slice 640         # small objects in large images
    python detect.py --weights a.pt b.pt --augment          # an ensemble, every image in three views
    python detect.py --visualize                            # what every layer sees
    python detect.py --weights best.onnx                    # an exported file

Images and videos with boxes drawn in, and label files, crops, tables and feature maps when asked for, go to
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

from utils.config.cli import ended_by_signals, run_script
from utils.config.keywords import as_options, options_from
from utils.config.options import DetectOptions
from utils.core.errors import InputError
from utils.core.names import counted
from utils.core.v61 import find

if TYPE_CHECKING:
    from utils.datasets.sources import Source
    from utils.inference.outputs import Outputs
    from utils.inference.predictor import Finder

LOG = logging.getLogger(__name__)
NOTHING = {False: "none of its images and frames could be read", True: "no frame has come"}  # by Source.live


@dataclass
class Tally:
    """What a run has done: frames, objects in them, both for each video, and whether Ctrl-C ended it early."""

    frames: int = 0
    objects: int = 0
    videos: dict[str, tuple[int, int]] = field(default_factory=dict)
    stopped: bool = False

    def add(self, video: str | None, objects: int) -> None:
        """Count a frame, of ``video`` if it is of one."""
        self.frames, self.objects = self.frames + 1, self.objects + objects
        if video is not None:
            before = self.videos.get(video, (0, 0))
            self.videos[video] = (before[0] + 1, before[1] + objects)


def main(options: DetectOptions | argparse.Namespace) -> None:
    options = as_options(DetectOptions, options)
    # Here and not above: torch takes seconds to import, and --help or a mistyped option should be answered at once.
    from models.user_modules import load_modules
    from utils.core.output import OutputFolder, run_folder
    from utils.datasets.sources import open_source, without_password
    from utils.inference.from_options import build_predictor, strip_weights
    from utils.inference.outputs import Outputs
    from utils.inference.tiles import SlicedPredictor

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # broken frames are counted, not lamented one by one
    load_modules(options.modules)
    source = open_source(options.source, options.vid_stride, options.reconnect)
    with source:
        predictor = build_predictor(options)
        finder: Finder = predictor
        if options.slice:
            whole = not options.slice_only
            finder = SlicedPredictor(predictor, options.slice, options.overlap, whole, options.batch_size)
        with run_folder(options.project, options.name, options.exist_ok) as folder:
            output = OutputFolder(folder, partial(files_in_use, source, options))
            with contextlib.closing(Outputs(options, output)) as outputs:
                tally = detect(source, finder, outputs, options.batch_size)
    report(tally, source, finder)
    if tally.frames == 0 and not tally.stopped:
        raise InputError(f"--source {without_password(options.source)}: {NOTHING[source.live]}")
    if outputs.any_file:
        LOG.info("results are in %s", folder)
    if options.update:
        strip_weights(options)
    if tally.stopped:
        raise KeyboardInterrupt  # there was more to do: scripts around this one are told


def files_in_use(source: Source, options: DetectOptions) -> Iterator[str | Path]:
    """What must not be written over: the files that are read, and the labels of images, which took work."""
    from utils.core.files import label_path_for

    yield from (options.source, options.data, *options.weights, *options.modules)
    for path in getattr(source, "paths", ()):
        yield from (path, label_path_for(path))


def detect(source: Source, finder: Finder, outputs: Outputs, batch_size: int = 1) -> Tally:
    """Find objects in every frame of a source and write them down, until its end, Ctrl-C, or q in the window."""
    from tqdm import tqdm

    from utils.core.names import printable

    tally = Tally()
    to_screen = sys.stderr.isatty()
    pace = 0.1 if to_screen else 10.0  # seconds between two states of the bar
    with tqdm(total=source.total, desc="detecting", unit="frame", dynamic_ncols=True, mininterval=pace) as bar:
        try:
            for batch in source.batches(batch_size):
                for frame, found in zip(batch, outputs.find(finder, batch)):
                    outputs.write(frame, found)
                    tally.add(frame.title if frame.clip else None, len(found))
                    summary = printable(found.summary())
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
            tally.stopped = not source.live  # cameras have no other end
    source.close()  # only now is it known what was skipped
    return tally


def report(tally: Tally, source: Source, finder: Finder) -> None:
    """What was found and skipped, and how long it took."""
    for title, (frames, objects) in tally.videos.items():
        LOG.info("%s: %s, %s", title, counted(frames, "frame"), counted(objects, "object"))
    for problem in source.skipped.lines:
        LOG.warning("skipped: %s", problem)
    unit = "frame" if tally.videos else "image"
    counts = f"{counted(tally.frames, unit)}, {counted(tally.objects, 'object')}"
    per_frame = 1000 / max(1, tally.frames)  # not per call: with --slice an image is many of them
    times = ", ".join(f"{seconds * per_frame:.1f} ms {stage}" for stage, seconds in finder.timer.seconds.items())
    LOG.info("%s%s", counts, f"; {times} per {unit}" if tally.frames else "")


def run(**options: Any) -> None:
    """Detect from Python, with the options by their names: ``detect.run(weights="best.pt", source="images/")``."""
    with ended_by_signals():
        main(options_from(DetectOptions, options))


def __getattr__(name: str) -> Any:
    """Names that scripts import from here, see ``utils/compat``."""
    return find("detect", name)


if __name__ == "__main__":
    sys.exit(run_script(main, DetectOptions))
