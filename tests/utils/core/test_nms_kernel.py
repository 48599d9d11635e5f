"""The suppression kernel without torchvision's import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.core import nms_kernel
from utils.core.nms_kernel import nms

ROOT = Path(__file__).resolve().parents[3]


def some_boxes(n: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    corner = torch.rand(n, 2, generator=rng) * 100
    return torch.cat([corner, corner + 5 + torch.rand(n, 2, generator=rng) * 30], 1), torch.rand(n, generator=rng)


def test_the_kernel_is_that_of_torchvision() -> None:
    boxes, scores = some_boxes()
    found = nms(boxes, scores, 0.4)
    from torchvision.ops import nms as theirs  # after ours has loaded its library

    assert 10 < len(found) < 300
    assert found.tolist() == theirs(boxes, scores, 0.4).tolist()


def test_torchvision_itself_is_not_imported() -> None:
    code = (
        "import sys, torch; from utils.core.nms_kernel import nms; nms(torch.eye(4), torch.ones(4), 0.5);"
        "sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_where_the_library_is_not_found_the_package_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    nms_kernel._load_kernels.cache_clear()
    monkeypatch.setattr(nms_kernel, "_is_registered", lambda: False)
    monkeypatch.setattr(nms_kernel.importlib.util, "find_spec", lambda _: None)
    boxes, scores = some_boxes(20)
    assert len(nms(boxes, scores, 1.0)) == 20
    nms_kernel._load_kernels.cache_clear()
