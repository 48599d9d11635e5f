"""The label cache: seen edits, bad files, read-only folders."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.config.dataset_spec import DatasetSpec
from utils.datasets.labels.cache import cache_path_for, load_cache, save_cache
from utils.datasets.labels.records import LabelSet
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.splits import load_labels


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Four images: a box and a polygon, one box, an empty file, no file."""
    texts = {"a": "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.5 0.1 0.5 0.5\n9 1 1 9 9\n", "b": "1 0.5 0.5 0.1 0.1\n", "c": ""}
    paths = []
    for folder in ("images", "labels"):
        (tmp_path / folder / "train").mkdir(parents=True)
    for name in "abcd":
        paths.append(tmp_path / "images" / "train" / f"{name}.png")
        Image.new("RGB", (64, 48)).save(paths[-1])
        if name in texts:
            (tmp_path / "labels" / "train" / f"{name}.txt").write_text(texts[name])
    return paths


def scan(images: list[Path], **options: object) -> LabelSet:
    return scan_labels(images, 10, cache_path=cache_path_for(images), **options)  # type: ignore[arg-type]


def came_from_cache(caplog: pytest.LogCaptureFixture) -> bool:
    return "from the cache" in caplog.records[-1].getMessage()


def assert_equal(first: LabelSet, second: LabelSet) -> None:
    assert first.report == second.report
    assert len(first.records) == len(second.records)
    for a, b in zip(first.records, second.records):
        assert (a.image, a.label, a.hw) == (b.image, b.label, b.hw)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert len(a.segments) == len(b.segments)
        for polygon_a, polygon_b in zip(a.segments, b.segments):
            np.testing.assert_array_equal(polygon_a, polygon_b)


def test_the_cache_lies_beside_the_labels_folder_or_where_asked(images: list[Path], tmp_path: Path) -> None:
    assert cache_path_for(images) == tmp_path / "labels" / "train.cache"
    elsewhere = cache_path_for(images, tmp_path / "own")
    assert elsewhere.parent == tmp_path / "own"
    assert elsewhere.name.startswith("train-")


def test_two_lists_over_one_folder_have_a_cache_each(images: list[Path], tmp_path: Path) -> None:
    lists = [tmp_path / name for name in ("train.txt", "val.txt")]
    paths = {cache_path_for(images, sources=[listing]) for listing in lists}
    paths.add(cache_path_for(images, sources=lists))
    paths.add(cache_path_for(images, sources=[tmp_path / "images" / "train"]))
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path / "labels"}
    assert tmp_path / "labels" / "train.cache" in paths


