"""From one label format to another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from tools.convert import REPORT, ConvertOptions, convert, main, read_names
from utils.config.cli import parse, run_script
from utils.config.dataset_spec import DatasetSpec
from utils.core.errors import InputError
from utils.datasets.labels.records import LabelRecord
from utils.datasets.labels.splits import load_labels

NAMES = ["cat", "dog", "长颈鹿"]
ROWS = (
    "0 0.2 0.2 0.2 0.2\n2 0.333333 0.111111 0.123457 0.054321\n",
    "1 0.1 0.1 0.4 0.1 0.4 0.35 0.2 0.5\n2 0.5 0.5 1 1\n0 0.1 0.1 0.0123 0.0456\n",
    "",
    "1 0.000005 0.000005 0.00001 0.00001\n",
)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Data yaml of a YOLO set with boxes, an outline, background and names that are not ASCII."""
    for split, names in (("train", ("0", "图片 一", "b/2")), ("val", ("0",))):
        for place, name in enumerate(names):
            image = tmp_path / f"set/images/{split}/{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((480, 640, 3), 10 * place, np.uint8)
            image.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            text(tmp_path / f"set/labels/{split}/{name}.txt", ROWS[place if split == "train" else 3])
    content = {"train": "images/train", "val": "images/val", "names": NAMES}
    text(tmp_path / "set/data.yaml", yaml.safe_dump(content, allow_unicode=True))
    return tmp_path / "set/data.yaml"


def to(source: Path | str, kind: str, output: Path, **more: object) -> Path:
    return convert(ConvertOptions(source=str(source), to=kind, output=str(output), **more))  # type: ignore[arg-type]


def records(data: Path, split: str) -> list[LabelRecord]:
    return load_labels(DatasetSpec.load(data), split).records


def assert_same(first: Path, second: Path, outlines: bool = True) -> None:
    for split in ("train", "val"):
        ours, theirs = records(first, split), records(second, split)
        assert len(ours) == len(theirs)
        by_stem = {record.image.stem: record for record in ours}
        for b in theirs:
            a = by_stem[b.image.stem]
            assert a.hw == b.hw
            np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
            if outlines:
                assert len(a.segments) == len(b.segments)
                for p, q in zip(a.segments, b.segments):
                    np.testing.assert_allclose(p, q, atol=1e-4)


# Round trips ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"link": True}, {"copy_images": True}])
@pytest.mark.parametrize("kind", ["yolo", "coco", "voc"])
def test_what_is_written_reads_the_same(source: Path, tmp_path: Path, kind: str, how: dict[str, bool]) -> None:
    written = to(source, kind, tmp_path / kind, **how)
    assert_same(source, written, outlines=kind != "voc")
    names = [path.name for path in (tmp_path / kind).rglob("*.png")]
    assert sorted(names) == ["0.png", "0.png", "2.png", "图片 一.png"]
    assert all(path.is_symlink() == ("link" in how) for path in (tmp_path / kind).rglob("*.png"))


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_annotations_find_images_that_stayed_where_they_were(source: Path, tmp_path: Path, kind: str) -> None:
    written = to(source, kind, tmp_path / kind)
    assert_same(source, written, outlines=kind != "voc")
    assert not list((tmp_path / kind).rglob("*.png"))


def test_there_and_back_through_all_formats(source: Path, tmp_path: Path) -> None:
    coco = to(source, "coco", tmp_path / "coco")
    back = to(coco, "yolo", tmp_path / "yolo", link=True)
    assert_same(source, back)
    voc = to(back, "voc", tmp_path / "voc", copy_images=True)
    assert_same(source, voc, outlines=False)
    assert_same(source, to(voc, "yolo", tmp_path / "end", link=True), outlines=False)
    assert_same(source, to(voc, "coco", tmp_path / "coco2"), outlines=False)


