"""``InputError``, which scripts report in one line, and the one-line reports of errors of the system."""

from __future__ import annotations

import difflib
import errno
import os
import re
import signal
from collections.abc import Iterable

from utils.core.names import printable

_LONGEST_LINE = 500  # characters
_PLACE = re.compile(r"\.(?:c|cc|cpp|cxx|h|hpp):\d+:\s*$")
_NO_RIGHT = "get the right to it (ls -ld shows who has it), or use another place"
_NO_ROOM = "free some space, or write to another disk"
_CURES = {
    errno.EACCES: _NO_RIGHT,
    errno.EPERM: _NO_RIGHT,
    errno.EROFS: "this disk cannot be written to: choose another folder",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: _NO_ROOM,
    errno.ENOTDIR: "a part of this path is a file where a folder is needed",
    errno.EISDIR: "a file is needed, not a folder",
    errno.EEXIST: "something else has this name already: move it away, or choose another name",
    errno.ENAMETOOLONG: "shorten it: most disks allow 255 bytes a name",
    errno.ELOOP: "a symbolic link leads back to itself: remove it",
    errno.EMFILE: "take fewer --workers, or raise ulimit -n",
    errno.ENFILE: "take fewer --workers, or close other programs",
    errno.ENOMEM: "close other programs, or take a smaller --batch-size, --imgsz or --workers",
    errno.EPIPE: "the program that read this output has ended",
}
# Messages of the system and of torch in a ValueError or RuntimeError; other messages of these types are bugs.
_OF_THE_SYSTEM = (
    ("embedded null byte", "a path or name holds a null byte (\\0); remove it"),
    ("embedded null character", "a path or name holds a null byte (\\0); remove it"),
    ("Symlink loop from", _CURES[errno.ELOOP]),
    ("for integer string conversion", "a number has thousands of digits; write a shorter one"),
    ("DefaultCPUAllocator", _CURES[errno.ENOMEM]),
    ("CUDA out of memory", _CURES[errno.ENOMEM]),
    ("bad_alloc", _CURES[errno.ENOMEM]),
    ("Insufficient memory", _CURES[errno.ENOMEM]),  # of OpenCV
)


class InputError(ValueError):
    """Wrong input: a file, an option, a yaml key. The message names it and the cure."""


class UntrainableError(InputError):
    """The loss is not finite: other hyper-parameters may train on the same input."""


def suggestion(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return "; did you mean 'x'?" with the known name closest to ``word``, or "" when none is close.

    ``likeness`` is the smallest ratio of equal letters; with 0.75 only misspelt words are close.
    """
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f"; did you mean '{close[0]}'?" if close else ""


def first_line(error: Exception) -> str:
    """Return the first useful line of an exception's message, or its type when there is none.

    Messages of C++ libraries begin with lines that end in a position in their source, such as ``core.cpp:84:``.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    line = next((line for line in lines if not _PLACE.search(line)), lines[0])
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."  # it may quote a file


def describe_exit_code(code: int) -> str:
    """Describe the exit code of a process that failed; a negative one is the signal that ended it."""
    if code >= 0:
        return f"failed (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return "was killed (SIGKILL, which is what the system sends when memory runs out)"
    return f"was stopped ({name})" if name in ("SIGTERM", "SIGINT", "SIGHUP") else f"crashed ({name})"


def explain_error(error: Exception) -> str:
    """Return one line with the error and its cure if the input or the machine is the cause; "" for a bug.

    Causes are wrong input, files and the system (OSError), text that is not UTF-8, and numbers, nesting or data that
    are too large for the machine.
    """
    if isinstance(error, OSError):
        text = _of_system(error)
    elif isinstance(error, InputError):
        text = str(error)
    elif isinstance(error, UnicodeDecodeError):
        text = f"byte {error.start} of a file or name is not {error.encoding} text; save it as UTF-8"
    elif isinstance(error, UnicodeError):
        text = f"a file or class name cannot be written as text ({error}); rename it"
    elif isinstance(error, RecursionError):
        text = "something is nested too deeply, such as brackets in a yaml or json file; flatten it"
    elif isinstance(error, OverflowError):
        text = f"a number is too large ({error}); check the numbers of the options and yaml files"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        text = f"out of memory ({first_line(error)}): {_CURES[errno.ENOMEM]}"
    elif isinstance(error, (ValueError, RuntimeError)) or type(error).__module__ == "cv2":
        text = next((f"{first_line(error)}: {cure}" for words, cure in _OF_THE_SYSTEM if words in str(error)), "")
    else:
        text = ""
    return printable(" ".join(text.split("\n")))


def _of_system(error: OSError) -> str:
    """Return an error of the system as "file: reason; cure"; one with a custom message is not changed."""
    if not error.strerror:
        return str(error) or type(error).__name__
    files = " -> ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))
    )
    cure = _CURES.get(error.errno or 0, "")
    return f"{files}{': ' * bool(files)}{error.strerror[0].lower()}{error.strerror[1:]}{'; ' * bool(cure)}{cure}"
