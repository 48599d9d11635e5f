"""FlatBuffers by others, read by a schema that lists all they may hold. The format: https://flatbuffers.dev/internals/.

A library that reads such a buffer follows its offsets wherever they lead. Here each is checked to lead to a place
within the buffer that holds what the schema says, and a field that the schema does not know is refused, so that a
library which knows it finds none.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from utils.inference.backends.base import UnknownPartError

SCALARS = {
    "bool": "B", "i8": "b", "u8": "B", "i16": "h", "u16": "H", "i32": "i", "u32": "I", "i64": "q", "u64": "Q",
    "f32": "f", "f64": "d",
}  # fmt: skip
_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in SCALARS.items()}
_MOST_VALUES, _DEEPEST = 2_000_000, 30
_LINE = re.compile(r"(union )?(\w+):(.*)")


class DamagedError(ValueError):
    """A buffer whose offsets lead out of it, or that is not of its kind: cut off or changed."""


@dataclass(frozen=True)
class Schema:
    """The tables and unions that a buffer may hold.

    Attributes:
        tables: names and kinds of the fields of each table, in the order of their numbers. A kind is one of
            ``SCALARS``, ``string``, ``[kind]`` for a vector, a table, or a union, which has two numbers.
        unions: names of the tables that a union may be, from number 1.
    """

    tables: Mapping[str, tuple[tuple[str, str], ...]]
    unions: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, text: str) -> Schema:
        """Read a schema of lines ``Table: field kind, field kind`` and ``union Name: Table Table``.

        Fields of a kind ``-`` may not be present: they are known, and not wanted. A line that begins with a space
        continues the one before.
        """
        tables, unions = {}, {}
        for line in re.sub(r"\n[ \t]+", " ", text).splitlines():
            if match := _LINE.fullmatch(line.strip()):
                union, name, rest = match.groups()
                if union:
                    unions[name] = tuple(rest.split())
                else:
                    pairs = [part.split() for part in rest.split(",") if part.strip()]
                    tables[name] = tuple((key, kind) for key, kind in pairs)
        return cls(tables, unions)


@dataclass
class _Reader:
    content: memoryview
    schema: Schema
    values: int = field(default=0, init=False)

    def number(self, kind: str, at: int) -> Any:
        size = _SIZES[kind]
        if at < 0 or at + size > len(self.content) or at % size:
            raise DamagedError("an offset leads out of the file")
        return struct.unpack_from(f"<{SCALARS[kind]}", self.content, at)[0]

    def count(self, number: int = 1) -> None:
        self.values += number
        if self.values > _MOST_VALUES:
            raise DamagedError(f"it has more than {_MOST_VALUES} values")

    def table(self, name: str, at: int, depth: int = 0) -> dict[str, Any]:
        """The fields of a table by name; a missing field is None, a missing vector ()."""
        self.count()
        if depth > _DEEPEST:
            raise DamagedError("its tables are nested too deeply")
        places = self._fields(at)
        values, number = {}, 0
        for key, kind in self.schema.tables[name]:
            numbers = 2 if kind in self.schema.unions else 1
            given = [places.pop(number + more, None) for more in range(numbers)]
            number += numbers
            if kind == "-" and given[0] is not None:
                raise UnknownPartError(f"its {name} has '{key}'")
            if kind != "-":
                values[key] = self._value(name, key, kind, given, depth)
        if places:
            raise UnknownPartError(f"its {name} has a field {min(places)}")
        return values

    def _fields(self, at: int) -> dict[int, tuple[int, int]]:
        """The place of every field of the table at ``at`` that is there, and the end of the table."""
        table = at - self.number("i32", at)
        length, size = self.number("u16", table), self.number("u16", table + 2)
        if length < 4 or length % 2 or size < 4 or at + size > len(self.content):
            raise DamagedError("a table leads out of the file")
        offsets = {index: self.number("u16", table + 4 + 2 * index) for index in range(length // 2 - 2)}
        return {index: (at + offset, at + size) for index, offset in offsets.items() if offset}

    def _value(self, name: str, key: str, kind: str, given: list[Any], depth: int) -> Any:
        place = given[-1]
        if kind in self.schema.unions:
            return self._union(name, key, kind, given, depth)
        if place is None:
            return () if kind.startswith("[") else None
        size = _SIZES.get(kind, 4)
        if place[0] + size > place[1]:
            raise DamagedError("a field leads out of its table")
        if kind in SCALARS:
            return self.number(kind, place[0])
        target = place[0] + self.number("u32", place[0])
        if kind.startswith("["):
            return self._vector(kind[1:-1], target, depth)
        return self._text(target) if kind == "string" else self.table(kind, target, depth + 1)

    def _union(self, name: str, key: str, kind: str, given: list[Any], depth: int) -> tuple[str, dict[str, Any]] | None:
        chosen = self.number("u8", given[0][0]) if given[0] else 0
        if not chosen or given[1] is None:
            if chosen or given[1]:
                raise DamagedError(f"its {name} has one half of '{key}'")
            return None
        if chosen > len(self.schema.unions[kind]) or self.schema.unions[kind][chosen - 1] == "-":
            raise UnknownPartError(f"its {name} has {key} number {chosen}")
        table = self.schema.unions[kind][chosen - 1]
        return table, self.table(table, given[1][0] + self.number("u32", given[1][0]), depth + 1)

    def _text(self, at: int) -> str:
        stored = self._vector("u8", at, 0)
        end = at + 4 + len(stored)
        if end >= len(self.content) or self.content[end]:
            raise DamagedError("a text has no end")
        try:
            return bytes(stored).decode("utf-8")
        except UnicodeDecodeError:
            raise DamagedError("a text is not UTF-8") from None

    def _vector(self, kind: str, at: int, depth: int) -> Any:
        length, first = self.number("u32", at), at + 4
        size = _SIZES.get(kind, 4)
        if length * size > len(self.content) - first or (length and first % size):
            raise DamagedError("a list leads out of the file")
        if kind == "u8":  # of any length: not copied
            return self.content[first : first + length]
        self.count(length)
        if kind in SCALARS:
            return list(struct.unpack_from(f"<{length}{SCALARS[kind]}", self.content, first))
        targets = [place + self.number("u32", place) for place in range(first, first + 4 * length, 4)]
        return [self._text(t) if kind == "string" else self.table(kind, t, depth + 1) for t in targets]


def read_flatbuffer(content: bytes | memoryview, schema: Schema, root: str, identifier: bytes) -> dict[str, Any]:
    """The root table of a buffer as values by name: numbers, text, lists, dicts; a union is (name, dict).

    A missing field is None, a missing list (). Lists of bytes are views of ``content``.

    Args:
        root: name of its table.
        identifier: the four bytes after the first four.

    Raises:
        DamagedError, UnknownPartError: not such a buffer, or one with more in it than the schema lists.
    """
    reader = _Reader(memoryview(content), schema)
    if bytes(reader.content[4:8]) != identifier:
        raise DamagedError(f"it does not begin with {identifier.decode()}")
    return reader.table(root, reader.number("u32", 0))
