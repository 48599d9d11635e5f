"""Official weights: where a missing file is, and ``--download``."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

import pytest

import detect
import val
from utils.checkpoint import official
from utils.checkpoint.official import describe_missing, fetch_official, official_address
from utils.core.errors import InputError

CONTENT = b"weights"


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release on this disk, and an empty working directory."""
    for name, file in (("v6.0", "yolov5n.pt"), ("v6.1", "yolov5s.pt")):
        (tmp_path / "release" / name).mkdir(parents=True)
        (tmp_path / "release" / name / file).write_bytes(CONTENT)
    monkeypatch.setattr(official, "RELEASES", (tmp_path / "release").as_uri())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "release"


def test_a_missing_official_file_is_reported_with_its_address_and_checksum() -> None:
    message = describe_missing("runs/yolov5n.pt")
    assert "no such file" in message
    assert "--download fetches https://github.com/ultralytics/yolov5/releases/download/v6.0/yolov5n.pt" in message
    assert official.CHECKSUMS["yolov5n.pt"][1] in message
    message = describe_missing("yolov5x6.pt")
    assert f"download it yourself from {official.RELEASES}/v6.1/yolov5x6.pt; no checksum of it is known" in message


@pytest.mark.parametrize("name", ["best.pt", "yolov5n.onnx", "yolov5t.pt", "my-yolov5n.pt", "yolov5n.pt.pt", ""])
def test_other_files_have_no_address(name: str) -> None:
    assert official_address(name) == ("", "")
    assert "http" not in describe_missing(name)


def test_for_a_misspelt_name_the_closest_checkpoint_of_the_folder_is_suggested(tmp_path: Path) -> None:
    for name in ("best.pt", "last.pt", "yolov5s.pt"):
        (tmp_path / name).touch()
    assert describe_missing(tmp_path / "bset.pt").endswith("; nothing is downloaded; did you mean 'best.pt'?")
    assert "did you mean" not in describe_missing(tmp_path / "qqqq.pt")
    assert "did you mean" not in describe_missing(tmp_path / "yolov5n.pt")  # it has an address
    assert "did you mean" not in describe_missing(tmp_path / "none" / "bset.pt")


def test_a_file_with_a_known_checksum_is_fetched_and_compared(
    release: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(official.CHECKSUMS, "yolov5n.pt", ("v6.0", sha256(CONTENT).hexdigest()))
    with caplog.at_level(logging.WARNING):
        fetch_official(["yolov5n.pt"])
    assert Path("yolov5n.pt").read_bytes() == CONTENT
    assert caplog.text == ""


def test_a_file_with_another_checksum_is_refused_and_not_kept(release: Path) -> None:
    with pytest.raises(InputError, match="not the file that was meant"):
        fetch_official(["yolov5n.pt"])
    assert list(Path().iterdir()) == []


def test_a_file_without_a_known_checksum_is_not_fetched(release: Path) -> None:
    assert (release / "v6.1" / "yolov5s.pt").exists()
    with pytest.raises(InputError, match="no checksum of it is known, so --download does not fetch it"):
        fetch_official(["yolov5s.pt"])
    assert list(Path().iterdir()) == []


def test_nothing_is_fetched_without_the_option_over_a_file_or_for_another_name(release: Path) -> None:
    fetch_official(["yolov5s.pt"], wanted=False)
    fetch_official(["best.pt", "yolov5s.onnx"])
    assert list(Path().iterdir()) == []
    Path("yolov5s.pt").write_bytes(b"mine")
    fetch_official(["yolov5s.pt"])
    assert Path("yolov5s.pt").read_bytes() == b"mine"


def test_the_scripts_fetch_with_the_option_only(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(official.CHECKSUMS, "yolov5s.pt", ("v6.1", sha256(CONTENT).hexdigest()))
    for run in (detect.run, val.run):
        with pytest.raises(FileNotFoundError, match="--download fetches"):
            run(weights=["yolov5s.pt"])
        with pytest.raises(InputError, match="not a checkpoint"):  # it was fetched, and has no weights in it
            run(weights=["yolov5s.pt"], download=True)
        Path("yolov5s.pt").unlink()
