"""The embedded digits set: same seed same files, honest boxes, separate splits, and no half-made folder."""

from __future__ import annotations

import builtins
import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from utils.config.cli import ended_by_signals
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.datasets import digits
from utils.datasets.digits import MARKER, ensure_digits, generate_digits, is_complete, label_text
from utils.datasets.digits import drawing as digit_drawing
from utils.datasets.digits.drawing import (
    STYLE,
    Canvas,
    DigitDeck,
    DigitSource,
    DigitStyle,
    Pose,
    colour_matrix,
    compose,
    digit_pool,
    ink_field,
    load_source,
    photo_region,
    pick_colour,
    render_glyph,
)

pytest.importorskip("sklearn")
COUNTS = {"train": 10, "val": 4, "test": 4}


@pytest.fixture(scope="module")
def source() -> DigitSource:
    return load_source()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "digits"
    generate_digits(root, counts=COUNTS)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def labels(root: Path) -> dict[str, np.ndarray]:
    rows = {path.stem + path.parent.name: path.read_text().split() for path in root.glob("labels/*/*.txt")}
    return {name: np.array(words, dtype=float).reshape(-1, 5) for name, words in rows.items()}


def solid(height: int, width: int) -> np.ndarray:
    return np.ones((height, width), dtype=np.float32)


def test_the_same_seed_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    generate_digits(tmp_path / "again", counts=COUNTS)
    assert contents(tmp_path / "again") == contents(made)


def test_another_seed_gives_other_images_and_labels(made: Path, tmp_path: Path) -> None:
    generate_digits(tmp_path / "other", seed=1, counts=COUNTS)
    first, other = contents(made), contents(tmp_path / "other")
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first if name.endswith(".jpg"))


def test_each_image_has_its_label_file(made: Path) -> None:
    for split, count in COUNTS.items():
        names = [path.stem for path in sorted((made / "images" / split).iterdir())]
        assert names == [f"{i:04d}" for i in range(count)]
        assert names == [path.stem for path in sorted((made / "labels" / split).iterdir())]


def test_boxes_lie_inside_the_image(made: Path) -> None:
    boxes = np.concatenate(list(labels(made).values()))[:, 1:]
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    assert (boxes[:, 2:] > 0).all() and low.min() > -1e-6 and high.max() < 1 + 1e-6


def test_all_ten_classes_are_present(made: Path) -> None:
    assert {int(row[0]) for boxes in labels(made).values() for row in boxes} == set(range(10))


def test_some_images_have_an_empty_label_file(made: Path) -> None:
    for split in COUNTS:
        assert sum(path.stat().st_size == 0 for path in (made / "labels" / split).iterdir()) == 1


def test_images_have_several_shapes(made: Path) -> None:
    shapes = set()
    for path in (made / "images" / "train").iterdir():
        image = cv2.imread(str(path))
        assert image is not None
        shapes.add(image.shape[:2])
    assert len(shapes) > 1 and shapes <= set(digits.DEFAULT_HW)


def test_a_label_row_is_class_centre_size_with_six_decimals() -> None:
    boxes = np.array([[7, 10, 20, 30, 60], [0, 0, 0, 100, 80]], dtype=np.float32)
    rows = "7 0.200000 0.500000 0.200000 0.500000\n0 0.500000 0.500000 1.000000 1.000000\n"
    assert label_text(boxes, (80, 100)) == rows


def test_splits_deal_disjoint_digit_instances(source: DigitSource) -> None:
    dealt = {}
    for split in digits.SPLITS:
        deck = DigitDeck(source.classes, split, np.random.default_rng(0))
        dealt[split] = {deck.deal() for _ in range(3000)}
        assert dealt[split] <= set(digit_pool(split))
    assert not (dealt["train"] & dealt["val"] or dealt["train"] & dealt["test"] or dealt["val"] & dealt["test"])
    assert sum(len(pool) for pool in map(digit_pool, digits.SPLITS)) == len(source.classes) == 1797


def test_a_deck_deals_every_class_once_in_ten_cards(source: DigitSource) -> None:
    deck = DigitDeck(source.classes, "val", np.random.default_rng(0))
    assert sorted(source.classes[deck.deal()] for _ in range(10)) == list(range(10))


def test_splits_use_disjoint_parts_of_the_images() -> None:
    used = np.zeros((427, 640), dtype=int)
    for split in digits.SPLITS:
        used[photo_region(split, (427, 640))] += 1
    assert used.max() == 1


