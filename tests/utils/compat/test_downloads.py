"""Names of utils.downloads with the arguments of v6.1."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.compat.downloads import attempt_download, safe_download
from utils.core.errors import InputError


def test_attempt_download_returns_a_path_without_quotes_and_fetches_nothing(tmp_path: Path) -> None:
    file = tmp_path / "yolov5s.pt"
    with pytest.raises(FileNotFoundError, match=r"yolov5s\.pt: no such file .*download it yourself from"):
        attempt_download(file)
    file.write_bytes(b"x")
    assert attempt_download(file) == attempt_download(f" '{file}'") == str(file)


def test_the_second_address_is_tried_and_too_little_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    good, target = (tmp_path / "source").as_uri(), tmp_path / "target"
    safe_download(target, (tmp_path / "none").as_uri(), good)
    assert target.read_bytes() == b"content"
    with pytest.raises(InputError, match="not larger than 100 bytes; ask for help"):
        safe_download(target, good, min_bytes=100, error_msg="ask for help")
    assert not target.exists()
