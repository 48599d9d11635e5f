"""Memory: how much there is, how much was taken, and keeping what the C library would hand back and fetch again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

GIB = 2**30
MEMINFO, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")
# Files of limit and use in version 2 and 1 of Linux' control groups.
GROUP_ROOTS = {
    Path("/sys/fs/cgroup"): ("memory.max", "memory.current"),
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt
_NO_LIMIT = 2**31 - 1


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still take on a device, within the limits of its container; None if nobody knows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator keeps without using it is free for torch.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_available_of_machine(MEMINFO), *(_left_in_group(folder, *names) for folder, names in _groups(CGROUPS))]
    return min((value for value in found if value is not None), default=None)


def _available_of_machine(file: Path) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _groups(listing: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Folders of the control groups this process is in, each with the groups around it, and the files to look at."""
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        kinds, group = line.split(":", 2)[1:]  # "4:memory:/a/b" in version 1, "0::/a/b" in version 2
        for root, names in GROUP_ROOTS.items():
            if kinds == ("memory" if root.name == "memory" else ""):
                inner = root / group.lstrip("/")
                # Inside a container the path may be the one seen from outside; then only the root is there.
                yield from ((folder, names) for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _left_in_group(folder: Path, limit: str, used: str) -> int | None:
    """Bytes left below the limit of a control group; None without a limit."""
    try:
        most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return max(0, most - now)


def peak_resident() -> int | None:
    """The most bytes of RAM this process has had at one time; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe_memory_in_use(device: torch.device) -> str:
    """A few words for a progress bar."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.memory_reserved(device) / 1e9:.1f} GB"
    resident = peak_resident()
    return "" if resident is None else f"RAM {resident / 1e9:.1f} GB"


def describe_peak_memory(device: torch.device) -> str:
    """What was taken at most, in words: RAM of this process and, on a GPU, its memory."""
    parts: list[str] = []
    if device.type == "cuda":
        used, kept = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        parts.append(f"GPU {used / 1e9:.2f} GB ({kept / 1e9:.2f} GB reserved)")
    resident = peak_resident()
    if resident is not None:
        parts.append(f"RAM {resident / 1e9:.2f} GB, without the loader processes")
    return ", ".join(parts)


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next allocation; True if that was possible. For the whole process.

    A map of some megabytes is otherwise handed back to the system and fetched again, page by page and filled with
    zeros, several hundred times a training step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or one that does nothing
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _NO_LIMIT) and mallopt(_TRIM_THRESHOLD, -1))