def test_label_rows_are_hand_checked(source: Path, tmp_path: Path) -> None:
    to(to(source, "coco", tmp_path / "coco"), "yolo", tmp_path / "yolo", link=True)
    rows = [line.split() for line in (tmp_path / "yolo/labels/train/图片 一.txt").read_text().splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "0"]
    np.testing.assert_allclose(np.array(rows[0][1:], float), [0.1, 0.1, 0.4, 0.1, 0.4, 0.35, 0.2, 0.5], atol=1e-6)
    np.testing.assert_allclose(np.array(rows[1][1:], float), [0.5, 0.5, 1, 1], atol=1e-6)
    assert (tmp_path / "yolo/labels/train/b/2.txt").read_text() == ""


def test_a_coco_file_has_what_its_readers_expect(source: Path, tmp_path: Path) -> None:
    to(source, "coco", tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text(encoding="utf-8"))
    assert content["categories"] == [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
    assert [image["file_name"] for image in content["images"]] == ["0.png", "b/2.png", "图片 一.png"]
    assert content["images"][0] == {"id": 1, "file_name": "0.png", "width": 640, "height": 480}
    first, outlined = content["annotations"][0], content["annotations"][2]
    assert first == {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": [64.0, 48.0, 128.0, 96.0], "area": 12288.0, "iscrowd": 0,
        "segmentation": [],
    }  # fmt: skip
    assert outlined["segmentation"] == [[64.0, 48.0, 256.0, 48.0, 256.0, 168.0, 128.0, 240.0]]
    assert outlined["area"] == pytest.approx(26112)  # half of |-9216 + 30720 + 39936 - 9216|
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4, 5]


def test_images_called_by_a_number_keep_it_as_id(source: Path, tmp_path: Path) -> None:
    to(source, "coco", tmp_path / "coco")
    content = json.loads((tmp_path / "coco/annotations/instances_val.json").read_text(encoding="utf-8"))
    assert content["images"][0]["id"] == 0


def test_category_ids_survive_from_coco_to_coco(tmp_path: Path, source: Path) -> None:
    to(source, "coco", tmp_path / "a")
    for split in ("train", "val"):
        file = tmp_path / f"a/annotations/instances_{split}.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        for entry in [*content["categories"], *content["annotations"]]:
            key = "id" if "name" in entry else "category_id"
            entry[key] = entry[key] * 10 + 3
        file.write_text(json.dumps(content), encoding="utf-8")
    to(tmp_path / "a/data.yaml", "coco", tmp_path / "b")
    content = json.loads((tmp_path / "b/annotations/instances_train.json").read_text(encoding="utf-8"))
    assert [category["id"] for category in content["categories"]] == [13, 23, 33]
    assert {annotation["category_id"] for annotation in content["annotations"]} == {13, 23, 33}


def test_voc_ids_are_flat_where_names_differ_and_have_the_split_where_they_do_not(source: Path, tmp_path: Path) -> None:
    to(source, "voc", tmp_path / "voc")
    ids = (tmp_path / "voc/ImageSets/Main/train.txt").read_text(encoding="utf-8").splitlines()
    assert ids == ["train/0", "train/b/2", "train/图片 一"]
    (source.parent / "images/val/0.png").rename(source.parent / "images/val/9.png")
    to(source, "voc", tmp_path / "flat")
    assert (tmp_path / "flat/ImageSets/Main/train.txt").read_text(encoding="utf-8") == "0\n2\n图片 一\n"
    assert (tmp_path / "flat/Annotations/9.xml").is_file()


def test_an_outline_that_does_not_span_its_box_gives_way_to_it(source: Path, tmp_path: Path) -> None:
    to(source, "coco", tmp_path / "coco")
    file = tmp_path / "coco/annotations/instances_train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["annotations"][2]["bbox"] = [60, 40, 200, 210]
    file.write_text(json.dumps(content), encoding="utf-8")
    written = to(tmp_path / "coco/data.yaml", "yolo", tmp_path / "yolo", link=True)
    assert_same(tmp_path / "coco/data.yaml", written, outlines=False)
    assert "1 outline could not be kept" in (tmp_path / "yolo" / REPORT).read_text(encoding="utf-8")


# Sources --------------------------------------------------------------------------------------------------------------


