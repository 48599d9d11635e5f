"""LoadImages and its neighbours, called as in v6.1."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.core.errors import InputError
from utils.core.image import write_image
from utils.datasets import (
    IMG_FORMATS,
    VID_FORMATS,
    LoadImages,
    LoadStreams,
    LoadWebcam,
    img2label_paths,
    letterbox,
)  # fmt: skip
from utils.datasets.sources import LiveSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, shape in enumerate([(30, 64, 3), (64, 64, 3)]):
        write_image(tmp_path / f"{number}.png", np.full(shape, (10, 20, 30), np.uint8))
    return tmp_path


def test_images_come_ready_for_the_model(folder: Path) -> None:
    dataset = LoadImages(str(folder), img_size=64, stride=32, auto=True)
    (path, image, original, cap, text), second = list(dataset)
    assert (len(dataset), dataset.nf, dataset.mode, cap) == (2, 2, "image", None)
    assert Path(path) == folder / "0.png"
    assert image.shape == (3, 32, 64)
    assert image[:, 16, 32].tolist() == [30, 20, 10]  # red, green, blue
    assert original.shape == (30, 64, 3)
    assert original[0, 0].tolist() == [10, 20, 30]
    assert text == f"image 1/2 {folder / '0.png'}: "
    assert second[1].shape == (3, 64, 64)


def test_without_auto_every_image_is_square(folder: Path) -> None:
    assert [item[1].shape for item in LoadImages(folder, 64, 32, False)] == [(3, 64, 64), (3, 64, 64)]


def test_a_broken_image_is_skipped_and_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "0.png").write_bytes(b"no image")
    found = list(LoadImages(folder, 64))
    assert [item[4] for item in found] == [f"image 2/2 {folder / '1.png'}: "]
    assert "0.png" in caplog.text


def test_formats_are_named_without_a_dot() -> None:
    assert {"jpg", "png", "tiff"} <= set(IMG_FORMATS) and {"mp4", "avi"} <= set(VID_FORMATS)


@pytest.fixture
def video_file(tmp_path: Path) -> Path:
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 20, (64, 48))
    for value in (10, 20, 30):
        writer.write(np.full((48, 64, 3), value, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video_come_after_the_images(folder: Path, video_file: Path) -> None:
    dataset = LoadImages(folder, 64)
    items, seen = [], []
    for item in dataset:
        items.append(item)
        seen.append((dataset.mode, dataset.frame, int(item[2][0, 0, 0]), Path(item[0]).name))
    assert seen[2:] == [("video", n, 10 * n, "film.avi") for n in (1, 2, 3)]
    assert items[1][3] is None and items[2][3] is dataset.cap
    assert items[-1][4] == f"video 3/3 (3/3) {video_file}: "
    assert (len(dataset), dataset.nf) == (3, 3)


def test_streams_come_all_together(folder: Path, video_file: Path) -> None:
    (folder / "my.streams").write_text(f"{video_file}\nrtsp://127.0.0.1:9/none\n", encoding="utf-8")
    dataset = LoadStreams(str(folder / "my.streams"), img_size=64)
    for reader in dataset._source.readers:
        reader.settings = LiveSettings(reconnect=0)
    items = list(dataset)
    assert (len(dataset), dataset.mode) == (2, "stream")
    paths, images, originals, cap, text = items[-1]
    assert paths == [str(video_file), "rtsp://127.0.0.1:9/none"] and (cap, text) == (None, "")
    assert images.shape == (2, 3, 64, 64)
    assert (int(originals[0][0, 0, 0]), int(originals[1].max())) == (30, 0)  # what was never seen is black


def test_a_camera_is_mirrored(video_file: Path) -> None:
    dataset = LoadWebcam(str(video_file), 64)
    dataset._source.readers[0].settings = LiveSettings(reconnect=0)
    path, image, original, cap, _ = next(iter(dataset))
    assert (path, image.shape, original.shape, cap) == ("webcam.jpg", (3, 64, 64), (48, 64, 3), None)


def test_images_are_no_streams(folder: Path) -> None:
    with pytest.raises(InputError, match="not a camera, stream or list of them; use LoadImages"):
        LoadStreams(str(folder))


def test_label_files_of_images() -> None:
    assert [Path(path) for path in img2label_paths(["set/images/train/a.jpg"])] == [Path("set/labels/train/a.txt")]


def test_letterbox_is_found_in_its_old_places() -> None:
    from utils import augmentations

    assert augmentations.letterbox is letterbox
