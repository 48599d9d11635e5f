"""Get the images a data yaml names when they are missing and the user requested it.

Addresses are fetched and unpacked below the folder of ``path:``, and nowhere else. A script is shown, and runs only
with the user's word for it.
"""

from __future__ import annotations

import filecmp
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from utils.config.dataset_spec import DatasetSpec
from utils.config.paths import ROOT
from utils.core.downloads import GB, MAX_DOWNLOAD_BYTES, RemoteFile, download, extract_archive, is_archive
from utils.core.errors import InputError, describe_exit_code, first_line
from utils.core.files import IMAGE_SUFFIXES, read_yaml
from utils.core.names import counted
from utils.core.output import OutputFolder, temporary_folder

LOG = logging.getLogger(__name__)

# What is kept of the downloads of a data yaml: no program runs a file of such a name because it lies in some folder.
_KINDS = IMAGE_SUFFIXES | {".txt", ".xml", ".json", ".csv", ".yaml", ".yml", ".md"}
_CLUTTER = "__MACOSX"  # notes of the file manager that made the archive


def fetch_missing(
    spec: DatasetSpec, splits: Iterable[str], *, allow_scripts: bool = False, limit_gb: float = MAX_DOWNLOAD_BYTES / GB
) -> DatasetSpec:
    """Get the images of ``splits`` by the ``download:`` of the yaml; nothing happens when they are all there.

    Args:
        spec: the data set.
        splits: "train", "val", "test"; those that the yaml does not name are passed over.
        allow_scripts: run a ``download:`` that is a script.
        limit_gb: most that one download may have, packed or unpacked.

    Returns:
        ``spec``, or the same yaml read anew, since some of it depends on what is there.

    Raises:
        InputError: there is nothing to fetch from, it failed, or it is a script that may not run.
        FileNotFoundError: all was fetched, and the images are still not where the yaml says.
    """
    wanted = [split for split in splits if getattr(spec, split)]
    missing = [split for split in wanted if _why_missing(spec, split)]
    if not missing or spec.generate:
        return spec
    if spec.download:
        by_hand = f"unpack it so that {getattr(spec, missing[0])[0]} is there"
        for remote in spec.download:
            LOG.info("%s: fetching %s into %s", spec.source, remote.url, spec.root)
            fetch(remote, spec.root, max_bytes=int(limit_gb * GB), by_hand=by_hand, data_only=True)
    elif spec.download_script:
        _run_script(spec, spec.download_script, allow_scripts)
    else:
        raise InputError(f"{spec.source}: --download has nothing to fetch; the yaml has no 'download:' address")
    for split in missing:
        if reason := _why_missing(spec, split):
            raise FileNotFoundError(f"the download ended well, but does not hold what the yaml names: {reason}")
    return DatasetSpec.load(spec.source, single_cls=spec.names == ("item",))  # which a lone class item is anyway


def _why_missing(spec: DatasetSpec, split: str) -> str:
    """What is missing of a split, "" when nothing is."""
    try:
        spec.sources(split)
    except FileNotFoundError as error:
        return str(error)
    return ""


# Addresses ------------------------------------------------------------------------------------------------------------


def fetch(
    remote: RemoteFile,
    root: Path,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    by_hand: str = "",
    unpack_archive: bool = True,
    data_only: bool = False,
) -> None:
    """Fetch one file into the folder ``root``; an archive is unpacked there unless ``unpack_archive`` is off.

    An archive in which everything lies in one folder called like ``root`` itself gives that folder. It is unpacked
    beside the files that are there and only then moved among them, so that a failure leaves ``root`` as it was; a file
    that is there already is never replaced.

    Args:
        data_only: keep images, labels and notes; scripts, hidden files and whatever else could act are skipped.

    Raises:
        InputError: see :mod:`utils.core.downloads`; or a file of the archive is there with another content.
    """
    name = remote.file_name
    if data_only and not (is_archive(name) or _is_data(Path(name))):
        raise InputError(f"{remote.url}: neither an archive nor a file of a data set, so it is not fetched")
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        with temporary_folder(root, ".fetching-") as folder:
            file = download(
                remote.url, folder / name, remote.sha256, progress=True, max_bytes=max_bytes, by_hand=by_hand
            )  # fmt: skip
            if not (unpack_archive and is_archive(name)):
                _move_in([Path(name)], folder, root, remote.url)
                return
            content = folder / "content"
            content.mkdir()
            extracted = extract_archive(file, content, max_bytes=max_bytes, progress=True)
            members = [path for path in extracted if _CLUTTER not in path.parts]
            if data_only and (others := [path for path in members if not _is_data(path)]):
                members = [path for path in members if _is_data(path)]
                LOG.warning(
                    "%s: files that no data set needs are skipped: %d, such as %s", name, len(others), others[0]
                )
            if members and all(len(path.parts) > 1 and path.parts[0] == root.name for path in members):
                members, content = [path.relative_to(root.name) for path in members], content / root.name
            _move_in(members, content, root, remote.url)
            LOG.info("%s: %s unpacked into %s", name, counted(len(members), "file"), root)
    finally:
        for made_here in made:
            with suppress(OSError):  # not empty any more
                made_here.rmdir()


