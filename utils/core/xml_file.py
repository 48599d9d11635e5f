"""Untrusted xml files: their elements, with the line of each."""

from __future__ import annotations

import codecs
import contextlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from utils.core.errors import InputError
from utils.core.files import open_regular

_DECLARED = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")
_BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_KNOWN = """
ascii utf-8 utf-8-sig utf-16 utf-16-le utf-16-be iso8859-1 iso8859-2 iso8859-5 iso8859-15 cp1250 cp1251 cp1252 koi8-r
gb2312 gbk gb18030 big5 shift_jis cp932 euc_jp iso2022_jp euc_kr cp949
"""
_ENCODINGS = frozenset(_KNOWN.split())


@dataclass
class Element:
    """An xml element: its tag, the line it starts on, its attributes, its text and what it contains."""

    tag: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def child(self, tag: str) -> Element | None:
        """The first child with this tag."""
        return next((child for child in self.children if child.tag == tag), None)

    def value(self, tag: str) -> str | None:
        """The text of the first child with this tag, without spaces around it; None when there is no such child."""
        child = self.child(tag)
        return None if child is None else child.text.strip()


def finite(text: str | None, what: str) -> float:
    """A number as it stands in an xml file; ValueError that begins with ``what`` it is when it is none."""
    if text is None:
        raise ValueError(f"no {what}")
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{what} '{text[:20]}' is not a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} is not finite")
    return number


def stated_size(width: str | None, height: str | None) -> tuple[float, float] | None:
    """Width and height of an image; None where they are missing or 0, as some tools write them."""
    try:
        size = finite(width, "width"), finite(height, "height")
    except ValueError:
        return None
    return size if min(size) > 0 else None


def _decode(content: bytes) -> str:
    """The text of a file in the encoding it declares; ValueError when it is another one."""
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None)
    if encoding is None:
        declared = _DECLARED.match(content.lstrip())
        encoding = declared[1].decode() if declared else "utf-8"
    try:
        if codecs.lookup(encoding).name not in _ENCODINGS:  # Python knows some that take hours
            raise LookupError
        return content.decode(encoding)
    except LookupError:
        raise ValueError(f"encoding '{encoding[:50]}' is not known; save it as UTF-8") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not {encoding}; save it as UTF-8") from None


class _Enough(Exception):
    """Ends the reading of a file of which no more is wanted."""


def read_xml(file: Path, until: str = "") -> Element:
    """The root of an xml file, with the line of every element; what follows the first tag ``until`` is not read.

    A document type is refused, because it can define entities that grow to gigabytes or read other files; annotations
    need none.

    Raises:
        OSError: the file cannot be read.
        InputError: it is not xml, or has a document type; names file and line.
    """
    try:
        with open_regular(file) as stream:
            text = _decode(stream.read())
    except ValueError as error:
        raise InputError(f"{file}: {error}") from None
    parser = expat.ParserCreate("utf-8")  # whatever the file declares: it has been decoded
    parser.buffer_text = True
    top = Element("", 0)
    open_elements = [top]

    def start(tag: str, attributes: dict[str, str]) -> None:
        if tag == until:
            raise _Enough
        element = Element(tag, parser.CurrentLineNumber, attributes)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop()

    def characters(data: str) -> None:
        open_elements[-1].text += data

    def refuse(*_: object) -> None:
        raise InputError(f"{file}:{parser.CurrentLineNumber}: has a DOCTYPE or ENTITY, which is refused; remove it")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        with contextlib.suppress(_Enough):
            parser.Parse(text.encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        cause = expat.ErrorString(error.code)
        raise InputError(f"{file}:{error.lineno}: not valid xml: {cause} (column {error.offset + 1})") from None
    return top.children[0]
