"""The sets of the study: six conditions, disjoint splits, always the same files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.study import data
from tools.study.data import ALL_CONDITIONS, apply_condition, make_set
from utils.core.errors import InputError
from utils.datasets.digits.drawing import digit_pool


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "COUNTS", {"train": 12, "val": 6, "test": 6})


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.suffix != ".yaml" and file.is_file()
    }


def conditions_of(folder: Path) -> dict[str, str]:
    with (folder / "conditions.csv").open(newline="", encoding="utf-8") as stream:
        return dict(list(csv.reader(stream))[1:])


def test_each_condition_has_as_many_images_of_every_split_and_the_files_are_always_the_same(
    few: None, tmp_path: Path
) -> None:
    folders = [make_set("digits6", tmp_path / name).parent for name in "ab"]
    assert files_of(folders[0]) == files_of(folders[1])
    conditions = conditions_of(folders[0])
    for split, count in data.COUNTS.items():
        found = [conditions[file.name] for file in (folders[0] / "images" / split).iterdir()]
        assert sorted(found) == sorted(ALL_CONDITIONS * (count // 6))


def test_digits1_has_the_same_images_without_conditions(few: None, tmp_path: Path) -> None:
    six, one = (make_set(name, tmp_path).parent for name in ("digits6", "digits1"))
    assert set(conditions_of(one).values()) == {"plain-sharp"}
    name = next(n for n, condition in conditions_of(six).items() if condition == "plain-sharp")
    split = name.rstrip("0123456789.jpg")
    assert (six / "images" / split / name).read_bytes() == (one / "images" / split / name).read_bytes()
    assert all(
        (six / "labels" / split / f.name).read_bytes() == f.read_bytes() for f in (one / "labels" / split).iterdir()
    )


def test_strokes_are_dark_on_a_lighter_ground_unless_inverted(few: None, tmp_path: Path) -> None:
    folder = make_set("digits1", tmp_path).parent
    means = [cv2.imread(str(file)).mean() for file in (folder / "images/train").iterdir()]
    assert min(means) > 110


def test_splits_share_no_digit() -> None:
    pools = [set(digit_pool(split)) for split in ("train", "val", "test")]
    assert not (pools[0] & pools[1] or pools[0] & pools[2] or pools[1] & pools[2])


def test_conditions_invert_blur_and_add_noise() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:] = 200
    rng = np.random.default_rng(0)
    assert np.array_equal(apply_condition(image, "plain-sharp", rng), image)
    assert np.array_equal(apply_condition(image, "inverted-sharp", rng), 255 - image)
    edge = apply_condition(image, "plain-blurred", rng)[20, 19:21, 0]
    assert 0 < edge[0] < edge[1] < 200
    noise = apply_condition(image, "plain-noisy", rng)[:, 22:].astype(float) - 200
    assert 20 < noise.std() < 35


def test_a_given_set_is_shown_under_all_conditions_with_its_labels(
    tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    yaml = make_dataset(tmp_path / "set")
    source = tmp_path / "set" / "own.yaml"
    source.write_text(yaml.read_text(encoding="utf-8") + "\ntest: images/val\n", encoding="utf-8")
    folder = make_set("own6", tmp_path / "out", str(source)).parent
    names = [file.stem for file in (folder / "images/train").iterdir()]
    assert len(names) == 4 * 6
    labels = {name.partition("-")[0]: set() for name in names}
    for name in names:
        labels[name.partition("-")[0]].add((folder / "labels/train" / f"{name}.txt").read_text(encoding="utf-8"))
    assert all(len(texts) == 1 for texts in labels.values())


def test_an_unknown_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="digits7: expected digits6 or digits1"):
        make_set("digits7", tmp_path)
