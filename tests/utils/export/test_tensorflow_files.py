"""TensorFlow files are made and equal PyTorch. Skipped as a whole without an environment with onnx2tf."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.core.errors import InputError
from utils.inference.backends import DetectMultiBackend
from utils.inference.venvs import ONNX2TF, isolated_command

if ONNX2TF.find_python() is None:
    pytest.skip("no environment with onnx2tf", allow_module_level=True)
Exported = Callable[..., list[Any]]
Tiny = Callable[[str], Path]


@pytest.mark.parametrize(("kind", "format"), [("dynamic", "saved_model"), ("odconv", "pb"), ("static", "pb")])
def test_a_tensorflow_model_equals_pytorch(exported: Exported, tiny: Tiny, kind: str, format: str) -> None:
    row = exported(kind, include=(format,), imgsz=(64, 96))[1]
    assert row.made, row.note
    assert row.worst < 1e-4
    backend = DetectMultiBackend(row.path)
    assert (backend.names, backend.stride, getattr(backend, format)) == (["ant", "bee", "甲虫"], 16, True)
    _equals(backend, tiny(kind), (64, 96), count=2)


@pytest.mark.parametrize("name", ["a_saved_model", "a.pb"])
def test_a_tensorflow_file_that_is_none_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"größe {name}"
    inner = file / "saved_model.pb" if name.endswith("_model") else file
    inner.parent.mkdir(exist_ok=True)
    for content in (b"", b"\x80\x04 nothing of the kind"):
        inner.write_bytes(content)
        with pytest.raises(InputError, match=r"größe .* cannot be read as a") as caught:
            DetectMultiBackend(file)
        assert "\n" not in str(caught.value)


# A model of another program, as v6.1 makes them: variables, and boxes as shares; then two that do more than compute.
FOREIGN = """
import sys, tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as frozen

def written(name, answer):
    model = tf.Module()
    model.v = tf.Variable(tf.ones([4]) * [0.5, 0.25, 0.1, 0.2])

    @tf.function(input_signature=[tf.TensorSpec([1, 32, 64, 3], tf.float32, name="x")])
    def run(x):
        rest = tf.reduce_mean(x, [1, 2])[:, None, :]
        return answer(tf.concat([tf.reshape(model.v, [1, 1, 4]), rest], 2))

    tf.saved_model.save(model, f"{sys.argv[1]}/{name}_saved_model", signatures=run.get_concrete_function())
    graph = frozen(run.get_concrete_function()).graph.as_graph_def()
    open(f"{sys.argv[1]}/{name}.pb", "wb").write(graph.SerializeToString())

def reads(y):
    return y + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

def runs(y):
    return tf.ensure_shape(tf.numpy_function(lambda a: a, [y], tf.float32, stateful=False), y.shape)

for name, answer in (("good", tf.identity), ("reads", reads), ("runs", runs)):
    written(name, answer)
"""


def test_models_of_others_are_run_unless_they_do_more_than_compute(tmp_path: Path) -> None:
    subprocess.run(
        isolated_command(ONNX2TF.require("test"), "-c", FOREIGN, str(tmp_path)), capture_output=True, check=True
    )
    for ending in ("_saved_model", ".pb"):
        backend = DetectMultiBackend(tmp_path / f"good{ending}")
        assert (backend.names, backend.fixed_hw) == (["class0", "class1"], (32, 64))
        images = torch.zeros(1, 3, 32, 64)
        images[:, 0] = 0.75
        torch.testing.assert_close(backend(images), torch.tensor([[[32.0, 8, 6.4, 6.4, 0.75, 0, 0]]]))
        for name, operation in (("reads", "ReadFile"), ("runs", "PyFuncStateless")):
            with pytest.raises(InputError, match=f"refused, it holds operations .* needs: .*{operation}"):
                DetectMultiBackend(tmp_path / f"{name}{ending}")


def _equals(backend: DetectMultiBackend, weights: Path, hw: tuple[int, int], count: int = 1) -> None:
    images = torch.rand(count, 3, *hw, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(backend(images), load_model(weights)[0](images)[0], rtol=1e-4, atol=1e-3)
