"""Files and folders: yaml, atomic writes, run folders, lists of images and where their labels lie."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import re
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from utils.core.errors import InputError
from utils.core.yaml_names import load_yaml

# What OpenCV or Pillow reads (HEIC: with pillow-heif), for every command; of an animation it is the first frame.
IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".dib", ".dng", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg",
    ".jpg", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
_OTHER_IMAGES = frozenset([".arw", ".cr2", ".cr3", ".exr", ".hdr", ".jxl", ".nef", ".psd", ".raw", ".svg", ".tga"])
# Signs as Chinese and Japanese keyboards write them, which yaml takes for letters, and what was meant.
_WIDE_SIGNS = dict(zip("：，［］【】｛｝“”‘’－", ":,[][]{}\"\"''-"))
_NO_SPACE = re.compile(r"\s*[\w-]+:[^\s:/\\]")
_PREFIX = "data/"  # CVAT begins every line so, whatever folder the set is unpacked to
_MOST_YAML_BYTES = 4 << 20
MOST_VALUES = 1_000_000  # in one file
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
logger = logging.getLogger(__name__)


def read_yaml(path: str | Path) -> Any:
    """The content of a yaml file, plain types only; class names (below ``names``) are text as it is written.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        InputError: it is not UTF-8 text, not yaml, or too large; names file and line.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such yaml file")
    with open_regular(path) as stream:
        content = stream.read(_MOST_YAML_BYTES + 1)
    if len(content) > _MOST_YAML_BYTES:
        raise InputError(f"{path}: longer than {_MOST_YAML_BYTES >> 20} MiB, so it is no yaml that is meant here")
    text = ""
    try:
        text = content.decode("utf-8-sig")
        loaded = load_yaml(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
    except RecursionError as error:
        raise InputError(f"{path}: brackets or lists are nested too deeply; flatten it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{place}: not valid yaml: {problem}{_yaml_cure(text, error)}") from error
    if isinstance(loaded, str):  # what is left of 'key: value' lines without a colon that yaml knows
        for number, line in enumerate(text.splitlines(), 1):
            if wide := wide_sign(line.partition("#")[0]):
                raise InputError(f"{path}:{number}: expected 'key: value', found {wide}")
    return loaded


def wide_sign(text: str) -> str:
    """What to do about the first sign of a Chinese or Japanese keyboard in ``text``; "" when there is none."""
    wide = next((character for character in text if character in _WIDE_SIGNS), "")
    return f"the wide sign '{wide}': write '{_WIDE_SIGNS[wide]}'" if wide else ""


def open_regular(path: str | Path) -> BinaryIO:
    """Open for reading what is a file and nothing else: a pipe or a device may never answer, or never end.

    Raises:
        OSError: it is none, or cannot be opened; names it.
    """
    _check_regular(os.stat(path).st_mode, path)  # noqa: PTH116  (of every image; to open a device may do something)
    handle = os.open(path, _READ)
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return os.fdopen(handle, "rb")


def _check_regular(mode: int, path: str | Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.ENXIO, "not a file but a pipe, socket or device", str(path))


def every_value(content: Any) -> Iterator[Any]:
    """Every value in nested mappings and lists, as often as it is written or referred to.

    Raises:
        InputError: there are more than a million, as where lists hold lists many times over, or themselves.
    """
    pending, left = [content], MOST_VALUES
    while pending:
        value = pending.pop()
        left -= 1
        if left < 0:
            raise InputError(f"holds more than {MOST_VALUES} values, or one inside itself")
        yield value
        if isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            pending.extend(value)


def _yaml_cure(text: str, error: yaml.YAMLError) -> str:
    """What to do about a mistake in a yaml: "; write spaces in place of tabs", or "" where nothing is known."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return ""
    began = getattr(error, "context_mark", None)
    context = str(getattr(error, "context", ""))
    bracket = began.line if began is not None and "flow" in context else None
    first = max(0, mark.line - 1) if bracket is None else bracket
    if began is not None and "simple key" in context:  # a line without colon; the error shows where the next one begins
        first = min(first, began.line)
    lines = [line.partition("#")[0] for line in text.splitlines()[first : mark.line + 1]]
    for number, line in enumerate(lines, first + 1):
        if wide := wide_sign(line):
            return f"; line {number} has {wide}"
    if "double-quoted" in str(getattr(error, "context", "")) and any("\\" in line for line in lines):
        return "; in double quotes a backslash begins an escape: write the path in single quotes, or with /"
    for number, line in enumerate(lines, first + 1):
        if _NO_SPACE.match(line):
            return f"; write a space behind the colon of line {number}"
    if any("\t" in line for line in lines):
        return "; write spaces in place of tabs"
    if bracket is not None and bracket < mark.line:
        return f"; a bracket of line {bracket + 1} is not closed"
    if "block end" in str(getattr(error, "problem", "")):
        return "; lines of one list begin in the same column: compare this line with those before it"
    return ""


def write_atomic(path: str | Path, content: bytes, durable: bool = True) -> None:
    """Write a file so that a reader, or a crash at any moment, meets the old content or the new, never half of it.

    A link at that place is replaced; what it leads to stays as it is. ``durable`` waits for the disk.
    """
    path = Path(path)
    begin = path.name if len(os.fsencode(path.name)) < 128 else path.name[:32]  # names end at 255 bytes
    draft = path.with_name(f".{begin}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with draft.open("wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _next_number(path: Path, stem: str, suffix: str) -> int:
    """One more than the highest number in use behind ``stem``; the first copy is number 2."""
    pattern = re.compile(re.escape(stem) + r"(\d+)" + re.escape(suffix))
    used = [int(match[1]) for entry in path.parent.iterdir() if (match := pattern.fullmatch(entry.name))]
    return max(used, default=1) + 1


def increment_path(path: str | Path, exist_ok: bool = False, mkdir: bool = False, *, sep: str = "") -> Path:
    """A path not in use: ``exp``, then ``exp2``, ``exp3`` ...; for a file the number goes before the suffix.

    Args:
        path: the path wanted.
        exist_ok: take ``path`` even if it exists.
        mkdir: make the folder; two runs that ask at the same time get different ones (unless ``exist_ok``).
        sep: text between name and number.

    Raises:
        OSError: the folder cannot be made, or a part of ``path`` is a file or a link that leads nowhere.
    """
    wanted = Path(path)
    if exist_ok:
        if mkdir:
            wanted.mkdir(parents=True, exist_ok=True)
        return wanted
    suffix = wanted.suffix if wanted.is_file() else ""
    stem = wanted.name.removesuffix(suffix) + sep
    candidate = wanted
    if mkdir:
        wanted.parent.mkdir(parents=True, exist_ok=True)  # not below: its FileExistsError would never end
    while True:
        if os.path.lexists(candidate):  # also a link that leads nowhere
            candidate = wanted.with_name(f"{stem}{_next_number(wanted, stem, suffix)}{suffix}")
        if not mkdir:
            return candidate
        # Another process may have made it in the meantime: then try again.
        with contextlib.suppress(FileExistsError):
            candidate.mkdir()
            return candidate


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """For work that makes objects by the hundred thousand and no garbage: to search them for it costs a quarter of the
    time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _walk_images(folder: Path, kinds: frozenset[str]) -> Iterator[Path]:
    """Files at any depth, through links but never twice into one folder; names that start with a dot are skipped."""
    seen: set[str] = set()
    others: Counter[str] = Counter()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = set()
        special = {entry.name for entry in os.scandir(parent) if _is_special(entry)}
        for name in names:
            suffix = name[name.rfind(".") :].lower()
            if name.startswith("."):
                continue
            if suffix in kinds and name in special:
                logger.warning("%s: not a file but a pipe, socket or device: skipped", Path(parent, name))
            elif suffix in kinds:
                images.add(name)
            elif suffix in _OTHER_IMAGES:
                others[suffix] += 1
        if images:  # to list the folder again is several times faster than to make a path of each of very many names
            yield from (path for path in Path(parent).iterdir() if path.name in images)
    if others:
        counts = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
        logger.warning("%s: images of kinds that cannot be read are skipped: %s; convert them", folder, counts)


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether it is a pipe, socket or device; a link that leads nowhere is for the reader to report."""
    return not entry.is_file() and not entry.is_dir() and (not entry.is_symlink() or os.path.exists(entry))  # noqa: PTH110


def _listed_images(listing: Path, bases: Sequence[Path], kinds: frozenset[str]) -> Iterator[Path]:
    """Files named in a text file, one a line; relative ones lie beside the list, in one of ``bases`` or in the cwd.

    Where there is none by a name that begins with ``data/``, the rest of the name is tried.
    "./" never means the cwd, as in the lists that come with COCO. A line that is no image is warned about once.
    """
    try:
        with open_regular(listing) as stream:
            lines = stream.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{listing}: byte {error.start} is not UTF-8; save the list as UTF-8 text") from error
    named, others = 0, []
    for number, line in enumerate(lines, 1):
        text = line.strip().replace("\\", "/")
        if os.path.splitext(text)[1].lower() not in kinds:  # noqa: PTH122  (of very many lines)
            if text and not text.startswith("#"):
                others.append(f"{listing}:{number}: '{text[:60]}'")
            continue
        named += 1
        if text.startswith("~"):
            text = os.path.expanduser(text)  # noqa: PTH111  (leaves the name of a file that begins so)
        beside = listing.parent / text  # an absolute line stays as it is
        if os.path.isabs(text):  # noqa: PTH117
            yield beside
            continue
        tried = [beside, *(base / text for base in bases), *([] if text.startswith("./") else [Path(text)])]
        if text.startswith(_PREFIX):
            tried += [folder / text[len(_PREFIX) :] for folder in (listing.parent, *bases)]
        yield next((path for path in tried if os.path.exists(path)), beside)  # noqa: PTH110  (never raises)
    if named and others:
        logger.warning("%s names no image; %d such lines are skipped", others[0], len(others))


def find_images(
    sources: Sequence[str | Path],
    bases: Sequence[Path] = (),
    also: frozenset[str] = frozenset(),
) -> list[Path]:
    """All images of some folders (any depth), ``.txt`` lists and single files, sorted by path.

    An image named twice is kept twice: a list may repeat a line to weigh an image more. Whether listed files exist
    is for the reader of the images to report. ``bases`` are folders where relative lines of a list may lie when they
    are not beside it, before the working directory. ``also`` are the suffixes of further kinds of files to find.

    Raises:
        FileNotFoundError: a source does not exist, or no image was found.
        InputError: a source is a file but neither an image nor a ``.txt`` list.
    """
    images: list[Path] = []
    suffixes = IMAGE_SUFFIXES | also
    for source in map(Path, sources):
        if source.is_dir():
            with collector_off():
                images.extend(_walk_images(source, suffixes))
        elif not source.exists():
            raise FileNotFoundError(f"{source}: no such folder or list of images")
        elif not source.is_file():
            raise InputError(f"{source}: not a file but a pipe, socket or device")
        elif source.suffix.lower() in suffixes:
            images.append(source)
        elif source.suffix.lower() == ".txt":
            images.extend(_listed_images(source, bases, suffixes))
        else:
            raise InputError(f"{source}: expected a folder, an image or a .txt list of images")
    if not images:
        kinds = " ".join(sorted(suffix[1:] for suffix in suffixes))
        raise FileNotFoundError(f"no images in {', '.join(map(str, sources))}; looked for {kinds}")
    return sorted(images, key=str)


def without_dots(path: Path) -> Path:
    """The same file without ".." in its path."""
    return Path(os.path.realpath(path.parent), path.name) if ".." in path.parts else path


def label_path_for(image: str | Path) -> Path:
    """The label file of an image: its last ``images`` folder replaced by ``labels``, else beside it; ``.txt``."""
    folder, name = os.path.split(image)
    return _label_folder(folder) / label_name(name)


def label_name(image_name: str) -> str:
    """The name of the label file of an image: its own with ``.txt`` for the suffix."""
    stem = image_name[: image_name.rfind(".")] if "." in image_name[1:] else image_name
    return f"{stem}.txt"


@lru_cache(maxsize=1024)
def _label_folder(folder: str) -> Path:
    parts = list(Path(folder).parts)
    for i in reversed(range(len(parts))):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts)
