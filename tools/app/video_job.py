"""One uploaded video: a thread runs the model on its frames and writes a video with boxes."""

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

from tools.app.model_thread import ModelThread
from tools.app.uploads import VIDEO_HEAD, UploadTooLargeError, looks_like_video, status_and_detail
from utils.core.errors import InputError, first_line
from utils.datasets.sources.base import Frame
from utils.datasets.sources.video import VideoFile
from utils.inference.predictor import Thresholds
from utils.inference.tables import JsonTable
from utils.inference.videos import VideoFiles
from utils.inference.writers import DrawnImages

LOG = logging.getLogger(__name__)
NO_LISTENER_S = 10.0  # a video without a listener for so long is cancelled
TABLE = "detections.json"
_RESULT = Path("result.mp4")  # its suffix becomes that of the encoder
_PREVIEW_SIDE = 640
_COURSE_POINTS = 160  # points in time at which routing weights are reported


class _CancelledError(Exception):
    """The video was cancelled, or has no listener."""


def open_upload(path: Path, stride: int, max_pixels: int, max_frames: int) -> VideoFile:
    """Open an uploaded file as a video.

    Raises:
        UploadTooLargeError: more pixels in a frame, or more frames to process, than allowed.
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
    problem = ""
    if frames > max_frames:
        problem = f"the video has {frames} frames to process, allowed are {max_frames}: "
        problem += "take fewer with a larger step, or start the page with --max-frames"
    elif width * height > max_pixels:
        problem = f"the frames have {width} x {height} pixels, allowed are {max_pixels} in all"
    if problem:
        video.close()
        raise UploadTooLargeError(problem)
    return video


class VideoJob:
    """The processing of one video. It cancels itself when there was no listener for ``NO_LISTENER_S``.

    Args:
        model: runs on the frames.
        folder: of this video alone, with the upload; result and table of detections are written there.
        video: the upload.
        thresholds: of NMS.
        max_frames: number of frames to process at most.

    Attributes:
        key: by which clients name the video.
        result: the video with boxes, None until it is done.
    """

    def __init__(
        self, model: ModelThread, folder: Path, video: VideoFile, thresholds: Thresholds, max_frames: int
    ) -> None:
        self.model, self.folder, self.video = model, folder, video
        self.thresholds, self.max_frames, self.key = thresholds, max_frames, folder.name
        self.clip = replace(video.clip, name="video")  # its own name would show the path of the folder
        self.result: Path | None = None
        self._status, self._problem, self._notes = "running", "", ""
        self._frames, self._objects = 0, 0
        self._routing: dict[str, list[np.ndarray]] = {}
        self._latest: np.ndarray | None = None
        self._listeners, self._last_listener = 0, time.monotonic()
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"video {self.key}", daemon=True)

    @property
    def running(self) -> bool:
        return self._status == "running"

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Let it end after the current frame."""
        self._cancelled.set()

    def remove(self) -> None:
        """End it and delete its files."""
        self.cancel()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count a listener until the end of the ``with``."""
        with self._lock:
            self._listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self._listeners, self._last_listener = self._listeners - 1, time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return status and counts; when it is done, also the routing of all frames."""
        total = None if self.clip.frames is None else -(-self.clip.frames // self.clip.stride)
        state = {"status": self._status, "frames": self._frames, "total": total, "objects": self._objects}
        if self._status == "failed":
            state["detail"] = self._problem
        if self._status == "done":
            state |= {"note": self._notes, "fps": self.clip.fps / self.clip.stride}
            state |= {"routing": self._mean_routing(), "course": self._course()}
        return state

    def preview(self) -> bytes | None:
        """Return the newest frame with its boxes as a small JPEG, None if there is none."""
        image = self._latest
        if image is None:
            return None
        scale = min(1.0, _PREVIEW_SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        return cv2.imencode(".jpg", small)[1].tobytes()

    def _run(self) -> None:
        status = "failed"
        try:
            self._process()
            status = "done"
        except _CancelledError:
            status = "cancelled"
        except InputError as error:
            self._problem = first_line(error)
        except Exception as error:
            LOG.exception("a video could not be processed")
            self._problem = status_and_detail(error)[1]
        finally:
            self.video.close()
            for file in self.folder.glob("*") if status != "done" else [self.video.path]:
                file.unlink(missing_ok=True)
            self._latest = None
            self._status = status  # last: the result may be requested at once

    def _process(self) -> None:
        drawer, files, table = DrawnImages(self.folder, None), VideoFiles(self.folder), JsonTable(self.folder / TABLE)
        with contextlib.closing(files), contextlib.closing(table):
            for number, image in self.video:
                self._check_wanted()
                if self._frames == self.max_frames:
                    self._notes = f"Only the first {self.max_frames} frames were processed (--max-frames). "
                    break
                frame = Frame(image, _RESULT, _RESULT, self.clip, number)
                output = self.model.predict(image)
                detections = output.candidates.detections(self.thresholds)
                drawn = drawer.draw(frame, detections)
                try:
                    files.write(frame, drawn)
                except InputError as error:
                    raise InputError("frames of this size cannot be written as a video here: pip install av") from error
                table.write(frame, detections)
                for name, weights in output.routing.items():
                    self._routing.setdefault(name, []).append(weights)
                self._latest = drawn
                self._frames, self._objects = self._frames + 1, self._objects + len(detections)
        self._check_wanted()
        if not self._frames:
            raise InputError("no frame of the video could be read")
        if len(files.paths) > 1:
            self._notes += "The size of the frames changes: only the first part can be played. "
        if self.video.delivered < (self.clip.frames or 0) and not self._notes:
            self._notes = f"{self.video.delivered} of the {self.clip.frames} frames in its header could be read."
        self.result = files.paths[0]

    def _check_wanted(self) -> None:
        """Raise _CancelledError: it was cancelled, or has no listener."""
        with self._lock:
            alone = self._listeners == 0 and time.monotonic() - self._last_listener > NO_LISTENER_S
        if alone or self._cancelled.is_set():
            raise _CancelledError

    def _mean_routing(self) -> dict[str, list[float]]:
        """Return [K] mean weights over all frames, by the name of the layer."""
        return {name: np.stack(weights).mean(axis=0).tolist() for name, weights in self._routing.items()}

    def _course(self) -> dict[str, list[list[float]]]:
        """Return [points, K] mean weights over parts of the video, by the name of the layer."""
        course = {}
        for name, weights in self._routing.items():
            parts = np.array_split(np.stack(weights), min(_COURSE_POINTS, len(weights)))
            course[name] = [part.mean(axis=0).tolist() for part in parts]
        return course
