"""How things that went wrong are put into a line."""

from __future__ import annotations

import pytest

from utils.errors import first_line, how_it_ended


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
    assert how_it_ended(code) == words


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