def test_neither_of_two_lists_over_one_folder_costs_the_other_its_cache(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one.txt").write_text("images/train/a.png\nimages/train/b.png\n")
    (tmp_path / "two.txt").write_text("images/train/a.png\nimages/train/c.png\n")
    data = tmp_path / "data.yaml"
    data.write_text("train: one.txt\nval: two.txt\nnc: 10\n")
    spec = DatasetSpec.load(data)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            caplog.clear()
            for split in ("train", "val"):
                load_labels(spec, split)
    assert caplog.text.count("from the cache") == 2


def test_a_folder_of_folders_has_its_cache_beside_it_and_a_moved_list_keeps_its_name(tmp_path: Path) -> None:
    names = set()
    for root in (tmp_path / "here", tmp_path / "there"):
        (root / "images" / "deep").mkdir(parents=True)
        image = root / "images" / "deep" / "a.png"
        assert cache_path_for([image], sources=[root / "images"]) == root / "labels.cache"
        names.add(cache_path_for([image], sources=[root / "train.txt"]).name)
    assert len(names) == 1


def test_a_file_replaced_by_one_of_equal_length_and_date_is_seen(images: list[Path]) -> None:
    scan(images)
    label = images[1].parents[2] / "labels" / "train" / "b.txt"
    before = label.stat()
    time.sleep(0.02)  # clocks of file systems are coarse
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (label.stat().st_size, label.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert scan(images).records[1].boxes[0, 0] == 0


def test_messages_of_a_moved_data_set_name_the_new_place(images: list[Path], tmp_path: Path) -> None:
    old = scan(images).report
    for folder in ("images", "labels"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        (tmp_path / folder).rename(tmp_path / "moved" / folder)
    new = scan([tmp_path / "moved" / image.relative_to(tmp_path) for image in images]).report
    assert old.messages and [m.replace(str(tmp_path), str(tmp_path / "moved")) for m in old.messages] == list(
        new.messages
    )


def test_two_processes_may_write_one_cache_at_the_same_time(images: list[Path]) -> None:
    path = cache_path_for(images)
    key = "k" * 64
    arrays = {"a": np.arange(200_000)}
    jobs = [multiprocessing.get_context("spawn").Process(target=_write_often, args=(path, key)) for _ in range(2)]
    for job in jobs:
        job.start()
    seen = 0
    while any(job.is_alive() for job in jobs):
        if path.is_file():
            loaded = load_cache(path, key)
            assert loaded is not None, "half a file was read"
            np.testing.assert_array_equal(loaded[0]["a"], arrays["a"])
            seen += 1
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0] and seen > 0
    assert [entry.name for entry in path.parent.iterdir() if ".tmp" in entry.name] == []


def _write_often(path: Path, key: str) -> None:
    for _ in range(15):
        assert save_cache(path, key, {"a": np.arange(200_000)}, {})


def test_a_second_scan_gives_the_same_from_the_cache(images: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fresh = scan(images)
        assert not came_from_cache(caplog)
        stored = scan(images)
        assert came_from_cache(caplog)
    assert_equal(fresh, stored)
    assert [len(polygon) for polygon in stored.records[0].segments] == [0, 3]


def test_single_class_does_not_leak_into_the_cache(images: list[Path]) -> None:
    scan(images, single_cls=True)
    assert scan(images).records[0].boxes[:, 0].tolist() == [0, 1]


def test_an_edit_of_the_same_length_is_seen(images: list[Path]) -> None:
    scan(images)
    label = images[1].parents[2] / "labels" / "train" / "b.txt"
    before = label.stat()
    label.write_text("0 0.5 0.5 0.1 0.1\n")
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))  # clocks of file systems are coarse
    assert label.stat().st_size == before.st_size
    assert scan(images).records[1].boxes[0, 0] == 0


def test_a_label_file_that_appears_later_is_seen(images: list[Path]) -> None:
    scan(images)
    (images[3].parents[2] / "labels" / "train" / "d.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert len(scan(images).records[3].boxes) == 1


def test_a_moved_data_set_keeps_its_cache(images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scan(images)
    for folder in ("images", "labels"):
        (tmp_path / "moved").mkdir(exist_ok=True)
        (tmp_path / folder).rename(tmp_path / "moved" / folder)
    moved = [tmp_path / "moved" / image.relative_to(tmp_path) for image in images]
    with caplog.at_level(logging.INFO):
        labels = scan(moved)
    assert came_from_cache(caplog)
    assert [record.image for record in labels.records] == moved


@pytest.mark.parametrize("damage", ["foreign", "pickle", "cut", "empty", "folder"])
def test_an_unusable_cache_is_rebuilt_without_a_word(
    images: list[Path], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = scan(images)
    path = cache_path_for(images)
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        broken = {
            "foreign": b"\x00something else",
            "pickle": pickle.dumps({"version": 0.6}),
            "cut": content[: len(content) // 2],
            "empty": b"",
        }
        path.write_bytes(broken[damage])
    caplog.clear()
    assert_equal(fresh, scan(images))
    # The messages about the labels themselves come again, nothing else; a folder in the way cannot be replaced.
    own = [r for r in caplog.records if r.name.endswith("cache") and r.levelno >= logging.WARNING]
    assert len(own) == (damage == "folder")
    if damage != "folder":
        with caplog.at_level(logging.INFO):
            scan(images)
        assert came_from_cache(caplog)


def test_arrays_that_do_not_fit_together_are_rebuilt(images: list[Path]) -> None:
    fresh = scan(images)
    path = cache_path_for(images)
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    arrays["rows"] = arrays["rows"] + 7
    with path.open("wb") as file:
        np.savez(file, **arrays)
    assert_equal(fresh, scan(images))


def test_a_place_that_cannot_be_written_is_one_warning(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    labels = scan_labels(images, 10, cache_path=blocker / "train.cache")
    assert len(labels.records) == 4
    assert caplog.text.count("label cache not written") == 1


def test_the_cache_is_read_without_pickle(tmp_path: Path) -> None:
    path = tmp_path / "x.cache"
    with path.open("wb") as file:
        np.savez(file, header=np.frombuffer(b'{"key": "k", "content": {}}', np.uint8), a=np.array([{}], dtype=object))
    assert load_cache(path, "k") is None


def test_another_key_is_out_of_date(tmp_path: Path) -> None:
    path = tmp_path / "x.cache"
    assert save_cache(path, "k", {"a": np.arange(3)}, {"n": 1})
    assert load_cache(path, "other") is None
    arrays, content = load_cache(path, "k") or ({}, {})
    assert arrays["a"].tolist() == [0, 1, 2]
    assert content == {"n": 1}
