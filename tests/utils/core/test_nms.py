"""Non-maximum suppression, by hand and against the reference's figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from utils.core.errors import InputError
from utils.core.nms import non_max_suppression


def candidate(x: float, obj: float, *scores: float, side: float = 10.0) -> list[float]:
    return [x, 50.0, side, side, obj, *scores]


def test_of_two_overlapping_boxes_the_more_confident_stays() -> None:
    prediction = torch.tensor([[candidate(50, 0.8, 1.0), candidate(51, 0.9, 1.0), candidate(80, 0.5, 1.0)]])
    (found,) = non_max_suppression(prediction)
    assert found[:, :4].tolist() == [[46, 45, 56, 55], [75, 45, 85, 55]]
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.5])


def test_boxes_of_different_classes_meet_only_when_agnostic() -> None:
    prediction = torch.tensor([[candidate(50, 0.9, 1.0, 0.0), candidate(50, 0.8, 0.0, 1.0)]])
    assert len(non_max_suppression(prediction)[0]) == 2
    assert len(non_max_suppression(prediction, agnostic=True)[0]) == 1


def test_classes_stay_apart_for_boxes_of_any_size_and_place() -> None:
    prediction = torch.tensor([[candidate(-50_000, 0.9, 1.0, 0.0), candidate(50_000, 0.8, 0.0, 1.0, side=20_000)]])
    assert len(non_max_suppression(prediction)[0]) == 2


def test_confidence_is_objectness_times_class_score_even_for_one_class() -> None:
    (found,) = non_max_suppression(torch.tensor([[candidate(50, 0.8, 0.5)]]), multi_label=True)
    assert found[0, 4].item() == pytest.approx(0.4)


def test_multi_label_reports_a_box_once_per_passing_class() -> None:
    prediction = torch.tensor([[candidate(50, 1.0, 0.6, 0.1, 0.5)]])
    assert non_max_suppression(prediction)[0][:, 5].tolist() == [0]
    assert non_max_suppression(prediction, multi_label=True)[0][:, 5].tolist() == [0, 2]
    assert non_max_suppression(prediction, multi_label=True, classes=[2])[0][:, 5].tolist() == [2]
    assert len(non_max_suppression(prediction, classes=[2])[0]) == 0
    assert len(non_max_suppression(prediction, multi_label=True, classes=[99])[0]) == 0


def test_every_image_gets_an_answer_even_an_empty_one() -> None:
    prediction = torch.zeros(3, 5, 7)
    prediction[1, 0] = torch.tensor(candidate(50, 0.9, 1.0, 0.0))
    assert [tuple(found.shape) for found in non_max_suppression(prediction)] == [(0, 6), (1, 6), (0, 6)]
    assert non_max_suppression(torch.zeros(2, 0, 7))[1].shape == (0, 6)
    assert non_max_suppression(torch.zeros(0, 5, 7)) == []


def test_the_prediction_is_left_untouched() -> None:
    prediction = torch.rand(2, 50, 8, generator=torch.Generator().manual_seed(0)) * 20
    before = prediction.clone()
    non_max_suppression(prediction, multi_label=True, labels=[torch.tensor([[0.0, 5, 5, 4, 4]])] * 2)
    assert torch.equal(prediction, before)


def test_known_labels_enter_with_certainty() -> None:
    known = torch.tensor([[1.0, 50.0, 50.0, 10.0, 10.0]])
    found = non_max_suppression(torch.zeros(2, 4, 7), labels=[known, known[:0]])
    assert found[0].tolist() == [[45, 45, 55, 55, 1, 1]]
    assert len(found[1]) == 0


def test_candidates_that_are_not_numbers_are_dropped_and_the_others_kept() -> None:
    prediction = torch.tensor([[candidate(float("nan"), 0.9, 1.0), candidate(float("inf"), 0.9, 1.0)] * 2])
    prediction[0, 3] = torch.tensor(candidate(50, 0.9, 1.0))
    assert len(non_max_suppression(prediction)[0]) == 1


def test_only_the_most_confident_candidates_enter_and_ties_keep_their_order() -> None:
    rows = [candidate(50 + 20 * i, obj, 1.0) for i, obj in enumerate((0.5, 0.9, 0.5, 0.5, 0.8))]
    (found,) = non_max_suppression(torch.tensor([rows]), max_nms=3)
    assert ((found[:, 0] - 45) / 20).tolist() == [1, 4, 0]


def test_half_precision_gives_float32_detections() -> None:
    assert non_max_suppression(torch.tensor([[candidate(50, 0.75, 1.0)]]).half())[0].dtype == torch.float32


@pytest.mark.parametrize("spread", [60.0, 4000.0], ids=["crowded", "sparse"])
@pytest.mark.parametrize("max_det", [20, 100_000])
def test_trying_the_best_candidates_first_changes_nothing(spread: float, max_det: int) -> None:
    from torchvision.ops import nms

    rng = torch.Generator().manual_seed(0)
    prediction = torch.rand(1, 12_000, 6, generator=rng)
    prediction[..., :2] *= spread
    prediction[..., 2:4] = prediction[..., 2:4] * 40 + 2
    (found,) = non_max_suppression(prediction, 0.0, 0.5, max_det=max_det)
    conf = prediction[0, :, 4] * prediction[0, :, 5]
    xy, wh = prediction[0, :, :2], prediction[0, :, 2:4]
    keep = nms(torch.cat([xy - wh / 2, xy + wh / 2], 1), conf, 0.5)[:max_det]
    assert found[:, 4].tolist() == conf[keep].tolist()


def one_by_one(rows: list[list[float]], iou: float, agnostic: bool) -> list[list[float]]:
    """Greedy suppression from the formula, of [x1, y1, x2, y2, confidence, class]."""
    kept: list[list[float]] = []
    for row in sorted(rows, key=lambda r: -r[4]):
        for other in kept:
            w, h = min(row[2], other[2]) - max(row[0], other[0]), min(row[3], other[3]) - max(row[1], other[1])
            shared = max(w, 0.0) * max(h, 0.0)
            areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (row, other)]
            if (agnostic or row[5] == other[5]) and shared / (sum(areas) - shared) > iou:
                break
        else:
            kept.append(row)
    return kept


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("max_det", [15, 300])
def test_a_batch_equals_suppression_box_by_box(agnostic: bool, multi_label: bool, max_det: int) -> None:
    rng = torch.Generator().manual_seed(0)
    batch = torch.rand(4, 150, 8, generator=rng)
    batch[..., :4] = batch[..., :4] * 40 + 10
    found = non_max_suppression(batch, 0.1, 0.5, agnostic=agnostic, multi_label=multi_label, max_det=max_det)
    for image, answer in zip(batch.tolist(), found):
        rows = []
        for x, y, w, h, obj, *scores in image:
            conf = [obj * score for score in scores]
            kinds = range(3) if multi_label else [conf.index(max(conf))]
            rows += [
                [x - w / 2, y - h / 2, x + w / 2, y + h / 2, conf[k], k] for k in kinds if obj > 0.1 and conf[k] > 0.1
            ]
        expected = torch.tensor(one_by_one(rows, 0.5, agnostic)[:max_det])
        torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-4)


def test_every_image_of_a_batch_in_which_everything_passes_has_its_answer() -> None:
    rng = torch.Generator().manual_seed(0)
    batch = torch.rand(32, 1000, 25, generator=rng) * 0.5 + 0.3
    batch[..., :2] *= 800
    batch[..., 2:4] *= 60
    found = non_max_suppression(batch, 0.001, 0.6, multi_label=True)
    assert [len(rows) for rows in found] == [300] * 32


@pytest.mark.parametrize("wrong", [{"conf_thres": 25}, {"iou_thres": -0.1}, {"labels": [torch.zeros(0, 5)]}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"expected a value from 0 to 1|labels are given for 1"):
        non_max_suppression(torch.zeros(2, 1, 6), **wrong)


def test_importing_the_module_does_not_import_torchvision() -> None:
    code = "import sys, utils.core.nms; sys.exit('torchvision' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_detections_equal_the_reference_in_every_case(golden: Any) -> None:
    known = torch.from_numpy(golden.array("nms/labels_image0"))
    for case in golden.json("tensors")["nms"]["cases"]:
        options = dict(case["options"])
        if "labels" in options:
            options["labels"] = [known, known[:0]]
        found = non_max_suppression(torch.from_numpy(golden.array(case["input"])), **options)
        for image, rows in enumerate(found):
            name = f"nms/out_{case['name']}_{image}"
            expected = golden.array(name)
            assert rows.shape == expected.shape, name
            np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=1e-4, err_msg=name)
