"""Model files by strangers: nothing in them runs, and what is more than a network is refused in one line."""

from __future__ import annotations

import importlib.util
import io
import json
import random
import re
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.core.errors import InputError
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends import checked_graph as tried
from utils.inference.backends.metadata import Metadata
from utils.inference.backends.tflite import TFLiteBackend

CPU = torch.device("cpu")
ABOUT = Metadata(names=("ant",), dynamic=("batch", "height", "width")).to_json().encode()
Records = dict[str, bytes]


# .pt2 -----------------------------------------------------------------------------------------------------------------


def meta(*sizes: int) -> dict[str, Any]:
    strides = [int(torch.Size(sizes[index + 1 :]).numel()) for index in range(len(sizes))]
    return {
        "dtype": 7, "sizes": [{"as_int": size} for size in sizes], "strides": [{"as_int": step} for step in strides],
        "requires_grad": False, "device": {"type": "cpu", "index": None}, "storage_offset": {"as_int": 0}, "layout": 7,
    }  # fmt: skip


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def node(target: str, inputs: list[Any], *outputs: str) -> dict[str, Any]:
    given = [{"name": f"arg{index}", "arg": value, "kind": 1} for index, value in enumerate(inputs)]
    return {"target": target, "inputs": given, "outputs": [tensor(name) for name in outputs], "metadata": {}}


def program(*nodes: dict[str, Any]) -> dict[str, Any]:
    """images -> mul by the weight w -> what the nodes make of ``scaled``, the last of them returning ``result``."""
    first = node("torch.ops.aten.mul.Tensor", [tensor("images"), tensor("w")], "scaled")
    last = nodes or (node("torch.ops.aten.relu.default", [tensor("scaled")], "result"),)
    weight = {"arg": {"name": "w"}, "parameter_name": "net.w"}
    return {
        "graph_module": {
            "graph": {"nodes": [first, *last], "outputs": [tensor("result")], "sym_int_values": {}},
            "signature": {
                "input_specs": [{"parameter": weight}, {"user_input": {"arg": tensor("images")}}],
                "output_specs": [{"user_output": {"arg": tensor("result")}}],
            },
        },
        "range_constraints": {}, "guards_code": ["L['images'].size()[2] // 2 != 1"],
    }  # fmt: skip


def pt2_records(content: Any = None) -> Records:
    config = {"config": {"net.w": {"path_name": "weight_0", "use_pickle": False, "tensor_meta": meta(1)}}}
    return {
        "data/weights/weight_0": struct.pack("<f", 2.0),
        "data/weights/model_weights_config.json": json.dumps(config).encode(),
        "data/constants/model_constants_config.json": b'{"config": {}}',
        "models/model.json": json.dumps(program() if content is None else content).encode(),
        "data/sample_inputs/model.pt": b"", "extra/about.json": ABOUT, "archive_format": b"pt2",
        "archive_version": b"0", "byteorder": b"little",
    }  # fmt: skip


def write(file: Path, records: Mapping[str, bytes], folder: str = "archive/") -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(f"{folder}{name}"), content)
    return file


def refused(file: Path, message: str = "") -> None:
    with pytest.raises(InputError, match=message or re.escape(file.name)) as caught:
        open_exported(file, CPU)(torch.rand(1, 3, 32, 32))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_graph_of_torch_export_is_computed_from_its_records(tmp_path: Path) -> None:
    backend = open_exported(write(tmp_path / "a.pt2", pt2_records()), CPU)
    images = torch.rand(1, 3, 32, 32) - 0.5
    assert torch.equal(backend.run(images)[0], (2 * images).relu())
    assert backend.names == ["ant"]


SYSTEM = "__import__('os').system('touch MARK')"


