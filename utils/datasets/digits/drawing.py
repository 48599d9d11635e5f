"""Drawing of the embedded data set: one image of handwritten digits scattered over a photo.

Material comes from inside the scikit-learn package: the 1,797 8x8 handwritten digits (UCI "Optical Recognition of
Handwritten Digits", CC BY 4.0) and its two sample photos (CC BY 2.0). ``utils.datasets.digits`` makes the folder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from utils.core.errors import InputError

FloatArray = npt.NDArray[np.float32]
NAMES = tuple("0123456789")
_LUMA = np.array([0.114, 0.587, 0.299], dtype=np.float32)  # of BGR, ITU-R BT.601

_MARGIN = 2  # empty cells around a glyph, so that strokes end smoothly
_FINE = 4  # pixels a cell in the smooth ink field


@dataclass(frozen=True, kw_only=True)
class DigitStyle:
    """How hard the images are. Pairs are (lowest, highest) of a uniform draw; lengths in pixels, colours 0..255."""

    digits: tuple[int, int] = (1, 8)
    empty_share: float = 0.05  # images of background only
    height: tuple[float, float, float] = (18.0, 52.0, 110.0)  # lowest, most frequent, highest (triangular)
    aspect: tuple[float, float] = (0.85, 1.2)  # width stretch
    angle: float = 15.0  # degrees, either way
    shear: float = 0.15
    level: tuple[float, float] = (-0.10, 0.02)  # value of ``ink_field`` at the outline: low is bold, 0 as written
    opacity: tuple[float, float] = (0.8, 1.0)
    contrast: float = 55.0  # least difference of luma between a stroke and what lies under it ...
    darker: bool = False  # strokes are darker than what lies under them, not also lighter
    contrast_clutter: float = 1.0  # ... plus this many standard deviations of the luma around it
    max_truncated: float = 0.4  # share of the strokes that may lie outside the image
    inside_share: float = 0.85  # digits placed wholly inside
    max_hidden: float = 0.5  # share of a digit's strokes that later digits may cover
    max_shared: float = 0.35  # overlap of two boxes, as a share of the smaller one
    tries: int = 30
    photo_zoom: tuple[float, float] = (0.4, 1.0)  # crop size as a share of the largest crop that fits the region
    photo_contrast: tuple[float, float] = (0.45, 0.9)
    photo_brightness: float = 30.0  # either way, ...
    photo_mean: tuple[float, float] = (50.0, 205.0)  # ... but the mean of a background stays between these
    photo_hue: float = 40.0  # degrees, either way
    photo_saturation: tuple[float, float] = (0.4, 1.3)
    blur_share: float = 0.3
    blur_sigma: tuple[float, float] = (0.4, 1.0)
    noise_sigma: tuple[float, float] = (0.0, 8.0)
    jpeg_quality: int = 88


STYLE = DigitStyle()


@dataclass(frozen=True)
class DigitSource:
    """What scikit-learn carries: ``cells`` [1797, 8, 8] ink 0..1, ``classes`` [1797], two photos (HWC BGR)."""

    cells: FloatArray
    classes: npt.NDArray[np.int64]
    photos: tuple[npt.NDArray[np.uint8], ...]
    _fields: dict[int, FloatArray] = field(default_factory=dict, repr=False)

    def ink(self, index: int) -> FloatArray:
        """``ink_field`` of a digit, kept, because a digit is drawn several times."""
        if index not in self._fields:
            self._fields[index] = ink_field(self.cells[index])
        return self._fields[index]


def load_source() -> DigitSource:
    """Read digits and photos from the installed scikit-learn; InputError when it is not there."""
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise InputError(
            f"the embedded digits set needs scikit-learn ({error}); run: pip install -r requirements.txt"
        ) from error
    digits = load_digits()
    photos = tuple(np.ascontiguousarray(photo[..., ::-1]) for photo in load_sample_images().images)
    return DigitSource((digits.images / 16).astype(np.float32), digits.target.astype(np.int64), photos)


def digit_pool(split: str) -> range:
    """Indices into ``load_digits`` that a split may draw: 1200/300/297, in file order, hence mostly other writers."""
    return {"train": range(0, 1200), "val": range(1200, 1500), "test": range(1500, 1797)}[split]


def photo_region(split: str, hw: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of a photo that a split may use: train the right 66 %, val top left, test bottom left."""
    height, width = hw
    column, row = round(0.34 * width), height // 2
    if split == "train":
        return slice(0, height), slice(column, width)
    return (slice(0, row) if split == "val" else slice(row, height)), slice(0, column)


