"""Free and used memory, and a setting of the C library's allocator."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

GIB = 2**30
MEMINFO, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup")
# Files with the limit and the usage, in version 2 and 1 of Linux' control groups.
GROUP_ROOTS = {
    Path("/sys/fs/cgroup"): ("memory.max", "memory.current"),
    Path("/sys/fs/cgroup/memory"): ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt
_NO_LIMIT = 2**31 - 1


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that this process can allocate on a device, in the limits of its container; None: unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # Memory that torch's allocator has reserved but does not use is free.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [_available_of_machine(MEMINFO), *(_left_in_group(folder, *names) for folder, names in _groups(CGROUPS))]
    return min((value for value in limits if value is not None), default=None)


def _available_of_machine(file: Path) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _groups(listing: Path) -> Iterator[tuple[Path, tuple[str, str]]]:
    """Yield the folders of this process's control groups, each with its parent groups, and the names of their files."""
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        kinds, group = line.split(":", 2)[1:]  # "4:memory:/a/b" in version 1, "0::/a/b" in version 2
        for root, names in GROUP_ROOTS.items():
            if kinds == ("memory" if root.name == "memory" else ""):
                inner = root / group.lstrip("/")
                # Inside a container the path may be that of the host; then only the root exists.
                yield from ((folder, names) for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _left_in_group(folder: Path, limit: str, used: str) -> int | None:
    """Return the bytes left below the limit of a control group; None without a limit."""
    try:
        most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
    except (OSError, ValueError):  # no such group, or "max"
        return None
    return max(0, most - now)


def peak_resident() -> int | None:
    """Return the peak RAM of this process in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe_memory_in_use(device: torch.device) -> str:
    """Describe the memory in use, for a progress bar."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.memory_reserved(device) / 1e9:.1f} GB"
    resident = peak_resident()
    return "" if resident is None else f"RAM {resident / 1e9:.1f} GB"


def describe_peak_memory(device: torch.device) -> str:
    """Describe the peak RAM of this process and, on a GPU, its peak memory."""
    parts: list[str] = []
    if device.type == "cuda":
        used, kept = torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)
        parts.append(f"GPU {used / 1e9:.2f} GB ({kept / 1e9:.2f} GB reserved)")
    resident = peak_resident()
    if resident is not None:
        parts.append(f"RAM {resident / 1e9:.2f} GB, without the workers")
    return ", ".join(parts)


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next allocation, in the whole process; return whether that is possible.

    Feature maps of some megabytes are otherwise returned to the system and allocated again, page by page and filled
    with zeros, several hundred times per training step.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing or without effect in other C libraries
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _NO_LIMIT) and mallopt(_TRIM_THRESHOLD, -1))
