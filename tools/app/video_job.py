"""One uploaded video: its frames go through the model in a thread of their own, and a video with boxes comes out."""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tools.app.engine import Engine, Look
from utils.core.errors import InputError, first_line
from utils.datasets.sources.base import Frame
from utils.datasets.sources.video import VideoFile
from utils.inference.predictor import ImageDetections, Thresholds
from utils.inference.tables import JsonTable
from utils.inference.uploads import VIDEO_HEAD, UploadTooLargeError, looks_like_video
from utils.inference.videos import VideoFiles
from utils.inference.writers import DrawnImages

LOG = logging.getLogger(__name__)
GRACE_S = 10.0  # a video that nobody has waited for during so long is given up
TABLE = "detections.json"
_RESULT = Path("result.mp4")  # its ending becomes that of the encoder
_PREVIEW_SIDE = 640
_COURSE_POINTS = 160  # points in time at which the weights of the kernels are reported


class _EndedError(Exception):
    """Somebody wants no more, or nobody waits any longer."""


def open_upload(path: Path, stride: int, most_pixels: int, most_frames: int) -> VideoFile:
    """An uploaded file as a video.

    Raises:
        UploadTooLargeError: more pixels in a frame, or more frames to look at, than allowed.
        InputError: not a video, or one that cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(VIDEO_HEAD)
    if not looks_like_video(head):
        raise InputError("this is no video: an MP4, MOV, WebM, MKV, AVI, MPEG, WMV, FLV or GIF file is expected")
    try:
        video = VideoFile(path, stride)
    except InputError as error:
        raise InputError("the video cannot be read: it is cut off, damaged, or in a codec unknown here") from error
    width, height = (int(video.capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    frames = -(-(video.clip.frames or 0) // stride)
    if width * height > most_pixels or frames > most_frames:
        video.close()
        if frames > most_frames:
            cure = "look at fewer with a larger step, or start the page with --max-frames"
            raise UploadTooLargeError(f"the video has {frames} frames to look at, allowed are {most_frames}: {cure}")
        raise UploadTooLargeError(f"the frames have {width} x {height} pixels, allowed are {most_pixels} in all")
    return video


class VideoJob:
    """The work on one video. It ends by itself when nobody has listened for ``GRACE_S``.

    Args:
        engine: the model.
        folder: of this video alone; holds the upload, later the result and the table of detections.
        video: the upload.
        limits: thresholds.
        most_frames: look at no more.
    """

    def __init__(self, engine: Engine, folder: Path, video: VideoFile, limits: Thresholds, most_frames: int) -> None:
        self.engine, self.folder, self.limits, self.most_frames = engine, folder, limits, most_frames
        self.video = video
        self.clip = replace(video.clip, name="video")  # that of the file would tell where it lies
        self.result: Path | None = None
        self._status, self._problem, self._notes = "running", "", ""
        self._frames, self._objects = 0, 0
        self._routing: dict[str, list[np.ndarray]] = {}
        self._latest: np.ndarray | None = None
        self._listeners, self._heard = 0, time.monotonic()
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"video {folder.name}", daemon=True)

    @property
    def key(self) -> str:
        return self.folder.name

    @property
    def running(self) -> bool:
        return self._status == "running"

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to end after the frame in hand."""
        self._cancelled.set()

    def remove(self) -> None:
        """End it and delete its files."""
        self.cancel()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While the body runs somebody waits for this video."""
        with self._lock:
            self._listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self._listeners, self._heard = self._listeners - 1, time.monotonic()

    def state(self) -> dict[str, Any]:
        """What there is to say now; with the routing of all frames when it is done."""
        total = None if self.clip.frames is None else -(-self.clip.frames // self.clip.stride)
        found = {"status": self._status, "frames": self._frames, "total": total, "objects": self._objects}
        if self._status == "failed":
            found["detail"] = self._problem
        if self._status == "done":
            found |= {"note": self._notes, "fps": self.clip.fps / self.clip.stride}
            found |= {"routing": self._means(), "course": self._course()}
        return found

    def preview(self) -> bytes | None:
        """The newest frame with its boxes as a small JPEG."""
        image = self._latest
        if image is None:
            return None
        scale = min(1.0, _PREVIEW_SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        return cv2.imencode(".jpg", small)[1].tobytes()

    def _run(self) -> None:
        status = "failed"
        try:
            self._work()
            status = "done"
        except _EndedError:
            status = "cancelled"
        except InputError as error:
            self._problem = first_line(error)
        except Exception:
            LOG.exception("a video could not be finished")
            self._problem = "something went wrong here; the terminal says what"
        finally:
            self.video.close()
            for file in self.folder.glob("*") if status != "done" else [self.video.path]:
                file.unlink(missing_ok=True)
            self._latest = None
            self._status = status  # last: who sees it may fetch the result

    def _work(self) -> None:
        drawer, files, table = DrawnImages(self.folder, None), VideoFiles(self.folder), JsonTable(self.folder / TABLE)
        with contextlib.closing(files), contextlib.closing(table):
            for number, image in self.video:
                self._check_wanted()
                if self._frames == self.most_frames:
                    self._notes = f"Only the first {self.most_frames} frames were looked at (--max-frames). "
                    break
                frame = Frame(image, _RESULT, _RESULT, self.clip, number)
                look = self.engine.look(image)
                found = look.candidates.detections(self.limits)
                drawn = drawer.draw(frame, found)
                self._write(files, frame, drawn)
                table.write(frame, found)
                self._count(look, found, drawn)
        self._check_wanted()
        if not self._frames:
            raise InputError("no frame of the video could be read")
        if len(files.paths) > 1:
            self._notes += "The size of the frames changes: only the first part can be played. "
        if self.video.delivered < (self.clip.frames or 0) and not self._notes:
            self._notes = f"{self.video.delivered} of the {self.clip.frames} frames it announces could be read."
        self.result = files.paths[0]

    def _write(self, files: VideoFiles, frame: Frame, drawn: np.ndarray) -> None:
        try:
            files.write(frame, drawn)
        except InputError as error:
            raise InputError("frames of this size cannot be written as a video here: pip install av") from error

    def _count(self, look: Look, found: ImageDetections, drawn: np.ndarray) -> None:
        for name, weights in look.routing.items():
            self._routing.setdefault(name, []).append(weights)
        self._latest = drawn
        self._frames, self._objects = self._frames + 1, self._objects + len(found)

    def _check_wanted(self) -> None:
        with self._lock:
            left = self._listeners == 0 and time.monotonic() - self._heard > GRACE_S
        if left or self._cancelled.is_set():
            raise _EndedError

    def _means(self) -> dict[str, list[float]]:
        """[K] mean weights over all frames, by the name of the layer."""
        return {name: np.stack(weights).mean(axis=0).tolist() for name, weights in self._routing.items()}

    def _course(self) -> dict[str, list[list[float]]]:
        """[points, K] mean weights over stretches of the video, by the name of the layer."""
        course = {}
        for name, weights in self._routing.items():
            stretches = np.array_split(np.stack(weights), min(_COURSE_POINTS, len(weights)))
            course[name] = [stretch.mean(axis=0).tolist() for stretch in stretches]
        return course
