"""Yaml, atomic writes, run folders, lists of images and the place of their labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.config.categories import read_json
from utils.core.errors import InputError
from utils.core.files import find_images, increment_path, label_path_for, open_regular, read_yaml, write_atomic
from utils.core.image import image_hw, read_image


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_yaml_is_read_as_plain_types(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("\ufeffnames: [кот, 犬]\nnc: 2\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == {"names": ["кот", "犬"], "nc": 2}


def test_broken_yaml_is_reported_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("nc: 2\nnames: [a, b\nval: x\n")
    with pytest.raises(InputError, match=r"a\.yaml:3: not valid yaml"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "line", "cure"),
    [
        ("nc: 2\nnames：[a, b]\n", 3, "; line 2 has the wide sign '：': write ':'"),
        ("nc: 2\nnames: [a， [b]]\n", 2, "; line 2 has the wide sign '，': write ','"),
        ('path: "C:\\Users\\me"\n', 1, "write the path in single quotes, or with /"),
        ("val: b\nnames：\n  - cat\n  - dog\n", 5, "; line 2 has the wide sign '：': write ':'"),
        ("train: a\nval:images\nnames: [cat]\n", 3, "write a space behind the colon of line 2"),
        ("names: {0: a, 0: b}\n", 1, "the key '0' stands here a second time"),
        ("train: a\nval: b\ntrain: c\n", 3, "the key 'train' stands here a second time"),
        ("path:\tset\ntrain: x\n", 1, "write spaces in place of tabs"),
        ("rows:\n  - [a, [1, 2]\n  - [b, [3]]\n", 3, "a bracket of line 2 is not closed"),
        (
            "rows:\n  - a\n   - b\n  - [c]\n    [d]\n",
            5,
            "list begin in the same column: compare this line with those before it",
        ),
        ("x: !!python/object/apply:os.getcwd []  # ：\n", 1, "'tag:yaml.org,2002:python/object/apply:os.getcwd'"),
    ],
)
def test_broken_yaml_comes_with_the_cure_of_common_mistakes(tmp_path: Path, text: str, line: int, cure: str) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert f"a.yaml:{line}: not valid yaml: " in str(caught.value)
    assert str(caught.value).endswith(cure)


def test_yaml_whose_every_colon_is_wide_is_named_by_the_first_such_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# 中文：\ntrain：a\nval：b\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.yaml:2: expected 'key: value', found the wide sign '：': write ':'"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_that_asks_for_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("x: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(InputError, match=r"a\.yaml:1: not valid yaml"):
        read_yaml(tmp_path / "a.yaml")


def test_yaml_in_another_encoding_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.yaml: byte 6 is not UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml: no such yaml file"):
        read_yaml(tmp_path / "gone.yaml")


def test_an_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "last.pt", b"old")
    write_atomic(tmp_path / "last.pt", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("last.pt", b"new")]


def test_a_failed_atomic_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomic(tmp_path / "last.pt", b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(tmp_path / "last.pt", b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("last.pt", b"old")]


def test_run_folders_are_numbered_from_two(tmp_path: Path) -> None:
    made = [increment_path(tmp_path / "runs" / "exp", mkdir=True).name for _ in range(3)]
    assert made == ["exp", "exp2", "exp3"]


def test_numbering_goes_on_after_the_highest_and_ignores_other_names(tmp_path: Path) -> None:
    for name in ("exp", "exp7", "exp2_old", "experiment9", "my_exp20"):
        (tmp_path / name).mkdir()
    assert increment_path(tmp_path / "exp") == tmp_path / "exp8"


def test_an_existing_folder_is_taken_when_allowed(tmp_path: Path) -> None:
    assert increment_path(tmp_path, exist_ok=True, mkdir=True) == tmp_path


def test_a_file_is_numbered_before_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "out.txt")
    assert increment_path(tmp_path / "out.txt", sep="_") == tmp_path / "out_2.txt"


def test_images_are_found_at_any_depth_and_in_any_case(tmp_path: Path) -> None:
    touch(tmp_path / "b.JPG", tmp_path / "a/deep/c.Png", tmp_path / "a/notes.txt", tmp_path / ".hidden/d.jpg")
    touch(tmp_path / "a/._c.png")
    assert find_images([tmp_path]) == [tmp_path / "a/deep/c.Png", tmp_path / "b.JPG"]


def test_a_folder_that_links_to_its_parent_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path / "a/b.jpg")
    (tmp_path / "a/loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_images([tmp_path]) == [tmp_path / "a/b.jpg"]


def test_lists_name_images_beside_them_with_either_separator(tmp_path: Path) -> None:
    touch(tmp_path / "images/a.jpg", tmp_path / "images/b.jpg", tmp_path / "images/c.jpg")
    listing = tmp_path / "train.txt"
    listing.write_text(f"./images/b.jpg\r\nimages\\a.jpg\n\n{tmp_path}/images/c.jpg\nreadme.md\n", encoding="utf-8")
    assert find_images([listing]) == [tmp_path / "images" / name for name in ("a.jpg", "b.jpg", "c.jpg")]


def test_lists_may_name_images_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "images/a.jpg", tmp_path / "lists/train.txt")
    (tmp_path / "lists/train.txt").write_text("images/a.jpg\n")
    monkeypatch.chdir(tmp_path)
    assert find_images([Path("lists/train.txt")]) == [Path("images/a.jpg")]


def test_missing_and_empty_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone: no such folder"):
        find_images([tmp_path / "gone"])
    with pytest.raises(FileNotFoundError, match="no images in"):
        find_images([tmp_path])
    touch(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"a\.csv: expected a folder"):
        find_images([tmp_path / "a.csv"])


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/d/images/x/images/a.b.png", "/d/images/x/labels/a.b.txt"),
        ("images/a.jpg", "labels/a.txt"),
        ("/d/my_images/a.jpg", "/d/my_images/a.txt"),
        ("/d/images.jpg", "/d/images.txt"),
    ],
)
def test_labels_lie_in_the_twin_of_the_last_images_folder(image: str, label: str) -> None:
    assert label_path_for(Path(image)) == Path(label)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: !!int abc", ":2", "'abc' is no int"),
        ("a: !!bool maybe", ":1", "'maybe' is no bool"),
        ("a: !!float ''", ":1", "'' is no float"),
        ("a: 2024-02-30", ":1", "'2024-02-30' is no timestamp; put it in quotes"),
        (f"a: {'9' * 5000}", ":1", "a number of 5000 characters; put it in quotes"),
        ('a: 1\npath: "x\\0y"', ":2", "null byte"),
        ('a: ["\\ud800"]', ":1", "half a character"),
        ("[" * 20_000, "", "nested too deeply"),
        ("a: &a [*a]", ":1", "entries"),
    ],
)
def test_a_value_that_yaml_cannot_hold_is_named_with_its_line(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_yaml(file)
    assert str(caught.value).startswith(f"{file}{place}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize("unit", ["[{}]", "{{<<: [{}]}}"], ids=["lists", "merges"])
def test_aliases_that_stand_for_billions_of_entries_are_refused_before_they_are_written_out(
    tmp_path: Path, unit: str
) -> None:
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} " + unit.format(", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 12)]
    (tmp_path / "a.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"a\.yaml:\d+: .*more than 1000000 entries"):
        read_yaml(tmp_path / "a.yaml")


def test_aliases_and_merges_of_ordinary_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


def test_a_yaml_of_many_megabytes_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.yaml").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(InputError, match="longer than 4 MiB"):
        read_yaml(tmp_path / "a.yaml")


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe.jpg")
    return tmp_path / "pipe.jpg"


def test_only_files_are_opened(pipe: Path) -> None:
    for special in (pipe, Path(os.devnull)):
        with pytest.raises(OSError, match="not a file but a pipe, socket or device"):
            open_regular(special)
    with pytest.raises(IsADirectoryError):
        open_regular(pipe.parent)
    (pipe.parent / "link.jpg").symlink_to(pipe)
    with pytest.raises(OSError, match="not a file but"):
        open_regular(pipe.parent / "link.jpg")


def test_pipes_among_images_are_left_out_and_named(pipe: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(pipe.with_name("a.jpg"))
    pipe.with_name("gone.jpg").symlink_to("nowhere.jpg")  # for the reader to report
    assert [path.name for path in find_images([pipe.parent])] == ["a.jpg", "gone.jpg"]
    assert caplog.messages == [f"{pipe}: not a file but a pipe, socket or device: skipped"]
    with pytest.raises(InputError, match="not a file but a pipe"):
        find_images([pipe])


def test_a_list_that_is_a_pipe_is_refused(pipe: Path) -> None:
    pipe = pipe.rename(pipe.with_suffix(".txt"))
    with pytest.raises(InputError, match="not a file but a pipe"):
        find_images([pipe])


@pytest.mark.parametrize("read", [read_yaml, read_json, read_image, image_hw], ids=lambda read: read.__name__)
def test_no_reader_waits_for_a_pipe(pipe: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises((OSError, InputError), match="not a file but a pipe"):
        read(pipe)


def test_a_label_file_that_is_a_pipe_costs_only_its_image(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    from utils.datasets.labels.scan import scan_labels

    make_dataset(tmp_path / "set")
    label = tmp_path / "set/labels/train/1.txt"
    label.unlink()
    os.mkfifo(label)
    found = scan_labels(find_images([tmp_path / "set/images/train"]), 2)
    assert [record.image.name for record in found.records] == ["0.png", "2.png", "3.png"]
    assert "not a file but a pipe" in found.report.findings[0].problem


def test_links_that_lead_nowhere_end_the_search_for_a_free_folder(tmp_path: Path) -> None:
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "exp").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="gone"):
        increment_path(tmp_path / "gone/exp", mkdir=True)
    assert increment_path(tmp_path / "exp", mkdir=True) == tmp_path / "exp2"
    assert not (tmp_path / "nowhere").exists()
