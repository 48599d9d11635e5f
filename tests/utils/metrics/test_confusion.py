"""The confusion matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.metrics import ConfusionMatrix

LABELS = torch.tensor([[0.0, 0, 0, 10, 10], [1.0, 50, 50, 60, 60]])


def detection(left: float, kind: int, conf: float = 0.9) -> list[float]:
    return [left, left, left + 10, left + 10, conf, kind]


def test_hits_confusions_misses_and_extras_are_counted_in_their_cells() -> None:
    confusion = ConfusionMatrix(nc=2)
    confusion.process_batch(torch.tensor([detection(0, 0), detection(50, 0), detection(90, 1)]), LABELS)
    confusion.process_batch(torch.tensor([detection(0, 0)]), LABELS)
    # Rows predicted, columns true: class 0, class 1, background.
    assert confusion.matrix.tolist() == [[2, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_a_label_takes_the_detection_that_overlaps_most_and_the_other_is_extra() -> None:
    confusion = ConfusionMatrix(nc=2)
    confusion.process_batch(torch.tensor([detection(1, 1, 0.9), detection(0, 0, 0.5)]), LABELS[:1])
    assert confusion.matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_detections_at_or_below_the_confidence_do_not_count() -> None:
    confusion = ConfusionMatrix(nc=2, conf=0.5)
    confusion.process_batch(torch.tensor([detection(0, 0, 0.5)]), LABELS[:1])
    assert confusion.matrix.tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("detections", [None, torch.zeros(0, 6)], ids=["none", "no rows"])
def test_an_image_without_detections_counts_its_labels_as_missed(detections: torch.Tensor | None) -> None:
    confusion = ConfusionMatrix(nc=2)
    confusion.process_batch(detections, LABELS)
    assert confusion.matrix.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize(("exact", "extras"), [(True, 2), (False, 0)])
def test_an_image_without_labels_counts_its_detections_unless_told_otherwise(exact: bool, extras: int) -> None:
    confusion = ConfusionMatrix(nc=2, count_unmatched_images=exact)
    confusion.process_batch(torch.tensor([detection(0, 0), detection(50, 0)]), LABELS[:0])
    assert confusion.matrix[0, 2] == confusion.matrix.sum() == extras


def test_true_and_false_positives_leave_the_background_out() -> None:
    confusion = ConfusionMatrix(nc=2)
    confusion.matrix[:] = [[5, 2, 1], [0, 7, 3], [4, 4, 0]]
    tp, fp = confusion.tp_fp()
    assert tp.tolist() == [5, 7] and fp.tolist() == [3, 3]


def test_sums_equal_the_numbers_of_labels_and_detections(golden: Any) -> None:
    confusion = ConfusionMatrix(nc=3, conf=0.25)
    labels, detections = np.zeros(3, int), np.zeros(3, int)
    for case in range(3):
        found, known = (torch.from_numpy(golden.array(f"match/{name}_{case}")) for name in ("detections", "labels"))
        confusion.process_batch(found, known)
        labels += np.bincount(known[:, 0].int(), minlength=3)
        detections += np.bincount(found[found[:, 4] > 0.25, 5].int(), minlength=3)
    assert confusion.matrix.sum(0)[:3].tolist() == labels.tolist()
    assert confusion.matrix.sum(1)[:3].tolist() == detections.tolist()


@pytest.mark.parametrize(("conf", "iou"), [(0.25, 0.45), (0.1, 0.6)])
def test_the_matrix_equals_the_reference(golden: Any, conf: float, iou: float) -> None:
    confusion = ConfusionMatrix(nc=3, conf=conf, iou_thres=iou, count_unmatched_images=False)
    for case in range(3):
        confusion.process_batch(
            *(torch.from_numpy(golden.array(f"match/{name}_{case}")) for name in ("detections", "labels"))
        )
    assert confusion.matrix.tolist() == golden.array(f"match/confusion_conf{conf}_iou{iou}").tolist()
    if conf == 0.25:
        tp, fp = confusion.tp_fp()
        assert tp.tolist() == golden.array("match/confusion_tp").tolist()
        assert fp.tolist() == golden.array("match/confusion_fp").tolist()


def test_the_calls_of_v61_draw_and_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matrix = ConfusionMatrix(2)
    matrix.process_batch(None, torch.tensor([[1.0, 0, 0, 9, 9]]))
    matrix.plot(save_dir=tmp_path, names=["ant", "bee"])
    assert (tmp_path / "confusion_matrix.png").is_file()
    with caplog.at_level("INFO"):
        matrix.print()
    assert [record.getMessage() for record in caplog.records] == ["0 0 0", "0 0 0", "0 1 0"]