@pytest.mark.parametrize(
    "text",
    [
        f'Max("{SYSTEM}", 2)', f'Mod("{SYSTEM}", 2)', f'FloorDiv(4, "{SYSTEM}")', f"Symbol('s0', key=\"{SYSTEM}\")",
        SYSTEM, "(lambda: 1)()", "Symbol.__class__", "[x for x in (1,)]", "open('a')", "Max(b'1', 2)", "f'{1}'", "2**9",
        "Max(1j, 2)", "Max(..., 2)", "Max(eval('1'), 2)", "getattr(Max, 'x')", "Max(\u00aai, 2)", "Integer('1'); 2", "",
        f"Max({'a' * 300}?",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["value", "guard"])
def test_sizes_that_are_no_arithmetic_are_refused(tmp_path: Path, text: str, place: str) -> None:
    content = program()
    if place == "guard":
        content["guards_code"] = [text]
    else:
        content["graph_module"]["graph"]["sym_int_values"] = {"s": {"as_expr": {"expr_str": text, "hint": None}}}
    if text in ("", "2**9"):  # nothing, and numbers
        open_exported(write(tmp_path / "a.pt2", pt2_records(content)), CPU)
    else:
        refused(write(tmp_path / "a.pt2", pt2_records(content)), r"in the size|in names")


def test_sizes_that_are_arithmetic_are_taken(tmp_path: Path) -> None:
    content = program()
    content["guards_code"] = ["(torch.sym_max(1, L['images'].size()[2] // 2)) % 4 != 0"]
    text = "Mul(Integer(16), FloorDiv(Symbol('s89', positive=True, integer=True), Integer(2)))"
    content["graph_module"]["graph"]["sym_int_values"] = {"s": {"as_expr": {"expr_str": text}}}
    open_exported(write(tmp_path / "a.pt2", pt2_records(content)), CPU)


@pytest.mark.parametrize(
    "target",
    [
        "torch.serialization.os.system", "torch.save", "torch.ops.aten.from_file.default", "torch.hub.load",
        "torch.ops.aten.save.default", "torch.ops.aten.add.out", "torch.ops.aten.add.str", "torch.ops.aten.mul.left_t",
        "torch.ops.aten.add", "torch.ops.aten.add.__class__", "torch.ops.aten.__class__.x",
        "torch.ops.prim.Print.default",
        "torch.ops.profiler._record_function_enter.default", "torch.ops.higher_order.cond", "_operator.call",
        "_operator.attrgetter", "_operator.pow", "math.factorial", "math.__loader__.load_module", "#aoti:x", "print",
        "",
        "torch.ops.aten.resize_.default", "torch.ops.aten.set_.source_Storage", "torch.ops.aten.as_strided.default",
        "torch.ops.inductor._alloc_from_pool.default", "TORCH.ops.aten.relu.default", "torch.ops.Aten.relu.default",
    ],
)  # fmt: skip
def test_what_is_no_operation_of_detectors_is_refused(tmp_path: Path, target: str) -> None:
    content = program(node(target, [tensor("scaled")], "result"))
    refused(write(tmp_path / "a.pt2", pt2_records(content)), r"a\.pt2: .*refused, it uses")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"as_string": "touch MARK"}, "gives the word"),
        ({"as_custom_obj": {"name": "x", "class_fqn": "y"}}, "gives 'as_custom_obj'"),
        ({"as_operator": "torch.save"}, "gives 'as_operator'"),
        ({"as_graph": {"name": "g", "graph": {}}}, "gives 'as_graph'"),
        ({"as_int": "__import__('os')"}, "gives 'as_int'"),
        ({"as_int": [1]}, "gives 'as_int'"),
        ({"as_tensor": {"name": "absent"}}, "before it is computed"),
        ({"as_complex": {"real": 1, "imag": 1}}, "gives 'as_complex'"),
        ({}, "cannot be read"),
        ({"as_int": 1, "as_float": 1.0}, "cannot be read"),
    ],
)
def test_what_an_operation_is_given_is_a_tensor_or_a_number(tmp_path: Path, argument: Any, message: str) -> None:
    content = program(node("torch.ops.aten.add.Tensor", [tensor("scaled"), argument], "result"))
    refused(write(tmp_path / "a.pt2", pt2_records(content)), message)


