"""Boxes and labels drawn into an image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw

from utils.plots.fonts import font_for

Color = tuple[int, int, int]  # blue, green, red

# Twenty colours chosen by greedy farthest-point search in CIELAB, so that neighbours in the list differ most.
_PALETTE: tuple[Color, ...] = (
    (45, 60, 240),
    (255, 0, 0),
    (0, 240, 0),
    (255, 210, 45),
    (0, 90, 75),
    (225, 120, 240),
    (0, 195, 255),
    (165, 225, 0),
    (150, 75, 15),
    (75, 45, 135),
    (135, 180, 255),
    (255, 0, 240),
    (90, 225, 180),
    (225, 75, 105),
    (120, 0, 255),
    (0, 60, 135),
    (255, 180, 180),
    (0, 135, 0),
    (180, 150, 255),
    (105, 135, 15),
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
        mean_side = (image.shape[0] + image.shape[1]) / 2
        self.line_width = max(1, round(mean_side / 320)) if line_width is None else max(1, line_width)
        by_size = max(10, round(mean_side / 42), round(3.5 * self.line_width + 3))
        self.text_size = by_size if text_size is None else max(_SMALLEST_TEXT, text_size)

    def box_label(
        self, box_xyxy: Sequence[float] | np.ndarray, label: str = "", color: Color = (128, 128, 128)
    ) -> None:
        """Draw one box, in pixels of the image, and its label above it, or inside where there is no room above."""
        h, w = self._image.shape[:2]
        corners = np.nan_to_num(np.asarray(box_xyxy, dtype=np.float64))
        x1, y1, x2, y2 = (int(v) for v in np.clip(corners.round(), 0, [w - 1, h - 1, w - 1, h - 1]))
        cv2.rectangle(self._image, (x1, y1), (x2, y2), color, self.line_width)
        if label:
            strip = self._fitting_strip(label, color)
            edge = self.line_width // 2
            above = y1 - edge - strip.shape[0]
            self._paste(strip, x1 - edge, above if above >= 0 else y1 - edge)

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

    def _paste(self, strip: np.ndarray, x: int, y: int) -> None:
        h, w = self._image.shape[:2]
        strip = strip[:h, :w]
        x = min(max(x, 0), w - strip.shape[1])
        y = min(max(y, 0), h - strip.shape[0])
        self._image[y : y + strip.shape[0], x : x + strip.shape[1]] = strip
