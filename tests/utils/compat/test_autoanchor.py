"""The door utils.compat.autoanchor: names and calls of v6.1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from models.yolo import Model
from utils.compat.autoanchor import check_anchor_order, check_anchors, kmean_anchors
from utils.core.errors import InputError


@pytest.fixture
def narrow() -> SimpleNamespace:
    """40 images of 100 x 100 px with boxes about 4 x 80 px at the size of training."""
    rng = np.random.default_rng(0)
    labels = [np.array([[0, 0.5, 0.5, *(np.array([0.04, 0.8]) * rng.uniform(0.8, 1.2, 2))]]) for _ in range(40)]
    return SimpleNamespace(shapes=np.full((40, 2), 100.0), labels=labels)


def test_anchors_of_a_data_set_in_memory(narrow: SimpleNamespace) -> None:
    found = kmean_anchors(narrow, 3, 100, 4.0, 50, verbose=False)
    assert found.shape == (3, 2)
    assert (abs(found - (4, 80)) < (2, 25)).all()


def test_anchors_of_a_data_yaml(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    data = make_dataset(tmp_path, n_train=12, boxes=2)
    assert kmean_anchors(str(data), n=3, img_size=64, gen=10).shape == (3, 2)


def test_fewer_boxes_than_anchors_are_an_error(narrow: SimpleNamespace) -> None:
    narrow.labels, narrow.shapes = narrow.labels[:2], narrow.shapes[:2]
    with pytest.raises(InputError, match="9 anchors need at least 9 different box sizes, got 2"):
        kmean_anchors(narrow, 9, 100)


def test_a_model_gets_anchors_that_fit(narrow: SimpleNamespace) -> None:
    model = Model("yolov5n.yaml", nc=1)
    before = model.head.anchors_px.clone()
    check_anchors(narrow, model, thr=4.0, imgsz=100)
    assert not torch.equal(model.head.anchors_px, before)
    assert float(model.head.anchors_px[..., 0].max()) < 10


def test_anchors_from_large_to_small_are_turned_round() -> None:
    anchors = torch.tensor([[[8.0, 8]], [[4, 4]], [[2, 2]]])
    head = SimpleNamespace(anchors=anchors.clone(), stride=torch.tensor([8.0, 16, 32]))
    check_anchor_order(head)
    assert torch.equal(head.anchors, anchors.flip(0))
    check_anchor_order(head)
    assert torch.equal(head.anchors, anchors.flip(0))
