"""Cameras and streams: the newest frame, lost connections, dead sources; a real stream over the loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from utils.datasets.sources import LiveSettings, LiveSource, open_source
from utils.datasets.sources.live import open_address

QUICK = LiveSettings(reconnect=2, wait_s=0.01)


class FakeCamera:
    """Sends images of one grey value each; then fails for ever. ``gate`` lets the test decide when."""

    def __init__(self, values: list[int], gate: Callable[[], Any] = lambda: None, opened: bool = True) -> None:
        self.values, self.gate, self.opened = list(values), gate, opened
        self.now: int | None = None

    def isOpened(self) -> bool:
        return self.opened

    def get(self, property_id: int) -> float:
        return float("nan")

    def grab(self) -> bool:
        self.gate()
        self.now = self.values.pop(0) if self.values else None
        return self.now is not None

    def retrieve(self) -> tuple[bool, Any]:
        return True, np.full((8, 8, 3), self.now, np.uint8)

    def release(self) -> None:
        pass


def in_turn(cameras: dict[str, list[FakeCamera]]) -> Callable[[str, LiveSettings], FakeCamera]:
    """Each connection to an address gets the next of its cameras; after the last: cannot be opened."""
    return lambda address, _: cameras[address].pop(0) if cameras[address] else FakeCamera([], opened=False)


def seen(source: LiveSource) -> list[tuple[str, int, int]]:
    with source:
        return [(frame.title, frame.number, int(frame.image[0, 0, 0])) for frame in source]


def test_a_stream_that_ends_is_sought_again_as_often_as_allowed(caplog: pytest.LogCaptureFixture) -> None:
    source = LiveSource(["cam"], QUICK, in_turn({"cam": [FakeCamera([1])]}))
    assert seen(source) == [("cam", 1, 1)]
    assert [record.getMessage() for record in caplog.records] == [
        "cam: lost after 1 frame; attempt 1 of 2 in 0.01 s",
        "cam: cannot be opened; attempt 2 of 2 in 0.02 s",
        "cam: cannot be opened; given up after 2 new attempts",
    ]


def test_without_attempts_a_lost_stream_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    assert seen(LiveSource(["cam"], LiveSettings(reconnect=0), in_turn({"cam": [FakeCamera([1])]}))) == [("cam", 1, 1)]
    assert caplog.messages == ["cam: lost after 1 frame; given up"]


def test_after_a_reconnection_frames_go_on_and_are_counted_on() -> None:
    taken = threading.Event()
    cameras = [FakeCamera([1]), FakeCamera([2], lambda: taken.wait(10))]
    source = LiveSource(["cam"], QUICK, in_turn({"cam": cameras}))
    found = []
    with source:
        for frame in source:
            found.append((frame.number, int(frame.image[0, 0, 0])))
            taken.set()
    assert found == [(1, 1), (2, 2)]


def test_a_dead_source_leaves_the_others_alive() -> None:
    def until_the_other_is_gone() -> None:
        while not source.readers[0].ended:
            time.sleep(0.001)

    cameras = {"dead": [], "alive": [FakeCamera([5], until_the_other_is_gone)]}
    source = LiveSource(["dead", "alive"], LiveSettings(reconnect=0), in_turn(cameras))
    assert seen(source) == [("alive", 1, 5)]


def test_only_the_newest_frame_is_delivered_and_none_twice() -> None:
    sent, more = threading.Event(), threading.Event()
    steps: Iterator[Callable[[], Any]] = iter(
        [lambda: None, lambda: None, lambda: None, lambda: (sent.set(), more.wait())]
    )
    camera = FakeCamera([1, 2, 3, 4], lambda: next(steps, lambda: None)())
    source = LiveSource(["cam"], LiveSettings(reconnect=0), in_turn({"cam": [camera]}))
    with source:
        source.start()
        assert sent.wait(10)  # three frames have come before anybody looks
        batches = source.batches()
        first = next(batches)
        more.set()
        second = next(batches)
        assert next(batches, None) is None
    assert [frame.number for frame in first + second] == [3, 4]
    assert source.dropped == 2


def test_every_nth_frame_of_a_stream() -> None:
    gate = threading.Semaphore(1)
    camera = FakeCamera([1, 2, 3, 4, 5], gate.acquire)
    source = LiveSource(["cam"], LiveSettings(stride=2, reconnect=0), in_turn({"cam": [camera]}))
    numbers = []
    with source:
        for frame in source:
            numbers.append(frame.number)
            gate.release(5)
    assert numbers[0] == 1 and set(numbers) <= {1, 3, 5}


def test_frames_of_several_cameras_come_together() -> None:
    cameras = {name: [FakeCamera([value])] for name, value in (("a", 1), ("b", 2))}
    source = LiveSource(["a", "b"], LiveSettings(reconnect=0), in_turn(cameras))
    with source:
        source.start()
        for reader in source.readers:
            reader.join(10)
        batch = next(source.batches())
    assert [(frame.title, str(frame.relative)) for frame in batch] == [("a", "a"), ("b", "b")]


def test_closing_ends_threads_that_wait_for_a_reconnection() -> None:
    source = LiveSource(["cam"], LiveSettings(reconnect=3, wait_s=60), in_turn({"cam": [FakeCamera([1])]}))
    assert len(next(source.batches())) == 1
    source.close()
    assert not source.readers[0].is_alive()


def test_a_file_among_streams_is_played_at_its_own_pace(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    for n in range(5):
        writer.write(np.full((48, 64, 3), 40 * n, np.uint8))
    writer.release()
    begin = time.monotonic()
    frames = list(LiveSource([str(path)], LiveSettings(reconnect=0)))
    assert time.monotonic() - begin >= 0.2  # five frames at 20 per second; nothing is said about slow machines
    assert frames and frames[-1].clip is not None and frames[-1].clip.fps == 20


def motion_jpeg(jpegs: list[bytes], pause_s: float, images: int) -> type[BaseHTTPRequestHandler]:
    """A handler that sends images for ever (``images``: so many to each visitor), as network cameras do."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for n in range(images):
                jpeg = jpegs[n % len(jpegs)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + jpeg + b"\r\n")
                except OSError:
                    return  # the visitor has left
                time.sleep(pause_s)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream.mjpg"
    finally:
        server.shutdown()
        server.server_close()


def test_a_real_stream_over_http_that_breaks_off_and_comes_back() -> None:
    jpegs = [cv2.imencode(".jpg", np.full((48, 64, 3), value, np.uint8))[1].tobytes() for value in (50, 200)]
    with served(motion_jpeg(jpegs, 0.02, images=25)) as address:
        source = open_source(address, reconnect=1)
        assert isinstance(source, LiveSource)
        source.settings = source.readers[0].settings = LiveSettings(reconnect=1, wait_s=0.01)
        with source:
            frames = list(source)
    assert frames[0].image.shape == (48, 64, 3)
    assert max(frame.number for frame in frames) > 25  # the second connection counts on
    assert {round(float(frame.image.mean()) / 50) for frame in frames} <= {1, 4}
    assert all(frame.title == address for frame in frames)


def test_a_server_that_is_not_there_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    source = LiveSource(["http://127.0.0.1:9/none"], LiveSettings(reconnect=0, timeout_s=1), open_address)
    assert list(source) == []
    assert caplog.messages == ["http://127.0.0.1:9/none: cannot be opened; given up"]
