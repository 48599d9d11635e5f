"""How things that went wrong are put into a line."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.core.errors import describe_exit_code, explain_error, first_line


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "failed (exit code 3)"),
        (-9, "was killed (SIGKILL, which is what the system sends when memory runs out)"),
        (-11, "crashed (SIGSEGV)"),
        (-15, "was stopped (SIGTERM)"),
        (-99, "crashed (signal 99)"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(code: int, words: str) -> None:
    assert describe_exit_code(code) == words


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("no such operator\nand a long story", "no such operator"),
        ("", "RuntimeError"),
        (
            "Exception from src/core.cpp:84:\nCheck 'a' failed at src/xml_util.cpp:9:\nWeights missing!\n\n",
            "Weights missing!",
        ),
        ("it is in main.cpp:84:", "it is in main.cpp:84:"),
    ],
)
def test_of_what_a_library_says_the_line_that_tells_something_is_kept(said: str, line: str) -> None:
    assert first_line(RuntimeError(said)) == line


def _raised(action: Callable[[], object]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda folder: (folder / "file/below").read_bytes(), "{folder}/file/below: not a directory; a part of this"),
        (lambda folder: folder.read_bytes(), "{folder}: is a directory; a file is needed"),
        (lambda folder: (folder / ("n" * 300)).stat(), "file name too long; shorten it"),
        (lambda folder: _loop(folder).read_bytes(), "{folder}/loop: too many levels of symbolic links; a symbolic"),
        (lambda folder: _loop(folder).resolve(), "a symbolic link leads back to itself"),
        (lambda folder: (folder / "a\0b").read_bytes(), "holds a null byte"),
        (lambda folder: (folder / "file").rename(folder / "no/where"), "file -> {folder}/no/where: no such file"),
        (lambda folder: (folder / "bytes").read_text("utf-8"), "byte 1 of a file or name is not utf-8 text"),
        (lambda folder: "\udcff".encode(), "cannot be written as text"),
        (lambda folder: round(float("inf")), "a number is too large"),
        (lambda folder: int("9" * 5000), "a number has thousands of digits"),
        (lambda folder: json.loads("[" * 10**6), "nested too deeply"),
        (lambda folder: bytes(1 << 60), "out of memory"),
    ],
)
def test_what_the_system_and_the_machine_refuse_is_one_line_with_a_cure(
    tmp_path: Path, action: Callable[[Path], object], words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bytes").write_bytes(b"a\xff")
    line = explain_error(_raised(lambda: action(tmp_path)))
    assert words.format(folder=tmp_path) in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EACCES, "get the right to it"), (errno.EROFS, "choose another folder"), (errno.ENOSPC, "free some"),
        (errno.EMFILE, "raise ulimit -n"), (errno.EPIPE, "has ended"),
    ],
)  # fmt: skip
def test_an_error_number_comes_with_its_cure(number: int, cure: str) -> None:
    reason = os.strerror(number)
    assert explain_error(OSError(number, reason, "a.jpg")).startswith(f"a.jpg: {reason[0].lower()}{reason[1:]}; ")
    assert cure in explain_error(OSError(number, reason))


def test_a_line_holds_no_control_characters() -> None:
    assert explain_error(FileNotFoundError(2, "No such file", "a\n\x1b[31mb\udcff")) == (
        "a \\x1b[31mb\\udcff: no such file"
    )


@pytest.mark.parametrize("error", [TypeError("a"), ValueError("b"), KeyError("c"), RuntimeError("d"), AttributeError()])
def test_a_bug_has_no_explanation(error: Exception) -> None:
    assert explain_error(error) == ""


def test_a_line_that_quotes_a_whole_file_is_cut() -> None:
    assert first_line(ValueError("bad date: " + "a" * 10_000)) == "bad date: " + "a" * 490 + "..."
