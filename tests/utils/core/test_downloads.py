"""Fetching and unpacking: whole or not at all, nothing outside the target, errors that say what to do."""

from __future__ import annotations

import hashlib
import io
import stat
import tarfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from utils.core.downloads import RemoteFile, _Redirects, download, extract_archive, is_url
from utils.core.errors import InputError

CONTENT = b"images" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """``/good`` is whole, ``/short`` breaks off, ``/silent`` tells no length, ``/moved`` and ``/aside`` send on."""

    def do_GET(self) -> None:
        places = {"/moved.bin": "/good.bin", "/aside.bin": "ftp://localhost/x", "/local.bin": "file:///etc/hostname"}
        if self.path in places:
            self.send_response(302)
            self.send_header("Location", places[self.path])
            self.end_headers()
        elif self.path == "/none.bin":
            self.send_error(404, "Not Found")
        else:
            self.send_response(200)
            if self.path != "/silent.bin":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:100] if self.path == "/short.bin" else CONTENT)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


# Fetching -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["good.bin", "silent.bin", "moved.bin"])
def test_a_file_arrives_whole_and_nothing_else_is_left(server: str, name: str, tmp_path: Path) -> None:
    target = tmp_path / "new/folder/file.bin"
    assert download(f"{server}/{name}", target) == target
    assert target.read_bytes() == CONTENT
    assert [path.name for path in target.parent.iterdir()] == ["file.bin"]


def test_a_file_address_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "a b.bin"
    source.write_bytes(CONTENT)
    download(source.as_uri(), tmp_path / "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("short.bin", "100 bytes came, 6000 were declared"),
        ("none.bin", "the server answered 404 Not Found"),
        ("aside.bin", "sent on to ftp://localhost/x"),
        ("local.bin", "file:///etc/hostname"),
    ],
)
def test_what_went_wrong_names_the_address_and_leaves_everything_as_it_was(
    server: str, name: str, reason: str, tmp_path: Path
) -> None:
    target = tmp_path / "new/file.bin"
    with pytest.raises(InputError) as caught:
        download(f"{server}/{name}", target)
    message = str(caught.value)
    assert message.startswith(f"{server}/{name}: cannot be fetched: ")
    assert reason in message
    assert f"nothing was changed; to do it by hand, save the file as {target}" in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_says_how_to_do_it_by_hand(server: str, tmp_path: Path) -> None:
    closed = f"http://127.0.0.1:{_free_port()}/set.zip"
    with pytest.raises(InputError, match=rf"{closed}: .*refused.*; to do it by hand, unpack it into here"):
        download(closed, tmp_path / "set.zip", by_hand="unpack it into here")


def _free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        return httpd.server_port


def test_a_failure_keeps_the_older_file(server: str, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(b"old")
    with pytest.raises(InputError):
        download(f"{server}/short.bin", target)
    assert target.read_bytes() == b"old"


def test_the_right_sha256_passes_in_any_case(server: str, tmp_path: Path) -> None:
    download(f"{server}/good.bin", tmp_path / "a", DIGEST.upper())
    assert (tmp_path / "a").exists()


def test_another_sha256_is_refused_and_both_are_shown(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"its sha256 is {DIGEST}, expected {'0' * 64}"):
        download(f"{server}/good.bin", tmp_path / "a", "0" * 64)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["good.bin", "silent.bin"])
def test_more_than_the_limit_is_refused(server: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="limit"):
        download(f"{server}/{name}", tmp_path / "a", max_bytes=len(CONTENT) - 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["ftp://host/a.zip", "data:text/plain,hello", "javascript:1", "gopher://x/y"])
def test_addresses_of_other_kinds_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed are http, https, file addresses"):
        download(url, tmp_path / "a")


