"""Which detections count as correct."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from utils.metrics import match_predictions

IOUV = torch.linspace(0.5, 0.95, 10)


def detection(left: float, kind: int = 0, conf: float = 0.9) -> list[float]:
    return [left, 0, left + 10, 10, conf, kind]


LABEL = torch.tensor([[0.0, 0.0, 0.0, 10.0, 10.0]])


def test_an_exact_detection_is_correct_at_every_threshold() -> None:
    assert match_predictions(torch.tensor([detection(0)]), LABEL, IOUV).all()


def test_an_overlap_of_two_thirds_is_correct_up_to_its_threshold() -> None:
    # 8 of 12 columns are shared.
    assert match_predictions(torch.tensor([detection(2)]), LABEL, IOUV)[0].tolist() == [True] * 4 + [False] * 6


def test_another_class_is_never_correct() -> None:
    assert not match_predictions(torch.tensor([detection(0, kind=1)]), LABEL, IOUV).any()


def test_the_more_confident_detection_takes_the_label_even_if_it_overlaps_less() -> None:
    correct = match_predictions(torch.tensor([detection(2, conf=0.9), detection(0, conf=0.8)]), LABEL, IOUV)
    assert correct[0].sum() == 4 and not correct[1].any()


def test_a_detection_claims_only_the_label_it_overlaps_most() -> None:
    labels = torch.tensor([[0.0, 0, 0, 10, 10], [0.0, 2, 0, 12, 10]])
    # Both prefer the first label; the second detection does not fall back on the other one.
    correct = match_predictions(torch.tensor([detection(0), detection(0.5)]), labels, IOUV)
    assert correct.any(1).tolist() == [True, False]


def test_boxes_without_area_match_nothing() -> None:
    point = torch.tensor([[0.0, 3.0, 3.0, 3.0, 3.0]])
    assert not match_predictions(torch.tensor([[3.0, 3, 3, 3, 0.9, 0]]), point, IOUV).any()


@pytest.mark.parametrize(("detections", "labels"), [(0, 1), (2, 0), (0, 0)])
def test_pictures_without_labels_or_detections_have_no_correct_ones(detections: int, labels: int) -> None:
    correct = match_predictions(torch.zeros(detections, 6), torch.zeros(labels, 5), IOUV)
    assert correct.shape == (detections, 10) and not correct.any()


@pytest.mark.parametrize("case", range(3))
def test_matches_equal_the_reference(golden: Any, case: int) -> None:
    detections, labels = (torch.from_numpy(golden.array(f"match/{name}_{case}")) for name in ("detections", "labels"))
    assert match_predictions(detections, labels, IOUV).tolist() == golden.array(f"match/correct_{case}").tolist()