def test_an_inked_cell_block_becomes_a_shape_of_its_area() -> None:
    cells = np.zeros((8, 8), dtype=np.float32)
    cells[2:6, 2:6] = 1
    inside = ink_field(cells) > 0
    assert inside.sum() / (inside.size / 144) == pytest.approx(16, rel=0.1)  # cells, of 12 x 12 with the margin


@pytest.mark.parametrize("height", [18, 40, 110])
def test_a_glyph_is_as_high_as_asked_and_cropped_to_its_strokes(source: DigitSource, height: int) -> None:
    ink = render_glyph(source.ink(0), Pose(height=height)) > 0.5
    assert abs(ink.shape[0] - height) <= 2
    assert ink[0].any() and ink[-1].any() and ink[:, 0].any() and ink[:, -1].any()


def test_the_box_of_a_lone_digit_is_tight_around_its_strokes(source: DigitSource) -> None:
    style = DigitStyle(inside_share=1.0, opacity=(1.0, 1.0))
    canvas = Canvas(np.full((120, 160, 3), 128, dtype=np.float32), style)
    assert canvas.add(render_glyph(source.ink(3), Pose(height=60, angle=10)), np.random.default_rng(0))
    painted = np.abs(canvas.pixels - 128).max(2)
    ys, xs = np.nonzero(painted > 0.55 * painted.max())
    x1, y1, x2, y2 = canvas.boxes[0]
    assert abs(x1 - xs.min()) <= 1 and abs(y1 - ys.min()) <= 1
    assert abs(x2 - 1 - xs.max()) <= 1 and abs(y2 - 1 - ys.max()) <= 1
    painted[y1:y2, x1:x2] = 0
    assert painted.max() == 0


def test_a_cut_digit_has_a_box_clipped_to_the_image() -> None:
    canvas = Canvas(np.zeros((50, 50, 3), dtype=np.float32), DigitStyle(inside_share=0.0, max_truncated=1.0, tries=1))
    rng = np.random.default_rng(0)
    for _ in range(40):
        canvas.add(solid(20, 10), rng)
    x1, y1, x2, y2 = np.array(canvas.boxes).T
    assert (x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 50).all() and (y2 <= 50).all()
    assert (x2 - x1 < 10).any() or (y2 - y1 < 20).any()


def test_a_digit_is_not_painted_when_too_much_would_be_cut() -> None:
    canvas = Canvas(np.zeros((20, 20, 3), dtype=np.float32), DigitStyle(max_truncated=0.4))
    assert not canvas.add(solid(40, 40), np.random.default_rng(0))  # at most a quarter is ever visible
    assert canvas.pixels.max() == 0 and canvas.boxes == []


def test_a_digit_that_would_hide_another_is_not_painted() -> None:
    canvas = Canvas(np.zeros((20, 20, 3), dtype=np.float32), DigitStyle(inside_share=1.0, max_shared=1.0))
    rng = np.random.default_rng(0)
    assert canvas.add(solid(18, 18), rng)
    before = canvas.pixels.copy()
    assert not canvas.add(solid(18, 18), rng)
    assert len(canvas.boxes) == 1 and np.array_equal(canvas.pixels, before)


def test_boxes_overlap_no_more_than_the_style_allows(source: DigitSource) -> None:
    deck = DigitDeck(source.classes, "train", np.random.default_rng(0))
    boxes = compose(source, "train", (320, 320), deck, np.random.default_rng(1), digits=8).boxes[:, 1:]
    for i in range(len(boxes)):
        for j in range(i):
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            areas = [np.prod(boxes[k, 2:] - boxes[k, :2]) for k in (i, j)]
            assert np.prod(np.maximum(high - low, 0)) <= STYLE.max_shared * min(areas) + 1e-3


def test_a_drawing_names_the_class_of_each_instance(source: DigitSource) -> None:
    deck = DigitDeck(source.classes, "test", np.random.default_rng(0))
    drawing = compose(source, "test", (240, 320), deck, np.random.default_rng(0), digits=4)
    assert drawing.image.shape == (240, 320, 3) and drawing.image.dtype == np.uint8
    assert drawing.boxes[:, 0].tolist() == [source.classes[i] for i in drawing.instances]


@pytest.mark.parametrize("level", [0, 127, 255])
def test_strokes_stand_out_from_a_plain_background(level: int) -> None:
    under = np.full((4, 4, 3), level, dtype=np.float32)
    colours = [pick_colour(under, STYLE, np.random.default_rng(i)) for i in range(50)]
    assert min(abs(float(c @ digit_drawing._LUMA) - level) for c in colours) >= STYLE.contrast


