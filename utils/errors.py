"""The one exception type that means "the input is wrong", so that scripts print it as a line and never hide a bug; and
how other things that went wrong are put into a line."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable

_PLACE = re.compile(r"\.(?:c|cc|cpp|cxx|h|hpp):\d+:\s*$")


class InputError(ValueError):
    """A mistake in what the user gave: a file, an option, a yaml key. The message names it and the cure."""


class UntrainableError(InputError):
    """The numbers broke: other hyper-parameters may train on the same input."""


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the known name closest to ``word``, or "" when nothing is close.

    ``likeness`` is the least share of equal letters; with 0.75 only misspelt words are close.
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: Exception) -> str:
    """The first line of an exception's message that says what is wrong, or its type when it has none.

    Libraries in C++ begin with lines that end in a place of their own source, such as ``core.cpp:84:``.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return next((line for line in lines if not _PLACE.search(line)), lines[0])


def how_it_ended(code: int) -> str:
    """The exit code of a process that did not do its work, in words; a negative one is the signal that ended it."""
    if code >= 0:
        return f"failed (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "was killed (SIGKILL, which is what the system sends when memory runs out)"
    return f"was stopped ({name})" if name in ("SIGTERM", "SIGINT", "SIGHUP") else f"crashed ({name})"
