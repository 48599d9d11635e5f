"""OpenVINO models: made, equal to PyTorch, and used by folder or by file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.inference.backends import DetectMultiBackend, open_exported

pytest.importorskip("openvino")
pytest.importorskip("onnx")
Exported = Callable[..., list[Any]]


def test_a_dynamic_model_with_free_axes_equals_pytorch(exported: Exported) -> None:
    row = exported("dynamic", include=("openvino",), dynamic=True)[1]
    assert row.made, row.note
    assert sorted(file.suffix for file in row.path.iterdir()) == [".bin", ".xml"]
    backend = DetectMultiBackend(row.path)
    assert (backend.names, backend.xml, backend.fixed_hw) == (["ant", "bee", "甲虫"], True, None)
    by_file = open_exported(next(row.path.glob("*.xml")), torch.device("cpu"))
    images = torch.rand(3, 3, 32, 96)
    assert torch.equal(backend(images), by_file(images)[0])
    assert by_file.info.temperature == 2.0


def test_weights_in_half_precision_take_half_the_room(exported: Exported) -> None:
    full = exported("odconv", include=("openvino",))[1]
    assert full.made, full.note
    size = next(full.path.glob("*.bin")).stat().st_size
    half = exported("odconv", include=("openvino",), half=True)[1]
    assert half.made, half.note
    assert next(half.path.glob("*.bin")).stat().st_size < 0.7 * size
    assert not DetectMultiBackend(half.path).fp16


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a_openvino_model"
    folder.mkdir()
    with pytest.raises(InputError, match=r"a_openvino_model: expected a folder with one \.xml in it, found 0"):
        DetectMultiBackend(folder)


def test_signals_are_still_handled_when_models_are_gone(exported: Exported) -> None:
    row = exported("static", include=("openvino",))[1]
    assert row.made, row.note
    lines = (
        "import gc, signal, sys, torch",
        "from pathlib import Path",
        "from utils.inference.backends import open_exported",
        "signal.signal(signal.SIGINT, lambda *_: print('heard'))",
        "first, second = (open_exported(Path(sys.argv[1]), torch.device('cpu')) for _ in range(2))",
        "del first; gc.collect()",
        "del second; gc.collect()",
        "signal.raise_signal(signal.SIGINT)",
    )
    ended = subprocess.run(
        [sys.executable, "-c", "\n".join(lines), str(row.path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "heard\n")


def test_weights_that_are_gone_or_cut_off_are_told_by_the_line_that_says_so(exported: Exported, tmp_path: Path) -> None:
    folder = exported("static", include=("openvino",))[1].path
    weights = next(folder.glob("*.bin"))
    whole = weights.read_bytes()
    for content, message in (
        (whole[:100], "lies outside of its file of weights"),
        (None, "with its weights is missing"),
    ):
        weights.unlink() if content is None else weights.write_bytes(content)
        with pytest.raises(InputError, match=f"cannot be read as an OpenVINO model: .*{message}") as caught:
            DetectMultiBackend(folder)
        assert "\n" not in str(caught.value)
