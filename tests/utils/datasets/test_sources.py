"""What --source may name, and the frames that come of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from utils.core.errors import InputError
from utils.core.image import write_image
from utils.datasets import sources
from utils.datasets.sources import FileSource, Frame, LiveSource, ScreenSource, open_source
from utils.datasets.sources import files as sources_files
from utils.datasets.sources.base import Skipped, file_name_for, plausible_count, plausible_fps, without_password
from utils.datasets.sources.video import VideoFile

NAN = float("nan")


def grey(value: int, hw: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*hw, 3), value, np.uint8)


def write_video(path: Path, images: list[np.ndarray], code: str = "FFV1", fps: float = 10) -> Path:
    """Lossless unless another code is named."""
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), fps, (width, height))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {code}")
    for image in images:
        writer.write(image)
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images and a video of five frames, whose grey values are 10, 20, ... ."""
    root = tmp_path / "mixed"
    (root / "deep").mkdir(parents=True)
    write_image(root / "b.png", grey(1))
    write_image(root / "deep/a.png", grey(2))
    write_video(root / "a.avi", [grey(10 * n) for n in range(1, 6)])
    return root


def values(frames: list[Frame]) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames]


def test_images_come_first_then_videos_frame_by_frame(folder: Path) -> None:
    source = open_source(str(folder))
    frames = list(source)
    assert values(frames) == [1, 2, 10, 20, 30, 40, 50]
    assert [str(frame.relative) for frame in frames[:3]] == ["b.png", "deep/a.png", "a.avi"]
    assert [frame.number for frame in frames] == [0, 0, 1, 2, 3, 4, 5]
    assert source.total == 7
    assert frames[2].clip is not None and (frames[2].clip.fps, frames[2].clip.frames) == (10, 5)


@pytest.mark.parametrize(("stride", "numbers"), [(1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (4, [1, 5]), (9, [1])])
def test_of_videos_every_nth_frame_is_delivered(folder: Path, stride: int, numbers: list[int]) -> None:
    source = open_source(str(folder / "a.avi"), stride)
    frames = list(source)
    assert [frame.number for frame in frames] == numbers
    assert values(frames) == [10 * number for number in numbers]
    assert (source.total, source.skipped) == (len(numbers), Skipped())


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 7), (3, [3, 3, 1]), (8, [7])])
def test_batches_go_across_files(folder: Path, size: int, lengths: list[int]) -> None:
    assert [len(batch) for batch in open_source(str(folder)).batches(size)] == lengths


def test_files_of_one_name_in_a_list_keep_their_folders_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_image(tmp_path / name / "a.png", grey(5))
    (tmp_path / "lists").mkdir()
    listing = tmp_path / "lists/list.txt"
    listing.write_text(f"{tmp_path / 'one/a.png'}\n{tmp_path / 'two/a.png'}\n", encoding="utf-8")
    assert [str(frame.relative) for frame in open_source(str(listing))] == ["one/a.png", "two/a.png"]


def test_frames_that_cannot_be_read_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "broken.mp4", [grey(20 * n, (96, 128)) for n in range(12)], "mp4v")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 200 : middle + 200] = bytes(400)
    path.write_bytes(content)
    source = FileSource(str(path))
    frames = list(source)
    if len(frames) == 12:
        pytest.skip("this decoder conceals the damage")
    assert 0 < len(frames) < 12
    assert source.skipped.count == 12 - len(frames)
    assert source.skipped.lines == [f"{path}: {len(frames)} of the 12 frames it states could be read"]


def test_files_that_are_no_images_are_named_and_the_others_delivered(folder: Path) -> None:
    (folder / "a.png").write_bytes(b"no image")
    (folder / "b.mp4").write_bytes(b"")
    source = FileSource(str(folder))
    assert len(list(source)) == 7
    assert [line.split(":")[0] for line in source.skipped.lines] == [str(folder / "a.png"), str(folder / "b.mp4")]
    assert source.total == 8  # what the file names promise


class FakeCapture:
    """Gives what it is told: images, or None for a read that fails."""

    def __init__(self, reads: list[np.ndarray | None], fps: float = 10, count: float = 0) -> None:
        self.reads, self.now = list(reads), None
        self.properties = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}
        self.released = 0

    def isOpened(self) -> bool:
        return True

    def get(self, property_id: int) -> float:
        return self.properties[property_id]

    def grab(self) -> bool:
        self.now = self.reads.pop(0) if self.reads else None
        return self.now is not None

    def retrieve(self) -> tuple[bool, Any]:
        return True, self.now

    def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize(("fps", "used"), [(0, 30), (NAN, 30), (-1, 30), (90000, 30), (float("inf"), 30), (25, 25)])
def test_a_frame_rate_nobody_can_believe_is_replaced(fps: float, used: float) -> None:
    assert VideoFile("a", opener=lambda _: FakeCapture([], fps)).clip.fps == used == plausible_fps(fps)


@pytest.mark.parametrize(
    ("count", "known"), [(0, None), (NAN, None), (-1, None), (-9.2e18, None), (1e15, None), (3, 3)]
)
def test_an_absurd_number_of_frames_counts_as_unknown(count: float, known: int | None) -> None:
    assert VideoFile("a", opener=lambda _: FakeCapture([], 10, count)).clip.frames == known == plausible_count(count)


