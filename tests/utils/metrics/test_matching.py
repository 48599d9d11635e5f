"""Which detections count as correct."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from utils.metrics import match_as_v61, match_predictions

IOUV = torch.linspace(0.5, 0.95, 10, dtype=torch.float64)


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


NEIGHBOURS = torch.tensor([[0.0, 0, 0, 10, 10], [0.0, 2, 0, 12, 10]])


def test_a_detection_whose_best_label_is_taken_takes_the_best_free_one() -> None:
    # Both prefer the first label; 8.5 of 11.5 columns of the second are shared with the second detection.
    found = torch.tensor([detection(0), detection(0.5, conf=0.8)])
    assert match_predictions(found, NEIGHBOURS, IOUV).sum(1).tolist() == [10, 5]
    assert match_as_v61(found, NEIGHBOURS, IOUV).sum(1).tolist() == [10, 0]


def test_a_label_is_free_at_the_thresholds_that_its_first_detection_does_not_reach() -> None:
    found = torch.tensor([detection(2, conf=0.9), detection(0, conf=0.8)])
    correct = match_predictions(found, LABEL, IOUV)
    assert correct[0].tolist() == [True] * 4 + [False] * 6
    assert correct[1].tolist() == [False] * 4 + [True] * 6
    assert not match_as_v61(found, LABEL, IOUV)[1].any()


def overlap(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def one_by_one(detections: list[list[float]], labels: list[list[float]], limit: float) -> list[bool]:
    """The rule itself, a box at a time."""
    free, correct = set(range(len(labels))), []
    for *box, _, kind in detections:
        offers = [(overlap(box, labels[i][1:]), -i) for i in free if labels[i][0] == kind]
        best = max(offers, default=(0.0, 0))
        correct.append(best[0] >= limit)
        if correct[-1]:
            free.remove(-best[1])
    return correct


@pytest.mark.parametrize("seed", range(20))
def test_matches_equal_those_made_one_by_one(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.rand(12, 5, generator=rng) * 40
    labels[:, 0] = torch.randint(0, 2, (12,), generator=rng)
    labels[:, 3:] = labels[:, 1:3] + torch.rand(12, 2, generator=rng) * 30 + 5
    which = torch.randint(0, 12, (60,), generator=rng)
    boxes = labels[which, 1:] + torch.randn(60, 4, generator=rng) * 3
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    conf = torch.rand(60, generator=rng).sort(descending=True).values
    found = torch.cat([boxes, conf[:, None], torch.randint(0, 2, (60, 1), generator=rng)], 1)
    correct = match_predictions(found, labels, IOUV)
    for column, limit in enumerate(IOUV.tolist()):
        assert correct[:, column].tolist() == one_by_one(found.tolist(), labels.tolist(), limit)
    assert 0 < correct.sum() < correct.numel()


def test_boxes_without_area_match_nothing() -> None:
    point = torch.tensor([[0.0, 3.0, 3.0, 3.0, 3.0]])
    assert not match_predictions(torch.tensor([[3.0, 3, 3, 3, 0.9, 0]]), point, IOUV).any()


@pytest.mark.parametrize(("detections", "labels"), [(0, 1), (2, 0), (0, 0)])
def test_images_without_labels_or_detections_have_no_correct_ones(detections: int, labels: int) -> None:
    correct = match_predictions(torch.zeros(detections, 6), torch.zeros(labels, 5), IOUV)
    assert correct.shape == (detections, 10) and not correct.any()


@pytest.mark.parametrize("case", range(3))
def test_matches_by_the_old_rule_equal_the_reference(golden: Any, case: int) -> None:
    detections, labels = (torch.from_numpy(golden.array(f"match/{name}_{case}")) for name in ("detections", "labels"))
    assert match_as_v61(detections, labels, IOUV).tolist() == golden.array(f"match/correct_{case}").tolist()