def test_a_file_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="takes three slashes"):
        download("file://elsewhere/etc/hostname", tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.org/x.zip", True),
        ("ftp://a.org/x", True),
        ("bash get.sh", False),
        ("import os  # see https://a.org", False),
    ],
)
def test_an_address_is_told_from_a_script(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_the_file_name_is_the_end_of_the_path_of_the_address() -> None:
    assert RemoteFile("https://a.org/b/my%20set.zip?x=/y#z").file_name == "my set.zip"
    assert RemoteFile("https://a.org/b/100%25%20%E7%8C%AB.tar.gz").file_name == "100% 猫.tar.gz"


@pytest.mark.parametrize(
    "end",
    ["", "%2fetc%2fprofile", "..%2fx.zip", "%2e%2e", "..", ".", "%2e", "..%5cx.zip", "x\\y.zip", "a%00.zip", "a%0a.zip",
     "%1b%5b2J.zip", "%252e%252e%252fx.zip", "a%252fb.zip", "con", "nul.zip", "COM1.tar.gz", "x.zip.", "x.zip%20",
     "C:x.zip", "c%3ax.zip", "x" * 201, "%E2%80%AEx.zip", "%ff.zip", ".bashrc"],
)  # fmt: skip
def test_an_address_that_does_not_end_in_a_plain_file_name_is_refused(end: str) -> None:
    with pytest.raises(InputError, match="does not end in a plain file name, so it is not fetched; save the file"):
        _ = RemoteFile(f"http://localhost/sets/{end}").file_name


def test_no_redirect_leads_from_https_to_http() -> None:
    request = urllib.request.Request("https://localhost/a.zip")
    with pytest.raises(urllib.error.URLError, match="less safe"):
        _Redirects().redirect_request(request, None, 302, "Found", {}, "http://localhost/a.zip")
    assert _Redirects().redirect_request(request, None, 302, "Found", {}, "https://other/a.zip") is not None


# Unpacking ------------------------------------------------------------------------------------------------------------


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "a.zip": zipped,
    "a.tar": tarred,
    "a.tar.gz": tarred,
    "a.tgz": tarred,
}
archives = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@archives
def test_files_come_out_as_they_went_in(name: str, tmp_path: Path, target: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {"images/a.jpg": b"a", "labels/a.txt": b"b" * 5000, "./empty": b""})
    assert extract_archive(archive, target) == [Path("images/a.jpg"), Path("labels/a.txt"), Path("empty")]
    assert (target / "labels/a.txt").read_bytes() == b"b" * 5000


@archives
@pytest.mark.parametrize("evil", ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "..\\out.txt", "C:\\out.txt"])
def test_a_member_that_leads_out_refuses_the_whole_archive_by_name(
    name: str, evil: str, tmp_path: Path, target: Path
) -> None:
    archive = MAKERS[name](tmp_path / name, {"good.txt": b"a", evil: b"b"})
    with pytest.raises(InputError) as caught:
        extract_archive(archive, target)
    stored = evil.replace("\\", "/") if name == "a.zip" else evil
    assert str(caught.value).replace("\\", "/").startswith(f"{archive}: '{stored}': ".replace("\\", "/"))
    assert list(target.iterdir()) == []
    assert not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_a_tar_are_refused(kind: bytes, tmp_path: Path, target: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("odd")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match=r"a\.tar: 'odd': is a (link|device)"):
        extract_archive(tmp_path / "a.tar", target)


@pytest.mark.parametrize(("mode", "kind"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "device"), (stat.S_IFCHR, "device")])
def test_links_and_devices_of_a_zip_are_refused(mode: int, kind: str, tmp_path: Path, target: Path) -> None:
    info = zipfile.ZipInfo("odd")
    info.external_attr = (mode | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(InputError, match=rf"a\.zip: 'odd': is a {kind}"):
        extract_archive(tmp_path / "a.zip", target)


@archives
@pytest.mark.parametrize("evil", ["a\x1b[2J.txt", "a\nb.txt", "a\u202eb.txt"])
def test_a_member_with_control_characters_in_its_name_is_refused(
    name: str, evil: str, tmp_path: Path, target: Path
) -> None:
    with pytest.raises(InputError, match="has control characters in its name"):
        extract_archive(MAKERS[name](tmp_path / name, {"good.txt": b"a", evil: b"b"}), target)
    assert list(target.iterdir()) == []


@archives
def test_a_bomb_is_refused_before_anything_is_written(name: str, tmp_path: Path, target: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {"a": bytes(600_000), "b": bytes(600_000)})
    with pytest.raises(InputError, match=r"'b': the archive holds more than the limit of 0\.001 GB"):
        extract_archive(archive, target, max_bytes=1_000_000)
    assert list(target.iterdir()) == []


def test_a_zip_that_lies_about_its_size_writes_no_more_than_the_limit(tmp_path: Path, target: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a": bytes(5_000_000)})
    data = archive.read_bytes()
    # The size before packing stands at byte 22 of the local header and at byte 24 of the directory entry.
    entry = data.index(b"PK\x01\x02")
    for place in (22, entry + 24):
        data = data[:place] + (10).to_bytes(4, "little") + data[place + 4 :]
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip"):
        extract_archive(archive, target, max_bytes=1000)
    assert sum(path.stat().st_size for path in target.iterdir()) <= 1000


@archives
def test_a_damaged_archive_is_one_line(name: str, tmp_path: Path, target: Path) -> None:
    archive = MAKERS[name](tmp_path / name, {"a": bytes(range(256)) * 100})
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be unpacked"):
        extract_archive(archive, target)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, b"g"])
def test_a_tar_archive_with_a_name_of_megabytes_is_refused_unread(tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, 5_000_000_000
    (tmp_path / "a.tar").write_bytes(entry.tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "new").mkdir()
    with pytest.raises(InputError, match="header of an entry with 5000000000 bytes; the archive is refused"):
        extract_archive(tmp_path / "a.tar", tmp_path / "new")