def test_a_json_a_voc_folder_and_a_yolo_folder_are_sources_of_their_own(source: Path, tmp_path: Path) -> None:
    to(source, "coco", tmp_path / "coco", copy_images=True)
    file = to(tmp_path / "coco/annotations/instances_val.json", "yolo", tmp_path / "1", link=True)
    assert DatasetSpec.load(file).names == tuple(NAMES)
    assert len(records(file, "val")) == 1
    to(source, "voc", tmp_path / "voc", copy_images=True)
    file = to(tmp_path / "voc", "yolo", tmp_path / "2", link=True)
    assert DatasetSpec.load(file).names == ("cat", "dog", "长颈鹿")
    assert len(records(file, "train")) == 3
    file = to(source.parent, "coco", tmp_path / "3", names=str(source))
    assert_same(source, file)
    file = to(tmp_path / "voc/Annotations", "coco", tmp_path / "4", names=str(source))
    assert len(records(file, "train")) == 4


def test_names_of_voc_files_are_sorted_unless_they_are_given(source: Path, tmp_path: Path) -> None:
    to(source, "voc", tmp_path / "voc", copy_images=True)
    text(tmp_path / "names.yaml", yaml.safe_dump({"names": NAMES[::-1]}, allow_unicode=True))
    file = to(tmp_path / "voc", "yolo", tmp_path / "out", names=str(tmp_path / "names.yaml"), link=True)
    assert DatasetSpec.load(file).names == tuple(NAMES[::-1])
    record = next(r for r in records(file, "train") if r.image.stem == "0")
    assert record.boxes[:, 0].tolist() == [2, 0]


def test_other_names_for_a_yaml_rename_the_classes_of_label_files(source: Path, tmp_path: Path) -> None:
    text(tmp_path / "n.yaml", "names: [x, y, z]")
    assert DatasetSpec.load(to(source, "coco", tmp_path / "out", names=str(tmp_path / "n.yaml"))).names == (
        "x",
        "y",
        "z",
    )


def test_another_order_of_names_takes_its_category_ids_along(source: Path, tmp_path: Path) -> None:
    first = to(source, "coco", tmp_path / "a")
    text(tmp_path / "n.yaml", yaml.safe_dump({"names": NAMES[::-1]}, allow_unicode=True))
    second = to(first, "coco", tmp_path / "b", names=str(tmp_path / "n.yaml"))
    by_name = [
        {DatasetSpec.load(file).names[int(c)] for record in records(file, "train") for c in record.boxes[:, 0]}
        for file in (first, second)
    ]
    assert by_name[0] == by_name[1] == set(NAMES)
    content = json.loads((tmp_path / "b/annotations/instances_val.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert names[content["annotations"][0]["category_id"]] == "dog"


def test_images_of_a_json_elsewhere_are_found_by_the_option(source: Path, tmp_path: Path) -> None:
    to(source, "coco", tmp_path / "coco")
    file = tmp_path / "coco/annotations/instances_val.json"
    with pytest.raises(FileNotFoundError, match=r"none of its images found \(1 of them\)"):
        to(file, "yolo", tmp_path / "out")
    written = to(file, "yolo", tmp_path / "out", images=str(source.parent / "images/val"), link=True)
    assert len(records(written, "val")) == 1


def test_the_source_stays_as_it_is(source: Path, tmp_path: Path) -> None:
    before = sorted(source.parent.rglob("*"))
    to(source, "coco", tmp_path / "coco", link=True)
    assert sorted(source.parent.rglob("*")) == before


@pytest.mark.parametrize("form", ["names: [a, 007]", "names: {0: a, 1: 007}", "[a, 007]"])
def test_names_are_read_from_a_data_yaml_or_a_plain_list(tmp_path: Path, form: str) -> None:
    text(tmp_path / "n.yaml", form)
    assert read_names(tmp_path / "n.yaml") == ("a", "007")


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("names: 3", "names: 3 is not a list of class names"),
        ("nc: 2", "no names: with a list"),
        ("names: {1: a}", "names: the keys must be 0 to 0"),
        ("names: []", r"names: \[\] is not a list"),
        ("names: [[a]]", r"names: class 0 is \['a'\], not text"),
    ],
)
def test_a_yaml_without_names_is_named(tmp_path: Path, form: str, problem: str) -> None:
    text(tmp_path / "n.yaml", form)
    with pytest.raises(InputError, match=rf"n\.yaml: {problem}"):
        read_names(tmp_path / "n.yaml")


