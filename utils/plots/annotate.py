"""Boxes and labels drawn into an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.plots.fonts import font_for

Color = tuple[int, int, int]  # blue, green, red

# Twenty colours chosen by greedy farthest-point search in CIELAB among those of medium lightness and chroma. Neighbours
# in the list differ most, also for colour-blind readers: the distance of two colours is the smaller of that in normal
# vision and 1.6 times that under simulated red or green blindness (Vienot 1999).
_PALETTE: tuple[Color, ...] = (
    (195, 105, 0),
    (0, 210, 210),
    (60, 0, 195),
    (210, 225, 0),
    (120, 180, 255),
    (135, 75, 165),
    (0, 90, 225),
    (255, 195, 0),
    (195, 60, 45),
    (120, 150, 90),
    (150, 15, 135),
    (195, 135, 150),
    (255, 135, 150),
    (60, 180, 0),
    (165, 135, 255),
    (45, 90, 0),
    (15, 75, 165),
    (90, 0, 165),
    (75, 210, 165),
    (165, 180, 255),
)

_SMALLEST_TEXT = 7  # pixels; smaller letters cannot be read


def color_for(index: int) -> Color:
    """The (b, g, r) colour of a class; twenty colours, then they repeat."""
    return _PALETTE[int(index) % len(_PALETTE)]


def text_color_on(background: Color) -> Color:
    """Black or white, whichever has the higher WCAG contrast ratio to the background."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255.0 for v in background)]
    luminance = 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]
    # (L + 0.05) / 0.05 against black equals 1.05 / (L + 0.05) against white at L = 0.179.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


@lru_cache(maxsize=4096)
def _render(text: str, size: int, background: Color) -> np.ndarray:
    """``text`` on a filled strip, [h, w, 3] BGR uint8. Labels repeat from image to image, hence the cache."""
    font = font_for(text, size)
    left, _, right, _ = font.getbbox(text)
    # Height from tall and deep letters, not from this text, so that all labels of an image are equally high.
    _, top, _, bottom = font.getbbox("Ágjy|")
    margin = max(1, size // 6)
    strip = Image.new("RGB", (int(right - left) + 2 * margin, int(bottom - top) + 2 * margin), background[::-1])
    ImageDraw.Draw(strip).text((margin - left, margin - top), text, text_color_on(background)[::-1], font=font)
    return np.ascontiguousarray(np.asarray(strip)[..., ::-1])


class Annotator:
    """Draws labelled boxes into a copy of an image.

    Args:
        image: [h, w, 3] BGR uint8; left as it is unless ``in_place``.
        line_width: of the boxes in pixels; None chooses one by the size of the image.
        text_size: height of the labels in pixels; None chooses one by the image and the line width.
    """

    def __init__(
        self,
        image: np.ndarray,
        line_width: int | None = None,
        text_size: int | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        self._image = image if in_place else np.ascontiguousarray(image).copy()
        self._labels: list[tuple[int, int, int, int]] = []  # x1 y1 x2 y2
        mean_side = (image.shape[0] + image.shape[1]) / 2
        self.line_width = max(1, round(mean_side / 320)) if line_width is None else max(1, line_width)
        by_size = max(10, round(mean_side / 42), round(3.5 * self.line_width + 3))
        self.text_size = by_size if text_size is None else max(_SMALLEST_TEXT, text_size)

    def box_label(
        self, box_xyxy: Sequence[float] | np.ndarray, label: str = "", color: Color = (128, 128, 128)
    ) -> None:
        """Draw one box, in pixels of the image, and its label above it, or inside where there is no room above."""
        x1, y1, x2, y2 = self._pixels(box_xyxy)
        cv2.rectangle(self._image, (x1, y1), (x2, y2), color, self.line_width)
        self.label(box_xyxy, label, color)

    def label(
        self,
        box_xyxy: Sequence[float] | np.ndarray,
        label: str,
        color: Color = (128, 128, 128),
        *,
        only_free: bool = False,
    ) -> None:
        """Write the label of a box without the box; with ``only_free`` not where it would cover an earlier label."""
        if not label:
            return
        x1, y1, _, _ = self._pixels(box_xyxy)
        strip = self._fitting_strip(label, color)
        edge = self.line_width // 2
        above = y1 - edge - strip.shape[0]
        self._paste(strip, x1 - edge, above if above >= 0 else y1 - edge, only_free)

    def _pixels(self, box_xyxy: Sequence[float] | np.ndarray) -> tuple[int, int, int, int]:
        """The corners of a box as whole pixels inside of the image."""
        h, w = self._image.shape[:2]
        corners = np.nan_to_num(np.asarray(box_xyxy, dtype=np.float64))
        x1, y1, x2, y2 = (int(v) for v in np.clip(corners.round(), 0, [w - 1, h - 1, w - 1, h - 1]))
        return x1, y1, x2, y2

    def text(self, x: int, y: int, text: str, background: Color = (40, 40, 40)) -> None:
        """Write a text with its top left corner at (x, y); moved where it would leave the image."""
        if text:
            self._paste(self._fitting_strip(text, background), x, y)

    def result(self) -> np.ndarray:
        """The image with everything drawn so far, [h, w, 3] BGR uint8."""
        return self._image

    def _fitting_strip(self, text: str, background: Color) -> np.ndarray:
        """The text at the chosen size, smaller where the image is too narrow for it, cut when even that fails."""
        width = self._image.shape[1]
        text = text[:width]  # no letter is narrower than a pixel, and a name may have a million
        strip = _render(text, self.text_size, background)
        if strip.shape[1] > width:
            size = max(_SMALLEST_TEXT, int(self.text_size * width / strip.shape[1]))
            strip = _render(text, size, background)
        return strip

    def _paste(self, strip: np.ndarray, x: int, y: int, only_free: bool = False) -> None:
        h, w = self._image.shape[:2]
        strip = strip[:h, :w]
        x = min(max(x, 0), w - strip.shape[1])
        y = min(max(y, 0), h - strip.shape[0])
        right, bottom = x + strip.shape[1], y + strip.shape[0]
        if only_free and any(x < r and left < right and y < b and top < bottom for left, top, r, b in self._labels):
            return
        self._labels.append((x, y, right, bottom))
        self._image[y:bottom, x:right] = strip