def test_the_colour_matrix_keeps_greys_and_is_the_identity_without_change() -> None:
    np.testing.assert_allclose(colour_matrix(0, 1), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(colour_matrix(33, 0.5) @ np.ones(3), np.ones(3), atol=1e-12)


def test_ensure_makes_the_set_once_and_then_leaves_it(tmp_path: Path) -> None:
    root = tmp_path / "data" / "digits"
    ensure_digits(root, counts=COUNTS)
    stamp = (root / MARKER).stat().st_mtime_ns
    ensure_digits(root, counts=COUNTS)
    assert (root / MARKER).stat().st_mtime_ns == stamp
    assert [path.name for path in root.parent.iterdir()] == ["digits"]


def test_an_interrupted_generation_is_rebuilt(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, drawn = tmp_path / "digits", 0

    def fail_late(*args: Any, **options: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn > 5:
            raise KeyboardInterrupt
        return compose(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(digits, "compose", fail_late)
        with pytest.raises(KeyboardInterrupt):
            generate_digits(root, counts=COUNTS)
    assert (root / "images" / "train" / "0004.jpg").exists() and not is_complete(root)
    ensure_digits(root, counts=COUNTS)
    assert contents(root) == contents(made)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_an_interrupted_ensure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, "compose", stop)
    with pytest.raises(KeyboardInterrupt):
        ensure_digits(tmp_path / "digits", counts=COUNTS)
    assert list(tmp_path.iterdir()) == []


def test_the_leavings_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".digits-making-abc" / "new").mkdir(parents=True)
    ensure_digits(tmp_path / "digits", counts=COUNTS)
    assert not (tmp_path / ".digits-making-abc").exists()


def test_a_set_that_lost_a_file_is_rebuilt(tmp_path: Path) -> None:
    ensure_digits(tmp_path / "digits", counts=COUNTS)
    lost = tmp_path / "digits" / "labels" / "val" / "0001.txt"
    lost.unlink()
    ensure_digits(tmp_path / "digits", counts=COUNTS)
    assert lost.exists()


def test_a_set_of_another_style_is_rebuilt(tmp_path: Path) -> None:
    root = tmp_path / "digits"
    ensure_digits(root, counts=COUNTS)
    state = json.loads((root / MARKER).read_text())
    (root / MARKER).write_text(json.dumps(state | {"style": {}}))
    assert not is_complete(root)
    ensure_digits(root, counts=COUNTS)
    assert is_complete(root)


@pytest.mark.parametrize("marker", [False, True])
def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path, marker: bool) -> None:
    own = tmp_path / "digits" / "images" / "mine.jpg"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    if marker:
        (tmp_path / "digits" / MARKER).write_text("{}")
    with pytest.raises(InputError, match=r"digits: holds images/mine\.jpg, which is not of the digits set"):
        ensure_digits(tmp_path / "digits", counts=COUNTS)
    assert own.read_bytes() == b"mine" and [path.name for path in tmp_path.iterdir()] == ["digits"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_half_made_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("utils.datasets.digits.compose", lambda *_, **__: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt), ended_by_signals() as came:
        ensure_digits(tmp_path / "digits", counts=COUNTS)
    assert came == [number] and list(tmp_path.iterdir()) == []


def test_two_at_once_make_one_whole_set(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "digits"
    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(ensure_digits, root, counts=COUNTS) for _ in range(2)]:
            task.result()
    assert contents(root) == contents(made)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_losing_the_race_without_a_lock_keeps_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "digits"

    def slower(folder: Path, **options: Any) -> None:
        generate_digits(root, seed=5, counts=COUNTS)  # meanwhile somebody else
        generate_digits(folder, **options)

    with monkeypatch.context() as patch:
        patch.setattr(digits, "generate_digits", slower)
        ensure_digits(root, counts=COUNTS)
    assert json.loads((root / MARKER).read_text())["seed"] == 5
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_generating_into_a_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        generate_digits(tmp_path, counts=COUNTS)


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'valid'"):
        generate_digits(tmp_path / "digits", counts={"valid": 3})


def test_a_missing_scikit_learn_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ModuleNotFoundError("No module named 'sklearn'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install -r requirements\.txt"):
        ensure_digits(tmp_path / "digits", counts=COUNTS)


def test_the_yaml_describes_what_is_generated() -> None:
    spec = yaml.safe_load((ROOT / "data" / "digits.yaml").read_text(encoding="utf-8"))
    assert spec["names"] == list(digit_drawing.NAMES) and spec["nc"] == 10 and spec["generate"] == "digits"
    assert [spec[split] for split in digits.SPLITS] == [f"images/{split}" for split in digits.SPLITS]
