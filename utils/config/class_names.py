"""The class names of a model in a form that suits scripts of all YOLOv5 releases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml


class ClassNames(list[str]):
    """Class names by number: a list, as scripts for v6.1 use it, with the methods of the later releases' mapping.

    ``names[0]``, ``len(names)``, ``for name in names`` and ``list(names)`` are those of a list; ``names.items()``,
    ``keys()``, ``values()``, ``get(0)``, ``0 in names`` and ``dict(names)`` are those of ``{0: "cat", 1: "dog"}``. It
    equals both forms.
    """

    def __init__(self, names: Iterable[str] | Mapping[int, str] = ()) -> None:
        ordered = [names[number] for number in sorted(names)] if isinstance(names, Mapping) else names
        super().__init__(str(name) for name in ordered)

    def keys(self) -> range:
        return range(len(self))

    def values(self) -> list[str]:
        return list(self)

    def items(self) -> list[tuple[int, str]]:
        return list(enumerate(self))

    def get(self, number: int, default: str | None = None) -> str | None:
        return self[number] if number in self.keys() else default

    def __contains__(self, item: object) -> bool:
        return item in self.keys() if isinstance(item, int) else super().__contains__(item)

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == other if isinstance(other, Mapping) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


# Scripts write the names of a model into a data yaml.
yaml.SafeDumper.add_representer(ClassNames, yaml.SafeDumper.represent_list)