@pytest.mark.parametrize("given", [{"as_ints": [1, 2]}, {"as_string": "constant"}, {"as_tensors": []}])
def test_arithmetic_of_sizes_repeats_no_lists_and_words(tmp_path: Path, given: Any) -> None:
    content = program(node("_operator.mul", [given, {"as_int": 1 << 60}], "result"))
    refused(write(tmp_path / "a.pt2", pt2_records(content)), "computes mul of something else than numbers")


def test_arithmetic_of_sizes_divides_no_tensors(tmp_path: Path) -> None:
    content = program(node("_operator.floordiv", [tensor("scaled"), {"as_int": 1}], "result"))
    refused(write(tmp_path / "a.pt2", pt2_records(content)), "computes floordiv of something else than numbers")


@pytest.mark.parametrize(
    "name",
    [
        "serialized_state_dict.pt", "data/weights/model.pt", "data/constants/model.pt", "data/constants/custom_obj_0",
        "data/constants/opaque_obj_0", "data/aotinductor/model/a.so", "models/other.json", "MODELS/model.json",
        "models/model.json.pt", "data/weights/weight_0.pt", "data/weights/Weight_0", "data/weights/weight_٣",
        "data/weights/../weights/weight_1", "./models/model.json", "models//model.json", "models\\model.json",
        "extra/other.txt", "data/xl_weights/a", "data/sample_inputs/other.pt", "", "a/",
    ],
)  # fmt: skip
def test_records_that_no_file_needs_are_refused(tmp_path: Path, name: str) -> None:
    refused(write(tmp_path / "a.pt2", pt2_records() | {name: b"x"}), "holds .* which no such file needs")


def test_records_at_the_root_twice_or_in_several_folders_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.pt2", pt2_records(), folder=""), "several folders or in none|no such file needs")
    old = dict.fromkeys(("version", "serialized_exported_program.json", "serialized_state_dict.pt"), b"x")
    refused(write(tmp_path / "b.pt2", old, folder=""), "several folders or in none")
    with warnings.catch_warnings(), zipfile.ZipFile(write(tmp_path / "c.pt2", pt2_records()), "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/models/model.json", b"{}")
    refused(tmp_path / "c.pt2", "holds 'models/model.json' twice")
    with zipfile.ZipFile(write(tmp_path / "d.pt2", pt2_records()), "a") as archive:
        archive.writestr("Archive/models/model.json", b"{}")
    refused(tmp_path / "d.pt2", "several folders")


@pytest.mark.parametrize(
    "change",
    [
        {"use_pickle": True}, {"path_name": "../../../../etc/passwd"}, {"path_name": "custom_obj_0"}, {"path_name": 3},
        {"tensor_meta": meta(1 << 40)}, {"tensor_meta": meta(-1)}, {"tensor_meta": meta(1) | {"dtype": 99}},
        {"tensor_meta": meta(1) | {"storage_offset": {"as_int": 1 << 30}}}, {"tensor_meta": None},
        {"tensor_meta": meta(1) | {"strides": [{"as_int": -4}]}}, {"tensor_meta": meta(1) | {"layout": 1}},
        {"tensor_meta": meta(1) | {"sizes": [{"as_expr": {"expr_str": SYSTEM}}]}},
        {"tensor_meta": meta(1) | {"dtype": 8}},
    ],
)  # fmt: skip
def test_weights_are_what_is_stored_of_them(tmp_path: Path, change: dict[str, Any]) -> None:
    records = pt2_records()
    config = json.loads(records["data/weights/model_weights_config.json"])
    config["config"]["net.w"] |= change
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    refused(write(tmp_path / "a.pt2", records), r"a\.pt2: cannot be read as|a\.pt2: refused")


def number_node(target: str, inputs: list[Any], output: str) -> dict[str, Any]:
    return node(target, inputs) | {"outputs": [{"as_sym_int": {"as_name": output}}]}


LAST = node("torch.ops.aten.relu.default", [tensor("scaled")], "result")
SQUARED = [
    number_node("torch.ops.aten.sym_size.int", [tensor("scaled"), {"as_int": 2}], "n0"),
    *(number_node("_operator.mul", [{"as_sym_int": {"as_name": f"n{i}"}}] * 2, f"n{i + 1}") for i in range(40)),
    LAST,
]
DOUBLED = [
    node("torch.ops.aten.relu.default", [tensor("scaled")], "m0"),
    *(node("torch.ops.aten.cat.default", [{"as_tensors": [{"name": f"m{i}"}] * 2}], f"m{i + 1}") for i in range(40)),
    LAST,
]


