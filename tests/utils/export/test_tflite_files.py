"""TFLite files are made and equal PyTorch. Skipped as a whole without an environment with litert-torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.core.errors import InputError
from utils.inference.backends import DetectMultiBackend
from utils.inference.venvs import LITERT_TORCH

if LITERT_TORCH.find_python() is None:
    pytest.skip("no environment with litert-torch", allow_module_level=True)
Exported = Callable[..., list[Any]]
Tiny = Callable[[str], Path]


@pytest.mark.parametrize(("kind", "form"), [("static", "auto"), ("dynamic", "auto"), ("dynamic", "M"), ("odconv", "B")])
def test_a_tflite_file_equals_pytorch(exported: Exported, tiny: Tiny, kind: str, form: str) -> None:
    row = exported(kind, include=("tflite",), imgsz=(64, 96), dynamic_form=form)[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend = DetectMultiBackend(row.path)
    assert (backend.names, backend.stride, backend.tflite) == (["ant", "bee", "甲虫"], 16, True)
    _equals(backend, tiny(kind), (64, 96))


def test_a_tflite_file_of_a_fixed_batch_takes_any_number_of_images(exported: Exported, tiny: Tiny) -> None:
    row = exported("dynamic", include=("tflite",), batch_size=2)[1]
    assert row.made, row.note
    _equals(DetectMultiBackend(row.path), tiny("dynamic"), (64, 64), count=3)


def test_the_description_in_a_tflite_file_is_an_ordinary_archive(exported: Exported) -> None:
    row = exported("dynamic", include=("tflite",))[1]
    assert row.made, row.note
    with zipfile.ZipFile(row.path) as archive:
        said = json.loads(archive.read("about.json"))
    assert (said["names"], said["temperature"], said["imgsz"]) == (["ant", "bee", "甲虫"], 2.0, [64, 64])


def test_fewer_bits_make_a_smaller_tflite_file(exported: Exported) -> None:
    full = exported("odconv", include=("tflite",))[1].megabytes
    for options, text, limit in (({"half": True}, "float16", 0.9), ({"int8": True}, "int8", 0.85)):
        row = exported("odconv", include=("tflite",), **options)[1]
        assert row.made, row.note
        assert text in row.note
        assert row.megabytes < limit * full
        assert 1e-6 < row.worst < 1


def test_a_tflite_file_that_is_none_is_named_in_one_line(exported: Exported, tmp_path: Path) -> None:
    whole = exported("static", include=("tflite",))[1].path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 3], whole[:2000] + bytes(2000) + whole[4000:]):
        (tmp_path / "größe.tflite").write_bytes(content)
        with pytest.raises(InputError, match=r"größe\.tflite: ") as caught:
            DetectMultiBackend(tmp_path / "größe.tflite", data=None)(torch.zeros(1, 3, 64, 64))
        assert "\n" not in str(caught.value)


def _equals(backend: DetectMultiBackend, weights: Path, hw: tuple[int, int], count: int = 1) -> None:
    images = torch.rand(count, 3, *hw, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(backend(images), load_model(weights)[0](images)[0], rtol=1e-4, atol=1e-3)
