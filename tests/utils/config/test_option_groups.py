"""Groups of the options in ``--help``."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest

from tools.options_table import RECORDS, options_record
from utils.config.cli import build_parser, parse
from utils.config.option_groups import OPTION_GROUPS, OTHER, group_of
from utils.config.options import TrainOptions

SCRIPTS = ("train.py", "val.py", "detect.py", "export.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_of_a_script_is_in_a_group(script: str) -> None:
    assert [item.name for item in fields(options_record(script)) if group_of(item.name) == OTHER] == []


def test_every_name_of_a_group_is_one_option() -> None:
    names = Counter(name for group in OPTION_GROUPS.values() for name in group)
    known = {item.name for command in RECORDS for item in fields(options_record(command))}
    assert [name for name, count in names.items() if count > 1 or name not in known] == []


def test_help_has_a_title_for_each_group_and_paths_without_the_folder_of_the_repository() -> None:
    shown = build_parser(TrainOptions).format_help()
    titles = [line.rstrip(":") for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    present = {group_of(item.name) for item in fields(TrainOptions)}
    assert titles == ["options", *(title for title in OPTION_GROUPS if title in present)]
    assert "(default: data/digits.yaml)" in " ".join(shown.split())


def test_choices_are_taken_in_upper_and_lower_case() -> None:
    assert parse(TrainOptions, ["--optimizer", "adamw"]).optimizer == "AdamW"
    assert parse(TrainOptions, ["--cache", "RAM"]).cache == "ram"


def test_another_word_is_no_choice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(TrainOptions, ["--optimizer", "adamx"])
    assert "invalid choice: 'adamx'" in capsys.readouterr().err
