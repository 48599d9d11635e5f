"""Which font file can write a text. Nothing is downloaded: the fonts are those of matplotlib and of the system."""

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

_told: list[str] = []  # one line of warning a process is enough, however many classes there are


@lru_cache(maxsize=1)
def standard_file() -> str | None:
    """DejaVu Sans inside matplotlib's data folder; None without matplotlib. The package is found, but not imported."""
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
    """Installed fonts of the wide families, in the order of the table. Looked up once; it takes a moment."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    installed = {entry.name: entry.fname for entry in fontManager.ttflist}
    known = set(installed).intersection(_WIDE_FAMILIES)
    if not known:  # matplotlib keeps its list from an earlier start; a font may have been installed since
        installed = _families(set(findSystemFonts()).difference(entry.fname for entry in fontManager.ttflist))
    return tuple(installed[family] for family in _WIDE_FAMILIES if family in installed)


def _families(files: Iterable[str]) -> dict[str, str]:
    """Family name to file, for those of the font files that can be read."""
    from matplotlib.ft2font import FT2Font

    found = {}
    for file in sorted(files):
        with suppress(OSError, RuntimeError):
            found[FT2Font(file).family_name] = file
    return found


@lru_cache(maxsize=1024)
def font_file(text: str) -> str | None:
    """The font file that can write most of ``text``; None when there is only Pillow's built-in font."""
    standard = standard_file()
    if standard is None or text.isascii():
        return standard
    wanted = {ord(character) for character in text}
    if wanted <= _characters(standard):
        return standard
    return max((standard, *_wide_files()), key=lambda file: len(wanted & _characters(file)))


@lru_cache(maxsize=1024)
def can_write(text: str) -> bool:
    """Whether an installed font has every character of ``text``; the first text without one is told as a warning."""
    file = font_file(text)
    if text.isascii() or (file is not None and {ord(character) for character in text} <= _characters(file)):
        return True
    if not _told:
        _told.append(text)
        logger.warning(
            "no installed font can write '%s': such classes are numbered in the images; Noto Sans CJK has most "
            "characters (for example: apt install fonts-noto-cjk)", text,
        )  # fmt: skip
    return False


@lru_cache(maxsize=256)
def _load(file: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


def font_for(text: str, size: int) -> Font:
    """A font of ``size`` pixels that can write ``text``."""
    return _load(font_file(text), size)