@pytest.mark.parametrize(
    "nodes",
    [
        [node("torch.ops.aten.zeros.default", [{"as_ints": [1 << 20, 1 << 20]}], "result")],
        [node("torch.ops.aten.repeat.default", [tensor("scaled"), {"as_ints": [1 << 20, 1, 1, 1]}], "result")],
        [
            node("torch.ops.aten.flatten.using_ints", [tensor("scaled")], "flat"),
            node("torch.ops.aten.repeat.default", [tensor("flat"), {"as_ints": [1 << 14]}], "long"),
            node("torch.ops.aten.split.Tensor", [tensor("long"), {"as_int": 1}], "result"),
        ],
        SQUARED,
        DOUBLED,
    ],
    ids=["zeros", "repeat", "pieces", "numbers", "doubled"],
)  # fmt: skip
def test_a_graph_that_would_take_all_memory_is_refused_when_run(tmp_path: Path, nodes: list[Any]) -> None:
    refused(write(tmp_path / "a.pt2", pt2_records(program(*nodes))), "too much memory|pieces|gives the number")


@pytest.mark.parametrize("content", [[], {"graph_module": 3}, {"graph_module": {"graph": {}}}, None, "x", 1e999])
def test_json_of_another_form_is_refused_in_one_line(tmp_path: Path, content: Any) -> None:
    records = pt2_records() | {"models/model.json": json.dumps(content).encode()}
    refused(write(tmp_path / "a.pt2", records), r"a\.pt2: cannot be read")
    records["models/model.json"] = b"[" * 100_000
    refused(write(tmp_path / "a.pt2", records), r"a\.pt2: cannot be read")


@pytest.mark.parametrize("kind", ["custom_obj", "token", "constant_input", "buffer_mutation"])
def test_uncommon_inputs_and_outputs_are_refused(tmp_path: Path, kind: str) -> None:
    content = program()
    specs = content["graph_module"]["signature"]["output_specs" if "mutation" in kind else "input_specs"]
    specs.append({kind: {"arg": {"name": "x"}, f"{kind}_name": "net.w", "buffer_name": "w"}})
    refused(write(tmp_path / "a.pt2", pt2_records(content)), r"refused, it (takes|returns)")


# .torchscript ---------------------------------------------------------------------------------------------------------


class Plain(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.conv(images).relu_() * self.scale
        first, second = maps.chunk(2, 1)
        maps[:, :1] = 7
        return torch.cat([second, first], 1).view(len(images), -1, images.shape[2]), maps


def script_records(module: torch.nn.Module) -> Records:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module.eval(), torch.rand(1, 3, 32, 32), check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={"config.txt": ABOUT})
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def script() -> Records:
    return script_records(Plain())


HEAD = "images: Tensor) -> Tuple[Tensor, Tensor]:\n"


def changed(records: Records, old: str, new: str) -> Records:
    name = next(name for name, content in records.items() if name.endswith(".py") and HEAD.encode() in content)
    text = records[name].decode()
    assert old in text, text
    return records | {name: text.replace(old, new, 1).encode()}