def test_names_are_read_from_the_list_of_a_labelling_tool(tmp_path: Path) -> None:
    text(tmp_path / "obj.names", "cat\n02146\n\n")
    assert read_names(tmp_path / "obj.names") == ("cat", "02146")


# What can go wrong ----------------------------------------------------------------------------------------------------


def test_a_folder_in_use_is_left_alone_unless_the_user_says_so(source: Path, tmp_path: Path) -> None:
    text(tmp_path / "out/data.yaml", "mine")
    with pytest.raises(InputError, match=r"out: has files in it.*--exist-ok"):
        to(source, "coco", tmp_path / "out")
    assert (tmp_path / "out/data.yaml").read_text() == "mine"
    to(source, "coco", tmp_path / "out", exist_ok=True)
    to(source, "coco", tmp_path / "out", exist_ok=True, copy_images=True)
    to(source, "coco", tmp_path / "out", exist_ok=True, link=True)
    assert_same(source, tmp_path / "out/data.yaml")


@pytest.mark.parametrize("kind", ["yolo", "coco", "voc"])
def test_writing_over_the_source_itself_is_refused_and_nothing_is_lost(source: Path, kind: str) -> None:
    before = {file: file.read_bytes() for file in source.parent.rglob("*.*")}
    with pytest.raises(InputError, match="would overwrite the input"):
        to(source, kind, source.parent, exist_ok=True, link=True)
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("how", [{}, {"link": True}, {"copy_images": True}])
@pytest.mark.parametrize("name", ["../../../victim/b.png", "a/../../../../victim/b.png", "ABSOLUTE"])
def test_an_image_that_a_json_names_elsewhere_is_written_below_the_output_folder_only(
    tmp_path: Path, name: str, how: dict[str, bool]
) -> None:
    deep, victim = tmp_path / "x/set/images", tmp_path / "victim/b.png"
    for file in (deep / "a/a.png", victim):
        file.parent.mkdir(parents=True)
        file.write_bytes(cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes())
    text(tmp_path / "victim/b.txt", "mine")
    name = str(victim) if name == "ABSOLUTE" else name
    images = [{"id": 1, "file_name": "a/a.png"}, {"id": 2, "file_name": name}]
    boxes = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 9, 9]} for i in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "c"}]}
    text(tmp_path / "x/set/images/set.json", json.dumps(content))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    for kind in ("yolo", "voc", "coco"):
        to(tmp_path / "x/set/images/set.json", kind, tmp_path / "y" / kind, **how)
    after = {file for file in tmp_path.rglob("*.*") if not file.is_relative_to(tmp_path / "y")}
    assert after == before.keys() and {file: file.read_bytes() for file in before} == before
    assert sorted(file.name for file in (tmp_path / "y/yolo/labels").rglob("*.txt")) == ["a.txt", "b.txt"]


def test_links_of_an_earlier_conversion_are_replaced_and_not_followed(source: Path, tmp_path: Path) -> None:
    to(source, "yolo", tmp_path / "out", link=True)
    before = {file: file.read_bytes() for file in source.parent.rglob("*.png")}
    to(source, "yolo", tmp_path / "out", copy_images=True, exist_ok=True)
    place = tmp_path / "out/images/train/0.png"
    place.unlink()
    place.symlink_to(source.parent / "images/val/0.png")
    to(source, "yolo", tmp_path / "out", link=True, exist_ok=True)
    assert place.resolve() == source.parent / "images/train/0.png"
    assert {file: file.read_bytes() for file in before} == before


