"""Splits and folds as lists: nothing lost, nothing twice, what belongs together stays together."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from tools.split import SplitOptions, connected_groups, listed_path, main, name_groups, same_content, table
from utils.config.cli import parse, run_script
from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.core.files import find_images
from utils.datasets.labels.splits import load_labels

pytestmark = pytest.mark.usefixtures("log_handlers_restored")


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., Path]:
    """``images({"a.png": [0, 1], ...})``: one noisy image each, with an object of every class named."""

    def make(classes_of: dict[str, list[int]], folder: Path = tmp_path / "set") -> Path:
        rng = np.random.default_rng(0)
        for name, classes in classes_of.items():
            image, label = folder / "images" / name, (folder / "labels" / name).with_suffix(".txt")
            for path in (image, label):
                path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(image), rng.integers(0, 255, (12, 12, 3), np.uint8))
            rows = [f"{c} 0.5 0.{i + 1} 0.2 0.2\n" for i, c in enumerate(classes)]
            label.write_text("".join(rows), encoding="utf-8")
        return folder / "images"

    return make


def split(*argv: str | Path) -> int:
    return run_script(main, SplitOptions, [str(word) for word in argv])


def error_of(capfd: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 1
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if "error: " in line]
    assert len(lines) == 1
    return lines[0]


def names_in(listing: Path) -> list[str]:
    return [path.name for path in find_images([listing])]


MANY = {f"{i}.png": [i % 3] for i in range(30)}


def test_every_image_is_in_exactly_one_list(images: Any, tmp_path: Path) -> None:
    assert split("--source", images(MANY), "--output", tmp_path / "out") == 0
    lists = [names_in(tmp_path / "out" / f"{part}.txt") for part in ("train", "val", "test")]
    assert [len(names) for names in lists] == [24, 3, 3]
    assert sorted(name for names in lists for name in names) == sorted(MANY)


def test_the_yaml_trains_as_it_is_from_any_folder(images: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = [
        "--source",
        images(MANY),
        "--names",
        "x",
        "y",
        "z",
        "--fractions",
        "0.5",
        "0.5",
        "--output",
        tmp_path / "o",
    ]
    assert split(*argv) == 0
    monkeypatch.chdir(tmp_path / "set")
    spec = DatasetSpec.load(tmp_path / "o/data.yaml")
    assert (spec.nc, spec.names, spec.test) == (3, ("x", "y", "z"), ())
    labels = load_labels(spec, "val", require_labels=True)
    assert (len(labels.records), labels.report.labelled) == (15, 15)


def test_lists_move_with_the_images(images: Any, tmp_path: Path) -> None:
    assert split("--source", images(MANY), "--output", tmp_path / "set/lists") == 0
    (tmp_path / "set").rename(tmp_path / "moved")
    assert all(path.exists() for path in find_images([tmp_path / "moved/lists/train.txt"]))
    assert (tmp_path / "moved/lists/train.txt").read_text(encoding="utf-8").startswith("./../images/")


@pytest.mark.parametrize("extra", [(), ("--stratify",)])
def test_the_same_seed_gives_the_same_files(extra: tuple[str, ...], images: Any, tmp_path: Path) -> None:
    source = images(MANY)
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        split("--source", source, "--output", tmp_path / name, "--seed", seed, *extra)
    a, b, c = ((tmp_path / name / "val.txt").read_text(encoding="utf-8") for name in "abc")
    assert a == b != c


def test_folds_share_out_all_images_once(images: Any, tmp_path: Path) -> None:
    assert split("--source", images(MANY), "--kfold", "5", "--output", tmp_path / "out") == 0
    held_out = []
    for i in range(5):
        spec = DatasetSpec.load(tmp_path / f"out/fold{i}.yaml")
        train, val = ([path.name for path in find_images(spec.sources(name))] for name in ("train", "val"))
        assert sorted(train + val) == sorted(MANY)
        held_out += val
    assert sorted(held_out) == sorted(MANY)
    assert not (tmp_path / "out/data.yaml").exists()


def test_stratified_lists_have_every_class_in_its_share(images: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    classes_of = {f"{i:03}.png": np.flatnonzero(rng.random(4) < [0.9, 0.4, 0.2, 0.1]).tolist() for i in range(200)}
    argv = ["--source", images(classes_of), "--fractions", "0.7", "0.3", "--stratify", "--output", tmp_path / "out"]
    assert split(*argv) == 0
    in_val = [c for name in names_in(tmp_path / "out/val.txt") for c in classes_of[name]]
    everywhere = [c for classes in classes_of.values() for c in classes]
    shares = np.bincount(in_val, minlength=4) / np.bincount(everywhere)
    assert np.abs(shares - 0.3).max() < 0.03


def test_background_is_shared_out_like_a_class(images: Any, tmp_path: Path) -> None:
    classes_of = {f"{i}.png": [] if i < 10 else [0] for i in range(50)}
    split("--source", images(classes_of), "--fractions", "0.8", "0.2", "--stratify", "--output", tmp_path / "out")
    assert sum(not classes_of[name] for name in names_in(tmp_path / "out/val.txt")) == 2


def test_images_of_one_group_are_never_parted(images: Any, tmp_path: Path) -> None:
    classes_of = {f"cam{i % 7}_{i}.png": [i % 2] for i in range(40)}
    argv = ["--source", images(classes_of), "--group-by", r"^(cam\d+)_", "--stratify", "--output", tmp_path / "out"]
    assert split(*argv) == 0
    groups = [
        {name.split("_")[0] for name in names_in(tmp_path / "out" / f"{part}.txt")} for part in ("train", "val", "test")
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 7


def test_copies_of_an_image_are_never_parted(images: Any, tmp_path: Path) -> None:
    source = images({f"{i}.png": [0] for i in range(10)})
    for i in range(10):
        (source / f"copy{i}.png").write_bytes((source / f"{i}.png").read_bytes())
    assert split("--source", source, "--kfold", "5", "--output", tmp_path / "out") == 0
    for i in range(5):
        names = names_in(tmp_path / f"out/fold{i}_val.txt")
        assert {name.removeprefix("copy") for name in names} == {name for name in names if "copy" not in name}
        assert len(names) == 4


def test_groups_join_through_copies() -> None:
    assert connected_groups(["a", "a", "b", "c"], [1, 2, 2, 3]) == [[0, 1, 2], [3]]


def test_files_of_the_same_bytes_have_the_same_key(tmp_path: Path) -> None:
    for name, content in (("a", b"xy"), ("b", b"xz"), ("c", b"xy"), ("d", b"longer")):
        (tmp_path / name).write_bytes(content)
    keys = same_content([tmp_path / name for name in "abcd"])
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def test_a_yaml_gives_its_names_and_all_its_splits(make_dataset: Any, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "set", 6, 4)
    assert split("--source", data, "--fractions", "0.5", "0.5", "--output", tmp_path / "out") == 0
    assert yaml.safe_load((tmp_path / "out/data.yaml").read_text(encoding="utf-8")) == {
        "train": "train.txt", "val": "val.txt", "nc": 2, "names": {0: "red", 1: "green"},
    }  # fmt: skip
    assert len(find_images([tmp_path / "out/train.txt", tmp_path / "out/val.txt"])) == 10


def test_one_split_of_a_yaml_may_be_kept_out(make_dataset: Any, tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "set", 6, 4)
    split("--source", data, "--pool", "train", "--fractions", "0.5", "0.5", "--output", tmp_path / "out")
    assert len(find_images([tmp_path / "out/train.txt", tmp_path / "out/val.txt"])) == 6


def test_a_list_is_a_source_and_an_image_named_twice_counts_once(images: Any, tmp_path: Path) -> None:
    source = images({"a.png": [0], "b.png": [0], "c.png": [0]})
    listing = tmp_path / "all.txt"
    listing.write_text("".join(f"{source / name}\n" for name in ("a.png", "b.png", "a.png")), encoding="utf-8")
    assert split("--source", listing, "--fractions", "0.5", "0.5", "--output", tmp_path / "out") == 0
    assert sorted(names_in(tmp_path / "out/train.txt") + names_in(tmp_path / "out/val.txt")) == ["a.png", "b.png"]


def test_a_broken_image_is_in_no_list(images: Any, tmp_path: Path) -> None:
    source = images(MANY)
    (source / "0.png").write_bytes(b"broken")
    assert split("--source", source, "--fractions", "0.5", "0.5", "--output", tmp_path / "out") == 0
    assert len(find_images([tmp_path / "out/train.txt", tmp_path / "out/val.txt"])) == 29


# The report -----------------------------------------------------------------------------------------------------------


def test_the_table_by_hand() -> None:
    counts = np.array([[2, 0], [1, 1], [0, 0], [1, 0]])
    assert table(counts, {"train": [0, 2], "val": [1, 3]}, ("ant", "bee")).splitlines() == [
        "                   all        train          val",
        "images               4   2 (50.0 %)   2 (50.0 %)",
        "  without objects    1  1 (100.0 %)    0 (0.0 %)",
        "ant                  4   2 (50.0 %)   2 (50.0 %)",
        "bee                  1    0 (0.0 %)  1 (100.0 %)",
    ]


def test_the_share_of_every_class_is_printed(images: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    split("--source", images(MANY), "--names", "x", "y", "z", "--stratify", "--output", tmp_path / "out")
    output = "".join(capfd.readouterr())
    assert "images              30  24 (80.0 %)  3 (10.0 %)  3 (10.0 %)" in output
    assert "z                   10   8 (80.0 %)  1 (10.0 %)  1 (10.0 %)" in output


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "o"], "--source is missing"),
        (["--source", "s"], "--output is missing"),
        (["--fractions", "0.8", "0.1"], "--fractions 0.8 0.1: the sum is 0.9, it must be 1"),
        (["--fractions", "1"], "give two numbers (train, val) or three"),
        (["--fractions", "1", "0"], "each must be above 0; for no test list give two numbers"),
        (["--fractions", "1.2", "-0.2"], "each must be above 0"),
        (["--fractions", "nan", "0.5"], "each must be above 0"),
        (["--kfold", "1"], "--kfold 1 is too small"),
        (["--kfold", "2", "--fractions", "0.5", "0.5"], "--kfold and --fractions exclude each other"),
        (["--pool", "vall"], "--pool vall is unknown; did you mean 'val'"),
        (["--seed", "-1"], "--seed -1 is too small"),
    ],
)
def test_an_option_error_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = [] if argv[0] in ("--source", "--output") else ["--source", "s", "--output", "o"]
    with pytest.raises(SystemExit) as caught:
        parse(SplitOptions, [*needed, *argv])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_an_empty_part_is_refused_by_name(images: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = images({"a.png": [0], "b.png": [0]})
    error = error_of(capfd, split("--source", source, "--output", tmp_path / "out"))
    assert "test would be empty: there are 2 images to share out" in error
    assert not (tmp_path / "out").exists()


def test_too_few_groups_are_refused(images: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = images({f"{i}_{i}.png": [0] for i in (1, 2)} | {f"{i}_9.png": [0] for i in (1, 2)})
    code = split("--source", source, "--kfold", "3", "--group-by", r"(\d)_", "--output", tmp_path / "out")
    assert "there are 2 groups of images to share out" in error_of(capfd, code)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(a", "is not a regular expression"), ("a+", "has no group"), (r"^(a)\d", "does not match .*b1.png")],
)
def test_a_pattern_that_cannot_group_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        name_groups([Path("x/a1.png"), Path("x/b1.png")], pattern)


def test_a_group_that_took_no_part_in_the_match_names_the_image() -> None:
    with pytest.raises(InputError, match=r"does not match b1\.png"):
        name_groups([Path("b1.png")], "(a)|b")


def test_lists_that_are_there_are_replaced_only_with_leave(
    images: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "out/val.txt"
    own.parent.mkdir()
    own.write_text("mine", encoding="utf-8")
    argv = ["--source", images(MANY), "--output", tmp_path / "out"]
    assert f"{own} is there already" in error_of(capfd, split(*argv))
    assert [path.name for path in own.parent.iterdir()] == ["val.txt"]
    assert split(*argv, "--exist-ok") == 0
    assert own.read_text(encoding="utf-8") != "mine"


def test_a_class_without_a_name_is_refused(images: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = split("--source", images(MANY), "--names", "x", "y", "--output", tmp_path / "out")
    assert "class outside 0..1" in error_of(capfd, code)


def test_nothing_can_be_stratified_without_labels(
    images: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = images({f"{i}.png": [] for i in range(5)})
    code = split("--source", source, "--kfold", "2", "--stratify", "--output", tmp_path / "out")
    assert "--stratify: no image has a label; those of" in error_of(capfd, code)


def test_annotations_of_another_kind_are_sent_to_the_converter(
    shared_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "annotations"):
        shutil.copytree(shared_data / "tiny-coco" / name, tmp_path / "set" / name)
    data = tmp_path / "set/data.yaml"
    data.write_text("val: annotations/instances_val2017.json\nimages: images/val2017\n", encoding="utf-8")
    error = error_of(capfd, split("--source", data, "--output", tmp_path / "out"))
    assert "instances_val2017.json; lists of images need a .txt file for each: convert the set first" in error
    assert not (tmp_path / "out").exists()


def test_a_source_without_images_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = split("--source", tmp_path / "nowhere", "--output", tmp_path / "out")
    assert f"{tmp_path / 'nowhere'}: no such folder" in error_of(capfd, code)


def test_an_output_from_which_no_label_would_be_found_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "images/lists"
    with pytest.raises(InputError, match="choose an output folder elsewhere"):
        listed_path(tmp_path / "images/a.png", folder)
    assert listed_path(tmp_path / "set/images/a.png", folder) == "./../../set/images/a.png"


def test_a_list_or_yaml_that_is_read_is_never_written_over(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.ones((20, 20, 3), np.uint8))
    (tmp_path / "train.txt").write_text("./a.png\n./b.png\n")
    (tmp_path / "val.txt").write_text("./b.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nval: val.txt\nnames: [c]\n")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    for source in ("train.txt", "data.yaml"):
        options = SplitOptions(source=str(tmp_path / source), output=str(tmp_path), fractions=(0.5, 0.5), exist_ok=True)
        with pytest.raises(InputError, match="would overwrite the input"):
            main(options)
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.suffix != ".cache"} == before
