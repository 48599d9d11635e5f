"""Names of strangers on a terminal, in a table and as names of files."""

from __future__ import annotations

import logging

import pytest

from utils.core.log import SafeFormatter
from utils.core.names import counted, csv_cell, excerpt, file_name, file_names, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ключ 猫 👩‍🚀 می‌خواهم", "plain ключ 猫 👩‍🚀 می‌خواهم"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("abc\u202egpj.exe", "abc\\u202egpj.exe"),
        ("line\nnext\r\x9b2J\u2028", "line\\nnext\\r\\x9b2J\\u2028"),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
    ],
)
def test_what_a_terminal_obeys_is_escaped_and_words_of_all_scripts_stay(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_excerpt_is_escaped_after_it_is_cut() -> None:
    assert (excerpt("\x1b[2J" + "a" * 9, 6), excerpt("猫", 1)) == ("\\x1b[2Jaa...", "猫")


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "epoch", "1 epoch"), (2, "epoch", "2 epochs"), (0, "box", "0 boxes"), (3, "class", "3 classes"),
     (5, "batch", "5 batches"), (2, "entry", "2 entries"), (1, "entry", "1 entry"), (9, "label row", "9 label rows")],
)  # fmt: skip
def test_counts_of_one_have_no_plural(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


def test_log_lines_escape_names_and_keep_their_line_breaks() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "class %s:\n\t%s", ("\x1b[2Jcat", "\u202edog"), None)
    assert SafeFormatter("%(message)s").format(record) == "class \\x1b[2Jcat:\n\t\\u202edog"


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('=cmd|"/c calc"!A1', '\'=cmd|"/c calc"!A1'),
        ("+SUM(A1)", "'+SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("@x", "'@x"),
        ("\t=1", "'\\t=1"),
        ("\rx", "'\\rx"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),
        ("red\x1b[31m", "red\\x1b[31m"),
        ("a=b", "a=b"),
        ("-1.5e-3", "-1.5e-3"),
        ("+7", "+7"),
        (-1.5, -1.5),
        ("", ""),
    ],
)
def test_a_table_has_no_cell_that_a_spreadsheet_computes_and_numbers_stay(value: object, cell: object) -> None:
    assert csv_cell(value) == cell


@pytest.mark.parametrize("name", ["cat", "traffic light", "猫", "a_b", "v1.5", "10", "console", "-x", "it's (1)"])
def test_a_usual_name_is_its_own_file_name(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "...", "a/b", "a\\b", "/etc/passwd", "c:x", "con", "NUL.txt", "com1", "Lpt9.tar.gz", "aux .x",
     "end.", "end ", " begin", ".hidden", "x\0y", "x\ny", "\x1b[2J", "\u202exy", "?", "a*b", "\udcff", "x" * 101,
     "猫" * 34, "x" * 5000],
)  # fmt: skip
def test_an_odd_name_becomes_one_that_every_file_system_takes(name: str) -> None:
    made = file_name(name)
    assert made != name and file_name(made) == made  # an own name of its own kind
    assert len(made.encode()) <= 100 and not set(made) & set('/\\:*?"<>|\0\n\x1b')
    assert made.strip(". ") == made and made.split(".")[0].upper() not in ("CON", "NUL", "COM1", "LPT9", "AUX")


def test_names_that_look_alike_as_files_stay_apart() -> None:
    long = "x" * 300
    names = ["a/b", "a\\b", "a_b", "Cat", "cat", "CAT", "con", "_con", long, long + "y", "e\u0301", "\u00e9", "..", ""]
    made = file_names(names)
    assert list(made) == names
    assert len({name.casefold() for name in made.values()}) == len(names)
    assert (made["a_b"], made["Cat"], made["_con"]) == ("a_b", "Cat", "_con")
    assert made == file_names(names)  # the same in every run


def test_a_long_name_that_begins_like_a_number_is_looked_through_once() -> None:
    name = f"{'1' * 300_000}x"
    assert csv_cell(name) == name