def test_traced_code_is_computed_as_pytorch_does(tmp_path: Path, script: Records) -> None:
    file = write(tmp_path / "a.torchscript", script)
    images = torch.rand(2, 3, 32, 64)
    before = images.clone()
    found, expected = open_exported(file, CPU).run(images), open_exported(file, CPU, trust=True).run(images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(images, before)


STATEMENTS = [
    'x = torch.from_file("MARK", True, 5)', "torch.save(images, 'MARK')", 'print("x")', "if True:\n      pass",
    "for i in range(3):\n      pass", 'x = ops.aten.save(images, "MARK")',
    'x = ops.profiler._record_function_enter("x")',
    "x = ops.prim.Print(images)", "x = __torch__.os.system(images)", "x = self.__class__",
    'x = getattr(self, "__dict__")',
    'x = getattr(self, "_modules")', "import os", "x = [i for i in images]", "x = (lambda: 1)()", "x = f'{images}'",
    'x = eval("1")', "x = torch.ops.aten.save(images)", "x = torch.serialization.os.system(images)",
    "x: Tensor = images",
    "raise AssertionError()", "x = uninitialized(Tensor)", 'x = torch.add(images, images, out=images)', "x += images",
    "x = torch.resize_(images, [99])", "x = torch.set_(images, images)", "x = torch.as_strided(images, [9], [9], 9)",
    "x = torch.mul([1, 2], 1000000000)", 'x = torch.add("a", "b")', "x = torch.to(images, \"MARK\")", "x = b'1'",
    "x = torch.from_file(filename=\"MARK\", shared=True, size=5)", "self.scale = images", "x = self.forward9(images)",
    "x = torch.quantize_per_tensor(images, 1.0, 0, 1)", "x = (self).__setstate__(images)", "x = 10**10",
    "x = images[0]\n    del x",
]  # fmt: skip


@pytest.mark.parametrize("statement", STATEMENTS)
def test_code_that_is_more_than_operations_is_refused_and_trust_is_named(
    tmp_path: Path, script: Records, statement: str
) -> None:
    records = changed(script, HEAD, f"{HEAD}    {statement}\n")
    file = write(tmp_path / "a.torchscript", records)
    with pytest.raises(InputError, match=r"a\.torchscript: .*(refused|cannot be r)") as caught:
        open_exported(file, CPU)(torch.rand(1, 3, 32, 32))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("MARK")) and not Path("MARK").exists()


class Writes(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.from_file("MARK", True, 5).copy_(images.flatten()[:5])


class AtLoading(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return torch.zeros(5), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        torch.from_file("MARK", True, 5).copy_(state[0])
        self.training = state[1]


@pytest.mark.parametrize("kind", [Writes, AtLoading])
def test_a_script_that_writes_a_file_is_refused_before_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Callable[[], torch.nn.Module]
) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(kind()), "a.torchscript", _extra_files={"config.txt": ABOUT})
    with pytest.raises(InputError, match=r"a\.torchscript: .*; if you trust its maker, give --trust"):
        DetectMultiBackend("a.torchscript")
    assert not Path("MARK").exists()


@pytest.mark.parametrize(
    "name", ["code/os.py", "code/__torch__/../a.py", "code/__torch__/a.PY", "data/a.pkl", "data/0.pt", "attributes.pkl",
             "model.json", "extra/other.txt", "mobile_debug_handles.pkl", "bytecode.pkl", "Data.pkl"],
)  # fmt: skip
def test_other_records_of_a_script_are_refused(tmp_path: Path, script: Records, name: str) -> None:
    refused(write(tmp_path / "a.torchscript", script | {name: b"x"}), "which no such file needs")


def test_parts_that_hold_each_other_and_blown_up_code_are_refused(tmp_path: Path, script: Records) -> None:
    endless = changed(script, HEAD, f"{HEAD}    return (self).forward(images, )\n")
    refused(write(tmp_path / "a.torchscript", endless), "call each other too often|recursion|refused")
    doubled = "".join(f"    l{i + 1} = [l{i}, l{i}]\n" for i in range(60))
    blown = changed(script, HEAD, f"{HEAD}    l0 = [images]\n{doubled}")
    refused(write(tmp_path / "b.torchscript", blown), "refused")


class Chain(torch.nn.Module):
    def __init__(self, length: int) -> None:
        super().__init__()
        self.inner = Chain(length - 1) if length else torch.nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images)


def test_parts_that_call_each_other_twice_a_million_times_are_refused(tmp_path: Path) -> None:
    call = b"(inner).forward(images, )"
    records = {
        name: content.replace(b"return " + call, b"first = " + call + b"\n    return " + call)
        for name, content in script_records(Chain(20)).items()
    }
    refused(write(tmp_path / "a.torchscript", records), "call each other too often")