def _is_data(path: Path) -> bool:
    """Whether a file, by its name, is one of a data set, and nothing on the way to it is hidden."""
    return path.suffix.lower() in _KINDS and not any(part.startswith(".") for part in path.parts)


def _move_in(files: Sequence[Path], source: Path, root: Path, url: str) -> None:
    """Move ``files``, relative to ``source``, to the same places below ``root``; all or, on a conflict, none."""
    output = OutputFolder(root)
    for path in files:
        there = output.path(path, make=False)
        if there.exists() and not (there.is_file() and filecmp.cmp(source / path, there, shallow=False)):
            raise InputError(f"{url}: {there} is there already with another content; move it away and try again")
    try:
        for path in files:
            (source / path).replace(output.path(path))
    except OSError as error:
        raise InputError(f"{url}: cannot be unpacked into {root}: {error}") from error


# Scripts --------------------------------------------------------------------------------------------------------------


def _run_script(spec: DatasetSpec, text: str, allowed: bool) -> None:
    """Show what would run and, if allowed, run it in the folder of the yaml."""
    folder = spec.source.parent
    if text.startswith("bash "):
        file, arguments = _script_file(text.removeprefix("bash "), spec)
        command, shown = ["bash", str(file), *arguments], file.read_text(encoding="utf-8", errors="replace")
    else:
        command, shown = [sys.executable, "-c", f"{_yaml_variable(spec)}{text}"], text
    LOG.info("%s: 'download:' is a script:\n%s", spec.source, "\n".join(f"    {line}" for line in shown.splitlines()))
    if not allowed:
        raise InputError(
            f"{spec.source}: 'download:' is a script and nothing of it ran; read it above, then add --allow-scripts, "
            f"or get the images by hand so that {', '.join(map(str, spec.train or spec.val or spec.test))} is there"
        )
    # v6.1's scripts import from this repository.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, check=False
        )
    except OSError as error:
        raise InputError(f"{spec.source}: the download script cannot run: {first_line(error)}") from error
    if done.returncode:
        ended = describe_exit_code(done.returncode)
        raise InputError(f"{spec.source}: the download script {ended}; see its output above")


def _script_file(words: str, spec: DatasetSpec) -> tuple[Path, list[str]]:
    """The file of ``bash FILE ...``, which must lie in data/scripts of the repository or beside the yaml; arguments."""
    folders = (ROOT / "data/scripts", spec.source.parent)
    try:
        name, *arguments = shlex.split(words)
    except ValueError:  # nothing there, or a quote without its other half
        name, arguments = words, []
    for start in (spec.source.parent, ROOT):
        file = (start / name).resolve()
        if file.is_file() and any(file.is_relative_to(folder.resolve()) for folder in folders):
            return file, arguments
    raise InputError(
        f"{spec.source}: download: {f'bash {words}'!r}: only a script file below {folders[0]} or {folders[1]} may run"
    )


def _yaml_variable(spec: DatasetSpec) -> str:
    """A line of Python that gives a script the content of the yaml as ``yaml``, as v6.1 did; its path is absolute."""
    content = {**read_yaml(spec.source), "path": str(spec.root)}
    return f"import json; yaml = json.loads({json.dumps(content, default=str)!r}); del json\n"
