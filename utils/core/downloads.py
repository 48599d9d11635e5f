"""Fetch a file, and unpack an archive, in a way that can be trusted with what strangers offer.

Nothing here runs unless it is called, and it is called only where a user asked for it (``--download``).
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from tqdm import tqdm

from utils.core.errors import InputError, first_line
from utils.core.files import open_regular
from utils.core.names import file_name, printable
from utils.core.output import OutputFolder

SCHEMES = ("http", "https", "file")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
GB = 10**9
MAX_DOWNLOAD_BYTES = 50 * GB  # of one file, and of what one archive holds
_LONGEST_NOTES = 1 << 20  # bytes of a name and the like in a tar archive
_TAR_CONTENT = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)  # what has no such notes
_LONGEST_NAME = 200  # bytes of a file name taken from an address
TIMEOUT_S = 30  # without a byte from the other side
_CHUNK = 1 << 20
# What the readers of damaged or encrypted archives raise.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)


@dataclass(frozen=True)
class RemoteFile:
    """A file to be had from ``url``; ``sha256`` (64 hex digits) is what its content must hash to, if known."""

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address, which the file is saved under.

        Raises:
            InputError: it is not a plain file name, or would be another one when decoded once more.
        """
        try:
            name = unquote(urlsplit(self.url).path.rpartition("/")[2], errors="strict")
        except ValueError:  # not UTF-8, or no address
            name = ""
        if not name or file_name(name, _LONGEST_NAME) != name or unquote(name) != name:
            raise InputError(
                f"{printable(self.url)}: the address does not end in a plain file name, so it is not fetched; save the "
                "file by hand under a name of your own"
            )
        return name


def is_url(text: str) -> bool:
    """Whether a text is one word that begins like an address, whatever its scheme."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", text.strip()) is not None


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal digits."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


def is_archive(name: str | Path) -> bool:
    """Whether a file name ends as one of ``ARCHIVES`` does."""
    return str(name).lower().endswith(ARCHIVES)


# Fetching -------------------------------------------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows only to http and https, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise urllib.error.URLError(f"sent on to {newurl}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> tuple[AbstractContextManager[IO[bytes]], int | None]:
    """The stream behind an address, and its length in bytes where that is told."""
    parts = urlsplit(url)
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost"):
            raise urllib.error.URLError("file:// takes three slashes and the path of a file of this machine")
        path = Path(url2pathname(parts.path))
        return open_regular(path), path.stat().st_size
    # A client that names itself is served where the default name of the library is turned away.
    request = urllib.request.Request(url, headers={"User-Agent": "yolov5-dynamic", "Accept-Encoding": "identity"})
    reply = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    length = reply.headers.get("Content-Length")
    return reply, int(length) if length and length.isdigit() else None


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    progress: bool = False,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    by_hand: str = "",
) -> Path:
    """Fetch ``url`` into the file ``target``, which is there whole or not at all; an older one is replaced.

    Args:
        url: http, https or file address.
        target: the file to write; its folder is made.
        sha256: refuse any other content.
        progress: show a bar.
        max_bytes: refuse to fetch more.
        by_hand: what to do with a file fetched elsewhere, for messages; default: save it as ``target``.

    Returns:
        ``target``.

    Raises:
        InputError: address of another kind, no network, too short, too long, another content; names the address.
    """
    scheme = urlsplit(url).scheme.lower()
    if scheme not in SCHEMES:
        raise InputError(f"{url}: '{scheme}' is not fetched; allowed are {', '.join(SCHEMES)} addresses")
    if sha256 is not None and not is_sha256(sha256):
        raise InputError(f"{url}: sha256 '{sha256}' is not 64 hexadecimal digits")
    cure = f"nothing was changed; to do it by hand, {by_hand or f'save the file as {target}'}"
    made = _missing_folders(target.parent)
    draft = target.with_name(f".{target.name[:32]}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = _save(url, draft, progress, max_bytes)
        if sha256 is not None and digest != sha256.lower():
            raise ValueError(f"its sha256 is {digest}, expected {sha256.lower()}: not the file that was meant")
        draft.replace(target)
    except (OSError, HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
        raise InputError(f"{url}: cannot be fetched: {_reason(error)}; {cure}") from error
    finally:
        draft.unlink(missing_ok=True)
        if not target.exists():
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
    return target


def _reason(error: Exception) -> str:
    """What went wrong, in one line, without the wrappings of urllib."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return first_line(error.reason if isinstance(error.reason, Exception) else OSError(error.reason))
    return first_line(error)


