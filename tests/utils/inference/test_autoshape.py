"""AutoShape: images in any form in, detections in their own pixels out."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from utils.core.errors import InputError
from utils.core.image import read_image, write_image
from utils.inference import Predictor
from utils.inference.attempt_load import attempt_load
from utils.inference.autoshape import AutoShape, read_rgb


class OneBox(nn.Module):
    """Always answers with one sure box of class 1: centre and size as given, in pixels of the network's input."""

    names, stride = ["ant", "bee"], 32

    def __init__(self, *xywh: float) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.tensor([*xywh, 1.0, 0.0, 0.9]))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        self.seen.append(x)
        return self.row.expand(len(x), 1, 7), None


@pytest.fixture(scope="module")
def shaped(eager_weights: Path) -> AutoShape:
    return AutoShape(attempt_load(eager_weights), verbose=False)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_box_comes_back_in_pixels_of_the_image() -> None:
    model = AutoShape(OneBox(32, 16, 32, 16), verbose=False)
    found = model(noise(100, 200), size=64)
    # 200 x 100 px shrink by 0.32 to 64 x 32, without margin: (16, 8, 48, 24) / 0.32
    assert found.s == (1, 3, 32, 64)
    assert found.xyxy[0].tolist() == [pytest.approx([50, 25, 150, 75, 0.9, 1])]


def test_the_margin_is_taken_off_again() -> None:
    model = AutoShape(OneBox(32, 32, 20, 10), verbose=False)
    found = model(noise(50, 100), size=100)  # 100 is no multiple of 32: the input is 128 wide, 1.28 times the image
    assert found.s == (1, 3, 64, 128)
    assert found.xyxy[0][0, :4].tolist() == pytest.approx([22 / 1.28, 27 / 1.28, 42 / 1.28, 37 / 1.28])


def test_images_of_several_shapes_share_one_canvas() -> None:
    model = AutoShape(OneBox(32, 32, 20, 10), verbose=False)
    found = model([noise(40, 80), noise(80, 40)], size=64)
    assert found.s == (2, 3, 64, 64)
    wide, tall = (boxes[0, :4].tolist() for boxes in found.xyxy)
    assert wide == pytest.approx([27.5, 13.75, 52.5, 26.25])  # 16 px of margin above, then 1.25 times
    assert tall == pytest.approx([7.5, 33.75, 32.5, 46.25])


def test_small_images_on_a_common_canvas_are_enlarged() -> None:
    net = OneBox(32, 32, 20, 10)
    white = np.full((20, 40, 3), 255, np.uint8)
    AutoShape(net, verbose=False)([white, white.transpose(1, 0, 2)], size=64)
    wide, tall = net.seen[0][:, 0] == 1  # bool [64, 64] each
    assert wide.sum() == tall.sum() == 32 * 64
    assert wide[16:48].all()
    assert tall[:, 16:48].all()


def test_the_model_sees_red_green_blue_from_0_to_1() -> None:
    net = OneBox(16, 16, 8, 8)
    AutoShape(net, verbose=False)(np.full((32, 32, 3), (255, 51, 0), np.uint8), size=32)
    assert net.seen[0][0, :, 0, 0].tolist() == pytest.approx([1.0, 0.2, 0.0])


def test_file_image_and_array_of_one_image_give_the_same(shaped: AutoShape, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    write_image(file, noise(60, 64))
    rgb = np.ascontiguousarray(read_image(file)[..., ::-1])
    found = shaped([str(file), file, Image.open(file), Image.fromarray(rgb), rgb], size=64)
    assert found.files == ["a.jpg", "a.jpg", "a.jpg", "image3.jpg", "image4.jpg"]
    assert len(found.pred[0])
    for boxes in found.pred[1:]:
        torch.testing.assert_close(boxes, found.pred[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((6, 8), 7, np.uint8), [7, 7, 7]),
        (np.full((6, 8, 1), 7, np.uint8), [7, 7, 7]),
        (np.full((6, 8, 4), (1, 2, 3, 99), np.uint8), [1, 2, 3]),
        (np.full((8, 6, 3), (1, 2, 3), np.uint8).transpose(2, 0, 1).swapaxes(1, 2), [1, 2, 3]),
    ],
    ids=["grey", "one channel", "transparent", "channels first"],
)
def test_arrays_of_other_layouts_become_height_width_colour(array: np.ndarray, pixel: list[int]) -> None:
    image, _ = read_rgb(array, 0)
    assert image.shape == (6, 8, 3)
    assert image[0, 0].tolist() == pixel


