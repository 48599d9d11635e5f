"""FlatBuffers of any values, valid or not, by the schemas that the readers of model files have."""

from __future__ import annotations

import struct
from typing import Any

from utils.inference.backends.flatbuffer import SCALARS, Schema

_SIZES = {kind: struct.calcsize(f"<{code}") for kind, code in SCALARS.items()}


class _Writer:
    def __init__(self, schema: Schema) -> None:
        self.schema, self.content = schema, bytearray()

    def align(self, size: int, ahead: int = 0) -> int:
        """Fill up until the place after ``ahead`` bytes is a multiple of ``size``; returns the place now."""
        self.content += bytes(-(len(self.content) + ahead) % size)
        return len(self.content)

    def patch(self, at: int, target: int) -> None:
        struct.pack_into("<I", self.content, at, target - at)

    def table(self, name: str, values: dict[str, Any]) -> int:
        fields, number = [], 0  # (number, kind, value) of what is there
        for key, kind in self.schema.tables[name]:
            value = values.get(key)
            if kind in self.schema.unions:
                if value is not None:
                    fields.append((number, "u8", self.schema.unions[kind].index(value[0]) + 1))
                    fields.append((number + 1, value[0], value[1]))
                number += 2
                continue
            if value is not None and value != ():
                fields.append((number, kind, value))
            number += 1
        fields += values.get("more", [])
        count = max([number, *(place + 1 for place, _, _ in fields)])
        offsets, size = [0] * count, 4
        for place, kind, _ in sorted(fields, key=lambda entry: -_SIZES.get(entry[1], 4)):
            width = _SIZES.get(kind, 4)
            size += -size % width
            offsets[place], size = size, size + width
        at = self.align(8, 4 + 2 * count)
        self.content += struct.pack(f"<HH{count}H", 4 + 2 * count, size, *offsets)
        start = self.align(8)
        self.content += struct.pack("<i", start - at) + bytes(size - 4)
        for place, kind, value in fields:
            if kind in SCALARS:
                struct.pack_into(f"<{SCALARS[kind]}", self.content, start + offsets[place], value)
        for place, kind, value in fields:
            if kind not in SCALARS:
                self.patch(start + offsets[place], self.value(kind, value))
        return start

    def value(self, kind: str, value: Any) -> int:
        if kind == "string":
            at = self.align(4)
            self.content += struct.pack("<I", len(value.encode())) + value.encode() + b"\0"
            return at
        if not kind.startswith("["):
            return self.table(kind, value)
        kind = kind[1:-1]
        width = 16 if kind == "u8" else _SIZES.get(kind, 4)
        self.align(max(4, width), 4)
        at = len(self.content)
        self.content += struct.pack("<I", len(value))
        if kind == "u8":
            self.content += bytes(value)
        elif kind in SCALARS:
            self.content += struct.pack(f"<{len(value)}{SCALARS[kind]}", *value)
        else:
            first = len(self.content)
            self.content += bytes(4 * len(value))
            for index, part in enumerate(value):
                self.patch(first + 4 * index, self.value(kind, part))
        return at


def write_flatbuffer(schema: Schema, root: str, identifier: bytes, values: dict[str, Any], room: int = 0) -> bytes:
    """A buffer with these values, as ``read_flatbuffer`` returns them.

    A table may have ``more``: a list of (number of a field, kind, value) that the schema does not list.

    Args:
        room: bytes left free after the identifier.
    """
    writer = _Writer(schema)
    writer.content += bytes(4) + identifier + bytes(room)
    writer.patch(0, writer.table(root, values))
    return bytes(writer.content)
