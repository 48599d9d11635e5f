"""What the tests of several label formats share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from utils.core.boxes import xywhn2xyxy
from utils.datasets.labels.records import LabelSet


def _pixels(labels: LabelSet) -> list[list[float]]:
    boxes = labels.records[0].boxes.astype(float)
    return np.c_[boxes[:, 0], xywhn2xyxy(boxes[:, 1:], 100, 50)].round(2).tolist()


@pytest.fixture
def pixels() -> Callable[[LabelSet], list[list[float]]]:
    """Gives class and corners in pixels of all boxes of the first image, which has 100 x 50 pixels."""
    return _pixels
