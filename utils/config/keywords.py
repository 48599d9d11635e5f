"""Options given by name from Python, ``val.run(weights="best.pt", imgsz=320)``, instead of on a command line."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import Field, asdict, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from utils.config.cli import OptionsT, parse
from utils.config.flags import Flag, number_or_name, path
from utils.core.errors import InputError, suggestion
from utils.core.log import setup_logging

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def options_from(options_class: type[OptionsT], given: Mapping[str, Any]) -> OptionsT:
    """An options record from keyword arguments; log lines go to stdout unless the program logs already.

    Paths and numbers become text where text is expected; where several values are allowed one may be given alone.
    None stands for the default.

    Raises:
        InputError: an unknown name, or a value out of range.
    """
    known = {item.name: item for item in fields(options_class)}
    for name in given:
        if name not in known:
            raise InputError(f"unknown option '{name}'{suggestion(name, known)} (all options: {', '.join(known)})")
    if not logging.getLogger().handlers:
        setup_logging()
    values: dict[str, Any] = {name: _as_field(known[name], value) for name, value in given.items() if value is not None}
    return options_class(**values)


def parse_namespace(options_class: type[OptionsT], known: bool = False) -> argparse.Namespace:
    """The command line as the object that v6.1's ``parse_opt`` returns: free to be changed, for :func:`as_options`.

    Args:
        known: pass over options that are not this script's.
    """
    values = asdict(parse(options_class, ignore_unknown=known))
    return argparse.Namespace(**{key: list(v) if isinstance(v, tuple) else v for key, v in values.items()})


def as_options(options_class: type[OptionsT], options: OptionsT | argparse.Namespace) -> OptionsT:
    """The options record that ``main`` works with, also from what ``parse_opt`` returned; defaults count as not given.

    Raises:
        InputError: an unknown name, or a value out of range.
    """
    if not isinstance(options, argparse.Namespace):
        return options
    defaults = asdict(options_class())
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in vars(options).items()}
    return options_from(
        options_class, {key: v for key, v in given.items() if key not in defaults or v != defaults[key]}
    )


def recorded_options(options_class: type[DataclassInstance], recorded: Any, source: str) -> dict[str, Any]:
    """Return the options recorded in a file as values for the options record, with tuples in place of lists.

    Raises:
        InputError: no mapping, or a value of a kind that the option does not take; names ``source`` and the option.
    """
    if not isinstance(recorded, Mapping):
        raise InputError(f"{source}: no options recorded, {type(recorded).__name__} in their place")
    values = {}
    for item in fields(options_class):
        if item.name in recorded:
            value = recorded[item.name]
            values[item.name] = tuple(value) if isinstance(value, list) else value
            if not _fits(item, values[item.name]):
                raise InputError(
                    f"{source}: the recorded option {item.name} is {str(value)[:60]!r}, which it cannot be"
                )
    return values


def _fits(item: Field[Any], value: Any) -> bool:
    flag: Flag = item.metadata["flag"]
    if any(type(value) is type(usual) and value == usual for usual in (item.default, flag.const)):
        return True
    if flag.convert is None:
        return isinstance(value, bool)
    kinds = {int: (int,), float: (int, float), number_or_name: (int, str)}.get(flag.convert, (str,))
    several = flag.nargs == "+"
    parts = value if several and isinstance(value, tuple) else (value,)
    return isinstance(value, tuple) == several and all(
        isinstance(part, kinds) and not isinstance(part, bool) and part == part for part in parts
    )


def _as_field(item: Field[Any], value: Any) -> Any:
    flag: Flag = item.metadata["flag"]
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if flag.convert in (str, path):  # device=0, weights=Path("best.pt"); but resume=True is no text
        values = [str(v) if isinstance(v, (int, PurePath)) and not isinstance(v, bool) else v for v in values]
    if flag.convert is path:
        values = [path(v) if isinstance(v, str) else v for v in values]
    if flag.nargs == "+":
        return tuple(v for v in values if v != "")
    if len(values) != 1:
        raise InputError(f"option '{item.name}' takes one value, {len(values)} given: {value}")
    return values[0]
