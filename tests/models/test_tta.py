"""Test-time augmentation against boxes undone by hand and the figures of the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.tta import PADDING, VIEWS, AugmentedModel, View, augmented_forward
from models.yolo import Model
from utils.checkpoint import load_model


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return Model("yolov5n.yaml", nc=2).eval()


def test_outputs_with_the_official_weights_are_those_of_the_reference(golden, shared_weights) -> None:
    model, _ = load_model(shared_weights / "yolov5n-coco-v6.0.pt")
    x = torch.from_numpy(golden.array("model/pic_input_u8")).float() / 255
    with torch.no_grad():
        found = augmented_forward(model, x)
    reference = torch.from_numpy(golden.array("model/pic_concat_tta"))
    torch.testing.assert_close(found[..., :4], reference[..., :4], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found[..., 4:], reference[..., 4:], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("hw", "drawn", "full"),
    [
        ((128, 192), (85, 128), (96, 160)),  # 0.67 x 192 = 128.64: more than four cells of 32
        ((640, 640), (428, 428), (448, 448)),
        ((64, 32), (42, 21), (64, 32)),
    ],
)
def test_a_smaller_view_is_drawn_at_the_top_left_and_filled_up_with_grey(hw, drawn, full) -> None:
    seen = View(0.67).of(torch.ones(1, 3, *hw), 32)
    assert tuple(seen.shape[2:]) == full
    assert (seen[..., : drawn[0], : drawn[1]] > 0.999).all()
    assert (seen[..., drawn[0] :, :] == PADDING).all() and (seen[..., :, drawn[1] :] == PADDING).all()


def test_a_mirrored_view_shows_the_left_at_the_right() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., :32] = 1
    seen = View(0.5, mirrored=True).of(image, 32)
    assert (seen[..., :15] == 0).all() and (seen[..., 17:] == 1).all()


def test_the_full_size_view_is_the_batch_itself() -> None:
    x = torch.rand(1, 3, 64, 64)
    assert VIEWS[0].of(x, 32) is x


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(1.0), [10.0, 20.0, 4.0, 8.0]),
        (View(0.5), [20.0, 40.0, 8.0, 16.0]),
        (View(0.5, mirrored=True), [80.0, 40.0, 8.0, 16.0]),
    ],
)
def test_boxes_go_back_to_the_pixels_of_the_batch_and_scores_stay(view: View, expected: list[float]) -> None:
    decoded = torch.tensor([[[10.0, 20.0, 4.0, 8.0, 0.7, 0.1]]])
    undone = view.undo(decoded, 100)
    assert undone[0, 0].tolist() == pytest.approx([*expected, 0.7, 0.1])
    assert decoded[0, 0, 0] == 10, "the input was changed"


class Levels(nn.Module):
    """In place of a model: one anchor per cell, objectness tells view and level as 10 * view + level."""

    stride = torch.tensor([8.0, 16.0, 32.0])

    def __init__(self, levels: int = 3) -> None:
        super().__init__()
        self.levels, self.calls = levels, 0
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps, rows = [], []
        for level in range(self.levels):
            ny, nx = (int(side // self.stride[level]) for side in x.shape[2:])
            maps.append(torch.zeros(1, 1, ny, nx, 6))
            rows.append(torch.full((1, ny * nx, 6), 10.0 * self.calls + level))
        self.calls += 1
        return torch.cat(rows, 1), maps


def test_the_coarsest_level_of_the_largest_view_and_the_finest_of_the_smallest_are_left_out() -> None:
    found = augmented_forward(Levels(), torch.zeros(1, 3, 64, 96))[0, :, 4]  # type: ignore[arg-type]
    counts = {int(v): int((found == v).sum()) for v in found.unique()}
    # views of 64x96, 64x96 (from 53x79), 64x96 (from 42x64.3)
    assert counts == {0: 96, 1: 24, 10: 96, 11: 24, 12: 6, 21: 24, 22: 6}


def test_a_head_of_one_level_keeps_it_in_every_view() -> None:
    found = augmented_forward(Levels(1), torch.zeros(1, 3, 64, 64))[0, :, 4]  # type: ignore[arg-type]
    assert found.unique().tolist() == [0, 10, 20]


def test_the_wrapped_model_looks_like_the_model_and_returns_no_maps(model: Model) -> None:
    wrapped, x = AugmentedModel(model).eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        decoded, maps = wrapped(x)
        alone, _ = model(x)
    assert maps is None
    assert (wrapped.names, wrapped.nc) == (model.names, model.nc)
    assert torch.equal(wrapped.stride, model.stride)
    assert torch.equal(decoded[:, :240], alone[:, :240])  # 8x8 and 4x4 cells of 3 anchors
    assert len(decoded) == 2 and decoded.shape[1] > alone.shape[1]


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(RuntimeError, match="evaluation mode"):
        augmented_forward(Model("yolov5n.yaml", nc=2).train(), torch.zeros(1, 3, 64, 64))