def test_an_error_in_the_source_writes_nothing(source: Path, tmp_path: Path) -> None:
    text(source.parent / "labels/val/0.txt", "9 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match=r"0\.txt:1 \(class 9\)"):
        to(source, "coco", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_images_of_one_name_are_refused_where_they_would_share_labels(source: Path, tmp_path: Path) -> None:
    folder = source.parent / "images/val"
    (folder / "0.bmp").write_bytes(cv2.imencode(".bmp", np.zeros((32, 32, 3), np.uint8))[1].tobytes())
    with pytest.raises(InputError, match=r"0\.bmp and .*0\.png would share labels/val/0\.txt"):
        to(source, "yolo", tmp_path / "out", link=True)


def test_the_report_says_what_was_dropped_and_why(source: Path, tmp_path: Path) -> None:
    text(source.parent / "labels/val/0.txt", "0 0.5 0.5 0.1 0.1\n0 0.5 0.5 -1 0.1\n0 0.5 0.5 0.1 0.1\n")
    to(source, "coco", tmp_path / "out")
    report = (tmp_path / "out" / REPORT).read_text(encoding="utf-8")
    assert "train: 3 images (1 without objects), 5 boxes of 3 classes, 1 outline" in report
    assert "val: 1 image (0 without objects), 1 box of 1 class, 0 outlines" in report
    assert "    长颈鹿: 2" in report
    assert "not taken over: 2" in report
    assert "labels/val/0.txt:2: 0 0.5 0.5 -1 0.1: width and height must be above 0" in report
    assert "labels/val/0.txt:3" in report


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.yaml", "none.yaml"),
        (lambda folder: folder / "none", "no such file or folder"),
        (lambda folder: folder / "set/images/train", "have no class names; give --names"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(
    source: Path, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises((InputError, FileNotFoundError), match=message):
        to(make(tmp_path), "coco", tmp_path / "out")


def test_names_of_another_number_than_the_yaml_has_are_refused(source: Path, tmp_path: Path) -> None:
    text(tmp_path / "n.yaml", "names: [a]")
    with pytest.raises(InputError, match=r"n\.yaml has 1 name, .* 3"):
        to(source, "coco", tmp_path / "out", names=str(tmp_path / "n.yaml"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "x"], "--source is missing"),
        (["--source", "x"], "--output is missing"),
        (["--source", "x", "--output", "y", "--to", "kitti"], "invalid choice: 'kitti'"),
        (["--source", "x", "--output", "y", "--link", "--copy-images"], "exclude each other"),
    ],
)
def test_options_that_do_not_fit_end_with_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(ConvertOptions, argv)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("log_handlers_restored")
def test_the_command_says_where_the_result_is(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--source", str(source), "--to", "yolo", "--output", str(tmp_path / "out")]
    assert run_script(main, ConvertOptions, argv) == 0
    out = "".join(capsys.readouterr())
    assert f"written: {tmp_path / 'out/data.yaml'}" in out
    assert "the images belong into" in out
    assert run_script(main, ConvertOptions, argv) == 1
    assert "has files in it" in "".join(capsys.readouterr())


def renamed(source: Path, *names: str) -> Path:
    content = {**yaml.safe_load(source.read_text(encoding="utf-8")), "names": list(names)}
    text(source, yaml.safe_dump(content, allow_unicode=True))
    return source


def test_names_with_spaces_around_them_survive_voc(source: Path, tmp_path: Path) -> None:
    source = renamed(source, " cat ", "cat", "=1e3\tdog")
    written = to(source, "voc", tmp_path / "voc", copy_images=True)
    assert DatasetSpec.load(written).names == (" cat ", "cat", "=1e3\tdog")
    renamed(source, " cat ", "bird", "=1e3\tdog")
    written = to(source, "voc", tmp_path / "voc2", copy_images=True)
    assert_same(source, written, outlines=False)


def test_a_name_that_xml_cannot_hold_is_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"class 1 is 'd\\x01g': xml cannot hold"):
        to(renamed(source, "cat", "d\x01g", "x"), "voc", tmp_path / "voc", copy_images=True)
    assert not (tmp_path / "voc").exists()


def test_converting_a_json_reports_the_supercategory_that_is_left_out(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    to(source, "coco", tmp_path / "coco", copy_images=True)
    file = tmp_path / "coco/annotations/instances_train.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    classes = [{**category, "supercategory": "pets"} for category in content["categories"]]
    content["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}, *classes]
    file.write_text(json.dumps(content), encoding="utf-8")
    assert DatasetSpec.load(to(file, "yolo", tmp_path / "yolo")).names == tuple(NAMES)
    assert "only the supercategory of others: category 0 'pets'" in caplog.text