def test_source_code_of_megabytes_is_refused_before_it_is_parsed(tmp_path: Path, script: Records) -> None:
    refused(write(tmp_path / "a.torchscript", changed(script, HEAD, HEAD + "    a = images\n" * 300_000)), "than 4 MiB")


def test_compressed_weights_and_bombs_of_code_are_refused(tmp_path: Path, script: Records) -> None:
    bomb = tmp_path / "a.torchscript"
    with zipfile.ZipFile(bomb, "w") as archive:
        for name, content in script.items():
            archive.writestr(f"archive/{name}", content)
        archive.writestr("archive/data/99", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    refused(bomb, "is compressed, which torch never does")
    with zipfile.ZipFile(bomb, "w") as archive:
        for name, content in script.items():
            archive.writestr(f"archive/{name}", content)
        archive.writestr("archive/code/__torch__/a.py", b"#" * (65 << 20), zipfile.ZIP_DEFLATED)
    refused(bomb, "larger than the file can hold")


@pytest.mark.parametrize("name", ["a_aoti.pt2", "a.engine"])
def test_machine_code_is_opened_for_those_who_trust_it_only(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"{name}: is machine code, which runs with your rights; .* --trust"):
        DetectMultiBackend(tmp_path / name)
    with pytest.raises(InputError) as caught:
        DetectMultiBackend(tmp_path / name, trust=True)
    assert "--trust" not in str(caught.value)


# Many at random -------------------------------------------------------------------------------------------------------


def fuzz_module() -> Any:
    file = Path(__file__).resolve().parents[2] / "fuzz/model_files.py"
    spec = importlib.util.spec_from_file_location("fuzz_model_files", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:Duplicate name")  # some changes write a record twice
@pytest.mark.parametrize("ending", [".pt2", ".torchscript"])
def test_files_changed_at_random_are_used_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Records, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    fuzz, file, refusals = fuzz_module(), tmp_path / f"a{ending}", 0
    for case in range(60):
        write(file, pt2_records() if ending == ".pt2" else script)
        fuzz.changed_archive(file, random.Random(case))
        try:
            open_exported(file, CPU)(torch.rand(1, 3, 32, 32))
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            refusals += 1
    assert refusals > 20
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


# .onnx and OpenVINO ---------------------------------------------------------------------------------------------------


def onnx_file(path: Path, *nodes: Any, tensors: Sequence[Any] = (), **options: Any) -> Path:
    """x [1, 3, 32, 32] -> y."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    shape = [1, 3, 32, 32]
    graph = onnx.helper.make_graph(
        list(nodes), "g", [onnx.helper.make_tensor_value_info("x", 1, shape)],
        [onnx.helper.make_tensor_value_info("y", 1, shape)], list(tensors),
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid(options.get("domain") or "com.microsoft", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def onnx_node(kind: str, inputs: list[str], output: str = "y", **attributes: Any) -> Any:
    return pytest.importorskip("onnx").helper.make_node(kind, inputs, [output], **attributes)


@pytest.mark.parametrize(
    ("kind", "domain"),
    [("Loop", ""), ("Scan", ""), ("SequenceMap", ""), ("RandomNormal", ""), ("Gelu", "com.microsoft"), ("Relu", "evil"),
     ("EPContext", "com.microsoft"), ("PythonOp", "ai.onnx.contrib")],
)  # fmt: skip
def test_operations_of_onnx_that_no_detector_needs_are_refused(tmp_path: Path, kind: str, domain: str) -> None:
    file = onnx_file(tmp_path / "a.onnx", onnx_node(kind, ["x"], domain=domain), domain=domain)
    refused(file, "refused, it uses the operation")


@pytest.mark.parametrize("location", ["/etc/passwd", "../../weights.bin", "weights.bin"])
def test_weights_of_onnx_in_other_files_are_refused(tmp_path: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx")
    weights = onnx.helper.make_tensor("w", 1, [1], [1.0])
    weights.ClearField("float_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    file = onnx_file(tmp_path / "a.onnx", onnx_node("Add", ["x", "w"]), tensors=[weights])
    refused(file, "refused, it keeps weights in another file")


@pytest.mark.parametrize("dnn", [False, True])
def test_a_graph_of_onnx_that_takes_all_memory_ends_its_trial_and_not_us(tmp_path: Path, dnn: bool) -> None:
    onnx = pytest.importorskip("onnx")
    size = onnx.helper.make_tensor("s", 7, [2], [200_000, 200_000])
    zeros = onnx_node("ConstantOfShape", ["s"], "c")
    total = onnx.helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0)
    file = onnx_file(tmp_path / "a.onnx", zeros, total, onnx_node("Add", ["x", "r"]), tensors=[size])
    with pytest.raises(InputError, match=r"a\.onnx: .*a trial in its own process") as caught:
        open_exported(file, CPU, dnn=dnn)
    assert "\n" not in str(caught.value)


def openvino_xml(layers: str, top: str = "") -> str:
    ports = "".join(f"<dim>{side}</dim>" for side in (1, 3, 32, 32))
    return (
        f'<?xml version="1.0"?>{top}<net name="n" version="11"><layers><layer id="0" name="x" type="Parameter" '
        f'version="opset1"><data shape="1,3,32,32" element_type="f32"/><output><port id="0" precision="FP32">{ports}'
        f"</port></output></layer>{layers}</layers><edges/></net>"
    )


@pytest.mark.parametrize(
    ("layers", "top", "message"),
    [
        ('<layer id="1" name="a" type="ReadValue" version="opset6"/>', "", "a layer 'ReadValue'"),
        ('<layer id="1" name="a" type="Custom" version="extension"/>', "", "a layer 'Custom' of 'extension'"),
        ('<layer id="1" name="a" type="Relu" version="opset1"/>', "", "a layer 'Relu'"),
        ('<layer id="1" name="a" type="ReLU" version="/tmp/lib.so"/>', "", "of '/tmp/lib.so'"),
        ('<layer id="1" name="a" type="ReLU" version="opset1"><body/></layer>', "", "holds more than sizes"),
        ('<layer id="1" name="a" type="Const" version="opset1"><data offset="0" size="99"/></layer>', "", "outside of"),
        ('<layer id="1" name="a" type="Const" version="opset1"><data offset="-9" size="4"/></layer>', "", "outside of"),
        ("", '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa">]>', "defines entities"),
    ],
)  # fmt: skip
def test_layers_of_openvino_that_no_detector_needs_are_refused(
    tmp_path: Path, layers: str, top: str, message: str
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "a.xml").write_text(openvino_xml(layers, top), encoding="utf-8")
    (tmp_path / "a.bin").write_bytes(b"")
    refused(tmp_path / "a.xml", message)


def test_entities_in_another_encoding_are_refused_too(tmp_path: Path) -> None:
    text = openvino_xml("", '<!DOCTYPE net [<!ENTITY a "x">]>').replace('"1.0"', '"1.0" encoding="utf-16"')
    (tmp_path / "a.xml").write_text(text, encoding="utf-16")
    (tmp_path / "a.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="utf-8"):
        tried.read_openvino(tmp_path / "a.xml")


def test_a_trial_may_take_no_more_memory_than_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(tried, "run_program", lambda *call: given.append(json.loads(call[2][0])["memory"]))
    monkeypatch.setattr(tried, "free_memory", lambda device: 1 << 30)
    tried.run_in_sandbox("onnx", {"model.onnx": b""}, [1, 3, 9000, 9000])
    assert given == [5 << 30]


def test_what_a_tflite_file_says_of_itself_is_short(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.tflite", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("about.json", b" " * (5 << 20))
    with pytest.raises(ValueError, match="longer than 4 MiB"):
        TFLiteBackend.read_metadata(tmp_path / "a.tflite")


def test_a_trial_keeps_to_a_limit_of_the_system_that_is_lower_than_its_own() -> None:
    program = (
        "import resource, sys; sys.path.insert(0, sys.argv[1]); import sandbox; "
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); sandbox.limit_resources(1 << 40, 60); "
        "print(resource.getrlimit(resource.RLIMIT_AS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tried.SANDBOX.parent], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"({1 << 30}, {1 << 30})\n"
