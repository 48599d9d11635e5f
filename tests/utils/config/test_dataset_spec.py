"""Data yamls."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from utils.config.dataset_spec import DatasetSpec
from utils.config.paths import ROOT
from utils.core.errors import InputError

SHIPPED = ("coco.yaml", "coco128.yaml", "VOC.yaml")


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "data.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("name", [*SHIPPED, "data/coco128.yaml", str(ROOT / "data/coco128.yaml")])
def test_a_shipped_file_is_found_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DatasetSpec.load(name).source == ROOT / "data" / Path(name).name


def test_all_paths_are_absolute_and_lists_are_kept(tmp_path: Path) -> None:
    file = write(tmp_path, "path: set\ntrain: [a, b/list.txt]\nval: /abs/c\nnames: [x]\n")
    spec = DatasetSpec.load(file)
    assert spec.train == (tmp_path / "set/a", tmp_path / "set/b/list.txt")
    assert spec.val == (Path("/abs/c"),)
    assert spec.test == ()


def test_path_is_taken_against_the_yaml_folder_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere/set/train").mkdir(parents=True)
    (tmp_path / "set/train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    spec = DatasetSpec.load(write(tmp_path / "yamls", "path: ../set\ntrain: train\nnames: [x]\n"))
    assert spec.sources("train") == [tmp_path / "set/train"]


def test_path_is_taken_against_the_working_directory_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here/set/train").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    spec = DatasetSpec.load(write(tmp_path / "yamls", "path: set\ntrain: train\nnames: [x]\n"))
    assert spec.root == tmp_path / "here/set"
    assert spec.sources("train") == [tmp_path / "here/set/train"]


def test_paths_written_on_windows_are_understood(tmp_path: Path) -> None:
    (tmp_path / "set/images/train").mkdir(parents=True)
    text = "path: .\\set\ntrain: images\\train\nval: [images\\val, ' b/c ']\nimages: other\\folder\nnames: [x]\n"
    spec = DatasetSpec.load(write(tmp_path, text))
    assert spec.sources("train") == [tmp_path / "set/images/train"]
    assert spec.val == (tmp_path / "set/images/val", tmp_path / "set/b/c")
    assert spec.images["val"] == tmp_path / "set/other/folder"


def test_a_labelling_service_that_writes_one_folder_too_high_is_understood(tmp_path: Path) -> None:
    (tmp_path / "export/train/images").mkdir(parents=True)
    file = write(tmp_path / "export", "train: ../train/images\nval: ../valid/images\nnames: [x]\n")
    spec = DatasetSpec.load(file)
    assert spec.sources("train") == [tmp_path / "export/train/images"]
    with pytest.raises(FileNotFoundError, match=r"val images not found; .* correct 'val:' or 'path:'"):
        spec.sources("val")
    (tmp_path / "train/images").mkdir(parents=True)  # what is written counts first
    assert DatasetSpec.load(file).sources("train") == [tmp_path / "train/images"]


def test_images_made_after_loading_are_found(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, "path: set\ntrain: images/train\nnames: [x]\ngenerate: digits\n"))
    assert spec.generate == "digits"
    (tmp_path / "set/images/train").mkdir(parents=True)
    assert spec.sources("train") == [tmp_path / "set/images/train"]


def test_missing_images_list_every_absolute_path_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    spec = DatasetSpec.load(write(tmp_path / "yamls", "path: set\ntrain: train\nnames: [x]\n"))
    with pytest.raises(FileNotFoundError) as caught:
        spec.sources("train")
    assert f"{tmp_path}/yamls/set/train, {tmp_path}/cwd/set/train" in str(caught.value)


def test_a_download_address_is_shown_and_never_fetched(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, "train: none\nnames: [x]\ndownload: https://example.org/x.zip\n"))
    with pytest.raises(FileNotFoundError, match=r"can be had from https://example\.org/x\.zip"):
        spec.sources("train")


def test_a_download_script_is_not_repeated_or_run(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, "train: none\nnames: [x]\ndownload: |\n  open('marker', 'w')\n"))
    with pytest.raises(FileNotFoundError) as caught:
        spec.sources("train")
    assert "marker" not in str(caught.value)
    assert not Path("marker").exists()


def test_a_split_the_yaml_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no 'test:' key"):
        DatasetSpec.load(write(tmp_path, "train: a\nnames: [x]\n")).sources("test")


@pytest.mark.parametrize(
    "text",
    ["names: [a, b]", "names: {0: a, 1: b}", "names: {1: b, 0: a}", "names: {'0': a, '1': b}", "nc: 2\nnames: [a, b]"],
)
def test_names_may_be_a_list_or_a_mapping_and_nc_is_optional(tmp_path: Path, text: str) -> None:
    spec = DatasetSpec.load(write(tmp_path, f"train: t\n{text}\n"))
    assert (spec.nc, spec.names) == (2, ("a", "b"))


def test_without_names_the_classes_are_numbered(tmp_path: Path) -> None:
    assert DatasetSpec.load(write(tmp_path, "train: t\nnc: 2\n")).names == ("class0", "class1")


def test_single_cls_makes_one_class_called_item(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, "train: t\nnames: [a, b]\n"), single_cls=True)
    assert (spec.nc, spec.names) == (1, ("item",))


def test_single_cls_keeps_the_name_of_a_lone_class(tmp_path: Path) -> None:
    assert DatasetSpec.load(write(tmp_path, "train: t\nnames: [a]\n"), single_cls=True).names == ("a",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: t\nnc: 3\nnames: [a, b]", "nc: 3 but names: has 2"),
        ("train: t\nnames: {0: a, 2: b}", "keys must be 0 to 1"),
        ("train: t\nnames: {1: a, 2: b}", "0 to 1, as classes are counted from 0; found 1, 2"),
        ("train: [[a, b]]\nnames: [a]", r"train: \['a', 'b'\] is not a path; give one, or a plain list of them"),
        ("train: t\nnames: [a, ]\nnc: 2", "nc: 2 but names: has 1"),
        ("train: t\nnames:\n- a\n-\n", "class 1 is None, not text; give its name only"),
        ("train: t\nnames:\n- {id: 0, name: a}\n", "class 0 is .*, not text; give its name only, such as - cat"),
        ("train: t\nnames: a", r"names: 'a' is not a list of class names; write names: \[a\]"),
        ("train: t\nnames: [猫，狗]", "names: has 1 entry; '猫，狗' has the wide sign '，': write ','"),
        ("train: t\nnames: []", r"names: \[\] is not a list"),
        ("train: t\nnc: two", "nc: 'two' is not a whole number"),
        ("train: t", "no classes"),
        ("names: [a]", "give at least one of train:, val:, test:"),
        ("trian: t\nnames: [a]", "unknown key 'trian'; did you mean 'train'"),
        ("train: t\nnmaes: [a]\nnc: 1", "unknown key 'nmaes'; did you mean 'names'"),
        ("train: t\nvla: t\nnames: [a]", "unknown key 'vla'; did you mean 'val'"),
        ("train: t\nvalid: t\nnames: [a]", "unknown key 'valid'; did you mean 'val'"),
        ("train: t\nclasses: [a]\nnc: 1", "unknown key 'classes'; did you mean 'names'"),
        ("train: t\nNames: [a]\nnc: 1", "unknown key 'Names'; did you mean 'names'"),
        ("train: t\nnames: [a]\ndifficulty: drop", "unknown key 'difficulty'; did you mean 'difficult'"),
        ("train: t\nnames：a: [a]\nnc: 1", "unknown key 'names：a'; the wide sign '：': write ':'"),
        (
            'train: "C:\\new\\train"\nnames: [a]',
            "train: .* has a line break.*; write the path in single quotes, or with /",
        ),
        (
            'path: "C:\\new"\ntrain: t\nnames: [a]',
            "path: .* has a line break.*; write the path in single quotes, or with /",
        ),
        ("train: [1]\nnames: [a]", "train: 1 is not a path"),
        ("path: [x]\ntrain: t\nnames: [a]", r"path: \['x'\] is not text"),
        ("train: t\nnames: [a]\ngenerate: 3", "generate: 3 is not text"),
        ("just text", "expected 'key: value' lines"),
        ("classes = 2\ntrain = a.txt", "expected 'key: value' lines .*, not 'key = value' as Darknet has it"),
        (
            "train: t\nnames:\n  0：a\n  1：b",
            "names: '0：a 1：b' is not a list .*; it has the wide sign '：': write ':'",
        ),
    ],
)
def test_a_mistake_names_file_key_and_cure(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=rf"data\.yaml: .*{message}"):
        DatasetSpec.load(write(tmp_path, text))


def test_notes_of_ones_own_and_of_other_tools_are_passed_over_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "train: t\nnames: [a]\nx-license: MIT\nroboflow:\n  version: 3\nauthor: me\nchannels: 3\ndate: 2024-01-01\n"
    assert DatasetSpec.load(write(tmp_path, text)).nc == 1
    assert [record.getMessage().partition("data.yaml: ")[2] for record in caplog.records] == [
        "keys without a meaning here are passed over: roboflow, author, channels, date"
    ]


ODD_NAMES = ("02146", "12:30", "1_000", "1.10", "0x1F", "007", "1e3", "yes", "null", "2024-01-01", "~", "0o17", ".inf")


@pytest.mark.parametrize(
    "form",
    [
        f"names: [{', '.join(ODD_NAMES)}]",
        "names:\n" + "".join(f"  - {name}\n" for name in ODD_NAMES),
        "names:\n" + "".join(f"  {i}: {name}\n" for i, name in enumerate(ODD_NAMES)),
        "x-first: &first 02146\nnames: [*first, " + ", ".join(ODD_NAMES[1:]) + "]",
        "x-first: &first\n  0: 02146\nnames:\n  <<: *first\n"
        + "".join(f"  {i}: '{name}'\n" for i, name in enumerate(ODD_NAMES[1:], 1)),
    ],
)
def test_a_name_that_yaml_takes_for_a_number_or_a_truth_value_is_the_text_as_written(tmp_path: Path, form: str) -> None:
    spec = DatasetSpec.load(write(tmp_path, f"train: t\nnc: '13'\n{form}\n"))
    assert spec.names == ODD_NAMES


def test_names_may_stand_in_a_file_with_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "obj.names").write_text("\ufeffcat\r\n007\r\n\r\n", encoding="utf-8")
    assert DatasetSpec.load(write(tmp_path, "train: t\nnames: obj.names\n")).names == ("cat", "007")
    (tmp_path / "obj.names").write_text("cat\n\ndog\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"obj\.names: expected a class name in every line"):
        DatasetSpec.load(write(tmp_path, "train: t\nnames: obj.names\n"))


@pytest.mark.skipif(os.name == "nt", reason="there it may be a path of this machine")
def test_a_path_of_a_windows_machine_is_named_as_such(tmp_path: Path) -> None:
    spec = DatasetSpec.load(write(tmp_path, "path: C:\\Users\\me\ntrain: images\nnames: [a]\n"))
    with pytest.raises(FileNotFoundError, match=r"'path:' with the place of the set on this machine \(C:/ is a drive"):
        spec.sources("train")


def test_a_missing_yaml_lists_the_places_tried() -> None:
    with pytest.raises(FileNotFoundError, match=r"data/nowhere\.yaml"):
        DatasetSpec.load("nowhere.yaml")


# COCO annotations as a split ------------------------------------------------------------------------------------------


def annotations(file: Path, **categories: int) -> Path:
    """A json with categories given as name=id."""
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = [{"id": number, "name": name} for name, number in categories.items()]
    file.write_text(json.dumps({"images": [], "annotations": [], "categories": entries}), encoding="utf-8")
    return file


def test_without_names_the_classes_are_those_of_the_first_json_by_ascending_id(tmp_path: Path) -> None:
    annotations(tmp_path / "train.json", dog=17, cat=3)
    spec = DatasetSpec.load(write(tmp_path, "train: train.json\nval: images\n"))
    assert (spec.nc, spec.names, spec.category_ids) == (2, ("cat", "dog"), (3, 17))


def test_with_names_in_the_yaml_category_ids_follow_these(tmp_path: Path) -> None:
    annotations(tmp_path / "val.json", dog=17, cat=3)
    spec = DatasetSpec.load(write(tmp_path, "train: images\nval: val.json\nnames: [dog, cow, cat]\n"))
    assert (spec.names, spec.category_ids) == (("dog", "cow", "cat"), (17, -1, 3))


def test_category_ids_are_those_of_the_json_that_is_scored_against(tmp_path: Path) -> None:
    annotations(tmp_path / "train.json", cat=3, dog=17)
    annotations(tmp_path / "val.json", dog=1, cat=2)
    spec = DatasetSpec.load(write(tmp_path, "train: train.json\nval: val.json\n"))
    assert (spec.names, spec.category_ids) == (("cat", "dog"), (2, 1))


def test_one_class_of_several_has_no_category_id_and_a_lone_one_keeps_its_own(tmp_path: Path) -> None:
    annotations(tmp_path / "two.json", cat=3, dog=17)
    annotations(tmp_path / "one.json", cat=3)
    assert DatasetSpec.load(write(tmp_path, "val: two.json\n"), single_cls=True).category_ids == ()
    assert DatasetSpec.load(write(tmp_path, "val: one.json\n"), single_cls=True).category_ids == (3,)


def roboflow(file: Path, used: tuple[int, ...] = (1, 2), parent: str = "pets", own: str = "none") -> Path:
    """A json as Roboflow exports it, with annotations of the categories ``used``."""
    categories = [{"id": 0, "name": "pets", "supercategory": own}]
    categories += [{"id": i, "name": name, "supercategory": parent} for i, name in enumerate(("cat", "dog"), 1)]
    annotations = [{"id": i, "image_id": 1, "category_id": number} for i, number in enumerate(used)]
    file.write_text(json.dumps({"images": [], "categories": categories, "annotations": annotations}), encoding="utf-8")
    return file


def test_a_category_that_is_only_the_supercategory_of_the_others_is_no_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    roboflow(tmp_path / "a.json")
    spec = DatasetSpec.load(write(tmp_path, "train: a.json\nval: a.json\n"))
    assert (spec.names, spec.category_ids) == (("cat", "dog"), (1, 2))
    assert "dropped as only the supercategory of others: category 0 'pets'; 'names:' keeps it" in caplog.text
    assert DatasetSpec.load(write(tmp_path, "train: a.json\nnames: [pets, cat, dog]\n")).names == ("pets", "cat", "dog")


@pytest.mark.parametrize(
    ("rows", "names", "ids"),
    [
        ([(0, "a", "none"), (1, "cat", "a"), (2, "b", ""), (3, "dog", "b")], ("cat", "dog"), (1, 3)),
        ([(1, "pets", ""), (2, "cat", "pets"), (7, "dog", "pets")], ("cat", "dog"), (2, 7)),
        ([(0, "pets", "pets"), (1, "cat", "pets"), (2, "dog", "pets")], ("cat", "dog"), (1, 2)),
        ([(0, "pets", ""), (1, "cat", "pets"), (2, "car", "")], ("cat", "car"), (1, 2)),
        ([(0, "cat", "cat"), (1, "dog", "pets")], ("cat", "dog"), (0, 1)),
    ],
    ids=["two of them, as in merged sets", "id 1", "its own supercategory", "not of all others", "none"],
)
def test_every_category_that_is_only_a_supercategory_is_left_out(
    tmp_path: Path, rows: list[tuple[int, str, str]], names: tuple[str, ...], ids: tuple[int, ...]
) -> None:
    categories = [{"id": number, "name": name, "supercategory": parent} for number, name, parent in rows]
    whole = {"images": [], "categories": categories, "annotations": [{"category_id": number} for number in ids]}
    (tmp_path / "a.json").write_text(json.dumps(whole), encoding="utf-8")
    spec = DatasetSpec.load(write(tmp_path, "train: a.json\n"))
    assert (spec.names, spec.category_ids) == (names, ids)


def test_a_supercategory_with_objects_in_train_keeps_its_number_where_val_has_none(tmp_path: Path) -> None:
    roboflow(tmp_path / "a.json", used=(0, 1))
    roboflow(tmp_path / "b.json")
    assert DatasetSpec.load(write(tmp_path, "train: a.json\nval: b.json\n")).category_ids == (0, 1, 2)


def test_a_supercategory_called_like_the_only_class_is_no_second_class(tmp_path: Path) -> None:
    categories = [{"id": 0, "name": "cat", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "cat"}]
    whole = {"images": [], "annotations": [{"id": 0, "category_id": 1}], "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(whole), encoding="utf-8")
    spec = DatasetSpec.load(write(tmp_path, "val: a.json\n"))
    assert (spec.names, spec.category_ids) == (("cat",), (1,))


@pytest.mark.parametrize(
    "changes", [{"used": (1, 0)}, {"parent": "none"}, {"own": "animals"}], ids=["used", "no parent", "has a parent"]
)
def test_a_category_0_that_may_be_a_class_stays_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    roboflow(tmp_path / "a.json", **changes)
    assert DatasetSpec.load(write(tmp_path, "train: a.json\n")).names == ("pets", "cat", "dog")


def test_a_category_0_used_in_another_split_stays_a_class(tmp_path: Path) -> None:
    roboflow(tmp_path / "a.json")
    roboflow(tmp_path / "b.json", used=(0,))
    assert DatasetSpec.load(write(tmp_path, "train: a.json\nval: b.json\n")).names == ("pets", "cat", "dog")


def test_a_set_without_json_has_no_category_ids(tmp_path: Path) -> None:
    assert DatasetSpec.load(write(tmp_path, "val: images\nnames: [a]\n")).category_ids == ()


def test_categories_are_found_wherever_they_are_in_the_file(tmp_path: Path) -> None:
    text = '{"info": {"about": "\\"categories\\""}, "categories" : [{"id": 5, "name": "猫"}], "images": []}'
    (tmp_path / "val.json").write_text(text, encoding="utf-8-sig")
    assert DatasetSpec.load(write(tmp_path, "val: val.json\n")).names == ("猫",)
    nested = '{"info": {"categories": []}, "categories": [{"id": 5, "name": "cat"}]}'
    (tmp_path / "val.json").write_text(nested, encoding="utf-8")
    assert DatasetSpec.load(write(tmp_path, "val: val.json\n")).names == ("cat",)


def test_images_of_annotations_are_one_folder_or_one_for_each_split(tmp_path: Path) -> None:
    (tmp_path / "set/pics").mkdir(parents=True)
    head = "path: set\ntrain: a\nval: b\nnames: [x]\n"
    assert DatasetSpec.load(write(tmp_path, head)).images == {}
    everywhere = dict.fromkeys(("train", "val", "test"), tmp_path / "set/pics")
    assert DatasetSpec.load(write(tmp_path, f"{head}images: pics\n")).images == everywhere
    spec = DatasetSpec.load(write(tmp_path, f"{head}images: {{train: pics, val: /abs}}\n"))
    assert spec.images == {"train": tmp_path / "set/pics", "val": Path("/abs")}


def test_a_null_for_the_names_is_none(tmp_path: Path) -> None:
    assert DatasetSpec.load(write(tmp_path, "train: t\nnc: 1\nnames: ~\n")).names == ("class0",)


@pytest.mark.parametrize(("line", "crowd"), [("", None), ("crowd: keep", "keep"), ("crowd: drop", "drop")])
def test_crowds_may_be_kept_or_dropped(tmp_path: Path, line: str, crowd: str | None) -> None:
    assert DatasetSpec.load(write(tmp_path, f"train: t\nnames: [a]\n{line}\n")).crowd == crowd


@pytest.mark.parametrize(("line", "drop"), [("", False), ("difficult: keep", False), ("difficult: drop", True)])
def test_difficult_objects_are_kept_unless_the_yaml_says_drop(tmp_path: Path, line: str, drop: bool) -> None:
    assert DatasetSpec.load(write(tmp_path, f"train: t\nnames: [a]\n{line}\n")).drop_difficult is drop


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: t\nnames: [a]\nimages: 3", "images: 3 is not a folder"),
        ("train: t\nnames: [a]\nimages: {trian: x}", "images: unknown split 'trian'; did you mean 'train'"),
        ("train: t\nnames: [a]\nimages: {train: [x]}", r"images: \['x'\] is not a folder"),
        ("train: t\nnames: [a]\nkpt_shape: 17", r"kpt_shape: 17 is not \[number of key points"),
        ("train: t\nnames: [a]\ndifficult: maybe", "difficult: 'maybe' is unknown; allowed is keep or drop"),
        ("train: t\nnames: [a]\ncrowd: no", "crowd: False is unknown; allowed is keep or drop"),
        ("train: t\nnames: [a]\ncrowds: keep", "unknown key 'crowds'; did you mean 'crowd'"),
        ("train: t\nnames: [a]\ndifficult: [keep]", r"difficult: \['keep'\] is unknown"),
        ("train: cats.json\nnc: 3", r"nc: 3 but .*cats\.json has 2 categories"),
    ],
)
def test_a_mistake_about_annotations_names_file_key_and_cure(tmp_path: Path, text: str, message: str) -> None:
    annotations(tmp_path / "cats.json", a=1, b=2)
    with pytest.raises(InputError, match=rf"data\.yaml: .*{message}"):
        DatasetSpec.load(write(tmp_path, text))


def test_a_json_that_should_give_the_names_and_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations not found: .*/gone\.json"):
        DatasetSpec.load(write(tmp_path, "train: gone.json\n"))


def test_a_json_that_is_missing_matters_only_when_it_is_read(tmp_path: Path) -> None:
    assert DatasetSpec.load(write(tmp_path, "train: gone.json\nnames: [a]\n")).names == ("a",)
