"""Label files: what is kept, what is dropped, and what the user is told."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.core.errors import InputError
from utils.core.files import label_path_for
from utils.datasets.labels.scan import scan_labels
from utils.datasets.labels.yolo_text import TextRows, read_label_file, row_lines

GOOD = "0 0.5 0.5 0.25 0.5\n"


def labelled(tmp_path: Path, **texts: str | None) -> list[Path]:
    """Make one 64x64 image per name in images/ and its label file in labels/ (none for None)."""
    images = []
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir(exist_ok=True)
    for name, text in texts.items():
        image = tmp_path / "images" / f"{name}.png"
        Image.new("RGB", (64, 64), (90, 90, 90)).save(image)
        if text is not None:
            (tmp_path / "labels" / f"{name}.txt").write_text(text)
        images.append(image)
    return images


def read(tmp_path: Path, text: str, nc: int | None = 3):  # type: ignore[no-untyped-def]
    path = tmp_path / "a.txt"
    path.write_text(text)
    return read_label_file(path, (64, 64), nc)


def test_a_coordinate_a_hair_outside_is_clipped_and_counted(tmp_path: Path) -> None:
    rows = read(tmp_path, "0 0.5 0.5 1.0021 0.5\n1 -0.004 0.5 0.2 0.2\n" + GOOD)
    np.testing.assert_allclose(rows.boxes, [[0, 0.5, 0.5, 1, 0.5], [1, 0, 0.5, 0.2, 0.2], [0, 0.5, 0.5, 0.25, 0.5]])
    assert rows.clipped == 2
    assert rows.messages == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 0.5 0.5 1.02 0.5", "1.02 is outside 0..1"),
        ("0 0.4 0.3 -0.7 0.35", "width and height must be above 0"),
        ("0 0.4 0.3 0 0.35", "width and height must be above 0"),
        ("0 0.4 nan 0.1 0.35", "not finite"),
        ("0 0.4 0.3 0.1", "4 columns"),
        ("0 0.4 0.3 0.1 0.1 0.9", "6 columns"),
        ("0.5 0.4 0.3 0.1 0.1", "class 0.5 is not a whole number"),
        ("cat 0.4 0.3 0.1 0.1", "'cat' is not a number"),
        ("0 0.1 0.1 0.5 0.1 0.9 0.1", "polygon without area"),
        ("0 320 240 100 80", "pixels are divided by width 64 and height 64"),
        ("1_0 0.5 0.5 0.1 0.1", "'1_0' is not a number"),
        ("1e30 0.5 0.5 0.1 0.1", "class 1e30 is no class number"),
        ("0,0.5,0.5,0.1,0.1", "columns are parted by spaces"),
        ("0 0,5 0,5 0,1 0,1", "decimals by points"),
        ("0 1e999 0.3 0.1 0.35", "not finite"),
    ],
)
def test_a_bad_row_is_dropped_with_file_line_value_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    rows = read(tmp_path, GOOD + row + "\n1 0.5 0.5 0.1 0.1\n")
    assert rows.boxes[:, 0].tolist() == [0, 1]
    (message,) = rows.messages
    assert message.startswith(f"{tmp_path / 'a.txt'}:2: {row}: ")
    assert reason in message
    assert message.endswith("row dropped")


def test_rows_with_a_confidence_are_dropped_with_the_way_to_be_rid_of_it(tmp_path: Path) -> None:
    problem = read(tmp_path, "0 0.5 0.5 0.2 0.2 0.873\n").findings[0].problem
    assert "the sixth looks like the confidence that detect.py --save-txt --save-conf writes" in problem
    assert "write the labels without --save-conf, or keep columns 1 to 5 only" in problem


def test_rows_that_may_hold_key_points_name_the_key_for_them(tmp_path: Path) -> None:
    problem = read(tmp_path, "0 0.5 0.5 0.2 0.2" + " 0.5 0.5 2" * 17).findings[0].problem
    assert problem.endswith("say kpt_shape: [17, 3] in the data yaml, and the boxes are used")


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    (message,) = read(tmp_path, "0 0.5 \x1b[31m\0 0.1 0.1\n").messages
    assert message.isprintable()


def test_an_enormous_line_gives_a_short_message(tmp_path: Path) -> None:
    (message,) = read(tmp_path, "0 " + "0.5 " * 99_999).messages
    assert len(message) < 300


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_label_files_of_windows_tools_are_understood(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("0 0.5 0.5 0.25 0.5\r\n1 0.5 0.5 0.1 0.1\r\n".encode(encoding))
    assert read_label_file(path, (64, 64), 3).boxes[:, 0].tolist() == [0, 1]


def test_what_was_found_has_file_line_value_and_action(tmp_path: Path) -> None:
    rows = read(tmp_path, GOOD + "\n" + GOOD + "0 0.5 0.5 1.005 0.5\n0 0.5 0.5 -1 0.5\n")
    assert [(f.kind, f.line, f.action) for f in rows.findings] == [
        ("repeated row", 3, "counted once"),
        ("clipped row", 4, "clipped to its border"),
        ("bad row", 5, "row dropped"),
    ]
    assert {f.file for f in rows.findings} == {str(tmp_path / "a.txt")}
    assert rows.findings[1].value == "0 0.5 0.5 1.005 0.5"
    assert row_lines(tmp_path / "a.txt", (64, 64), 3) == [1, 4]


def test_a_huge_label_file_is_refused_and_named(tmp_path: Path) -> None:
    (image,) = labelled(tmp_path, a="")
    label = tmp_path / "labels" / "a.txt"
    with label.open("wb") as file:
        file.truncate((1 << 26) + 1)
    report = scan_labels([image, image.with_name("gone.png")], 1, strict=False).report
    assert report.findings[0].file == str(label) and "64 MiB" in report.findings[0].problem


def test_without_strictness_unknown_classes_are_findings(tmp_path: Path) -> None:
    labels = scan_labels(labelled(tmp_path, a=GOOD + "2 0.5 0.5 0.1 0.1\n"), 2, strict=False)
    assert labels.records[0].boxes[:, 0].tolist() == [0]
    (finding,) = labels.report.findings
    assert (finding.kind, finding.line, finding.value) == ("unknown class", 2, "class 2")


def test_boxes_and_polygons_mix_in_one_file(tmp_path: Path) -> None:
    rows = read(tmp_path, GOOD + "2 0.1 0.2 0.5 0.2 0.5 0.6\n")
    np.testing.assert_allclose(rows.boxes, [[0, 0.5, 0.5, 0.25, 0.5], [2, 0.3, 0.4, 0.4, 0.4]], atol=1e-6)
    assert [len(polygon) for polygon in rows.segments] == [0, 3]


def test_a_file_of_boxes_has_no_segments(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).segments == ()


def test_repeated_rows_are_removed_in_place_and_counted(tmp_path: Path) -> None:
    rows = read(tmp_path, "1 0.5 0.5 0.1 0.1\n" + GOOD + GOOD + "0 0.50 0.5 0.25 0.5\n")
    assert rows.boxes[:, 0].tolist() == [1, 0]
    assert rows.duplicates == 2


def test_a_byte_order_mark_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    assert len(read(tmp_path, "\ufeff" + GOOD + "\n  \n").boxes) == 1


def test_a_class_beyond_nc_stops_the_run_with_all_offending_places(tmp_path: Path) -> None:
    images = labelled(tmp_path, a=GOOD, b=GOOD + "2 0.5 0.5 0.1 0.1\n", c="5 0.5 0.5 0.1 0.1\n-1 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError) as caught:
        scan_labels(images, 2, description="val")
    message = str(caught.value)
    assert "val: 3 label rows in 2 files" in message
    for place in ("b.txt:2 (class 2)", "c.txt:1 (class 5)", "c.txt:2 (class -1)", "nc in the data yaml to 6"):
        assert place in message
    assert "a.txt" not in message


def test_only_ten_offending_places_are_listed(tmp_path: Path) -> None:
    images = labelled(tmp_path, a="".join(f"7 0.5 0.5 0.{i:02d} 0.1\n" for i in range(1, 14)))
    with pytest.raises(InputError, match="13 label rows in 1 file with") as caught:
        scan_labels(images, 2)
    assert str(caught.value).count("(class 7)") == 10
    assert "and 3 more" in str(caught.value)


def test_single_class_accepts_every_class_and_makes_it_zero(tmp_path: Path) -> None:
    labels = scan_labels(labelled(tmp_path, a=GOOD + "7 0.5 0.5 0.1 0.1\n"), 1, single_cls=True)
    assert labels.records[0].boxes[:, 0].tolist() == [0, 0]


@pytest.mark.parametrize("workers", [0, 4])
def test_found_missing_and_empty_are_counted_apart(tmp_path: Path, workers: int) -> None:
    labels = scan_labels(labelled(tmp_path, a=GOOD, b=None, c="", d="\n"), 1, workers=workers)
    report = labels.report
    assert (report.labelled, report.missing, report.empty, report.corrupt) == (1, 1, 2, 0)
    assert [record.label is None for record in labels.records] == [False, True, False, False]
    assert [len(record.boxes) for record in labels.records] == [1, 0, 0, 0]


def test_dropped_rows_are_counted_and_the_first_ten_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = labelled(tmp_path, a=GOOD + "".join(f"0 0.5 0.5 -0.{i:02d} 1\n" for i in range(1, 14)))
    with caplog.at_level(logging.INFO):
        report = scan_labels(images, 1, description="train").report
    assert report.dropped_rows == 13
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 11
    assert warnings[-1] == "train: 3 more messages of this kind"
    assert "13 dropped" in caplog.records[-1].getMessage()


def test_unreadable_and_cut_images_are_listed_and_left_out(tmp_path: Path) -> None:
    images = labelled(tmp_path, a=GOOD, b=GOOD, c=GOOD)
    images[1].write_bytes(b"no image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    images[2] = images[2].with_suffix(".jpg")
    images[2].write_bytes(cv2.imencode(".jpg", noise)[1].tobytes()[:-900])
    deep = images[0].with_name("d.tif")
    Image.new("F", (64, 64)).save(deep)
    labels = scan_labels([*images, deep], 1)
    assert [record.image.name for record in labels.records] == ["a.png"]
    assert labels.report.corrupt == 3
    for name, message in zip(("b.png", "c.jpg", "d.tif"), labels.report.messages):
        assert name in message and "dropped" in message


def test_a_jpeg_with_bytes_after_its_end_is_usable(tmp_path: Path) -> None:
    (image,) = labelled(tmp_path, a=GOOD)
    jpeg = image.with_suffix(".jpg")
    Image.new("RGB", (64, 64)).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes() + b"camera data")
    assert len(scan_labels([jpeg], 1).records) == 1


def test_no_usable_image_is_an_error(tmp_path: Path) -> None:
    (image,) = labelled(tmp_path, a=GOOD)
    image.write_bytes(b"")
    with pytest.raises(InputError, match=r"no image of 1 is usable.*a\.png"):
        scan_labels([image], 1)
    with pytest.raises(InputError, match="no images"):
        scan_labels([], 1)


def test_no_labels_at_all_names_an_image_and_the_path_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = tmp_path / "pics" / "a.png"
    image.parent.mkdir()
    Image.new("RGB", (64, 64)).save(image)
    with pytest.raises(InputError) as caught:
        scan_labels([image], 1, require_labels=True)
    assert str(image) in str(caught.value)
    assert str(image.with_suffix(".txt")) in str(caught.value)
    assert scan_labels([image], 1).report.missing == 1
    assert str(image.with_suffix(".txt")) in caplog.text


def test_labels_that_are_all_unusable_are_an_error_not_background(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"every label row is unusable.*a\.txt:1"):
        scan_labels(labelled(tmp_path, a="0 320 240 10 10"), 1, require_labels=True)


def test_a_set_of_background_only_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = scan_labels(labelled(tmp_path, a="", b="", c="", d=""), 1, require_labels=True)
    assert len(labels.records) == 4
    assert "4 images of background only" in caplog.text


def test_a_turned_photo_has_its_displayed_size(tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (40, 20)).save(image, exif=exif)
    (tmp_path / "a.txt").write_text(GOOD)
    assert scan_labels([image], 1).records[0].hw == (40, 20)  # height, width


@pytest.mark.parametrize("name", ["a.jpg", "a.b.png", "a", ".hidden.jpg", ".jpg", "..jpg", "brackets [1].JPG"])
@pytest.mark.parametrize("there", [True, False])
def test_label_files_found_by_listing_have_the_names_they_should(tmp_path: Path, name: str, there: bool) -> None:
    image = tmp_path / "images" / name
    expected = label_path_for(image)
    expected.parent.mkdir()
    (expected.parent / "other.txt").touch()
    if there:
        expected.touch()
    assert TextRows().file_for(image) == expected
    assert TextRows().file_for(tmp_path / "gone" / name) == label_path_for(tmp_path / "gone" / name)
