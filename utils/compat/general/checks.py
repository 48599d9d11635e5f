"""v6.1's check functions. None installs or fetches anything."""

from __future__ import annotations

import glob
import importlib.metadata
import platform
import re
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.compat.general.logger import LOGGER
from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.datasets.dataset_labels import GENERATORS
from utils.inference.window import can_open_window
from utils.plots.fonts import font_file


def is_ascii(s: Any = "") -> bool:
    """Whether the text of any object, a list of names say, is ASCII."""
    return str(s).isascii()


def check_suffix(
    file: str | Path | Sequence[str | Path] = "yolov5s.pt", suffix: str | Sequence[str] = (".pt",), msg: str = ""
) -> None:
    """Raise InputError for a file, or one of several, whose suffix is another; names without a suffix pass."""
    allowed = [suffix] if isinstance(suffix, str) else list(suffix)
    for name in [file] if isinstance(file, (str, Path)) else file:
        found = Path(name).suffix.lower()
        if allowed and any(allowed) and found and found not in allowed:
            raise InputError(f"{msg}{name}: expected a name ending in {' or '.join(allowed)}")


def check_file(file: str | Path, suffix: str | Sequence[str] = "") -> str:
    """The path of a file given by its path, or by a name to be found in ``data``, ``models`` or ``utils``.

    Raises:
        FileNotFoundError: there is none. InputError: there are several, it is an address, or its suffix is wrong.
    """
    check_suffix(file, suffix)
    name = str(file)
    if not name or Path(name).is_file():
        return name
    if "://" in name:
        raise InputError(f"{name}: nothing is downloaded; save the file and give its path")
    folders = [ROOT / folder for folder in ("data", "models", "utils")]
    found = [path for folder in folders for path in sorted(folder.rglob(glob.escape(Path(name).name)))]
    found = [path for path in found if path.is_file() and path.parts[-len(Path(name).parts) :] == Path(name).parts]
    if not found:
        raise FileNotFoundError(f"{name}: no such file (looked at {Path(name).absolute()}, and in data, models, utils)")
    if len(found) > 1:
        raise InputError(f"{name} may be any of {', '.join(map(str, found))}: give the path")
    return str(found[0])


def check_yaml(file: str | Path, suffix: str | Sequence[str] = (".yaml", ".yml")) -> str:
    """As :func:`check_file`, for a yaml file."""
    return check_file(file, suffix)


def check_version(current: str, minimum: str, name: str = "version", pinned: bool = False, hard: bool = False) -> bool:
    """Whether a version is at least, or with ``pinned`` exactly, another; ``hard`` raises InputError if not."""
    have, need = _numbers(current), _numbers(minimum)
    good = have == need if pinned else have >= need
    if hard and not good:
        raise InputError(f"{name} {minimum} is needed, {current} is installed")
    return good


def _numbers(version: str) -> tuple[int, ...]:
    """ "2.14.1+cpu" -> (2, 14, 1); zeros at the end do not count."""
    numbers = [int(number) for number in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version)[0])]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def check_requirements(
    requirements: str | Path | Iterable[str] = ROOT / "requirements.txt",
    exclude: Iterable[str] = (),
    install: bool = False,
    cmds: Iterable[str] = (),
) -> bool:
    """Warn about packages that are missing or too old; nothing is ever installed.

    Args:
        requirements: a requirements file, one requirement ("numpy>=1.26"), or several.
        exclude: packages not to ask for.
        install, cmds: without effect.

    Returns:
        Whether all are there.
    """
    if isinstance(requirements, Path) or (isinstance(requirements, str) and Path(requirements).suffix == ".txt"):
        lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    else:
        lines = [requirements] if isinstance(requirements, str) else list(requirements)
    wanted = [text for line in lines if (text := line.split("#")[0].split(";")[0].strip()) and text[0] != "-"]
    missing = [text for text in wanted if _package(text) not in set(exclude) and not _installed(text)]
    if missing:
        LOGGER.warning("missing or too old: %s; install with: pip install %s", ", ".join(missing),
                       " ".join(f'"{text}"' for text in missing))  # fmt: skip
    return not missing


def _package(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0]


def _installed(requirement: str) -> bool:
    """Whether the package is there, and not older than a ``>=`` in the requirement says."""
    try:
        current = importlib.metadata.version(_package(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    floor = re.search(r">=\s*([\w.]+)", requirement)
    return floor is None or check_version(current, floor[1])


def check_imshow(warn: bool = True) -> bool:
    """Whether OpenCV can open a window here; warns if not, unless ``warn`` is False."""
    works = can_open_window()
    if warn and not works:
        LOGGER.warning("no window can be opened here")
    return works


def check_dataset(data: str | Path | Mapping[str, Any], autodownload: bool = False) -> dict[str, Any]:
    """A data yaml as v6.1's dict: ``path``, ``train``, ``val``, ``test`` (absolute, a list when several), ``nc``,
    ``names``. A dict is returned as it is. Nothing is downloaded; the embedded set is composed if need be.

    Raises:
        FileNotFoundError: the yaml or the images it names are missing.
        InputError: something in the yaml is wrong.
    """
    if isinstance(data, Mapping):
        return dict(data)
    spec = DatasetSpec.load(data)
    if spec.generate in GENERATORS:
        GENERATORS[spec.generate](spec.root)
    content: dict[str, Any] = {"path": spec.root, "nc": spec.nc, "names": list(spec.names)}
    for split in SPLITS:
        places = [str(path) for path in spec.sources(split)] if getattr(spec, split) else []
        content[split] = places if len(places) > 1 else places[0] if places else None
    return content


def is_chinese(s: Any = "") -> bool:
    """Whether the text of any object has a character of the CJK ideographs (U+4E00 to U+9FFF)."""
    return any("\u4e00" <= character <= "\u9fff" for character in str(s))


def check_python(minimum: str = "3.10") -> None:
    """Raise InputError: this Python is older than ``minimum``."""
    check_version(platform.python_version(), minimum, "Python", hard=True)


def check_font(font: str | Path = "", progress: bool = False) -> str | None:
    """The file of the font that labels are drawn with, None for Pillow's own; nothing is fetched.

    A ``font`` that is a file is taken; any other name, v6.1's Arial.ttf say, has no effect, nor has ``progress``.
    """
    return str(font) if font and Path(font).is_file() else font_file("")


def check_online(host: str = "1.1.1.1", port: int = 443, seconds: float = 5.0) -> bool:
    """Whether a connection to a host of the internet can be made."""
    try:
        with socket.create_connection((host, port), seconds):
            return True
    except OSError:
        return False


def check_git_status(path: str | Path = ROOT) -> int:
    """How many commits a checkout is behind the branch that it follows, as of the last fetch; a warning if any.

    Nothing is fetched. 0 where there is no git, no checkout or no such branch.
    """
    words = ["git", "-C", str(path), "rev-list", "--count", "HEAD..@{upstream}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
        behind = int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0
    if behind:
        LOGGER.warning("%s: %d commits behind, as of the last fetch; git pull gets them", path, behind)
    return behind