def test_without_a_known_number_single_failures_do_not_end_a_video() -> None:
    capture = FakeCapture([grey(1), None, None, grey(2), None, grey(3)])
    assert [(n, int(image[0, 0, 0])) for n, image in VideoFile("a", opener=lambda _: capture)] == [
        (1, 1),
        (2, 2),
        (3, 3),
    ]
    assert capture.released


def test_grey_and_transparent_frames_become_colour_ones() -> None:
    capture = FakeCapture([np.full((4, 6), 7, np.uint8), np.full((4, 6, 4), 8, np.uint8)])
    images = [image for _, image in VideoFile("a", opener=lambda _: capture)]
    assert [image.shape for image in images] == [(4, 6, 3)] * 2


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("rtsp://cam/1\n\n# the yard\n0\n", ["rtsp://cam/1", "0"]),
        ("0\n1\n", ["0", "1"]),
    ],
)
def test_a_list_of_addresses_is_a_list_of_streams(tmp_path: Path, text: str, addresses: list[str]) -> None:
    listing = tmp_path / "streams.txt"
    listing.write_text(text, encoding="utf-8")
    source = open_source(str(listing))
    assert isinstance(source, LiveSource) and source.live and source.total is None
    assert [reader.address for reader in source.readers] == addresses


def test_a_streams_list_may_name_files_beside_it(folder: Path) -> None:
    (folder / "my.streams").write_text("a.avi\n", encoding="utf-8")
    source = open_source(str(folder / "my.streams"))
    assert isinstance(source, LiveSource)
    assert source.readers[0].address == str(folder / "a.avi")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("rtsp://cam/1\na.png\n", "list.txt", "'a.png' is no stream, other lines are"),
        ("# nothing\n", "list.streams", "names no stream"),
        ("0\n0\n", "list.streams", "0 is listed twice"),
    ],
)
def test_lists_that_cannot_be_streams(tmp_path: Path, text: str, name: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / name))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.mp4", FileNotFoundError, "no such image, video, folder, list or address"),
        ("no*where", FileNotFoundError, "no image or video matches this pattern"),
        ("http://host/a.jpg", InputError, "images are not downloaded"),
        ("screen one", InputError, "expected: screen, screen NUMBER"),
    ],
)
def test_sources_that_are_not_there(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_source(source)


def test_a_file_of_another_kind_is_refused_with_the_known_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.doc").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=r"neither image nor video nor \.txt list; known are .*mp4.*png"):
        open_source(str(tmp_path / "a.doc"))


def test_an_address_of_a_video_file_is_read_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = VideoFile(folder / "a.avi")
    monkeypatch.setattr("utils.datasets.sources.url.VideoFile", lambda address, stride: real)
    source = open_source("https://host/films/a.mp4")
    assert not source.live and source.total == 5
    frames = list(source)
    assert values(frames) == [10, 20, 30, 40, 50]
    assert str(frames[0].relative) == "host_films_a_mp4"


@pytest.mark.parametrize(
    ("address", "shown", "name"),
    [
        ("rtsp://user:secret@cam.local:554/ch/1", "rtsp://cam.local:554/ch/1", "cam_local_554_ch_1"),
        ("http://host/x?at=a@b", "http://host/x?at=a@b", "host_x"),
        ("0", "0", "0"),
        ("rtsp://", "rtsp://", "stream"),
    ],
)
def test_names_of_addresses_hold_no_password(address: str, shown: str, name: str) -> None:
    assert without_password(address) == shown
    assert file_name_for(address) == name


class FakeScreen:
    """Two monitors of one colour each."""

    monitors = (
        {"left": 0, "top": 0, "width": 300, "height": 100},
        {"left": 0, "top": 0, "width": 100, "height": 100},
        {"left": 100, "top": 0, "width": 200, "height": 50},
    )

    def grab(self, area: dict[str, int]) -> np.ndarray:
        return np.full((area["height"], area["width"], 4), area["left"] % 256, np.uint8)

    def close(self) -> None:
        pass


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type("mss", (), {"mss": FakeScreen})
    monkeypatch.setitem(sys.modules, "mss", module)


@pytest.mark.parametrize(
    ("source", "shape", "left"),
    [
        ("screen", (100, 300, 3), 0),
        ("screen 2", (50, 200, 3), 100),
        ("screen 2 10 5 64 32", (32, 64, 3), 110),
    ],
)
@pytest.mark.usefixtures("screen")
def test_the_screen_one_monitor_and_a_part_of_it(source: str, shape: tuple[int, ...], left: int) -> None:
    opened = open_source(source)
    assert isinstance(opened, ScreenSource) and opened.live
    frames = iter(opened)
    first, second = next(frames), next(frames)
    assert first.image.shape == shape and first.image[0, 0, 0] == left
    assert second.number > first.number == 1
    opened.close()
    assert next(frames, None) is None


@pytest.mark.usefixtures("screen")
def test_a_monitor_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="there are 2 monitors, numbered from 1"):
        open_source("screen 3")


def test_without_mss_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(InputError, match="pip install mss"):
        open_source("screen")


def test_very_many_videos_are_not_opened_to_count_their_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources_files, "_MOST_COUNTED", 0)
    assert open_source(str(folder)).total is None


def test_the_table_of_kinds_is_in_the_help() -> None:
    assert all(word in str(sources.open_source.__doc__) for word in (".streams", "rtsp://", "screen", ".txt"))


def test_lists_may_name_files_of_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    cv2.imwrite(str(tmp_path / "home/a.png"), np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "list.txt").write_text("~/a.png\n")
    assert FileSource(str(tmp_path / "list.txt")).paths == [tmp_path / "home/a.png"]
