"""Safe download of files and extraction of archives from untrusted addresses, only used with ``--download``."""

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
_LARGEST_HEADER = 1 << 20  # bytes of a long name or other header in a tar archive
_TAR_CONTENT = (*tarfile.REGULAR_TYPES, tarfile.DIRTYPE)  # types of entries that are no header
_LONGEST_NAME = 200  # bytes of a file name taken from an address
TIMEOUT_S = 30  # without a byte from the server
_CHUNK = 1 << 20
# Exceptions for damaged or encrypted archives.
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError)


@dataclass(frozen=True)
class RemoteFile:
    """A file at ``url``; ``sha256`` (64 hex digits) is the hash that its content must have, if known."""

    url: str
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        """The last part of the address, under which the file is saved.

        Raises:
            InputError: it is not a plain file name, or it is URL-encoded twice.
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
    """Whether a text is one word that begins with a scheme, such as ``https://``."""
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", text.strip()) is not None


def is_sha256(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal digits."""
    return re.fullmatch(r"[0-9a-fA-F]{64}", text) is not None


def is_archive(name: str | Path) -> bool:
    """Whether a file name has a suffix of ``ARCHIVES``."""
    return str(name).lower().endswith(ARCHIVES)


# Fetching -------------------------------------------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https") or (req.type == "https" and scheme == "http"):
            raise urllib.error.URLError(f"sent on to {newurl}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str) -> tuple[AbstractContextManager[IO[bytes]], int | None]:
    """Open an address; return the stream and its length in bytes, if known."""
    parts = urlsplit(url)
    if parts.scheme.lower() == "file":
        if parts.netloc not in ("", "localhost"):
            raise urllib.error.URLError("file:// takes three slashes and the path of a file of this machine")
        path = Path(url2pathname(parts.path))
        return open_regular(path), path.stat().st_size
    # Some servers refuse the default user agent of urllib.
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
    """Fetch ``url`` into the file ``target``, completely or not at all; an older file is replaced.

    Args:
        url: http, https or file address.
        target: the file to write; its folder is made if needed.
        sha256: refuse any other content.
        progress: show a bar.
        max_bytes: refuse to fetch more.
        by_hand: how to do it by hand, for messages; default: save the file as ``target``.

    Returns:
        ``target``.

    Raises:
        InputError: unknown scheme, no network, wrong length, wrong content; names the address.
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
    """Return the cause of an error in one line, without the wrappers of urllib."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return first_line(error.reason if isinstance(error.reason, Exception) else OSError(error.reason))
    return first_line(error)


def _missing_folders(folder: Path) -> list[Path]:
    """Return ``folder`` and those of its parents that do not exist, innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _save(url: str, draft: Path, progress: bool, max_bytes: int) -> str:
    """Write the content of ``url`` to ``draft`` and return its SHA-256; ValueError for a wrong length."""
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
        raise ValueError(f"{got} bytes came, {length} were declared")
    return digest.hexdigest()


# Unpacking ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArchiveMember:
    """One entry of an archive: ``name`` as stored, ``size`` in bytes as declared, and a way to read it."""

    name: str
    size: int
    folder: bool
    kind: str  # "" for files and folders, else "link" or "device"
    open: Callable[[], IO[bytes] | None]

    def path(self) -> PurePosixPath:
        """Return its path below the target folder; ValueError when it would be elsewhere or has a bad name."""
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


_KINDS = {
    0: "",
    stat.S_IFREG: "",
    stat.S_IFDIR: "",
    stat.S_IFLNK: "link",
}  # file types that Unix programs store in a zip


def _zip_members(archive: zipfile.ZipFile) -> Iterator[ArchiveMember]:
    for info in archive.infolist():
        kind = _KINDS.get(stat.S_IFMT(info.external_attr >> 16), "device")
        yield ArchiveMember(info.filename, info.file_size, info.is_dir(), kind, partial(archive.open, info))


class _TarInfo(tarfile.TarInfo):
    """An entry of a tar archive with a limit of its header: long names are read into memory as a whole."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """Raises ValueError: a header with a long name or the like of more than ``_LARGEST_HEADER`` bytes."""
        entry = super().frombuf(buf, encoding, errors)
        if entry.type not in _TAR_CONTENT and entry.size > _LARGEST_HEADER:
            raise ValueError(f"has the header of an entry with {entry.size} bytes")
        return entry


def _tar_members(archive: tarfile.TarFile) -> Iterator[ArchiveMember]:
    for info in archive:
        kind = "" if info.isreg() or info.isdir() else "link" if info.issym() or info.islnk() else "device"
        yield ArchiveMember(info.name, info.size, info.isdir(), kind, partial(archive.extractfile, info))


@contextmanager
def _members(file: Path) -> Iterator[Iterator[ArchiveMember]]:
    """Open an archive and yield its entries."""
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

    All entries are checked before the first is written. Only plain files and folders are made, with default rights.

    Raises:
        InputError: damaged, encrypted, or an entry that is a link or device, or would lie outside ``folder``, or more
            than ``max_bytes`` in all; names the archive and the entry. Files written before stay in ``folder``.
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


def _write(member: ArchiveMember, folder: OutputFolder, left: int) -> int | None:
    """Write one entry below ``folder`` and return its bytes, None for a folder; ValueError beyond ``left`` bytes."""
    if member.folder:
        folder.path(member.path() / "a")  # makes the folder that a file "a" would lie in
        return None
    target = folder.path(member.path())
    size, source = 0, member.open()
    if source is None:
        raise ValueError("has no content")
    with source, target.open("wb") as file:
        # The declared sizes may be wrong.
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > left:
                raise ValueError("the archive holds more than it says, and more than the limit")
            file.write(chunk)
    return size
