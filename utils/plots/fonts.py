"""Selection of a font that has the characters of a text, among those of matplotlib and of the system."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

logger = logging.getLogger(__name__)

# Families with Chinese, Japanese and Korean characters, as Linux, Windows and macOS ship them.
_WIDE_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "Malgun Gothic",
    "Yu Gothic",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_warned: list[str] = []  # one warning per process


@lru_cache(maxsize=1)
def standard_file() -> str | None:
    """Return DejaVu Sans in the data folder of matplotlib, without importing it; None without matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return str(file)
    return None


@lru_cache(maxsize=64)
def _characters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())


@lru_cache(maxsize=1)
def _wide_files() -> tuple[str, ...]:
    """Return the installed fonts of the wide families, in the order of the table."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    installed = {entry.name: entry.fname for entry in fontManager.ttflist}
    known = set(installed).intersection(_WIDE_FAMILIES)
    if not known:  # the list of matplotlib is from an earlier start: a font may be newer
        installed = _families(set(findSystemFonts()).difference(entry.fname for entry in fontManager.ttflist))
    return tuple(installed[family] for family in _WIDE_FAMILIES if family in installed)


def _families(files: Iterable[str]) -> dict[str, str]:
    """Return family name -> file for the readable font files."""
    from matplotlib.ft2font import FT2Font

    families = {}
    for file in sorted(files):
        with suppress(OSError, RuntimeError):
            families[FT2Font(file).family_name] = file
    return families


@lru_cache(maxsize=1024)
def font_file(text: str) -> str | None:
    """Return the font file with most characters of ``text``; None when there is only Pillow's built-in font."""
    standard = standard_file()
    if standard is None or text.isascii():
        return standard
    wanted = {ord(character) for character in text}
    if wanted <= _characters(standard):
        return standard
    return max((standard, *_wide_files()), key=lambda file: len(wanted & _characters(file)))


@lru_cache(maxsize=1024)
def can_write(text: str) -> bool:
    """Whether an installed font has every character of ``text``; the first text without one is logged as a warning."""
    file = font_file(text)
    if text.isascii() or (file is not None and {ord(character) for character in text} <= _characters(file)):
        return True
    if not _warned:
        _warned.append(text)
        hint = "Noto Sans CJK has most characters (for example: apt install fonts-noto-cjk)"
        logger.warning("no installed font can write '%s': such classes are numbered in the images; %s", text, hint)
    return False


@lru_cache(maxsize=256)
def _open_font(file: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


def font_for(text: str, size: int) -> Font:
    """Return a font of ``size`` pixels for ``text``."""
    return _open_font(font_file(text), size)
