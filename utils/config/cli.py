"""From an options record to a command line and back, and the frame every script runs in."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from utils.config.flags import MOST, Flag
from utils.config.option_groups import OPTION_GROUPS, OTHER, group_of
from utils.config.paths import ROOT
from utils.core.errors import InputError, explain_error, suggestion
from utils.core.log import LineHandler, discard_output, setup_logging, slow_bars_without_terminal, wait_for_rank_0

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)

OptionsT = TypeVar("OptionsT", bound="DataclassInstance")  # whose fields are made by option() and switch()

EXIT_INPUT = 1
EXIT_USAGE = 2  # as argparse has it
_CLEARING_UP_S = 5.0
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        wait_for_rank_0()
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message} (all options: {self.prog} --help)\n")


def build_parser(options_class: type[OptionsT], prog: str | None = None) -> argparse.ArgumentParser:
    """Return the command-line parser for an options record; flags, types and help come from its field metadata."""
    parser = _Parser(prog=prog)
    titles = [*OPTION_GROUPS, OTHER]
    groups: dict[str, argparse._ArgumentGroup] = {}
    for item in sorted(fields(options_class), key=lambda item: titles.index(group_of(item.name))):
        flag: Flag = item.metadata["flag"]
        if not flag.names[0].startswith("-"):  # given by place, without a flag
            parser.add_argument(item.name, metavar=flag.names[0], **_value_settings(item, flag))
            continue
        title = group_of(item.name)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        if flag.convert is None:
            action: Any = argparse.BooleanOptionalAction if flag.negatable else "store_true"
            settings = {"action": action, "default": argparse.SUPPRESS, "help": flag.help}
        else:
            settings = _value_settings(item, flag)
        groups[title].add_argument(*flag.names, dest=item.name, **settings)
    return parser


def _value_settings(item: Field[Any], flag: Flag) -> dict[str, Any]:
    # The record has the defaults, and knows which values were given.
    settings: dict[str, Any] = {"type": flag.convert, "default": argparse.SUPPRESS, "help": _help_text(item, flag)}
    if flag.choices is not None and flag.convert is str:
        settings["type"] = partial(_spelled_as_choice, flag.choices)
    for key, value in (("nargs", flag.nargs), ("const", flag.const), ("choices", flag.choices)):
        if value is not None:
            settings[key] = value
    if flag.repeat:
        settings["action"] = "extend"
    return settings


def _spelled_as_choice(choices: Sequence[str], word: str) -> str:
    """The choice that differs from ``word`` in upper and lower case only, else ``word``: --optimizer adam."""
    return next((choice for choice in choices if choice.lower() == word.lower()), word)


def _help_text(item: Field[Any], flag: Flag) -> str:
    """The help of a flag, with its default where that says something."""
    default = " ".join(map(str, item.default)) if isinstance(item.default, tuple) else item.default
    if isinstance(default, str) and default.startswith(str(ROOT)):
        default = Path(default).relative_to(ROOT).as_posix()
    return flag.help if default is None or default is False or default == "" else f"{flag.help} (default: {default})"


def parse(
    options_class: type[OptionsT],
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    ignore_unknown: bool = False,
) -> OptionsT:
    """Turn a command line (default: that of the process) into an options record.

    Args:
        ignore_unknown: pass over options that are not in the record.

    Raises:
        SystemExit: code 2 with one line on stderr for an unknown option or a bad value, code 0 after ``--help``.
    """
    parser = build_parser(options_class, prog)
    values, unknown = parser.parse_known_intermixed_args(argv)  # values by place may stand before, after, between
    if unknown and not ignore_unknown:
        flags = [name for item in fields(options_class) for name in item.metadata["flag"].names]
        word = unknown[0].split("=")[0]
        # People who know the python names write --batch_size.
        hint = suggestion(word.replace("_", "-"), flags) if word.startswith("-") else ""
        parser.error(f"unknown option '{word}'{hint}")
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in vars(values).items()
    }
    for item in fields(options_class):
        flag: Flag = item.metadata["flag"]
        value = given.get(item.name)
        for word in value if isinstance(value, tuple) else (value,):
            if isinstance(word, str) and not word.strip() and not flag.may_be_empty:
                parser.error(f"{flag.names[0]} is given an empty text: is a variable of the shell not set?")
            if isinstance(word, int) and abs(word) > MOST:
                parser.error(f"{flag.names[0]} {word} is too large; allowed is up to {MOST}")
    try:
        return options_class(**given)
    except InputError as error:
        parser.error(str(error))


def answer_early(options_class: type[OptionsT], name: str) -> None:
    """Answer ``--help`` and a wrong option of a script before it imports torch, which takes seconds; prepare the bars.

    Called between the imports of a script; does nothing unless the module is the script that was started.

    Args:
        options_class: options of the script.
        name: ``__name__`` of the module.

    Raises:
        SystemExit: as :func:`parse`.
    """
    if name == "__main__":
        open_closed_streams()
        setup_logging()
        parse(options_class)
        slow_bars_without_terminal()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[list[int]]:
    """While open, SIGTERM and SIGHUP (the terminal was closed) act like Ctrl-C, so that unfinished files are removed.

    Yields a list with the number of the signal when one arrived. Signals that are ignored (``nohup``) or handled
    already do not change, nor does any outside of the main thread, where Python handles no signals.
    """
    came: list[int] = []
    owner, before, quiet_until = os.getpid(), {}, 0.0

    def stop(number: int, _: Any) -> None:
        if os.getpid() != owner:  # a forked process, which the signal is to end at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        nonlocal quiet_until
        if time.monotonic() >= quiet_until:  # one soon after would break off the clearing up
            quiet_until = time.monotonic() + _CLEARING_UP_S
            came.append(number)
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has only the first
            if (listened := getattr(signal, name, None)) is not None and signal.getsignal(listened) is signal.SIG_DFL:
                before[listened] = signal.signal(listened, stop)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_script(
    main: Callable[[OptionsT], int | None], options_class: type[OptionsT], argv: Sequence[str] | None = None
) -> int:
    """Run a script: parse its options, install the log handler, call ``main`` and return the exit code.

    The code is what ``main`` returns, 0 for None; 1 with one line on stderr when input, files or the machine were the
    cause (:func:`utils.core.errors.explain_error`), 128 plus the number of the signal after Ctrl-C, SIGTERM or SIGHUP.
    Every other exception is a bug and keeps its traceback. Option errors leave through SystemExit with code 2.
    """
    open_closed_streams()
    handler = setup_logging()
    handler.lost = None
    came: list[int] = []
    try:
        options = parse(options_class, argv)
        with ended_by_signals() as came:
            code = main(options) or 0
    except KeyboardInterrupt:
        logger.info("stopped")
        code = 128 + came[0] if came else EXIT_INTERRUPTED
    except SystemExit as end:  # of the parser
        sys.exit(_flushed(handler, int(end.code or 0)))
    except Exception as error:
        line = explain_error(error)
        if not line:
            raise
        logger.error("error: %s", line)
        code = EXIT_INPUT
    return _flushed(handler, code)


def _flushed(handler: LineHandler, code: int) -> int:
    """``code``, but that of an error, with its line, where a script that went well could not write all its lines."""
    try:
        sys.stdout.flush()
    except OSError as error:
        handler.lost = handler.lost or error
        discard_output(sys.stdout)
    if code or handler.lost is None:
        return code
    logger.error("error: lines of this output were lost: %s", explain_error(handler.lost))
    return EXIT_INPUT


def open_closed_streams() -> None:
    """Let stdout and stderr go nowhere where the caller has closed them, so that no file opened later takes their
    place."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 -- it stays open
