"""The functions of the page: images whose thresholds can be changed, and videos. Independent of HTTP."""

from __future__ import annotations

import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from tools.app.model_thread import ModelOutput, ModelThread
from tools.app.uploads import RefusedError, decode_upload
from tools.app.video_job import VideoJob, open_upload
from utils.core.timing import StageTimer
from utils.inference.predictor import Thresholds
from utils.plots.annotate import color_for, text_color_on

UPLOAD = "upload"  # name of an uploaded video in its folder; the client's name for it is not used


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of what the page accepts.

    Attributes:
        upload: bytes of one upload.
        uploads: bytes of all uploads that are not complete.
        pixels: of an image or frame.
        frames: of a video that are processed.
        images: whose candidates are kept.
        waiting: images in memory that wait for the model.
        videos: processed at a time.
        results: finished videos that are kept.
    """

    upload: int = 200 * 10**6
    uploads: int = 10**9
    pixels: int = 50_000_000
    frames: int = 10_000
    images: int = 64
    waiting: int = 8
    videos: int = 4
    results: int = 8


class Service:
    """Images and videos of all clients; every method may be called from any thread.

    Args:
        model: runs on the images.
        folder: for videos; emptied by ``close``.
        limits: of what is accepted.

    Attributes:
        closing: whether the program is about to end, so that streams of events stop.
    """

    def __init__(self, model: ModelThread, folder: Path, limits: Limits) -> None:
        self.model, self.folder, self.limits = model, folder, limits
        self.closing = False
        self._outputs: OrderedDict[str, ModelOutput] = OrderedDict()  # of images, the longest unused first
        self._videos: OrderedDict[str, VideoJob] = OrderedDict()
        self._lock = threading.RLock()  # of these two
        self._starting = 0

    def about(self) -> dict[str, Any]:
        """Return what the page shows and needs of the model."""
        predictor, start = self.model.predictor, self.model.start
        return {
            "model": self.model.file.name,
            "imgsz": list(predictor.imgsz),
            "device": str(predictor.device),
            "half": predictor.half,
            "classes": [
                {"name": name, "color": _hex(color_for(index)), "text": _hex(text_color_on(color_for(index)))}
                for index, name in enumerate(predictor.names)
            ],
            "min_conf": self.model.min_conf,
            "start": {"conf": start.conf, "iou": start.iou, "max_det": start.max_det},
            "layers": [asdict(layer) for layer in self.model.layers],
            "why_no_routing": self.model.why_no_routing,
            "max_upload": self.limits.upload,
        }

    def thresholds(self, query: Mapping[str, str]) -> Thresholds:
        """Read thresholds from the query of a request; a missing one has the value that the page starts with.

        Raises:
            RefusedError: not a number, out of range, or no such class.
        """
        start, min_conf = self.model.start, self.model.min_conf
        conf, iou = _number(query, "conf", start.conf), _number(query, "iou", start.iou)
        classes = None
        if "classes" in query:
            words = [word for word in query["classes"].split(",") if word]
            known = len(self.model.predictor.names)
            if not all(word.isdecimal() and len(word) < 9 and int(word) < known for word in words):
                shown = query["classes"][:40]
                raise RefusedError(400, f"classes={shown}: class numbers from 0 to {known - 1} expected")
            classes = [int(word) for word in words]
        if not (min_conf <= conf <= 1 and 0 <= iou <= 1):
            raise RefusedError(400, f"conf is {conf:g} and iou {iou:g}: allowed are {min_conf:g} to 1, 0 to 1")
        most = whole_number(query, "max_det", start.max_det, 100_000)
        return Thresholds(conf, iou, most, classes, query.get("agnostic") == "1")

    # --- images -----------------------------------------------------------------------------------------------------

    def add_image(self, content: bytes, thresholds: Thresholds) -> dict[str, Any]:
        """Run the model on the bytes of an image file, and keep its output.

        Raises:
            InputError: no image, or too many pixels.
        """
        image = decode_upload(content, self.limits.pixels)
        output = self.model.predict(image)
        answer = _boxes_and_times(output, thresholds)
        key = secrets.token_hex(8)
        with self._lock:
            self._outputs[key] = output
            while len(self._outputs) > self.limits.images:
                self._outputs.popitem(last=False)
        routing = {name: weights.tolist() for name, weights in output.routing.items()}
        return {"id": key, "height": image.shape[0], "width": image.shape[1], "routing": routing, **answer}

    def image_boxes(self, key: str, thresholds: Thresholds) -> dict[str, Any]:
        """Return the boxes of an image at other thresholds.

        Raises:
            RefusedError: it is no longer kept.
        """
        with self._lock:
            output = self._outputs.get(key)
            if output is None:
                raise RefusedError(404, "this image is no longer kept; send it again")
            self._outputs.move_to_end(key)
        return _boxes_and_times(output, thresholds)

    def remove_image(self, key: str) -> None:
        """Delete the output for an image."""
        with self._lock:
            self._outputs.pop(key, None)

    def as_png(self, content: bytes) -> bytes:
        """Convert an image file to a format that every browser shows, upright, as the model reads it."""
        return cv2.imencode(".png", decode_upload(content, self.limits.pixels))[1].tobytes()

    # --- videos -----------------------------------------------------------------------------------------------------

    def check_video_limit(self) -> None:
        """Raise RefusedError: too many videos are being processed."""
        with self._lock:
            running = sum(job.running for job in self._videos.values())
            if running + self._starting >= self.limits.videos:
                raise RefusedError(
                    503, f"{self.limits.videos} videos are being processed already; wait for one, or cancel it"
                )

    @contextmanager
    def video_folder(self) -> Iterator[Path]:
        """Give a new folder for one video whose upload is complete; an exception in the ``with`` removes it.

        Raises:
            RefusedError: too many videos are being processed.
        """
        with self._lock:
            self.check_video_limit()
            self._starting += 1
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            with self._lock:
                self._starting -= 1

    def start_video(self, folder: Path, thresholds: Thresholds, stride: int) -> VideoJob:
        """Start to process the video ``folder``/upload.

        Raises:
            InputError: no video, a broken one, or too many pixels or frames.
        """
        video = open_upload(folder / UPLOAD, stride, self.limits.pixels, self.limits.frames)
        job = VideoJob(self.model, folder, video, thresholds, self.limits.frames)
        with self._lock:
            self._videos[folder.name] = job
            done = [key for key, other in self._videos.items() if not other.running]
        for key in done[: max(0, len(done) - self.limits.results)]:
            self.remove_video(key)
        job.start()
        return job

    def video(self, key: str) -> VideoJob:
        """Return the job of a video. Raises RefusedError: it is no longer kept."""
        with self._lock:
            job = self._videos.get(key)
        if job is None:
            raise RefusedError(404, "this video is no longer kept; send it again")
        return job

    def remove_video(self, key: str) -> None:
        """Stop processing a video, and delete its files."""
        with self._lock:
            job = self._videos.pop(key, None)
        if job is not None:
            job.remove()

    def stop_events(self) -> None:
        """Let the streams of events end; they would keep a server from ending."""
        self.closing = True

    def close(self) -> None:
        """Stop all jobs and delete all files."""
        self.closing = True
        with self._lock:
            jobs = list(self._videos.items())
        for _, job in jobs:  # all of them first, so that they end together
            job.cancel()
        for key, _ in jobs:
            self.remove_video(key)


def _boxes_and_times(output: ModelOutput, thresholds: Thresholds) -> dict[str, Any]:
    """Return ``boxes``, the rows of ``ImageDetections.boxes``, and ``ms``, the milliseconds of each stage."""
    timer = StageTimer()
    with timer.stage("NMS"):
        detections = output.candidates.detections(thresholds)
    return {"boxes": detections.boxes.tolist(), "ms": output.ms | {"NMS": 1000 * timer.seconds["NMS"]}}


def _hex(bgr: tuple[int, int, int]) -> str:
    return f"#{bgr[2]:02x}{bgr[1]:02x}{bgr[0]:02x}"


def _number(query: Mapping[str, str], name: str, default: float) -> float:
    """Read a number of a request. Raises RefusedError: it is none."""
    try:
        return float(query.get(name, default))
    except ValueError:
        raise RefusedError(400, f"{name}={query[name][:40]} is no number") from None


def whole_number(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Read a number from 1 to ``most`` of a request. Raises RefusedError: it is none."""
    word = query.get(name, str(default))
    if not (word.isascii() and word.isdecimal() and 1 <= int(word[:12]) <= most):
        raise RefusedError(400, f"{name}={word[:40]}: a whole number from 1 to {most} is expected")
    return int(word)
