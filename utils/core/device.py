"""Selection of the torch device from ``--device``."""

from __future__ import annotations

import logging
import platform

import torch

from utils.core.errors import InputError
from utils.core.names import counted

logger = logging.getLogger(__name__)


def select_device(device: str = "") -> torch.device:
    """Return the device to run on and log it in one line.

    Args:
        device: "" for the first GPU if there is one, else the CPU; "cpu"; a GPU number "0"; several "0,1", of which
            the first is returned. "cuda:0" means "0".

    Raises:
        InputError: not a device, or a missing GPU.
    """
    name = str(device).strip().lower().replace("cuda:", "")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "" and count == 0):
        selected = torch.device("cpu")
        description = f"CPU, {torch.get_num_threads()} threads"
    else:
        numbers = _gpu_numbers(device, name or "0", count)
        selected = torch.device("cuda", numbers[0])
        description = ", ".join(_describe_gpu(number) for number in numbers)
    logger.info("torch %s, Python %s, %s", torch.__version__, platform.python_version(), description)
    return selected


def _gpu_numbers(device: str, name: str, count: int) -> list[int]:
    words = [word.strip() for word in name.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(words)) != len(words):
        raise InputError(f"--device {device!r} is not a device; use cpu, a GPU number such as 0, or a list such as 0,1")
    numbers = [int(word) for word in words]
    missing = [number for number in numbers if number >= count]
    if missing:
        cure = f"use 0 to {count - 1} or cpu" if count else "use --device cpu"
        raise InputError(f"--device {device}: no GPU {missing[0]} here, torch sees {counted(count, 'GPU')}; {cure}")
    return numbers


def _describe_gpu(number: int) -> str:
    properties = torch.cuda.get_device_properties(number)
    return f"GPU {number} {properties.name} ({properties.total_memory / 2**30:.0f} GiB)"
