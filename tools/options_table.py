"""The tables of docs/ that follow from the code: options of every command, and names that scripts can import.

    python -m tools.options_table --update          # write the tables of docs/en and docs/zh anew
    python -m tools.options_table train.py names    # print some of them

In a page a table stands between ``<!-- table: train.py -->`` and ``<!-- end -->``. Pages in Chinese keep their own text
in the last column of an option; a new option gets the English text, which has to be translated.
"""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.config.cli import run_script
from utils.config.flags import Flag, one_of, option, switch
from utils.config.paths import ROOT
from utils.core import v61

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Command -> module and class of its options.
RECORDS = {
    "train.py": ("utils.config.train_options", "TrainOptions"),
    "val.py": ("utils.config.val_options", "ValOptions"),
    "detect.py": ("utils.config.detect_options", "DetectOptions"),
    "export.py": ("utils.config.export_options", "ExportOptions"),
    "tools.check": ("tools.options", "CheckOptions"),
    "tools.preview": ("tools.options", "PreviewOptions"),
    "tools.split": ("tools.options", "SplitOptions"),
    "tools.convert": ("tools.options", "ConvertOptions"),
    "tools.app": ("utils.config.app_options", "AppOptions"),
    "tools.routing": ("tools.options", "RoutingOptions"),
    "tools.compare": ("tools.options", "CompareOptions"),
    "tools.profile": ("tools.options", "ProfileOptions"),
    "tools.benchmark": ("tools.options", "BenchmarkOptions"),
    "tools.study": ("tools.options", "StudyOptions"),
    "tools.demo": ("tools.demo", "DemoOptions"),
    "tools.options_table": ("tools.options_table", "TableOptions"),
}
NAMES_TABLE = "names"  # the table of names that scripts can import
KINDS = (*RECORDS, NAMES_TABLE)
HEADS = {
    "en": {"option": ("option", "default", "meaning"), NAMES_TABLE: ("module", "names")},
    "zh": {"option": ("选项", "默认值", "含义"), NAMES_TABLE: ("模块", "名字")},
}
_TABLE = re.compile(r"(?<=^<!-- table: )([\w.]+)( -->\n\n)(.*?)(\n?<!-- end -->)", re.DOTALL | re.MULTILINE)


def options_record(command: str) -> type[DataclassInstance]:
    """The options class of a command of ``RECORDS``."""
    module, name = RECORDS[command]
    return getattr(importlib.import_module(module), name)


def option_rows(options_class: type[DataclassInstance]) -> list[tuple[str, str, str]]:
    """For every option its flags, its default (paths relative to the repository, ``-``: none) and its help."""
    rows = []
    for item in fields(options_class):
        flag: Flag = item.metadata["flag"]
        names = [*flag.names, *([f"--no-{flag.names[0].removeprefix('--')}"] if flag.negatable else [])]
        choices = f" ({', '.join(flag.choices)})" if flag.choices else ""
        rows.append((" ".join(f"`{name}`" for name in names), _default_text(item.default), flag.help + choices))
    return rows


def _default_text(value: Any) -> str:
    if value is False:
        return "off"
    if value is None or value in ("", ()):
        return "-"
    if isinstance(value, tuple):
        return f"`{' '.join(map(str, value))}`"
    return f"`{Path(value).relative_to(ROOT).as_posix()}`" if str(value).startswith(str(ROOT)) else f"`{value}`"


def docs_table(kind: str, language: str = "en", old: str = "") -> str:
    """A table in Markdown.

    Args:
        kind: a command of ``RECORDS``, or ``names``.
        language: ``en`` or ``zh``.
        old: the table so far, from which Chinese keeps the meaning of each option.
    """
    if kind == NAMES_TABLE:
        rows = [line.strip("| ").split(" | ") for line in v61.names_table().splitlines()[2:]]
        head = HEADS[language][NAMES_TABLE]
        if language == "zh":
            rows = [[module, re.sub("^as ", "同 ", names)] for module, names in rows]
    else:
        head = HEADS[language]["option"]
        rows = [[cell.replace("|", "\\|") for cell in row] for row in option_rows(options_record(kind))]
        if language != "en":
            kept = {row[0]: row[-1] for row in (line.strip("| ").split(" | ") for line in old.splitlines()[2:])}
            rows = [[*row[:2], kept.get(row[0], row[2])] for row in rows]
    line = f"|{'---|' * len(head)}\n"
    return f"| {' | '.join(head)} |\n{line}" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def updated(text: str, language: str) -> str:
    """A page of the documentation with its tables as the code has them now."""

    def anew(match: re.Match[str]) -> str:
        kind, begin, old, end = match.groups()
        return f"{kind}{begin}{docs_table(kind, language, old)}{end}"

    return _TABLE.sub(anew, text)


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Options of ``python -m tools.options_table``. Raises InputError: no such table."""

    kinds: tuple[str, ...] = option(
        (), str, "table", "command such as train.py or tools.check, or names; none: all", nargs="*"
    )
    update: bool = switch("--update", "write the tables of docs/en and docs/zh anew and print nothing")

    def __post_init__(self) -> None:
        for name in self.kinds:
            one_of("table", name, KINDS)


def main(options: TableOptions) -> None:
    """Print the tables, or write them into the pages."""
    if not options.update:
        for kind in options.kinds or KINDS:
            print(f"### {kind}\n\n{docs_table(kind)}")
        return
    for language in HEADS:
        for page in sorted((ROOT / "docs" / language).glob("*.md")):
            before = page.read_text(encoding="utf-8")
            if (after := updated(before, language)) != before:
                page.write_text(after, encoding="utf-8")
                print(f"{page.relative_to(ROOT)}: tables written")


if __name__ == "__main__":
    sys.exit(run_script(main, TableOptions))
