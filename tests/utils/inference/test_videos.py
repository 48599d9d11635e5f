"""Videos of a run: codec, pace, size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.core.errors import InputError
from utils.datasets.sources import Clip, Frame
from utils.inference import videos
from utils.inference.videos import AvEncoder, VideoFiles, Vp8Encoder


def frame(number: int, clip: Clip, name: str = "deep/a.avi", hw: tuple[int, int] = (48, 64)) -> Frame:
    return Frame(np.full((*hw, 3), min(20 * number, 240), np.uint8), Path(name), Path(name), clip, number)


def read(path: Path) -> tuple[float, list[np.ndarray]]:
    capture, images = cv2.VideoCapture(str(path)), []
    while True:
        done, image = capture.read()
        if not done:
            return capture.get(cv2.CAP_PROP_FPS), images
        images.append(image)


def written(folder: Path, frames: list[Frame]) -> list[Path]:
    files = VideoFiles(folder)
    for item in frames:
        files.write(item, item.image)
    files.close()
    return files.paths


@pytest.fixture
def vp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder that every OpenCV has."""
    monkeypatch.setattr(videos, "ENCODERS", (Vp8Encoder,))


@pytest.mark.usefixtures("vp8")
def test_a_video_has_every_frame_at_the_pace_of_its_source(tmp_path: Path) -> None:
    clip = Clip("a.avi", fps=12)
    (path,) = written(tmp_path, [frame(n, clip) for n in range(1, 6)])
    assert path == tmp_path / "deep/a.webm"
    fps, images = read(path)
    assert (fps, len(images)) == (12, 5)
    np.testing.assert_allclose([image.mean() for image in images], [20, 40, 60, 80, 100], atol=4)


@pytest.mark.usefixtures("vp8")
def test_with_a_stride_the_video_takes_as_long_as_its_source(tmp_path: Path) -> None:
    clip = Clip("a.avi", fps=12, stride=3)
    fps, images = read(written(tmp_path, [frame(n, clip) for n in (1, 4, 7)])[0])
    assert (fps, len(images)) == (4, 3)


@pytest.mark.usefixtures("vp8")
def test_a_live_image_stands_still_for_the_frames_that_were_passed_over(tmp_path: Path) -> None:
    clip = Clip("rtsp://cam", fps=10, live=True)
    (path,) = written(tmp_path, [frame(n, clip, "cam") for n in (1, 2, 6)])
    assert path == tmp_path / "cam.webm"
    _, images = read(path)
    np.testing.assert_allclose([image.mean() for image in images], [20, 40, 120, 120, 120, 120], atol=4)


@pytest.mark.usefixtures("vp8")
def test_a_long_gap_is_shortened(tmp_path: Path) -> None:
    clip = Clip("rtsp://cam", fps=2, live=True)
    _, images = read(written(tmp_path, [frame(1, clip, "cam"), frame(1000, clip, "cam")])[0])
    assert len(images) == 1 + 20  # ten seconds


@pytest.mark.usefixtures("vp8")
def test_a_frame_of_another_size_starts_a_new_file(tmp_path: Path) -> None:
    clip = Clip("a.avi", fps=10)
    frames = [frame(1, clip), frame(2, clip, hw=(33, 47)), frame(3, clip, hw=(33, 47))]
    first, second = written(tmp_path, frames)
    assert (first.name, second.name) == ("a.webm", "a-2.webm")
    assert [image.shape for image in read(second)[1]] == [(34, 48, 3)] * 2  # sides are even


@pytest.mark.usefixtures("vp8")
def test_videos_of_one_name_but_different_kind_get_files_of_their_own(tmp_path: Path) -> None:
    clips = [frame(1, Clip("a.avi"), "a.avi"), frame(1, Clip("a.mp4"), "a.mp4")]
    assert [path.name for path in written(tmp_path, clips)] == ["a.webm", "a-2.webm"]


@pytest.mark.usefixtures("vp8")
def test_cameras_are_written_side_by_side(tmp_path: Path) -> None:
    clips = {name: Clip(name, fps=10, live=True) for name in ("one", "two")}
    paths = written(tmp_path, [frame(n, clips[name], name) for n in (1, 2, 3) for name in clips])
    assert [len(read(path)[1]) for path in paths] == [3, 3]


def test_what_cannot_be_had_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(Vp8Encoder):
        def __init__(self, path: Path, *_: object) -> None:
            path.write_bytes(b"a beginning")
            raise OSError("no such encoder")

    monkeypatch.setattr(videos, "ENCODERS", (Missing, Vp8Encoder))
    assert [path.name for path in written(tmp_path, [frame(1, Clip("a"), "a.avi")])] == ["a.webm"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.webm"]
    monkeypatch.setattr(videos, "ENCODERS", (Missing,))
    with pytest.raises(InputError, match="no video can be written here; use --nosave, or pip install av"):
        written(tmp_path, [frame(1, Clip("a"), "a.avi")])


def test_h264_where_the_package_av_is_installed(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    (path,) = written(tmp_path, [frame(n, Clip("a", fps=12), "a.avi", (33, 47)) for n in range(1, 6)])
    assert path.name == "a.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 12)
    _, images = read(path)
    assert [image.shape for image in images] == [(34, 48, 3)] * 5
    np.testing.assert_allclose([image.mean() for image in images], [20, 40, 60, 80, 100], atol=4)


def test_h264_is_asked_for_first() -> None:
    assert list(videos.ENCODERS) == [AvEncoder, Vp8Encoder]
