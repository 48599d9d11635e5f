"""Names of utils.general with the arguments of v6.1."""

from __future__ import annotations

import argparse
import logging
import math
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import utils.general as general
from utils.checkpoint import load_checkpoint
from utils.core.errors import InputError

# --- boxes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_array", [False, True])
def test_scale_coords_changes_its_argument_and_returns_it(as_array: bool) -> None:
    rows = torch.tensor([[16.0, 24, 48, 40, 0.9, 1]])
    boxes: Any = rows.numpy() if as_array else rows
    part = boxes[:, :4]
    # 100 x 50 px at 0.64: 64 x 32, in a 64 x 64 canvas with 16 px above
    answer = general.scale_coords((64, 64), part, (50, 100, 3))
    assert boxes[0].tolist() == pytest.approx([25, 12.5, 75, 37.5, 0.9, 1])
    assert answer is part


def test_scale_coords_takes_the_letterbox_that_was_used() -> None:
    box = torch.tensor([[12.0, 14, 32, 34]])
    general.scale_coords((64, 64), box, (100, 100), ((2.0, 2.0), (2.0, 4.0)))
    assert box.tolist() == [[5, 5, 15, 15]]


def test_clip_coords_works_in_place() -> None:
    boxes = np.array([[-5.0, -5, 300, 50, 0.5]])
    general.clip_coords(boxes, (100, 200))
    assert boxes.tolist() == [[0, 0, 200, 50, 0.5]]


def test_suppression_takes_the_old_order_of_arguments() -> None:
    # two boxes of one class that overlap by 81 of 119, one of another class
    rows = torch.tensor([[50.0, 50, 10, 10, 1, 0.9, 0], [51, 51, 10, 10, 1, 0.8, 0], [80, 80, 10, 10, 1, 0, 0.7]])
    kept = general.non_max_suppression(rows[None], 0.25, 0.45, None, False, max_det=1000)
    assert kept[0][:, 5].tolist() == [0, 1]
    assert len(general.non_max_suppression(rows[None], 0.25, 0.45, [1], False)[0]) == 1
    assert len(general.non_max_suppression(rows[None], 0.25, 0.9)[0]) == 3


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_make_divisible_takes_strides() -> None:
    assert general.make_divisible(100, 8) == 104
    assert general.make_divisible(100, torch.tensor([8.0, 16.0, 32.0])) == 128


def test_one_cycle_goes_from_the_first_value_to_the_second() -> None:
    curve = general.one_cycle(1, 0.2, 10)
    assert [curve(0), curve(5), curve(10)] == pytest.approx([1, 0.6, 0.2])
    assert curve(2.5) == pytest.approx(0.6 + 0.4 * math.cos(math.pi / 4))


