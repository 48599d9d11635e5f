"""ExecuTorch programs are made and equal PyTorch. Skipped as a whole without the package executorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.core.errors import InputError
from utils.inference.backends import DetectMultiBackend

pytest.importorskip("executorch")
Exported = Callable[..., list[Any]]


@pytest.mark.parametrize(
    ("kind", "form"), [("static", "auto"), ("dynamic", "auto"), ("dynamic", "M"), ("condconv", "auto"), ("odconv", "M")]
)
def test_a_program_with_free_axes_equals_pytorch_as_far_as_they_go(
    exported: Exported, tiny: Callable[[str], Path], kind: str, form: str
) -> None:
    row = exported(kind, include=("executorch",), dynamic=True, dynamic_form=form)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend, (model, _) = DetectMultiBackend(row.path), load_model(tiny(kind))
    assert (backend.executorch, backend.names, backend.stride) == (True, ["ant", "bee", "甲虫"], 16)
    assert backend.backend.info.temperature == (2.0 if kind in ("dynamic", "odconv") else None)
    for shape in [(1, 3, 64, 64), (3, 3, 32, 64), (19, 3, 64, 32)]:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(backend(images), model(images)[0], rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="takes images up to 64 x 64, got a height of 80"):
        backend(torch.rand(1, 3, 80, 64))


def test_a_program_of_fixed_sizes_takes_any_number_of_images(exported: Exported) -> None:
    row = exported("dynamic", include=("executorch",), batch_size=2)[1]
    assert row.made, row.note
    backend = DetectMultiBackend(row.path)
    assert backend(torch.rand(5, 3, 64, 64)).shape[0] == 5
    assert backend.fixed_hw == (64, 64)


def test_a_program_in_half_precision_takes_such_images_and_is_smaller(
    exported: Exported, tiny: Callable[[str], Path]
) -> None:
    row = exported("dynamic", include=("executorch",), half=True)[1]
    assert row.made, row.note
    assert 1e-7 < row.worst < 0.05
    assert row.note == "half precision"
    assert DetectMultiBackend(row.path).fp16
    half = row.path.stat().st_size
    whole = exported("dynamic", include=("executorch",))[1].path.stat().st_size  # in the same place
    weights = sum(tensor.numel() for tensor in load_model(tiny("dynamic"))[0].parameters())
    assert whole - half > 0.8 * weights  # two bytes each, less what a small graph grows by; 0.1 with kernels in float32


def test_without_xnnpack_the_portable_operators_do(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.export.executorch.partitioners", lambda: None)
    row = exported("dynamic", include=("executorch",))[1]
    assert row.made, row.note
    assert (row.worst < 1e-4, row.note) == (True, "without XNNPACK, so slow")


@pytest.mark.parametrize("content", [b"", b"\x80\x04 nothing of the kind", b"PK\x03\x04 nor this" * 100])
def test_a_corrupt_file_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mit Leerzeichen ü.pte"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"ü\.pte: cannot be read as an ExecuTorch program: ") as caught:
        DetectMultiBackend(file)
    assert "\n" not in str(caught.value)
