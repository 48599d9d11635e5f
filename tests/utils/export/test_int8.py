"""8-bit files: which convolutions, that they run, and what is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from utils.config.export_options import UNAVAILABLE_FORMATS  # noqa: E402


@pytest.fixture(scope="module")
def ants(tmp_path_factory: pytest.TempPathFactory, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(tmp_path_factory.mktemp("ants"), nc=3, names=("ant", "bee", "甲虫"))


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_an_8_bit_file_is_made_and_scored(exported: Callable[..., list[Any]], ants: Path, format: str) -> None:
    pytest.importorskip(format)
    source, row = exported("dynamic", include=(format,), int8=True, data=str(ants))
    assert row.made, row.note
    assert "8-bit convolutions" in row.note
    assert 1e-5 < row.worst < 5
    assert row.map is not None and source.map is not None


def test_head_and_attention_stay_exact_and_all_other_convolutions_do_not(
    exported: Callable[..., list[Any]], ants: Path
) -> None:
    row = exported("dynamic", include=("onnx",), int8=True, data=str(ants), batch_size=3)[1]
    assert row.made, row.note
    graph = onnx.load(row.path).graph
    made_by = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    eight_bit = {}
    for node in graph.node:
        if node.op_type == "Conv":
            through = made_by.get(node.input[1])
            eight_bit[node.name] = through is not None and stored.get(through.input[0]) == onnx.TensorProto.INT8
    exact = {name for name, quantized in eight_bit.items() if not quantized}
    assert exact == {name for name in eight_bit if "/attention/" in name or "/model.5/" in name}
    assert 0 < len(exact) < len(eight_bit)


def test_weights_leave_a_bit_free_for_processors_whose_sums_overflow(
    exported: Callable[..., list[Any]], ants: Path
) -> None:
    row = exported("static", include=("onnx",), int8=True, data=str(ants))[1]
    kernels = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(row.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert kernels
    assert max(abs(kernel.astype(int)).max() for kernel in kernels) in (63, 64)


def test_formats_of_v61_that_are_made_elsewhere_are_named_with_the_way_there(
    exported: Callable[..., list[Any]],
) -> None:
    rows = exported("static", include=("edgetpu", "torchscript"))
    assert [(row.format, row.made, row.impossible) for row in rows[1:]] == [
        ("torchscript", True, False), ("edgetpu", False, True),
    ]  # fmt: skip
    assert rows[2].note == UNAVAILABLE_FORMATS["edgetpu"]
    assert all(len(reason) > 20 for reason in UNAVAILABLE_FORMATS.values())
