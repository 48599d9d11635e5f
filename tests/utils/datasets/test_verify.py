"""Damaged and identical pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.datasets.verify import check_picture, decode_all, identical_files


def encoded(suffix: str, seed: int = 0) -> bytes:
    rows, columns = np.mgrid[:120, :160]
    image = np.stack([columns, rows, rows + columns], -1).astype(np.uint8)
    image[40:80, 40:120] = np.random.default_rng(seed).integers(0, 255, (40, 80, 3))
    return cv2.imencode(suffix, image)[1].tobytes()


def middle_overwritten(content: bytes) -> bytes:
    half = len(content) // 2
    return content[:half] + bytes(64) + content[half + 64 :]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_whole_picture_passes_both_looks(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(suffix))
    assert check_picture(path) == (120, 160)
    assert list(decode_all([path], 1)) == [""]


def test_damage_in_the_middle_is_found_by_decoding_only(tmp_path: Path) -> None:
    paths = []
    for suffix in (".jpg", ".png"):
        paths += [tmp_path / f"good{suffix}", tmp_path / f"bad{suffix}"]
        paths[-2].write_bytes(encoded(suffix))
        paths[-1].write_bytes(middle_overwritten(encoded(suffix)))
    assert check_picture(paths[1]) == check_picture(paths[3]) == (120, 160)
    problems = list(decode_all(paths, 2))
    assert [bool(problem) for problem in problems] == [False, True] * 2
    assert "Corrupt JPEG data" in problems[1]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_picture_that_is_cut_off_is_refused_at_once(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    content = encoded(suffix)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(Exception):  # noqa: B017  (decoders raise what they like)
        check_picture(path)


def test_identical_files_are_found_by_content(tmp_path: Path) -> None:
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"three", "e": b"one", "f": b"two", "g": b"six"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in contents]
    groups = identical_files([*paths, paths[0], tmp_path / "gone"], 2)
    assert [[path.name for path in group] for group in groups] == [["a", "c", "e"], ["b", "f"]]
