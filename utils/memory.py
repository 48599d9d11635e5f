"""Memory: how much there is, how much was taken, and keeping what the C library would hand back and fetch again."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch

GIB = 2**30
# Where the limits of a container are shown: (limit, in use) for version 2 and 1 of Linux' control groups.
CGROUP_FILES = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
MEMINFO = Path("/proc/meminfo")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt
_NO_LIMIT = 2**31 - 1


def free_memory(device: torch.device) -> int | None:
    """Bytes that a process can still take on a device, within the limit of its container; None if nobody can tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch's allocator keeps without using it is free for torch.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_meminfo_available(MEMINFO), *(_cgroup_free(*files) for files in CGROUP_FILES)]
    return min((value for value in found if value is not None), default=None)


def _meminfo_available(file: Path) -> int | None:
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup_free(limit: Path, used: Path) -> int | None:
    """Bytes left below the limit of a control group; None without a limit."""
    try:
        return max(0, int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")))
    except (OSError, ValueError):  # no such group, or "max"
        return None


def peak_resident() -> int | None:
    """The most bytes of RAM this process has had at one time; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_in_use(device: torch.device) -> str:
    """A few words for a progress bar."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.memory_reserved(device) / 1e9:.1f} GB"
    resident = peak_resident()
    return "" if resident is None else f"RAM {resident / 1e9:.1f} GB"


def peak_memory(device: torch.device) -> str:
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
