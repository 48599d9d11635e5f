"""Class names for images and charts."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from utils.plots.fonts import can_write

LONGEST = 24  # columns; longer names take too much room in a chart
LONGEST_ON_SHEET = 14  # in the small images of a contact sheet, where longer ones hide the objects


def drawn_name(names: Sequence[str] | Mapping[int, str], index: int, longest: int | None = LONGEST) -> str:
    """The name of class ``index``, shortened in its middle to ``longest`` columns; its number where it has no name.

    A name that no installed font can write becomes "class 3": boxes in place of letters would look alike for all.
    """
    known = index in names if isinstance(names, Mapping) else 0 <= index < len(names)
    if not known:
        return str(index)
    name = " ".join(str(names[index]).split())  # on one line
    return shorten(name, longest) if can_write(name) else f"class {index}"


def figure_names(names: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Return all class names for matplotlib, where ``$`` begins a formula and a leading ``_`` hides a legend entry."""
    drawn = [drawn_name(names, index, longest).replace("$", r"\$") for index in range(len(names))]
    return [f" {name}" if name.startswith("_") else name for name in drawn]


def shorten(text: str, longest: int | None) -> str:
    """Shorten ``text`` to ``longest`` columns, two for each wide character, by removing its middle.

    Names often differ at the end.
    """
    if longest is None or columns(text) <= longest:
        return text
    tail = _fitting(text[::-1], longest // 3)[::-1]
    head = _fitting(text, longest - 1 - columns(tail))
    return f"{head.rstrip()}…{tail.lstrip()}"


def _fitting(text: str, room: int) -> str:
    """The longest beginning of ``text`` that takes at most ``room`` columns."""
    for end in range(min(len(text), room), 0, -1):
        if columns(text[:end]) <= room:
            return text[:end]
    return ""


def columns(text: str) -> int:
    """How many columns a text takes on a terminal, and about how wide it is in an image."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
