"""How things that went wrong are put into a line."""

from __future__ import annotations

import pytest

from utils.errors import how_it_ended


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
