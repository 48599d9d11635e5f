"""The options of a script as a Markdown table, for the README: ``python -m tools.options_table train``.

``names`` in place of a script: the names that other people's scripts can import.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config.cli import run_script
from utils.config.flags import Flag, one_of, option
from utils.config.options import DetectOptions, ExportOptions, TrainOptions, ValOptions
from utils.config.paths import ROOT
from utils.core.v61 import names_table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCRIPTS: dict[str, type[DataclassInstance]] = {
    "train": TrainOptions,
    "val": ValOptions,
    "detect": DetectOptions,
    "export": ExportOptions,
}

KINDS = (*SCRIPTS, "names")


def options_markdown(options_class: type[DataclassInstance]) -> str:
    """One row per option: its flags, its default (paths relative to the repository, ``-``: none) and its help."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for item in fields(options_class):
        flag: Flag = item.metadata["flag"]
        names = [*flag.names, *([f"--no-{flag.names[0].removeprefix('--')}"] if flag.negatable else [])]
        choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
        cells = (" ".join(f"`{name}`" for name in names), _default_text(item.default), flag.help + choices)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _default_text(value: Any) -> str:
    if value is False:
        return "off"
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, tuple):
        return f"`{' '.join(map(str, value))}`"
    return f"`{Path(value).relative_to(ROOT).as_posix()}`" if str(value).startswith(str(ROOT)) else f"`{value}`"


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options of ``python -m tools.options_table``. Raises InputError: no such script."""

    scripts: tuple[str, ...] = option((), str, "script", f"of {', '.join(KINDS)}; none: all", nargs="*")

    def __post_init__(self) -> None:
        for name in self.scripts:
            one_of("script", name, KINDS)


def main(options: TableOptions) -> None:
    """Print the table of each named script, of all without names."""
    for name in options.scripts or KINDS:
        print(names_table() if name == "names" else f"### {name}.py\n\n{options_markdown(SCRIPTS[name])}")


if __name__ == "__main__":
    sys.exit(run_script(main, TableOptions))