def test_an_image_taken_with_a_turned_camera_is_put_upright(tmp_path: Path) -> None:
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (20, 10)).save(file, exif=exif)
    assert read_rgb(file, 0)[0].shape == read_rgb(Image.open(file), 0)[0].shape == (20, 10, 3)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.full((4, 4, 3), -1, np.float32), "image 0: pixels are float32 from -1 to -1, expected 0 to 255"),
        (np.full((4, 4, 3), np.nan), "float64 from nan to nan"),
        (np.full((4, 4, 3), 70000), "int64 from 70000 to 70000"),
        (np.full((4, 4, 3), 1j), "complex128, expected numbers"),
        (Image.fromarray(np.full((4, 4), -5, np.int32)), "int32 from -5 to -5"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\[2, 4, 4, 3\]"),
        (np.zeros((5, 4, 2), np.uint8), r"\[5, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"\[0, 4, 3\]"),
        ("https://example.org/a.jpg", "nothing is downloaded"),
        (5, "got int"),
    ],
)
def test_what_is_not_an_image_is_refused(item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_rgb(item, 0)


def test_an_empty_list_is_refused(shaped: AutoShape) -> None:
    with pytest.raises(InputError, match="empty"):
        shaped([])


def test_thresholds_and_classes_are_read_at_each_call(eager_weights: Path) -> None:
    model, image = AutoShape(attempt_load(eager_weights), verbose=False), noise(64, 64)
    everything = model(image, size=64).pred[0]
    assert set(everything[:, 5].tolist()) == {0.0, 1.0}
    model.classes = [1]
    assert set(model(image, size=64).pred[0][:, 5].tolist()) == {1.0}
    model.classes, model.max_det = None, 3
    assert len(model(image, size=64).pred[0]) == 3
    model.conf = float(everything[0, 4])
    assert len(model(image, size=64).pred[0]) == 0


def test_a_tensor_goes_to_the_model_as_it_is(shaped: AutoShape) -> None:
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(shaped(x)[0], shaped.model(x)[0])


def test_augmented_detection_sees_more_candidates(shaped: AutoShape) -> None:
    x = torch.rand(1, 3, 64, 64)
    assert shaped(x, augment=True)[0].shape[1] > shaped(x)[0].shape[1]


def test_a_model_fresh_from_training_is_put_into_evaluation_mode() -> None:
    net = OneBox(1, 1, 1, 1).train()
    assert not AutoShape(net, verbose=False).model.training


def test_a_model_finds_what_the_predictor_finds(
    lively_weights: Path, blurred_noise: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    write_image(image, blurred_noise(0, (360, 500)))
    predictor = Predictor(attempt_load(lively_weights), torch.device("cpu"))
    expected = predictor(read_image(image)).boxes
    found = AutoShape(attempt_load(lively_weights), verbose=False)(image)
    assert len(expected) > 5
    torch.testing.assert_close(found.xyxy[0], expected, rtol=0, atol=1e-3)
    assert found.pred[0].device.type == "cpu"


def test_the_bytes_of_a_file_are_an_image(shaped: AutoShape, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", noise(40, 64))
    content = (tmp_path / "a.png").read_bytes()
    results = shaped([content, BytesIO(content), tmp_path / "a.png"], size=64)
    assert results.files == ["image0.jpg", "image1.jpg", "a.jpg"]
    assert all((image == results.imgs[2]).all() for image in results.imgs)
    with pytest.raises(InputError, match="image 0: not a readable image"):
        shaped(b"no image")


GREY16 = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
AS_8_BIT = ((GREY16.astype(np.uint32) + 128) // 257).astype(np.uint8)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I", "F"])
def test_a_16_bit_pil_image_is_divided_by_257_as_from_a_file(mode: str, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", GREY16)
    with Image.open(tmp_path / "a.png") as opened:
        image = opened.copy()
    if mode == "I;16B":
        image = Image.frombytes(mode, (8, 8), GREY16.astype(">u2").tobytes())
    elif mode != image.mode:
        image = image.convert(mode)
    from_file = read_rgb(tmp_path / "a.png", 0)[0]
    assert np.array_equal(from_file[..., 0], AS_8_BIT)
    assert np.array_equal(read_rgb(image, 0)[0], from_file)


def test_a_dark_16_bit_pil_image_stays_dark() -> None:
    for image in (Image.fromarray(GREY16 // 512), Image.fromarray((GREY16 // 512).astype(np.int32))):
        assert read_rgb(image, 0)[0].max() == 0  # 126 of 65535


@pytest.mark.parametrize(
    "array",
    [
        GREY16,
        GREY16.astype(">u2"),
        GREY16.astype(np.int64),
        GREY16.astype(np.float32),
        AS_8_BIT.astype(np.float32),
        AS_8_BIT.astype(np.float64) / 255,
        (AS_8_BIT / 255).astype(np.float16),
        AS_8_BIT.astype(np.float64) / 255 * (1 + 1e-6),
        AS_8_BIT.astype(int),
    ],
)
def test_arrays_of_every_number_type_mean_the_same_image(array: np.ndarray) -> None:
    assert np.array_equal(read_rgb(array, 0)[0][..., 0], AS_8_BIT)


def test_a_mask_of_booleans_is_black_and_white() -> None:
    assert np.unique(read_rgb(GREY16 > 30000, 0)[0]).tolist() == [0, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_pil_images_of_every_mode_become_red_green_blue(mode: str) -> None:
    red = Image.new("RGB", (6, 4), (255, 0, 0))
    source = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode, mode)
    image = red.convert(source).convert(mode) if mode != "PA" else red.convert("P").convert("PA")
    found = read_rgb(image, 0)[0]
    expected = {"1": None, "L": [76] * 3, "LA": [76] * 3, "La": [76] * 3}.get(mode, [255, 0, 0])
    assert found.shape == (4, 6, 3)
    assert expected is None or np.abs(found[0, 0].astype(int) - expected).max() <= 2


def test_the_size_may_be_height_and_width() -> None:
    net = OneBox(16, 16, 8, 8)
    AutoShape(net, verbose=False)([noise(100, 100), noise(50, 200)], size=(64, 128))
    assert net.seen[0].shape == (2, 3, 64, 128)
    with pytest.raises(InputError, match="size is 0"):
        AutoShape(net, verbose=False)(noise(10, 10), size=0)


def test_clients_find_the_classes_in_models_common(shaped: AutoShape) -> None:
    results = shaped(noise(64, 64), size=64)
    assert {type(shaped).__module__, type(results).__module__} == {"models.common"}
    assert shaped.names == ["ant", "bee"] == list(results.names)
    assert results.names.items() == [(0, "ant"), (1, "bee")]
