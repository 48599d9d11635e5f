"""A command writes below its folder only, never over its input, and alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.core.output import LOCK_FILE, OutputFolder, lock_folder, run_folder, unlock_folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_path_below_the_folder_is_given_and_its_folder_made(out: Path) -> None:
    assert OutputFolder(out).path("a/b/c.jpg") == out / "a/b/c.jpg"
    assert (out / "a/b").is_dir()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a/../b", "..", "x\0"])
def test_a_path_that_leads_out_of_the_folder_is_refused(out: Path, name: str) -> None:
    with pytest.raises(InputError, match="leads out of the output folder"):
        OutputFolder(out).path(name)
    assert list(out.parent.iterdir()) == [out] and list(out.iterdir()) == []


def test_a_link_on_the_way_or_at_the_end_that_leads_out_is_refused(out: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (out / "labels").symlink_to(tmp_path / "other")
    (out / "a.csv").symlink_to(tmp_path / "new.csv")
    for name in ("labels/a.txt", "labels/deep/a.txt", "a.csv"):
        with pytest.raises(InputError, match="a link leads to"):
            OutputFolder(out).path(name)
    with pytest.raises(InputError, match="a link leads to"):
        OutputFolder(out).below("labels")
    assert list((tmp_path / "other").iterdir()) == [] and not (tmp_path / "new.csv").exists()


def test_the_folder_itself_may_be_a_link(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    assert OutputFolder(tmp_path / "link").path("a.txt") == tmp_path / "link/a.txt"


def test_an_input_is_never_written_over_under_whatever_name(out: Path, tmp_path: Path) -> None:
    kept, other = tmp_path / "kept.jpg", out / "same.jpg"
    kept.write_bytes(b"1")
    other.write_bytes(b"2")
    os.link(kept, out / "hard.jpg")
    (out / "soft.jpg").symlink_to("same.jpg")
    folder = OutputFolder(out, lambda: [kept, out / "../out/same.jpg", "gone", "bad\0"])
    for name in ("hard.jpg", "soft.jpg", "same.jpg"):
        with pytest.raises(InputError, match="would overwrite the input"):
            folder.path(name)
    (out / "mine.jpg").write_bytes(b"3")
    assert folder.path("mine.jpg") == out / "mine.jpg"  # of an earlier run


CHILD = """
import pathlib, sys
from utils.core.output import lock_folder
lock_folder(pathlib.Path(sys.argv[1]))
print('got it')
"""


def in_another_process(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )  # fmt: skip


def test_a_second_process_is_kept_out_until_the_first_is_done(out: Path) -> None:
    with run_folder(str(out.parent), out.name, exist_ok=True) as folder:
        assert folder == out
        lock_folder(out)  # the same process may come again
        refused = in_another_process(out)
        assert f"{out}: another run is writing there; wait for its end" in refused.stderr
    assert in_another_process(out).stdout == "got it\n"


def test_a_lock_does_not_outlive_its_process_and_leaves_nothing_behind(out: Path) -> None:
    assert in_another_process(out).stdout == "got it\n"  # which ended without letting go
    assert (out / LOCK_FILE).exists()
    lock_folder(out)
    unlock_folder()
    assert list(out.iterdir()) == []


def test_where_nothing_can_be_locked_there_is_a_warning(out: Path, monkeypatch: Any, caplog: Any) -> None:
    def fails(handle: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("utils.core.output._lock_file", fails)
    lock_folder(out)
    assert "cannot be locked (No locks available): do not start a second run there" in caplog.text


def test_a_lock_file_that_is_a_link_is_not_followed(out: Path, tmp_path: Path, caplog: Any) -> None:
    (out / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
    lock_folder(out)
    assert "cannot be locked" in caplog.text and not (tmp_path / "elsewhere").exists()
