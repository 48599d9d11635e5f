"""Images of one size side by side in a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def image_grid(cells: Sequence[np.ndarray], columns: int, gap: int) -> np.ndarray:
    """Arrange images [h, w, 3] uint8 of one size in rows, with ``gap`` white pixels between them."""
    height, width = cells[0].shape[:2]
    rows = -(-len(cells) // columns)
    grid = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for number, cell in enumerate(cells):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        grid[top : top + height, left : left + width] = cell
    return grid
