"""The check command: exit codes, what it finds, what it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tools.check import CheckOptions, main
from utils.config.cli import run_script
from utils.core.errors import InputError

pytestmark = pytest.mark.usefixtures("log_handlers_restored")


@pytest.fixture
def data(tmp_path: Path, make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean set; plots, which take longer than all the rest, are left out."""
    for name in ("plot_labels", "plot_box_sizes"):
        monkeypatch.setattr(f"tools.check.{name}", lambda *_: None)
    return make_dataset(tmp_path / "set")


def run(data: Path, folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report.json."""
    given = ["--data", str(data), "--report", str(folder), "--workers", "1", "--imgsz", "64", *arguments]
    code = run_script(main, CheckOptions, given)
    return code, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def found(report: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    return {(f["split"], f["kind"], Path(f["file"]).name, f["line"]) for f in report["findings"]}


def test_a_clean_set_gives_zero_and_all_files(tmp_path: Path, make_dataset, capfd) -> None:  # type: ignore[no-untyped-def]
    data = make_dataset(tmp_path / "set")
    code, report = run(data, tmp_path / "out", "--decode")
    assert code == 0 and report["clean"] and report["findings"] == []
    assert report["splits"]["train"]["images"] == 4
    assert report["splits"]["val"]["boxes_of_class"] == {"0 red": 2, "1 green": 2}
    assert "nothing found" in "".join(capfd.readouterr())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    plots = {f"{split}_{kind}.png" for split in ("train", "val") for kind in ("labels", "sizes")}
    assert names == {"report.txt", "report.json", *plots}


@pytest.mark.parametrize(
    ("crowds", "line", "code"), [(2, "", 1), (1, "", 1), (1, "crowd: drop", 0), (2, "crowd: keep", 0)]
)
def test_crowds_left_out_unasked_are_a_loss(data: Path, tmp_path: Path, crowds: int, line: str, code: int) -> None:
    boxes = [{"id": i, "image_id": 1, "category_id": 1, "bbox": [5 + 9 * i, 5, 9, 9]} for i in range(2)]
    whole = {
        "images": [{"id": 1, "file_name": "0.png"}],
        "annotations": [{**box, "iscrowd": int(i < crowds)} for i, box in enumerate(boxes)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (data.parent / "all.json").write_text(json.dumps(whole), encoding="utf-8")
    data.write_text(f"train: all.json\nimages: images/train\n{line}\n", encoding="utf-8")
    found_code, report = run(data, tmp_path / "out")
    assert found_code == code
    assert report["counts"].get("crowd annotation", 0) == (crowds if code else 0)


def test_everything_wrong_is_found_with_file_and_line(data: Path, tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    root = data.parent
    images, labels = root / "images", root / "labels"
    good = (labels / "train/0.txt").read_text()
    (labels / "train/0.txt").write_text(good + "0 0.4 0.3 -0.7 0.35\n" + good + "5 0.5 0.5 0.1 0.1\n0 0.5 0.5 1 1\n")
    (images / "train/1.png").write_bytes(b"no image")
    (labels / "train/2.txt").unlink()
    shutil.copy(images / "train/3.png", images / "val/copy.png")
    (labels / "val/copy.txt").write_text("1 0.1 0.1 0.1 0.1\n")
    (labels / "val/orphan.txt").write_text(good)
    code, report = run(data, tmp_path / "out")
    assert code == 1 and not report["clean"]
    expected = {
        ("train", "bad row", "0.txt", 2),
        ("train", "repeated row", "0.txt", 3),
        ("train", "unknown class", "0.txt", 4),
        ("train", "box of the whole image", "0.txt", 5),
        ("train", "unusable image", "1.png", 0),
        ("train", "no label file", "2.png", 0),
        ("val", "image of the training set in another split", "copy.png", 0),
        ("val", "identical images, different labels", "copy.txt", 0),
        ("val", "label file without image", "orphan.txt", 0),
    }
    assert expected <= found(report)
    row = next(f for f in report["findings"] if f["kind"] == "bad row")
    assert (row["value"], row["action"], row["grave"]) == ("0 0.4 0.3 -0.7 0.35", "row dropped", True)
    text = (tmp_path / "out/report.txt").read_text(encoding="utf-8")
    assert f"{labels / 'train/0.txt'}:2: 0 0.4 0.3 -0.7 0.35" in text
    out = "".join(capfd.readouterr())
    assert "Traceback" not in out and "1 bad row" in out


def test_what_is_said_of_a_box_with_key_points_has_its_line(data: Path, tmp_path: Path) -> None:
    (data.parent / "labels/train/0.txt").write_text("\n0 0.5 0.5 1 1 0.2 0.2 2\n")
    data.write_text(data.read_text() + "kpt_shape: [1, 3]\n")
    _, report = run(data, tmp_path / "out")
    assert [f["line"] for f in report["findings"] if f["kind"] == "box of the whole image"] == [2]


def test_oddities_that_lose_nothing_leave_the_code_at_zero(data: Path, tmp_path: Path) -> None:
    (data.parent / "labels/train/0.txt").write_text("0 0.5 0.5 1 1\n0 0.5 0.5 0.01 0.01\n")
    (data.parent / "labels/train/2.txt").write_text("")
    data.write_text(data.read_text().replace("- green\n", "- green\n- never\n"))
    code, report = run(data, tmp_path / "out")
    assert code == 0
    assert {f["kind"] for f in report["findings"]} == {
        "box of the whole image",
        "box without pixels",
        "class without boxes",
    }


def test_damage_in_the_middle_needs_decode(data: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    content = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    content[len(content) // 2 :][:64] = bytes(64)
    half = len(content) // 2
    (data.parent / "images/val/9.jpg").write_bytes(bytes(content[:half]) + bytes(64) + bytes(content[half + 64 :]))
    (data.parent / "labels/val/9.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert run(data, tmp_path / "out")[0] == 0
    code, report = run(data, tmp_path / "out", "--decode")
    assert code == 1
    assert found(report) == {("val", "damaged image", "9.jpg", 0)}


def test_the_same_folder_for_train_and_val_is_a_leak_of_every_image(data: Path, tmp_path: Path) -> None:
    data.write_text(data.read_text().replace("images/val", "images/train"))
    code, report = run(data, tmp_path / "out")
    assert code == 1
    assert report["counts"] == {"image of the training set in another split": 4}


def test_one_split_alone_and_a_missing_split(data: Path, tmp_path: Path) -> None:
    code, report = run(data, tmp_path / "out", "--task", "val")
    assert code == 0 and list(report["splits"]) == ["val"]
    shutil.rmtree(data.parent / "images/train")
    code, report = run(data, tmp_path / "out")
    assert code == 1 and list(report["splits"]) == ["val"]
    assert [(f["split"], f["kind"]) for f in report["findings"]] == [("train", "unusable split")]


def test_wrong_use_gives_two(data: Path, tmp_path: Path, capfd) -> None:  # type: ignore[no-untyped-def]
    for arguments in (["--data", "none.yaml"], ["--data", str(data), "--task", "test"]):
        assert run_script(main, CheckOptions, [*arguments, "--report", str(tmp_path / "out")]) == 2
    for arguments in (["--imgsz", "8"], ["--task", "all"], ["--dekode"]):
        with pytest.raises(SystemExit) as caught:
            run_script(main, CheckOptions, arguments)
        assert caught.value.code == 2
    assert not (tmp_path / "out").exists()
    assert "has no 'test:' key" in "".join(capfd.readouterr())


def test_the_cache_may_lie_elsewhere(data: Path, tmp_path: Path) -> None:
    assert run(data, tmp_path / "out", "--cache-dir", str(tmp_path / "caches"))[0] == 0
    assert len(list((tmp_path / "caches").glob("*.cache"))) == 2
    assert list(data.parent.rglob("*.cache")) == []


def test_coco_annotations_are_checked_as_well(data: Path, tmp_path: Path) -> None:
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(4)],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [0, 0, 64, 64]},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5, 5, -3, 10]},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [5, 5, 20, 10]},
        ],
    }
    (data.parent / "images/train/train.json").write_text(json.dumps(content))
    data.write_text(data.read_text().replace("train: images/train", "train: images/train/train.json"))
    code, report = run(data, tmp_path / "out", "--task", "train")
    assert code == 1
    kinds = {f["kind"] for f in report["findings"]}
    assert {"bad row", "box of the whole image"} <= kinds


@pytest.mark.parametrize("name", ["train_labels.png", "train_sizes.png"])
def test_an_image_of_the_set_is_not_replaced_by_a_plot(data: Path, name: str) -> None:
    images = data.parent / "images/train"
    image = next(images.iterdir()).rename(images / name)
    before = image.read_bytes()
    with pytest.raises(InputError, match=rf"{name}: would overwrite the input"):
        main(CheckOptions(data=str(data), report=str(images)))
    assert image.read_bytes() == before and not (images / "report.txt").exists()


def test_a_list_that_is_checked_is_not_replaced_by_the_report(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a\x1b[2J.png"), np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "report.txt").write_text(f"{tmp_path}/a\x1b[2J.png\n")
    (tmp_path / "data.yaml").write_text("train: report.txt\nval: report.txt\nnames: [c]\n")
    before = (tmp_path / "report.txt").read_text()
    with pytest.raises(InputError, match=r"report\.txt: would overwrite the input"):
        main(CheckOptions(data=str(tmp_path / "data.yaml"), report=str(tmp_path)))
    assert (tmp_path / "report.txt").read_text() == before
    main(CheckOptions(data=str(tmp_path / "data.yaml"), report=str(tmp_path / "out")))
    assert "\x1b" not in (tmp_path / "out/report.txt").read_text()