def _missing_folders(folder: Path) -> list[Path]:
    """``folder`` and its parents as far as they do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _save(url: str, draft: Path, progress: bool, max_bytes: int) -> str:
    """Write what ``url`` gives to ``draft`` and return its SHA-256; ValueError for a wrong length."""
    source, length = _open(url)
    digest, got = hashlib.sha256(), 0
    with source as stream:
        if length is not None and length > max_bytes:
            raise ValueError(f"{length / GB:.1f} GB, above the limit of {max_bytes / GB:g} GB")
        bar = tqdm(
            total=length, desc=printable(url.rpartition("/")[2]), unit="B", unit_scale=True, disable=not progress
        )
        with draft.open("wb") as file, bar:
            while chunk := stream.read(_CHUNK):
                got += len(chunk)
                if got > max_bytes:
                    raise ValueError(f"more than the limit of {max_bytes / GB:g} GB")
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    if length is not None and got != length:
        raise ValueError(f"{got} bytes came, {length} were announced")
    return digest.hexdigest()


# Unpacking ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """One entry of an archive: ``name`` as stored, ``size`` in bytes as declared, and a way to read it."""

    name: str
    size: int
    folder: bool
    kind: str  # "" for files and folders, else what it is instead
    open: Callable[[], IO[bytes] | None]

    def path(self) -> PurePosixPath:
        """Where it belongs below the target; ValueError when that is not below it."""
        name = self.name.replace("\\", "/")
        path = PurePosixPath(name)
        if printable(name) != name:
            raise ValueError("has control characters in its name")
        if self.kind:
            raise ValueError(f"is a {self.kind}; only files and folders are unpacked")
        if path.is_absolute() or re.match(r"[A-Za-z]:", name):
            raise ValueError("has an absolute path")
        if ".." in path.parts:
            raise ValueError("leads out of the folder by '..'")
        if not path.parts and not self.folder:
            raise ValueError("has no name")
        if os.name == "nt" and (odd := next((part for part in path.parts if file_name(part, 255) != part), "")):
            raise ValueError(f"has the name '{odd}', which Windows does not take")
        return path


_KINDS = {0: "", stat.S_IFREG: "", stat.S_IFDIR: "", stat.S_IFLNK: "link"}  # of what Unix programs note in a zip


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        kind = _KINDS.get(stat.S_IFMT(info.external_attr >> 16), "device")
        yield Member(info.filename, info.file_size, info.is_dir(), kind, partial(archive.open, info))


class _TarInfo(tarfile.TarInfo):
    """An entry of a tar archive whose name is short: names are read into memory at whatever length they claim."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Raises ValueError: a name, or other notes on an entry, of more than ``_LONGEST_NOTES`` bytes."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.type not in _TAR_CONTENT and entry.size > _LONGEST_NOTES:
            raise ValueError(f"has notes on an entry of {entry.size} bytes")
        return entry


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for info in archive:
        kind = "" if info.isreg() or info.isdir() else "link" if info.issym() or info.islnk() else "device"
        yield Member(info.name, info.size, info.isdir(), kind, partial(archive.extractfile, info))


@contextmanager
def _members(file: Path) -> Iterator[Iterator[Member]]:
    """The entries of an archive, which stays open for as long as they are read."""
    if file.name.lower().endswith(".zip"):
        with zipfile.ZipFile(file) as zipped:
            yield _zip_members(zipped)
    else:
        with tarfile.open(file, "r:*", tarinfo=_TarInfo) as tarred:
            yield _tar_members(tarred)


def extract_archive(
    file: Path, folder: Path, *, max_bytes: int = MAX_DOWNLOAD_BYTES, progress: bool = False
) -> list[Path]:
    """Unpack a zip, tar or tar.gz archive into a new or empty ``folder``; returns the files, relative to it.

    All entries are looked at before the first is written. Only plain files and folders are made, with default rights.

    Raises:
        InputError: damaged, encrypted, or an entry that is a link or device, or would lie outside ``folder``, or more
            than ``max_bytes`` in all; names the archive and the entry. What was written by then is left in ``folder``.
    """
    place = str(file)
    try:
        with _members(file) as members:
            total = 0
            for member in members:
                place = f"{file}: '{member.name}'"
                member.path()
                total += member.size
                if total > max_bytes:
                    raise ValueError(f"the archive holds more than the limit of {max_bytes / GB:g} GB")
        place = str(file)
        if total > (free := shutil.disk_usage(folder).free):
            raise ValueError(f"needs {total / GB:.1f} GB, only {free / GB:.1f} GB are free below {folder}")
        written, left, output = [], max_bytes, OutputFolder(folder)
        bar = tqdm(total=total, desc=f"unpacking {file.name}", unit="B", unit_scale=True, disable=not progress)
        with _members(file) as members, bar:
            for member in members:
                place = f"{file}: '{member.name}'"
                if (size := _write(member, output, left)) is not None:
                    written.append(Path(*member.path().parts))
                    left -= size
                    bar.update(size)
    except ValueError as error:
        raise InputError(f"{place}: {error}; the archive is refused") from error
    except _DAMAGE as error:
        raise InputError(f"{place}: cannot be unpacked: {first_line(error)}") from error
    return written


def _write(member: Member, folder: OutputFolder, left: int) -> int | None:
    """Write one entry below ``folder`` and return its bytes, None for a folder; ValueError beyond ``left`` bytes."""
    if member.folder:
        folder.path(member.path() / "a")  # makes the folder that a file "a" would lie in
        return None
    target = folder.path(member.path())
    size, source = 0, member.open()
    if source is None:
        raise ValueError("has no content")
    with source, target.open("wb") as file:
        # What an archive says of sizes need not be true.
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > left:
                raise ValueError("the archive holds more than it says, and more than the limit")
            file.write(chunk)
    return size
