"""Names from other people (classes, files, addresses) for a terminal, a table and a file system; counted nouns."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

LONGEST_BYTES = 100  # of a file name made from a class name; a prefix and a suffix may be added to it
_JOINERS = "\u200c\u200d"  # invisible, but part of Persian words and of many emoji
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_FORMULA = "=+-@\t\r\n＝＋－＠"
_NOT_IN_FILE_NAMES = frozenset('\\/:*?"<>|')
# Devices of Windows, with any suffix and in upper or lower case.
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$", "CONOUT$"]
    + [f"{port}{digit}" for port in ("COM", "LPT") for digit in "0123456789¹²³"]
)


def printable(text: object, keep: str = "") -> str:
    """Return ``str(text)`` with escapes for all characters that a terminal interprets: ESC becomes ``\\x1b``.

    These are control characters, marks that change the direction of writing, and surrogates (file names that are not
    UTF-8 have them). ``keep`` lists characters that are not escaped.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        character if character in keep or _shows(character) else character.encode("unicode_escape").decode()
        for character in shown
    )


def excerpt(text: str, longest: int) -> str:
    """Return the first ``longest`` characters of a text for a message, and ``...`` if there are more."""
    return printable(text[:longest]) + "..." * (len(text) > longest)


def counted(number: int, noun: str) -> str:
    """Return ``1 epoch``, ``2 epochs``, ``2 boxes``, ``2 entries``."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "tch")):
        return f"{number} {noun}es"
    return f"{number} {noun[:-1]}ies" if noun.endswith("ry") else f"{number} {noun}s"


def _shows(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def csv_cell(value: Any) -> Any:
    """Return a cell for a table: text is made printable, and begins with ``'`` if a spreadsheet would compute it.

    Numbers are not changed, also as text.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    begin = value.lstrip(" \u00a0\u3000")[:1]
    return f"'{printable(value)}" if begin and begin in _FORMULA else printable(value)


def file_name(text: str, longest: int = LONGEST_BYTES) -> str:
    """Return ``text`` as a name of a file or folder that every system accepts.

    Characters that a system refuses become ``_``. A changed name ends in a hash of ``text``, so different texts give
    different names.

    Args:
        longest: maximum bytes of the name in UTF-8.
    """
    kept = "".join("_" if c in _NOT_IN_FILE_NAMES or not _shows(c) else c for c in text).strip(". ")
    if kept.partition(".")[0].rstrip().upper() in _RESERVED:
        kept = f"_{kept}"
    if kept and kept == text and len(kept.encode()) <= longest:
        return kept
    return _with_hash(kept, text, longest)


def file_names(names: Iterable[str]) -> dict[str, str]:
    """Return a file name for each class name of a model; they also differ when upper and lower case do not count."""
    chosen: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        made = file_name(name)
        if (key := unicodedata.normalize("NFC", made).casefold()) in taken:
            made = _with_hash(made, name, LONGEST_BYTES)
            key = unicodedata.normalize("NFC", made).casefold()
        taken.add(key)
        chosen[name] = made
    return chosen


def _with_hash(kept: str, text: str, longest: int) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    begin = kept.encode()[: longest - len(digest) - 1].decode(errors="ignore").rstrip(". ")
    return f"{begin or '_'}-{digest}"
