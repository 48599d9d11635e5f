"""Check functions of ``utils.general`` of YOLOv5 v6.1, and ``notebook_init``. None installs or fetches anything."""

from __future__ import annotations

import glob
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from utils.config.dataset_spec import SPLITS, DatasetSpec
from utils.config.paths import ROOT
from utils.core.device import select_device
from utils.core.errors import InputError
from utils.core.log import SCRIPT_LOG
from utils.core.memory import free_memory
from utils.datasets.labels.splits import GENERATORS
from utils.inference.window import can_open_window


def is_ascii(s: Any = "") -> bool:
    """Whether the text of any object, such as a list of names, is ASCII."""
    return str(s).isascii()


def is_colab() -> bool:
    """Whether this is a Google Colab notebook."""
    return "COLAB_GPU" in os.environ or "google.colab" in sys.modules


def is_docker() -> bool:
    """Whether this process is in a container of Docker or Podman."""
    return any(Path(name).exists() for name in ("/.dockerenv", "/run/.containerenv", "/workspace/.dockerenv"))


def check_suffix(
    file: str | Path | Sequence[str | Path] = "yolov5s.pt", suffix: str | Sequence[str] = (".pt",), msg: str = ""
) -> None:
    """Raise InputError for a file, or one of several, with another suffix; names without a suffix pass."""
    allowed = [suffix] if isinstance(suffix, str) else list(suffix)
    for name in [file] if isinstance(file, (str, Path)) else file:
        actual = Path(name).suffix.lower()
        if allowed and any(allowed) and actual and actual not in allowed:
            raise InputError(f"{msg}{name}: expected a name ending in {' or '.join(allowed)}")


def check_file(file: str | Path, suffix: str | Sequence[str] = "") -> str:
    """Return the path of a file, given as a path, or as a name to search for in ``data``, ``models`` and ``utils``.

    Raises:
        FileNotFoundError: there is none.
        InputError: there are several, it is an address, or its suffix is wrong.
    """
    check_suffix(file, suffix)
    name = str(file)
    if not name or Path(name).is_file():
        return name
    if "://" in name:
        raise InputError(f"{name}: nothing is downloaded; save the file and give its path")
    parts = Path(name).parts
    folders = [ROOT / folder for folder in ("data", "models", "utils")]
    matches = [path for folder in folders for path in sorted(folder.rglob(glob.escape(Path(name).name)))]
    matches = [path for path in matches if path.is_file() and path.parts[-len(parts) :] == parts]
    if not matches:
        raise FileNotFoundError(
            f"{name}: no such file (searched: {Path(name).absolute()}, and the folders data, models, utils)"
        )
    if len(matches) > 1:
        raise InputError(f"{name} may be any of {', '.join(map(str, matches))}: give the path")
    return str(matches[0])


def check_yaml(file: str | Path, suffix: str | Sequence[str] = (".yaml", ".yml")) -> str:
    """As :func:`check_file`, for a yaml file."""
    return check_file(file, suffix)


def check_version(current: str, minimum: str, name: str = "version", pinned: bool = False, hard: bool = False) -> bool:
    """Whether a version is at least, or with ``pinned`` exactly, another; ``hard`` raises InputError if not."""
    installed, required = _release(current), _release(minimum)
    good = installed == required if pinned else installed >= required
    if hard and not good:
        raise InputError(f"{name} {minimum} is needed, {current} is installed")
    return good


def _release(version: str) -> tuple[int, ...]:
    """ "2.14.1+cpu" -> (2, 14, 1), without zeros at the end."""
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
        exclude: packages that are not checked.
        install, cmds: without effect.

    Returns:
        Whether all are installed.
    """
    if isinstance(requirements, Path) or (isinstance(requirements, str) and Path(requirements).suffix == ".txt"):
        lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    else:
        lines = [requirements] if isinstance(requirements, str) else list(requirements)
    wanted = [text for line in lines if (text := line.split("#")[0].split(";")[0].strip()) and text[0] != "-"]
    missing = [text for text in wanted if _package(text) not in set(exclude) and not _is_installed(text)]
    if missing:
        words = " ".join(f'"{text}"' for text in missing)
        SCRIPT_LOG.warning("missing or too old: %s; install with: pip install %s", ", ".join(missing), words)
    return not missing


def _package(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0]


def _is_installed(requirement: str) -> bool:
    """Whether the package is installed, in the version after ``>=`` or a later one."""
    try:
        current = importlib.metadata.version(_package(requirement))
    except importlib.metadata.PackageNotFoundError:
        return False
    minimum = re.search(r">=\s*([\w.]+)", requirement)
    return minimum is None or check_version(current, minimum[1])


def check_imshow(warn: bool = True) -> bool:
    """Whether OpenCV can open a window here; logs a warning if not, unless ``warn`` is False."""
    works = can_open_window()
    if warn and not works:
        SCRIPT_LOG.warning("no window can be opened here")
    return works


def check_dataset(data: str | Path | Mapping[str, Any], autodownload: bool = False) -> dict[str, Any]:
    """Read a data yaml as v6.1's dict: ``path``, ``train``, ``val``, ``test`` (absolute; a list when several), ``nc``,
    ``names``.

    A dict is returned as it is. Nothing is downloaded; the embedded set is generated if it is missing.

    Raises:
        FileNotFoundError: the yaml or its images are missing.
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


def check_git_status(path: str | Path = ROOT) -> int:
    """Number of commits that a checkout is behind its upstream branch, as of the last fetch; logs a warning if any.

    Nothing is fetched. 0 where there is no git, no checkout or no such branch.
    """
    words = ["git", "-C", str(path), "rev-list", "--count", "HEAD..@{upstream}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
        behind = int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0
    if behind:
        SCRIPT_LOG.warning("%s: %d commits behind, as of the last fetch; git pull gets them", path, behind)
    return behind


def notebook_init(verbose: bool = True) -> Any:
    """Log what the machine has, and packages that are missing: the first cell of v6.1's notebooks.

    Returns:
        The module ``IPython.display``; None without IPython.
    """
    check_requirements()
    if verbose:
        select_device()
        free = free_memory(torch.device("cpu"))
        memory = "?" if free is None else f"{free / 1e9:.1f}"
        disk = shutil.disk_usage(ROOT)
        disk_gb = f"{disk.free / 1e9:.1f} of {disk.total / 1e9:.1f} GB"
        SCRIPT_LOG.info("%s CPUs, %s GB of memory free, %s of the disk free", os.cpu_count(), memory, disk_gb)
    try:
        return importlib.import_module("IPython.display")
    except ImportError:
        return None
