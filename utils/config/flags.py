"""What options are made of: the fields of an options record, and the checks several records share.

The metadata of a field carries its flags and help; ``utils.config.cli`` makes the command line from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypeVar

from utils.core.errors import InputError

IMAGE_SIZE_FLAGS = ("--imgsz", "--img", "--img-size")
OPTIMIZERS = ("SGD", "Adam", "AdamW")
SAMPLERS = ("genetic", "tpe")
TASKS = ("train", "val", "test", "speed", "study")
CACHES = ("ram", "disk")
MOST_SIDE = 32_768  # px of --imgsz
MOST = 2**31 - 1  # of any whole number
MOSAIC_SOURCES = ("recent", "all")

NamedT = TypeVar("NamedT", bound="Named")


@dataclass(frozen=True)
class Flag:
    """How a field appears on the command line.

    ``names`` are the flags, ``convert`` turns one word into a value (None: a switch without a value), ``nargs`` and
    ``const`` have their argparse meaning, ``choices`` limits the values; a flag that may ``repeat`` adds to its values;
    a ``negatable`` switch has a ``--no-`` form as well; ``may_be_empty``: '' is a value on the command line.
    """

    names: tuple[str, ...]
    help: str
    convert: Callable[[str], Any] | None = None
    nargs: str | None = None
    const: Any = None
    choices: tuple[str, ...] | None = None
    repeat: bool = False
    negatable: bool = False
    may_be_empty: bool = False


def option(
    default: Any,
    convert: Callable[[str], Any],
    flags: str | Sequence[str],
    help: str,
    **settings: Any,
) -> Any:
    """Make a dataclass field that takes a value on the command line; ``settings`` are further fields of ``Flag``."""
    names = (flags,) if isinstance(flags, str) else tuple(flags)
    return field(default=default, metadata={"flag": Flag(names, help, convert, **settings)})


def switch(name: str, help: str) -> Any:
    """Make a dataclass field that is False unless its flag is given."""
    return field(default=False, metadata={"flag": Flag(names=(name,), help=help)})


def yes_or_no(name: str, help: str) -> Any:
    """Make a dataclass field that is None unless ``--name`` (True) or ``--no-name`` (False) is given."""
    return field(default=None, metadata={"flag": Flag(names=(name,), help=help, negatable=True)})


def path(word: str) -> str:
    """``word`` as a path, with the home folder in place of a leading ``~``, which a shell leaves within quotes."""
    return os.path.expanduser(word)  # noqa: PTH111  (addresses and numbers stay as they are)


def number_or_name(word: str) -> int | str:
    """``word`` as a whole number if it is one."""
    return int(word) if word.isdecimal() else word


class Named:
    """Base of an options record that records in ``given`` which of its fields were given, also with default values.

    So ``--resume --epochs 300`` extends a run, although 300 is the default.
    """

    given: frozenset[str]

    def __new__(cls: type[NamedT], *_: Any, **values: Any) -> NamedT:
        record = object.__new__(cls)
        object.__setattr__(record, "given", frozenset(values))  # the record is frozen
        return record


def at_least(flag: str, value: int | float, low: int, most: int | None = None) -> None:
    """Raise InputError: the value of ``flag`` is below ``low`` or above ``most``."""
    if value < low:
        raise InputError(f"{flag} {value} is too small; allowed is {low} or more")
    if most is not None and value > most:
        raise InputError(f"{flag} {value} is too large; allowed is up to {most}")


def fraction(flag: str, value: float) -> None:
    """Raise InputError: the value of ``flag`` is not from 0 to 1."""
    if not 0.0 <= value <= 1.0:
        raise InputError(f"{flag} {value} is out of range; allowed is 0 to 1")


def one_of(flag: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise InputError: the value of ``flag`` is none of ``allowed``."""
    if value not in allowed:
        raise InputError(f"{flag} {value} is unknown; allowed is {', '.join(allowed)}")


def check_download(download: bool, allow_scripts: bool, limit: int) -> None:
    """Raise InputError: a download option that is without effect or out of range."""
    at_least("--download-limit", limit, 1)
    if allow_scripts and not download:
        raise InputError("--allow-scripts does nothing without --download; give both, or none")


def image_sides(sides: tuple[int, ...]) -> None:
    """Raise InputError: ``--imgsz`` is given and not one side, or height and width, of at least 32 pixels."""
    if len(sides) > 2:
        raise InputError(f"--imgsz takes one number, or height and width; {len(sides)} given")
    for side in sides:
        check_image_size(side)


def image_size_option(help: str, nargs: str | None = None) -> Any:
    """The field of ``--imgsz``: None, or () with ``nargs``, until one is given, for the size that the model records."""
    default = () if nargs else None
    return option(default, int, IMAGE_SIZE_FLAGS, f"{help}; none: that of --weights, else 640", nargs=nargs)


def check_image_size(side: int | None) -> None:
    """Raise InputError: ``--imgsz`` is given and below 32 pixels or above ``MOST_SIDE``."""
    at_least("--imgsz", 32 if side is None else side, 32, MOST_SIDE)


def plain_name(value: str) -> None:
    """Raise InputError: the name of a run is empty, or would lead out of the folder of the runs."""
    if not value:
        raise InputError("--name '' is empty; give the run a name, for example exp")
    if PurePath(value).is_absolute() or PurePath(value).drive or ".." in PurePath(value).parts:
        raise InputError(f"--name {value} leads out of --project; name the folder of the runs with --project")
