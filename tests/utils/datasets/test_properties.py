"""What holds for every image, every box and every draw. Hypothesis looks for a case that breaks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.core.image import LetterboxInfo, letterbox
from utils.datasets.augment.geometry import Sample, WarpRanges, draw_warp, warp_sample
from utils.datasets.augment.mosaic import arrange_four, arrange_nine
from utils.datasets.augment.optional import cutout_sample, equalize_sample
from utils.datasets.augment.pixels import HsvJitter, copy_paste_sample, flip_horizontal, flip_vertical, mixup_samples
from utils.datasets.dataset import TrainItem
from utils.datasets.loader import QuadCollate, collate

SIDE = 96
INFO = LetterboxInfo((SIDE, SIDE), (1.0, 1.0), (0.0, 0.0))
quick = settings(max_examples=40, deadline=None, derandomize=True)

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(8, SIDE)


@st.composite
def marked(draw: st.DrawFn) -> Sample:
    """A black image with a white rectangle, its box, and perhaps its outline."""
    width, height = draw(sides), draw(sides)
    x1, y1 = draw(st.integers(0, width - 8)), draw(st.integers(0, height - 8))
    x2, y2 = draw(st.integers(x1 + 8, width)), draw(st.integers(y1 + 8, height))
    image = np.zeros((height, width, 3), np.uint8)
    image[y1:y2, x1:x2] = 255
    outline = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float32)
    segments = [outline] if draw(st.booleans()) else []
    return Sample(image, np.array([[3, x1, y1, x2, y2]], np.float32), segments, "marked", INFO)


def inside(sample: Sample) -> bool:
    height, width = sample.image.shape[:2]
    corners = sample.boxes[:, 1:]
    return bool((corners >= 0).all() and (corners <= (width, height, width, height)).all())


def bright_box(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image[..., 0] > 180)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


ranges = st.fixed_dictionaries(
    {
        "degrees": st.sampled_from([0.0, 10.0, 90.0]),
        "translate": st.floats(0, 0.3),
        "scale": st.floats(0, 0.7),
        "shear": st.sampled_from([0.0, 10.0]),
        "perspective": st.sampled_from([0.0, 0.0005]),
    }
)


@quick
@given(marked(), ranges, seeds, st.integers(-3, 12))
def test_a_warped_box_is_inside_and_on_its_object(
    sample: Sample, geometry: dict[str, float], seed: int, border: int
) -> None:
    border = max(border, 4 - min(sample.image.shape[:2]) // 2)
    out_hw = sample.image.shape[0] + 2 * border, sample.image.shape[1] + 2 * border
    result = warp_sample(sample, out_hw, WarpRanges(**geometry), np.random.default_rng(seed))
    assert inside(result)
    assert len(result.segments) in (0, len(result.boxes))
    # What is thinner than a few pixels is blended with its surroundings and has no bright middle.
    if len(result.boxes) and (result.boxes[0, 3:] - result.boxes[0, 1:3]).min() > 6 and not geometry["perspective"]:
        np.testing.assert_allclose(result.boxes[0, 1:], bright_box(result.image), atol=2.5)


@quick
@given(marked())
@pytest.mark.parametrize("flip", [flip_horizontal, flip_vertical])
def test_a_mirrored_box_is_inside_and_on_its_object(flip: Callable[[Sample], Sample], sample: Sample) -> None:
    result = flip(sample)
    assert inside(result)
    np.testing.assert_array_equal(result.boxes[0, 1:], bright_box(result.image))


@quick
@given(marked(), seeds)
def test_colours_leave_the_marker_where_it_is(sample: Sample, seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Eight times as large: a histogram of a few pixels means nothing.
    large = replace(sample, image=sample.image.repeat(8, 0).repeat(8, 1), boxes=sample.boxes * 8)
    for image in (HsvJitter((1.4, 0.5, 0.85))(large.image), equalize_sample(large, rng).image):
        assert image.shape == large.image.shape
        np.testing.assert_array_equal(bright_box(image), large.boxes[0, 1:])


@quick
@given(marked(), seeds)
def test_patches_drop_a_box_only_when_most_of_it_is_hidden(sample: Sample, seed: int) -> None:
    result = cutout_sample(sample, np.random.default_rng(seed))
    x1, y1, x2, y2 = sample.boxes[0, 1:].astype(int).tolist()
    still_white = (result.image[y1:y2, x1:x2] == 255).all(-1).mean()
    assert len(result.boxes) == int(still_white >= 0.4 - 1e-6)
    assert (sample.image[y1:y2, x1:x2] == 255).all()  # the argument is not changed
    assert len(result.segments) in (0, len(result.boxes))


@quick
@given(marked(), seeds)
def test_pasted_copies_are_inside_and_have_their_pixels(sample: Sample, seed: int) -> None:
    result = copy_paste_sample(sample, 1.0, np.random.default_rng(seed))
    assert inside(result)
    for box in result.boxes[:, 1:].astype(int).tolist():
        assert (result.image[box[1] : box[3], box[0] : box[2]] == 255).all()


@quick
@given(
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.booleans(),
    st.booleans(),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_letterbox_and_back_is_the_identity(
    hw: tuple[int, int], cells: tuple[int, int], auto: bool, up: bool, corners: list[float]
) -> None:
    shape = (32 * cells[0], 32 * cells[1])
    image, ratio, pad = letterbox(np.zeros((*hw, 3), np.uint8), shape, auto=auto, scaleup=up)
    assert image.shape[0] <= shape[0] and image.shape[1] <= shape[1]
    boxes = np.array([corners]) * (hw[1], hw[0], hw[1], hw[0])
    placed = boxes * (ratio * 2) + pad * 2
    height, width = image.shape[:2]
    assert (placed >= -1).all() and (placed <= np.array([width, height] * 2) + 1).all()
    np.testing.assert_allclose(LetterboxInfo(hw, ratio, pad).undo(placed), boxes, atol=1e-6)


def visible(box: np.ndarray, matrix: np.ndarray, out: int) -> tuple[float, float]:
    """Shortest side and share of the area that is left of a box on the canvas (the rule: over 2 px and over 10 %)."""
    corners = np.array([[box[i], box[j], 1] for i in (0, 2) for j in (1, 3)]) @ matrix.T
    points = corners[:, :2] / corners[:, 2:]
    low, high = points.min(0).clip(0, out), points.max(0).clip(0, out)
    zoom = np.sqrt(abs(np.linalg.det(matrix[:2, :2])))
    area = max((box[2] - box[0]) * (box[3] - box[1]) * zoom**2, 1e-9)
    return float((high - low).min()), float((high - low).prod() / area)


@quick
@given(st.lists(marked(), min_size=9, max_size=9), seeds, st.booleans(), st.booleans())
def test_a_mosaic_loses_and_invents_no_label_beyond_the_rule(
    images: list[Sample], seed: int, nine: bool, turned: bool
) -> None:
    rng = np.random.default_rng(seed)
    sizes_hw = [(s.image.shape[0], s.image.shape[1]) for s in images[: 9 if nine else 4]]
    layout = (arrange_nine if nine else arrange_four)(sizes_hw, SIDE, rng)
    fractions = [s.boxes[:, 1:] / (w, h, w, h) for s, (h, w) in zip(images, sizes_hw)]
    boxes = layout.place_boxes([np.c_[n, corners].astype(np.float32) for n, corners in enumerate(fractions)])
    assert boxes[:, 0].tolist() == list(range(len(sizes_hw)))
    ranges = WarpRanges(degrees=30.0 * turned, translate=0.1, scale=0.5)
    warp = draw_warp((2 * SIDE, 2 * SIDE), (SIDE, SIDE), ranges, rng)
    scale_shift = None if turned else layout.enlarge(warp, sizes_hw).scale_shift
    kept = set(warp.move_labels(boxes, (), scale_shift)[0][:, 0].astype(int).tolist())
    for number, *box in boxes.tolist():
        side, share = visible(np.array(box), warp.matrix, SIDE)
        # Edges are rounded to whole pixels, so a case on the border may go either way.
        if side > 3 and share > 0.2:
            assert int(number) in kept
        if side < 1 or share < 0.02:
            assert int(number) not in kept


@quick
@given(marked(), marked(), seeds)
def test_a_blend_has_the_labels_of_both_and_no_other(first: Sample, second: Sample, seed: int) -> None:
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    samples = []
    for sample in (first, second):
        image = canvas.copy()
        image[: sample.image.shape[0], : sample.image.shape[1]] = sample.image
        samples.append(Sample(image, sample.boxes, sample.segments, sample.path, INFO))
    mixed = mixup_samples(*samples, np.random.default_rng(seed))
    np.testing.assert_array_equal(mixed.boxes, np.concatenate((first.boxes, second.boxes)))
    assert inside(mixed)
    assert len(mixed.segments) in (0, 2)
    both = (samples[0].image > 0) & (samples[1].image > 0)
    assert (mixed.image[both] >= 254).all() and (
        mixed.image[(samples[0].image == 0) & (samples[1].image == 0)] == 0
    ).all()


def numbered_item(number: int, boxes: int) -> TrainItem:
    """An image of one shade whose boxes have the shade as class."""
    targets = torch.tensor([[0, number, 0.5, 0.5, 0.5, 0.5]]).repeat(boxes, 1)
    return TrainItem(torch.full((3, 8, 8), number, dtype=torch.uint8), targets, str(number), INFO, (0, number))


@quick
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3)), min_size=1, max_size=9), st.booleans(), seeds)
def test_a_batch_never_mixes_images(facts: list[tuple[int, int]], quad: bool, seed: int) -> None:
    items = [numbered_item(number, boxes) for number, boxes in facts]
    batch = (QuadCollate(seed % 1000) if quad else collate)(items)
    side = batch.images.shape[-1]
    for image, number, x, y, _, _ in batch.targets.tolist():
        assert (batch.images[int(image), :, int(y * side), int(x * side)] == number).all()
    if not quad:
        assert batch.paths == [str(number) for number, _ in facts]
        assert len(batch.targets) == sum(boxes for _, boxes in facts)
