"""What the page can ask for: pictures whose thresholds may be moved, and videos. Nothing here knows of HTTP."""

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

from tools.app.engine import Engine, Look
from tools.app.uploads import RefusedError
from tools.app.video_job import VideoJob, open_upload
from utils.core.timing import StageTimer
from utils.inference.predictor import ImageDetections, Thresholds
from utils.inference.uploads import decode_upload
from utils.plots.annotate import color_for, text_color_on

UPLOAD = "upload"  # name of an uploaded video in its folder; the sender's name for it is never asked for


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused. ``upload`` in bytes; ``pixels`` of a picture or frame; ``frames`` that are looked at.

    ``pictures`` whose candidates are kept, ``waiting`` for the model with their bytes in memory, ``videos`` running and
    ``results`` of them kept; ``uploads`` bytes of all uploads that are not complete.
    """

    upload: int = 200 * 10**6
    pixels: int = 50_000_000
    frames: int = 10_000
    pictures: int = 64
    waiting: int = 8
    videos: int = 4
    results: int = 8
    uploads: int = 10**9


class Service:
    """Pictures and videos of all visitors; every method may be called from any thread.

    Args:
        engine: the model.
        folder: for videos; emptied by ``close``.
        limits: what is refused.

    Attributes:
        closing: the program is about to end, so nobody should wait for news.
    """

    def __init__(self, engine: Engine, folder: Path, limits: Limits) -> None:
        self.engine, self.folder, self.limits = engine, folder, limits
        self.closing = False
        self._looks: OrderedDict[str, Look] = OrderedDict()  # the longest unused first
        self._videos: OrderedDict[str, VideoJob] = OrderedDict()
        self._lock = threading.RLock()  # of these two
        self._starting = 0

    def about(self) -> dict[str, Any]:
        """What the page has to know about the model."""
        predictor, start = self.engine.predictor, self.engine.start
        return {
            "model": self.engine.file.name,
            "imgsz": list(predictor.imgsz),
            "device": str(predictor.device),
            "half": predictor.half,
            "classes": [_class_entry(index, name) for index, name in enumerate(predictor.names)],
            "floor": self.engine.floor,
            "start": {"conf": start.conf, "iou": start.iou, "max_det": start.max_det},
            "layers": [asdict(layer) for layer in self.engine.layers],
            "why_no_routing": self.engine.why_no_routing,
            "max_upload": self.limits.upload,
        }

    def thresholds(self, asked: Mapping[str, str]) -> Thresholds:
        """Thresholds from the text of a request; what is missing has the value the page starts with.

        Raises:
            RefusedError: not a number, out of range, or no such class.
        """
        start = self.engine.start
        conf, iou = number(asked, "conf", start.conf), number(asked, "iou", start.iou)
        classes = None
        if "classes" in asked:
            words = [word for word in asked["classes"].split(",") if word]
            known = len(self.engine.predictor.names)
            if not all(word.isdecimal() and len(word) < 9 and int(word) < known for word in words):
                raise RefusedError(
                    400, f"classes={asked['classes'][:40]}: class numbers from 0 to {known - 1} expected"
                )
            classes = [int(word) for word in words]
        if not (self.engine.floor <= conf <= 1 and 0 <= iou <= 1):
            raise RefusedError(400, f"conf is {conf:g} and iou {iou:g}: allowed are {self.engine.floor:g} to 1, 0 to 1")
        most = whole_number(asked, "max_det", start.max_det, 100_000)
        return Thresholds(conf, iou, most, classes, asked.get("agnostic") == "1")

    # --- pictures ---------------------------------------------------------------------------------------------------

    def add_picture(self, content: bytes, limits: Thresholds) -> dict[str, Any]:
        """Look at the bytes of a picture file.

        Raises:
            InputError: no picture, or too many pixels.
        """
        image = decode_upload(content, self.limits.pixels)
        look = self.engine.look(image)
        answer = self._answer(look, limits)
        key = secrets.token_hex(8)
        with self._lock:
            self._looks[key] = look
            while len(self._looks) > self.limits.pictures:
                self._looks.popitem(last=False)
        routing = {name: weights.tolist() for name, weights in look.routing.items()}
        return {"id": key, "height": image.shape[0], "width": image.shape[1], "routing": routing, **answer}

    def boxes(self, key: str, limits: Thresholds) -> dict[str, Any]:
        """What a picture has at other thresholds.

        Raises:
            RefusedError: it is no longer kept.
        """
        with self._lock:
            look = self._looks.get(key)
            if look is None:
                raise RefusedError(404, "this picture is no longer kept; send it again")
            self._looks.move_to_end(key)
        return self._answer(look, limits)

    def forget_picture(self, key: str) -> None:
        with self._lock:
            self._looks.pop(key, None)

    def as_png(self, content: bytes) -> bytes:
        """A picture in a form that every browser shows, upright, as the model sees it."""
        return cv2.imencode(".png", decode_upload(content, self.limits.pixels))[1].tobytes()

    def _answer(self, look: Look, limits: Thresholds) -> dict[str, Any]:
        timer = StageTimer()
        with timer.stage("NMS"):
            found = look.candidates.detections(limits)
        return {"boxes": box_rows(found), "ms": look.ms | {"NMS": 1000 * timer.seconds["NMS"]}}

    # --- videos -----------------------------------------------------------------------------------------------------

    def check_room(self) -> None:
        """Raises RefusedError: too many videos are in work."""
        with self._lock:
            running = sum(job.running for job in self._videos.values())
            if running + self._starting >= self.limits.videos:
                raise RefusedError(503, f"{self.limits.videos} videos are in work already; wait for one, or cancel it")

    @contextmanager
    def video_folder(self) -> Iterator[Path]:
        """A new folder for one video whose upload is complete, gone when the body of the ``with`` raises.

        Raises:
            RefusedError: too many videos are in work.
        """
        with self._lock:
            self.check_room()
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

    def start_video(self, folder: Path, limits: Thresholds, stride: int) -> VideoJob:
        """Begin to look at the video ``folder``/upload.

        Raises:
            InputError: no video, a broken one, or too many pixels or frames.
        """
        video = open_upload(folder / UPLOAD, stride, self.limits.pixels, self.limits.frames)
        job = VideoJob(self.engine, folder, video, limits, self.limits.frames)
        with self._lock:
            self._videos[folder.name] = job
            done = [key for key, other in self._videos.items() if not other.running]
        for key in done[: max(0, len(done) - self.limits.results)]:
            self.remove_video(key)
        job.start()
        return job

    def video(self, key: str) -> VideoJob:
        """Raises RefusedError: it is no longer kept."""
        job = self.find_video(key)
        if job is None:
            raise RefusedError(404, "this video is no longer kept; send it again")
        return job

    def find_video(self, key: str) -> VideoJob | None:
        """None: it is no longer kept."""
        with self._lock:
            return self._videos.get(key)

    def remove_video(self, key: str) -> None:
        """End the work on a video if it is still going on, and delete what there is of it."""
        with self._lock:
            job = self._videos.pop(key, None)
        if job is not None:
            job.remove()

    def close_soon(self) -> None:
        """Those who wait for news of a video would keep a server from ending."""
        self.closing = True

    def close(self) -> None:
        """End all work and delete all files."""
        self.closing = True
        with self._lock:
            jobs = list(self._videos.items())
        for _, job in jobs:  # all of them first, so that they end together
            job.cancel()
        for key, _ in jobs:
            self.remove_video(key)


def _class_entry(index: int, name: str) -> dict[str, str]:
    color = color_for(index)
    return {"name": name, "color": _hex(color), "text": _hex(text_color_on(color))}


def _hex(bgr: tuple[int, int, int]) -> str:
    return f"#{bgr[2]:02x}{bgr[1]:02x}{bgr[0]:02x}"


def box_rows(found: ImageDetections) -> list[list[float]]:
    """x1 y1 x2 y2 confidence class of each detection, the most confident first."""
    rows: list[list[float]] = found.boxes.tolist()
    return rows


def number(asked: Mapping[str, str], name: str, default: float) -> float:
    """A number of a request. Raises RefusedError: it is none."""
    try:
        return float(asked.get(name, default))
    except ValueError:
        raise RefusedError(400, f"{name}={asked[name][:40]} is no number") from None


def whole_number(asked: Mapping[str, str], name: str, default: int, most: int) -> int:
    """A number from 1 to ``most`` of a request. Raises RefusedError: it is none."""
    word = asked.get(name, str(default))
    if not (word.isascii() and word.isdecimal() and 1 <= int(word[:12]) <= most):
        raise RefusedError(400, f"{name}={word[:40]}: a whole number from 1 to {most} is expected")
    return int(word)
