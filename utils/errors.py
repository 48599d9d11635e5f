"""The one exception type that means "the input is wrong", so that scripts print it as a line and never hide a bug."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what the user gave: a file, an option, a yaml key. The message names it and the cure."""


class UntrainableError(InputError):
    """The numbers broke: other hyper-parameters may train on the same input."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name closest to ``word``, or "" when nothing is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: Exception) -> str:
    """The first line of an exception's message, or its type when it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
