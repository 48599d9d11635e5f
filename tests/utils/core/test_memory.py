"""How much memory there is and was, from made-up files of the system."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch

from utils.core import memory

CPU = torch.device("cpu")
MEMINFO = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    5000 kB\n"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 5000 kB free, and this process in the control group /a/b of both versions."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "groups").write_text("9:name=systemd:/\n4:memory:/a/b\n0::/a/b\n")
    roots = {tmp_path / "v2": ("memory.max", "memory.current"), tmp_path / "memory": ("limit", "usage")}
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "GROUP_ROOTS", roots)
    return tmp_path


def limit(folder: Path, names: tuple[str, str], most: str, used: int) -> None:
    folder.mkdir(parents=True)
    (folder / names[0]).write_text(f"{most}\n")
    (folder / names[1]).write_text(f"{used}\n")


def test_without_limits_it_is_what_the_machine_has_available(system: Path) -> None:
    assert memory.free_memory(CPU) == 5000 * 1024


@pytest.mark.parametrize("inside", ["v2/a/b", "v2/a", "v2"])
def test_the_limit_of_any_group_around_the_process_counts(system: Path, inside: str) -> None:
    limit(system / inside, ("memory.max", "memory.current"), "1000000", 400000)
    assert memory.free_memory(CPU) == 600000


def test_limits_of_version_1_count_as_well(system: Path) -> None:
    limit(system / "memory/a", ("limit", "usage"), "700000", 100000)
    assert memory.free_memory(CPU) == 600000


def test_a_group_of_others_does_not_count(system: Path) -> None:
    limit(system / "v2/other", ("memory.max", "memory.current"), "10", 0)
    assert memory.free_memory(CPU) == 5000 * 1024


def test_a_group_without_a_limit_says_max(system: Path) -> None:
    limit(system / "v2/a", ("memory.max", "memory.current"), "max", 400000)
    assert memory.free_memory(CPU) == 5000 * 1024


def test_more_in_use_than_allowed_leaves_nothing(system: Path) -> None:
    limit(system / "v2/a", ("memory.max", "memory.current"), "100", 400000)
    assert memory.free_memory(CPU) == 0


def test_a_system_that_tells_nothing_has_an_unknown_amount(system: Path) -> None:
    for name in ("meminfo", "groups"):
        (system / name).unlink()
    assert memory.free_memory(CPU) is None


def test_the_peak_is_told_in_gigabytes() -> None:
    resident = memory.peak_resident()
    assert resident is None or 5e7 < resident < 1e12
    if resident is not None:
        assert memory.describe_peak_memory(CPU).startswith("RAM ")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such call")
def test_glibc_takes_the_order_to_keep_freed_memory() -> None:
    assert memory.keep_freed_memory()


def test_elsewhere_freed_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.core.memory.sys.platform", "win32")
    assert not memory.keep_freed_memory()