def test_class_and_image_weights() -> None:
    labels = [np.array([[0.0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]), np.array([[1.0, 0, 0, 0, 0]])]
    weights = general.labels_to_class_weights(labels, nc=2)
    assert isinstance(weights, torch.Tensor)
    assert weights.tolist() == [0.5, 0.5]
    assert general.labels_to_image_weights(labels, 2, np.array([1.0, 10.0])).tolist() == [12, 10]
    assert general.labels_to_image_weights(labels, 2).tolist() == [3, 1]


def test_numbers_of_the_coco_categories() -> None:
    numbers = general.coco80_to_coco91_class()
    assert len(numbers) == 80
    assert [numbers[i] for i in (0, 10, 11, 24, 79)] == [
        1,
        11,
        13,
        27,
        90,
    ]


def test_intersect_dicts_keeps_what_fits() -> None:
    ours = {"a.w": torch.ones(2), "b.w": torch.ones(3), "c.w": torch.ones(1), "d.anchors": torch.ones(1)}
    theirs = {"a.w": torch.zeros(2), "b.w": torch.zeros(4), "d.anchors": torch.zeros(1)}
    assert list(general.intersect_dicts(ours, theirs)) == ["a.w", "d.anchors"]
    kept = general.intersect_dicts(ours, theirs, exclude=["anchors"])
    assert list(kept) == ["a.w"]
    assert kept["a.w"] is ours["a.w"]


# --- checks ----------------------------------------------------------------------------------------------------------


def test_check_img_size_takes_one_side_or_several() -> None:
    assert general.check_img_size(640, 32) == 640
    assert general.check_img_size([100, 65], s=32) == [128, 96]


def test_check_file_finds_a_bare_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(general.check_file("coco128.yaml")) == general.ROOT / "data/coco128.yaml"
    assert Path(general.check_yaml("yolov5n.yaml")) == general.ROOT / "models/yolov5n.yaml"
    own = tmp_path / "own.yaml"
    own.touch()
    assert general.check_file(own) == str(own)
    assert general.check_file("") == ""


def test_check_file_says_where_it_looked() -> None:
    with pytest.raises(FileNotFoundError, match=r"nosuch\.yaml.*data, models, utils"):
        general.check_file("nosuch.yaml")


def test_check_file_downloads_nothing() -> None:
    with pytest.raises(InputError, match="nothing is downloaded"):
        general.check_file("https://example.org/a.yaml")


def test_download_unpacks_archives_into_the_folder_or_keeps_them_whole(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("images/x.txt", "x")
    (tmp_path / "b.txt").write_text("b", encoding="utf-8")
    urls = [(tmp_path / name).as_uri() for name in ("a.zip", "b.txt")]
    general.download(urls, dir=tmp_path / "set", curl=True, threads=8)
    general.download(urls[0], tmp_path / "whole", unzip=False)
    made = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*/**/*") if path.is_file()]
    assert sorted(set(made)) == ["set/b.txt", "set/images/x.txt", "whole/a.zip"]


def test_a_wrong_suffix_is_refused() -> None:
    general.check_suffix(["a.pt", "b.PT"], ".pt")
    with pytest.raises(InputError, match=r"a\.onnx: expected a name ending in \.pt"):
        general.check_suffix(["b.pt", "a.onnx"], (".pt",))
    with pytest.raises(InputError, match=r"\.yaml or \.yml"):
        general.check_yaml("a.json")


@pytest.mark.parametrize(
    ("current", "minimum", "pinned", "good"),
    [
        ("1.10.0", "1.9", False, True),
        ("2.14.1+cpu", "2.14.1", True, True),
        ("1.8", "1.9", False, False),
        ("1.9.1", "1.9", True, False),
        ("1.9.0", "1.9", True, True),
    ],
)
def test_versions_are_compared_by_number(current: str, minimum: str, pinned: bool, good: bool) -> None:
    assert general.check_version(current, minimum, pinned=pinned) is good


def test_a_hard_version_check_raises() -> None:
    with pytest.raises(InputError, match=r"torch 3\.0 is needed, 2\.0 is installed"):
        general.check_version("2.0", "3.0", "torch", hard=True)


def test_requirements_are_only_warned_about(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert general.check_requirements(["numpy>=1.0", "torch"])
    assert not general.check_requirements(["numpy>=1.0", "no-such-package>=2 # comment"])
    assert 'pip install "no-such-package>=2"' in caplog.text
    assert general.check_requirements("no-such-package", exclude=["no-such-package"])
    assert not general.check_requirements("numpy>=999")
    listing = tmp_path / "requirements.txt"
    listing.write_text("# a comment\n-r other.txt\nnumpy  # arrays\n", encoding="utf-8")
    assert general.check_requirements(listing)


@pytest.mark.skipif(os.name != "posix", reason="displays are named so on Linux only")
def test_without_a_display_no_window_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert general.check_imshow() is False


def test_a_data_set_as_a_dict(tmp_path: Path, make_dataset: Any) -> None:
    found = general.check_dataset(make_dataset(tmp_path, 1, 1))
    assert (found["nc"], found["names"], found["path"]) == (2, ["red", "green"], tmp_path)
    assert (found["val"], found["test"]) == (str(tmp_path / "images/val"), None)
    assert general.check_dataset(found) == found


def test_is_ascii() -> None:
    assert general.is_ascii(["cat", "dog"])
    assert not general.is_ascii("猫")


# --- log -------------------------------------------------------------------------------------------------------------


def test_the_logger_speaks_without_any_preparation(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    general.print_args("detect", argparse.Namespace(weights="a.pt", imgsz=640))
    assert capsys.readouterr().out == "detect: weights=a.pt, imgsz=640\n"


def test_the_logger_leaves_output_to_the_handlers_of_the_program(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        general.LOGGER.info("once")
    assert caplog.messages == ["once"]
    assert capsys.readouterr().out == ""


def test_the_logger_can_be_silenced_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    named = logging.getLogger("yolov5")
    named.setLevel(logging.ERROR)
    try:
        assert not general.LOGGER.isEnabledFor(logging.WARNING)
    finally:
        named.setLevel(logging.NOTSET)
    assert general.LOGGER.isEnabledFor(logging.INFO)


def test_set_logging_sends_lines_to_stdout(log_handlers_restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert general.set_logging(verbose=True) is general.LOGGER
    assert logging.getLogger().level == logging.INFO
    general.set_logging("other", verbose=False)
    assert logging.getLogger().level == logging.WARNING


def test_colours_are_left_out_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert general.colorstr("text") == "text"
    assert general.colorstr("red", "bold", "text") == "text"
    assert general.colorstr("underline", "text") == "text"


def test_profile_measures_a_block_and_a_function(capsys: pytest.CaptureFixture[str]) -> None:
    with general.Profile() as profile:
        pass
    first = profile.dt
    with profile:
        pass
    assert profile.t == pytest.approx(first + profile.dt)
    assert general.Profile(t=5.0, device=torch.device("cpu")).t == 5.0
    assert capsys.readouterr().out == ""
    assert general.Profile()(lambda: 7)() == 7
    assert len(capsys.readouterr().out.splitlines()) == 1


# --- files -----------------------------------------------------------------------------------------------------------


def test_increment_path_takes_its_separator_third(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    assert general.increment_path(tmp_path / "exp", False, "-") == tmp_path / "exp-2"
    assert general.increment_path(tmp_path / "exp", mkdir=True).is_dir()


def test_the_latest_run(tmp_path: Path) -> None:
    assert general.get_latest_run(tmp_path) == ""
    for age, name in ((50, "exp/weights/last.pt"), (90, "exp2/weights/last.pt"), (10, "exp/weights/best.pt")):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (1000 - age, 1000 - age))
    assert general.get_latest_run(tmp_path) == str(tmp_path / "exp/weights/last.pt")


def test_strip_optimizer_writes_a_small_file(eager_weights: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.pt"
    general.strip_optimizer(eager_weights, small)
    assert small.stat().st_size < 0.6 * eager_weights.stat().st_size
    assert load_checkpoint(small).names == ["ant", "bee"]


def test_init_seeds_repeats_draws() -> None:
    before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    try:
        general.init_seeds(7)
        first = torch.rand(3)
        general.init_seeds(7)
        assert torch.equal(torch.rand(3), first)
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


def test_sizes_are_rounded_as_in_the_reference(golden: Any) -> None:
    figures = golden.json("tensors")
    for value, divisor, expected in figures["make_divisible"]:
        assert general.make_divisible(value, divisor) == expected
    for case in figures["check_img_size"]:
        assert general.check_img_size(case["imgsz"], s=case["s"], floor=case["floor"]) == case["result"]