class DigitDeck:
    """Deals digit instances of one split: all ten classes in each round, and no repeat before a class is used up."""

    def __init__(self, classes: npt.NDArray[np.int64], split: str, rng: np.random.Generator) -> None:
        pool = digit_pool(split)
        self._by_class = [[i for i in pool if classes[i] == c] for c in range(len(NAMES))]
        self._left: list[list[int]] = [[] for _ in NAMES]
        self._round: list[int] = []
        self._rng = rng

    def deal(self) -> int:
        """Return the index of the next digit."""
        if not self._round:
            self._round = self._rng.permutation(len(NAMES)).tolist()
        kind = self._round.pop()
        if not self._left[kind]:
            self._left[kind] = self._rng.permutation(self._by_class[kind]).tolist()
        return self._left[kind].pop()


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Shape of a drawn digit: height in px before rotation, width stretch, rotation in degrees, shear, outline."""

    height: float
    aspect: float = 1.0
    angle: float = 0.0
    shear: float = 0.0
    level: float = 0.0

    @classmethod
    def draw(cls, style: DigitStyle, rng: np.random.Generator) -> Pose:
        """A random pose within the style."""
        return cls(
            height=float(rng.triangular(*style.height)),
            aspect=float(rng.uniform(*style.aspect)),
            angle=float(rng.uniform(-style.angle, style.angle)),
            shear=float(rng.uniform(-style.shear, style.shear)),
            level=float(rng.uniform(*style.level)),
        )


def ink_field(cells: FloatArray) -> FloatArray:
    """Smooth field [48, 48] whose zero line is the outline of the digit ``cells`` [8, 8] (ink 0..1), positive inside.

    A cell holds how much of its square was inked in a finer black and white drawing. So a smooth field is sought whose
    inside covers each square by that much: back-projection, i.e. interpolate, measure the cover of each square, add
    the interpolated error, smooth, repeat. Plain interpolation would fill the small holes of 6, 8 and 9.
    """
    ink = np.pad(cells, _MARGIN)
    smooth = _enlarge(ink) - 0.5
    for _ in range(10):
        inside = 0.5 + 0.5 * np.tanh(3 * smooth)
        missing = ink - inside.reshape(len(ink), _FINE, len(ink), _FINE).mean((1, 3))
        smooth = _blur(smooth + _enlarge(missing), 0.25 * _FINE)
    return smooth


def _enlarge(cells: FloatArray) -> FloatArray:
    size = (cells.shape[1] * _FINE, cells.shape[0] * _FINE)
    return np.asarray(cv2.resize(cells, size, interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _blur(array: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(array, (0, 0), sigma), dtype=np.float32)


def render_glyph(ink: FloatArray, pose: Pose) -> FloatArray:
    """Draw a digit: its ``ink_field`` -> coverage [h, w] 0..1, cropped to its strokes (coverage > 0.5).

    The outline is about one pixel soft at any size, as if the pen line itself had been photographed.
    """
    shape = ink - pose.level
    rows = np.flatnonzero((shape > 0).any(1))
    scale = pose.height / (rows[-1] - rows[0] + 1)  # image pixels a field pixel
    side = math.ceil(1.4 * shape.shape[0] * scale * max(1.0, pose.aspect)) + 4
    cos, sin = math.cos(math.radians(pose.angle)), math.sin(math.radians(pose.angle))
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.array([[pose.aspect, pose.shear], [0.0, 1.0]]) * scale
    shift = (side - 1) / 2 - turn @ np.full(2, (shape.shape[0] - 1) / 2)
    matrix = np.column_stack([turn, shift])
    warped = cv2.warpAffine(
        shape, matrix, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=-1.0
    )
    steepness = max(1.0, _FINE * scale)  # the field rises by about 1 a cell across an outline
    coverage = np.clip(warped * steepness + 0.5, 0, 1).astype(np.float32)
    drawn = coverage > 0.5
    ys, xs = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    return coverage[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]


def draw_background(
    photos: Sequence[npt.NDArray[np.uint8]],
    split: str,
    hw: tuple[int, int],
    rng: np.random.Generator,
    style: DigitStyle = STYLE,
) -> FloatArray:
    """A random crop of the split's part of a photo, zoomed, flipped, recoloured: float32 BGR [h, w, 3] 0..255."""
    photo = photos[int(rng.integers(len(photos)))]
    region = photo[photo_region(split, (photo.shape[0], photo.shape[1]))]
    height, width = hw
    largest = min(region.shape[0] / height, region.shape[1] / width)
    zoom = largest * rng.uniform(*style.photo_zoom)
    ch, cw = max(1, int(height * zoom)), max(1, int(width * zoom))
    y, x = rng.integers(region.shape[0] - ch + 1), rng.integers(region.shape[1] - cw + 1)
    crop = region[y : y + ch, x : x + cw]
    crop = crop[:, ::-1] if rng.random() < 0.5 else crop
    crop = crop[::-1] if rng.random() < 0.2 else crop
    pixels = cv2.resize(np.ascontiguousarray(crop, dtype=np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    matrix = colour_matrix(rng.uniform(-style.photo_hue, style.photo_hue), rng.uniform(*style.photo_saturation))
    contrast = rng.uniform(*style.photo_contrast)
    mean = np.array(cv2.mean(pixels)[:3])
    level = np.clip(mean.mean() + rng.uniform(-style.photo_brightness, style.photo_brightness), *style.photo_mean)
    offset = (1 - contrast) * (matrix @ mean) + level - mean.mean()
    recoloured = cv2.transform(pixels, np.column_stack([contrast * matrix, offset]))
    return np.asarray(recoloured, dtype=np.float32).clip(0, 255)


def colour_matrix(hue: float, saturation: float) -> npt.NDArray[np.float64]:
    """The BGR matrix [3, 3] that turns the hue by some degrees and scales the saturation, leaving greys alone.

    In luma and two colour differences (B-Y, R-Y) both are a rotation and a scaling of the differences.
    """
    to_differences = np.array([[0.114, 0.587, 0.299], [0.886, -0.587, -0.299], [-0.114, -0.587, 0.701]])
    cos, sin = saturation * math.cos(math.radians(hue)), saturation * math.sin(math.radians(hue))
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.linalg.inv(to_differences) @ turn @ to_differences


@dataclass(frozen=True)
class Drawing:
    """A composed image (uint8 BGR [h, w, 3]), its boxes [n, 5] class + xyxy px, the digit instances [n] drawn."""

    image: npt.NDArray[np.uint8]
    boxes: FloatArray
    instances: tuple[int, ...]


class Canvas:
    """An image in the making, which knows what covers what.

    Labelling rule: a box is tight around a digit's strokes (coverage > 0.5), clipped to the image; a digit partly
    under later digits keeps its whole box. A digit that would lie outside the image by more than
    ``max_truncated`` of its strokes, or hide more than ``max_hidden`` of an earlier one, is tried elsewhere and, when
    no place is found, not painted at all: whatever is painted is labelled.
    """

    def __init__(self, background: FloatArray, style: DigitStyle) -> None:
        self.pixels = background
        self.style = style
        self.boxes: list[tuple[int, int, int, int]] = []  # xyxy px
        self._owner = np.full(background.shape[:2], -1, dtype=np.int16)  # which digit is on top
        self._ink: list[int] = []  # stroke pixels of each digit inside the image

    def _fits(self, box: tuple[int, int, int, int], ink: npt.NDArray[np.bool_], kept: float) -> bool:
        if kept < 1 - self.style.max_truncated:
            return False
        x1, y1, x2, y2 = box
        for a1, b1, a2, b2 in self.boxes:
            shared = max(0, min(x2, a2) - max(x1, a1)) * max(0, min(y2, b2) - max(y1, b1))
            if shared > self.style.max_shared * min((x2 - x1) * (y2 - y1), (a2 - a1) * (b2 - b1)):
                return False
        for digit, total in enumerate(self._ink):
            left = np.count_nonzero(self._owner == digit)
            covered = np.count_nonzero((self._owner[y1:y2, x1:x2] == digit) & ink)
            if left - covered < (1 - self.style.max_hidden) * total:
                return False
        return True

    def add(self, coverage: FloatArray, rng: np.random.Generator) -> bool:
        """Paint a glyph at a random place that fits; False when none was found and nothing was painted."""
        height, width = self.pixels.shape[:2]
        gh, gw = coverage.shape
        for _ in range(self.style.tries):
            inside = rng.random() < self.style.inside_share and gw < width and gh < height
            slack_x, slack_y = (0, 0) if inside else (gw // 2, gh // 2)
            x = int(rng.integers(-slack_x, max(1, width - gw + slack_x + 1)))
            y = int(rng.integers(-slack_y, max(1, height - gh + slack_y + 1)))
            part = coverage[max(0, -y) : height - y, max(0, -x) : width - x]
            ink = part > 0.5
            if not ink.any():
                continue
            kept = np.count_nonzero(ink) / np.count_nonzero(coverage > 0.5)
            rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
            part = part[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            left, top = max(0, x) + int(columns[0]), max(0, y) + int(rows[0])
            box = (left, top, left + part.shape[1], top + part.shape[0])
            if self._fits(box, part > 0.5, kept):
                self._paint(box, part, rng)
                return True
        return False

    def _paint(self, box: tuple[int, int, int, int], part: FloatArray, rng: np.random.Generator) -> None:
        x1, y1, x2, y2 = box
        ink = part > 0.5
        under = self.pixels[y1:y2, x1:x2]
        colour = pick_colour(under, self.style, rng)
        alpha = (part * rng.uniform(*self.style.opacity))[..., None]
        self.pixels[y1:y2, x1:x2] = under * (1 - alpha) + colour * alpha
        self._owner[y1:y2, x1:x2][ink] = len(self.boxes)
        self._ink.append(int(np.count_nonzero(ink)))
        self.boxes.append(box)


def pick_colour(under: FloatArray, style: DigitStyle, rng: np.random.Generator) -> FloatArray:
    """A random BGR colour [3] 0..255 whose luma stands out, by the style's contrast, from ``under`` [h, w, 3]."""
    luma = under @ _LUMA
    mean, wanted = float(luma.mean()), style.contrast + style.contrast_clutter * float(luma.std())
    for _ in range(style.tries):  # exponents: as many light colours as dark ones
        hsv = np.array([[[rng.uniform(0, 360), rng.random() ** 1.5, rng.random() ** 0.6]]], dtype=np.float32)
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0] * 255
        lighter = float(colour @ _LUMA) - mean
        if (-lighter if style.darker else abs(lighter)) >= wanted:
            return colour
    dark = style.darker or mean > 165 or (mean > 90 and rng.random() < 0.5)
    return np.full(3, 0 if dark else 255, dtype=np.float32)


def compose(
    source: DigitSource,
    split: str,
    hw: tuple[int, int],
    deck: DigitDeck,
    rng: np.random.Generator,
    style: DigitStyle = STYLE,
    digits: int | None = None,
) -> Drawing:
    """Compose one image of ``hw`` pixels with ``digits`` digits (None: a random number) by ``Canvas``'s rule."""
    canvas = Canvas(draw_background(source.photos, split, hw, rng, style), style)
    wanted = int(rng.integers(style.digits[0], style.digits[1] + 1)) if digits is None else digits
    drawn: list[int] = []
    for _ in range(wanted):
        index = deck.deal()
        if canvas.add(render_glyph(source.ink(index), Pose.draw(style, rng)), rng):
            drawn.append(index)
    pixels = canvas.pixels
    if rng.random() < style.blur_share:
        pixels = _blur(pixels, rng.uniform(*style.blur_sigma))
    grain = rng.standard_normal((*hw, 1), dtype=np.float32)  # the same in all three colours
    pixels = pixels + grain * np.float32(rng.uniform(*style.noise_sigma))
    boxes = np.array([(source.classes[i], *box) for i, box in zip(drawn, canvas.boxes)], dtype=np.float32)
    return Drawing((pixels.clip(0, 255) + 0.5).astype(np.uint8), boxes.reshape(-1, 5), tuple(drawn))
