"""Broken and hostile model files by the thousand, opened and run as detect.py does.

python tests/fuzz/model_files.py [--n 2000] [--seed 0]
    [--kinds pt2 torchscript onnx openvino study tflite executorch coreml]

Valid files are changed at random: bytes, records and their names, values and texts of JSON, operations, layers, rows
of the database. Each is opened and run in a process of its own, made by a fork after all packages are imported.
Whatever the file holds, it must end with boxes or with one line, within the time limit, without writing anything.
Exits with 1 and names each case that fails. The last three kinds are for systems that have the packages (tflite: in the
environment of its converter); of a Core ML package only the check of its content is run, except on macOS.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from models.yolo import Model
from tests.fuzz.flatbuffer_writer import write_flatbuffer
from utils.checkpoint import Checkpoint, save_checkpoint
from utils.config.hyp import Hyp
from utils.config.options import ExportOptions
from utils.core.errors import InputError
from utils.export import export_checkpoint
from utils.inference import sandbox as trial
from utils.inference.backends import checked_executorch, checked_tflite, open_exported
from utils.inference.backends import checked_graph as tried
from utils.inference.backends.base import checking_content
from utils.inference.backends.checked_coreml import MODEL, checked_copy
from utils.inference.backends.flatbuffer import read_flatbuffer

ROOT = Path(__file__).resolve().parents[2]
CPU, LIMIT_S = torch.device("cpu"), 60
KINDS = ("pt2", "torchscript", "onnx", "openvino", "study")
OF_PACKAGES = ("tflite", "executorch", "coreml")
MARK = "MARK"  # a file of this name is what hostile texts would make
TEXTS = (
    f"__import__('os').system('touch {MARK}')", f"Max(\"__import__('os').system('touch {MARK}')\", 2)", "torch.save",
    "torch.serialization.os.system", "torch.ops.aten.from_file.default", f"x; open('{MARK}', 'w')", "../" * 8 + MARK,
    "", f"/tmp/{MARK}", f"\x00{MARK}", "custom_obj_0", "Loop", "ReadValue", "Assign", "TensorIterator", "9" * 400,
    "\x1b[31m", "torch.ops.aten.resize_.default", "_operator.call", "com.microsoft", "a" * 5000, "甲虫",
)  # fmt: skip
CODE = (
    f'    x = torch.from_file("{MARK}", True, 9)\n', f'    x = ops.aten.save(images, "{MARK}")\n', '    print("x")\n',
    "    x = torch.mul([1], 99999999999)\n", "    while True:\n      pass\n", "    x = torch.zeros([99999, 99999])\n",
)  # fmt: skip
NUMBERS = (-1, 0, 1, 2, 7, 1 << 16, 1 << 31, 1 << 62, 10**30, -(1 << 63), 0.5, 1e999, True, None, [], {}, "x")
NAMES = (
    "serialized_state_dict.pt", "data/weights/model.pt", "data/constants/custom_obj_0", "constants.pkl", "DATA.PKL",
    "data/aotinductor/model/a.so", "../../MARK", "/MARK", "data/0", "models/model.json", "code/__torch__/a.py", "a/b",
)  # fmt: skip


def bases(folder: Path, kinds: list[str]) -> None:
    """Make one valid file of each kind."""
    stem = [[-1, 1, "Conv", [8, 3, 2]], [-1, 1, "DynamicConv", [8, 3, 2]], [-1, 1, "Conv", [8, 3, 2]]]
    yaml = {
        "nc": 2, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[10, 13], [30, 61]], "backbone": stem,
        "head": [[-1, 1, "C3", [8]], [[1, 3], 1, "Detect", ["nc", "anchors"]]],
    }  # fmt: skip
    model = Model(yaml).eval()
    given = {"model_yaml": model.yaml, "nc": 2, "names": ["ant", "bee"], "stride": model.stride.tolist()}
    save_checkpoint(folder / "a.pt", Checkpoint(**given, model=dict(model.state_dict())))
    for free in (True, False):  # tflite takes one size only
        wanted = tuple(kind for kind in kinds if kind != "study" and (kind != "tflite") == free)
        if wanted:
            options = ExportOptions(weights=(str(folder / "a.pt"),), imgsz=(64,), include=wanted, dynamic=free)
            export_checkpoint(folder / "a.pt", options, CPU)


def study(folder: Path) -> Path:
    """A valid study of a search for hyper-parameters."""
    from utils.training.evolve_space import SearchSpace
    from utils.training.evolve_study import STUDY_FILE, make_study

    make_study(folder, SearchSpace.around(Hyp(), []), [])
    return folder / STUDY_FILE


def flipped(content: bytes, dice: random.Random) -> bytes:
    """Bytes changed, cut out, repeated or put in."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 6)):
        at, length = dice.randrange(len(data) + 1), dice.randint(1, 40)
        way = dice.randrange(6)
        if way < 3 and data:
            data[min(at, len(data) - 1)] = dice.randrange(256)
        elif way == 3:
            del data[at : at + length]
        elif way == 4:
            data[at:at] = data[at : at + length]
        else:
            data[at:at] = dice.choice(TEXTS).encode()
    return bytes(data)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


def changed_json(content: bytes, dice: random.Random) -> bytes:
    """Values replaced, removed, repeated or renamed."""
    value = json.loads(content)
    for _ in range(dice.randint(1, 4)):
        container, key = dice.choice(list(places(value)))
        way = dice.randrange(5)
        if way == 0 and isinstance(container[key], str):
            container[key] = dice.choice(TEXTS)
        elif way <= 1:
            container[key] = dice.choice(NUMBERS)
        elif way == 2 and isinstance(container, dict):
            container[dice.choice(TEXTS)] = container.pop(key)
        elif way == 3 and isinstance(container, list):
            container.append(container[key])
        else:
            other, at = dice.choice(list(places(value)))
            container[key] = json.loads(json.dumps(other[at]))
    return json.dumps(value).encode()


def changed_archive(file: Path, dice: random.Random) -> None:
    """Records changed with the right checksum, renamed, removed, added, twice, compressed; or the bytes of the file."""
    if dice.random() < 0.2:
        file.write_bytes(flipped(file.read_bytes(), dice))
        return
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    way, at = dice.randrange(10), dice.randrange(len(records))
    text = [index for index, (name, _) in enumerate(records) if name.endswith((".json", ".py", ".pkl"))]
    if way < 6:
        at = dice.choice(text)
        name, content = records[at]
        if name.endswith(".json") and content:
            content = changed_json(content, dice)
        elif name.endswith(".py") and dice.random() < 0.7:
            lines = content.decode().split("->", 1)
            head, _, tail = lines[-1].partition("\n")
            content = "->".join([*lines[:-1], f"{head}\n{dice.choice(CODE)}{tail}"]).encode()
        else:
            content = flipped(content, dice)
        records[at] = name, content
    elif way == 6:
        records[at] = f"archive/{dice.choice(NAMES)}", records[at][1]
    elif way == 7:
        del records[at]
    else:
        added = dice.choice([records[at][0], f"archive/{dice.choice(NAMES)}", dice.choice(NAMES)])
        records.insert(at, (added, flipped(records[at][1], dice)))
    kind = zipfile.ZIP_DEFLATED if way == 9 else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in records:
            archive.writestr(name, content)


def changed_onnx(file: Path, dice: random.Random) -> None:
    """Operations, attributes, shapes, names and weights changed; or the bytes of the file."""
    import onnx

    if dice.random() < 0.3:
        file.write_bytes(flipped(file.read_bytes(), dice))
        return
    model = onnx.load(file)
    for _ in range(dice.randint(1, 4)):
        node, way = dice.choice(model.graph.node), dice.randrange(8)
        if way == 0:
            node.op_type = dice.choice(
                [*TEXTS, "Loop", "Scan", "If", "Relu", "ConstantOfShape", "Expand", "Tile", "Range"]
            )
        elif way == 1:
            node.domain = dice.choice(TEXTS)
        elif way == 2 and node.input:
            node.input[dice.randrange(len(node.input))] = dice.choice(model.graph.node).output[0]
        elif way == 3 and node.attribute:
            attribute = dice.choice(node.attribute)
            attribute.i = dice.choice([-1, 0, 1 << 40])
            attribute.ints.extend([1 << 40])
        elif way == 4 and model.graph.initializer:
            tensor = dice.choice(model.graph.initializer)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=dice.choice([*TEXTS, "/etc/passwd"]))
        elif way == 5 and model.graph.initializer:
            tensor = dice.choice(model.graph.initializer)
            tensor.dims.extend([dice.choice([0, -1, 1 << 40])])
        elif way == 6:
            model.graph.node.remove(node)
        else:
            tensor = dice.choice(model.graph.initializer or [onnx.TensorProto()])
            tensor.raw_data = flipped(tensor.raw_data, dice)
    file.write_bytes(model.SerializeToString())


def changed_openvino(folder: Path, dice: random.Random) -> None:
    """Words and numbers of the xml changed; or the bytes of one of the two files."""
    xml = next(folder.glob("*.xml"))
    if dice.random() < 0.25:
        target = dice.choice([xml, xml.with_suffix(".bin")])
        target.write_bytes(flipped(target.read_bytes(), dice))
        return
    parts = xml.read_text(encoding="utf-8").split('"')  # every second one is the value of an attribute
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(1, len(parts), 2)
        values = [*TEXTS, *map(str, NUMBERS), dice.choice(parts[1::2]), "dynamic", "-1,-1", "opset99", "extension"]
        parts[at] = dice.choice(values).replace("<", "").replace('"', "'")
    xml.write_text('"'.join(parts), encoding="utf-8")


def changed_study(file: Path, dice: random.Random) -> None:
    """Values of the database changed; or its bytes."""
    if dice.random() < 0.4:
        file.write_bytes(flipped(file.read_bytes(), dice))
        return
    with sqlite3.connect(file) as base:
        tables = [name for (name,) in base.execute("select name from sqlite_master where type = 'table'")]
        for _ in range(dice.randint(1, 4)):
            table = dice.choice(tables)
            column = dice.choice([row[1] for row in base.execute(f"pragma table_info({table})")])
            value = dice.choice([*TEXTS, *(n for n in NUMBERS if isinstance(n, (int, float)) and abs(n) < 1 << 62)])
            try:
                base.execute(f"update or ignore {table} set {column} = ?", (value,))
            except (sqlite3.Error, UnicodeError):
                continue
    base.close()


def changed_values(values: Any, dice: random.Random) -> None:
    """Values of a FlatBuffer changed in place, mostly to others of their kind."""
    for _ in range(dice.randint(1, 3)):
        container, key = dice.choice([place for place in places(values) if place[1] != "more"])
        value, way = container[key], dice.randrange(6)
        if isinstance(value, bool) or value is None or isinstance(value, (bytes, tuple)):
            container[key] = None
        elif isinstance(value, str):
            container[key] = dice.choice(TEXTS)
        elif isinstance(value, (int, float)):
            container[key] = dice.choice([*(n for n in NUMBERS if type(n) is int), value + 1, value - 1, 2 * value])
        elif isinstance(value, dict) and way < 3:
            value["more"] = [(dice.randrange(12), dice.choice(["u32", "u8", "i64"]), 1)]
        elif isinstance(value, list) and value and way < 3:
            container[key] = value[:-1] if way else value + value[:1]
        else:
            container[key] = copy.deepcopy(dice.choice(list(places(values)))[0])  # a copy: it may be around it


def as_lists(value: Any) -> Any:
    """The same with unions as lists, which can be changed, and views of bytes as bytes."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {key: as_lists(part) for key, part in value.items()}
    return [as_lists(part) for part in value] if isinstance(value, (list, tuple)) and value != () else value


def changed_flatbuffer(file: Path, dice: random.Random) -> None:
    """Values of the graph changed; or its bytes, of which the weights are most."""
    content = file.read_bytes()
    lite = file.suffix == ".tflite"
    size, start, more = (len(content), 0, 0) if lite else checked_executorch._sizes(content)
    if dice.random() < 0.3:
        at = dice.choice([0, 0, start, max(0, size - 20_000)])
        file.write_bytes(content[:at] + flipped(content[at : at + 20_000], dice) + content[at + 20_000 :])
        return
    schema = (checked_tflite if lite else checked_executorch)._SCHEMA
    root, identifier = ("Model", b"TFL3") if lite else ("Program", b"ET12")
    original = as_lists(read_flatbuffer(memoryview(content)[:size], schema, root, identifier))
    for _ in range(100):  # until the values are of kinds that can be written
        values = copy.deepcopy(original)
        changed_values(values, dice)
        try:
            made = bytearray(write_flatbuffer(schema, root, identifier, values, 0 if lite else 32))
        except (struct.error, TypeError, ValueError, AttributeError, KeyError, IndexError):
            continue
        if not lite:
            base = -(-len(made) // 128) * 128
            struct.pack_into("<4sIQQQ", made, 8, b"eh00", 32, len(made), base, more)
            made += bytes(base - len(made)) + content[start:]
        file.write_bytes(made)
        return


def changed_coreml(folder: Path, dice: random.Random) -> None:
    """Operations, values and files of the package changed; or the bytes of one of its files."""
    from coremltools.proto.Model_pb2 import Model as Description

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    way = dice.randrange(8)
    if way < 2:
        target = dice.choice(files)
        target.write_bytes(flipped(target.read_bytes(), dice))
    elif way == 2:
        (folder / dice.choice(["a.bin", "Data/x", "Data/com.apple.CoreML/weights/b.bin"])).write_bytes(b"x")
    elif way == 3:
        dice.choice(files).unlink()
    else:
        model = Description.FromString((folder / MODEL).read_bytes())
        (block,) = model.mlProgram.functions["main"].block_specializations.values()
        operation = dice.choice(block.operations)
        constants = [one for one in block.operations if one.attributes["val"].WhichOneof("value") == "blobFileValue"]
        blob = dice.choice(constants).attributes["val"].blobFileValue
        if way == 4:
            operation.type = dice.choice([*TEXTS[:10], "while_loop", "cond", "custom_layer"])
        elif way == 5:
            blob.fileName = dice.choice([*(text for text in TEXTS if "\x00" not in text), "/etc/passwd"])
        elif way == 6:
            blob.offset = dice.choice([0, 1, 1 << 62, blob.offset + 64])
        else:
            operation.blocks.add()
        (folder / MODEL).write_bytes(model.SerializeToString())


CHANGES: dict[str, Callable[[Path, random.Random], None]] = {
    "pt2": changed_archive, "torchscript": changed_archive, "onnx": changed_onnx, "openvino": changed_openvino,
    "study": changed_study, "tflite": changed_flatbuffer, "executorch": changed_flatbuffer, "coreml": changed_coreml,
}  # fmt: skip


def use(kind: str, file: Path) -> None:
    """What a user would do with the file."""
    if kind == "study":
        from utils.training.evolve_space import SearchSpace
        from utils.training.evolve_study import evaluated, in_progress, open_study

        opened = open_study(file.parent, SearchSpace.around(Hyp(), []), "genetic", 0)
        evaluated(opened)
        in_progress(opened)
        return
    if kind == "coreml" and sys.platform != "darwin":
        from coremltools.proto.Model_pb2 import Model as Description

        with checking_content(file, "a Core ML package"), tempfile.TemporaryDirectory() as place:
            checked_copy(file, Path(place), Description)
        return
    backend = open_exported(file, CPU)
    height, width = backend.fixed_hw or (64, 64)
    if height * width <= 1 << 20:
        backend(torch.rand(1, 3, height, width))


def forked_trial(python: Path, program: Path, words: list[str], seconds: float, what: str) -> None:
    """The trial of a graph in a fork of this process, which has the packages already."""
    child = os.fork()
    if child == 0:
        try:
            work = json.loads(words[0])
            used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
            trial.main({**work, "memory": work["memory"] + used, "seconds": LIMIT_S})
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise InputError(f"{what} failed ({status})")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what libraries print."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    yield


def attempt(kind: str, file: Path, answer: int) -> None:
    """In the child: open and run, and answer with a word or a traceback."""
    said = "opened"
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            use(kind, file)
    except (InputError, FileNotFoundError) as error:
        said = "refused" if "\n" not in str(error) and len(str(error)) < 2000 else f"a long message: {error!s:.500}"
    except BaseException:
        said = traceback.format_exc(limit=-6)
    os.write(answer, said.encode(errors="replace")[:60_000])


def in_a_fork(kind: str, file: Path) -> str:
    """How a file ended: "opened", "refused", or what went wrong."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        attempt(kind, file, writer)
        os._exit(0)
    os.close(writer)
    status, end = 0, time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.005)
    else:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        return f"no end after {LIMIT_S} s"
    with os.fdopen(reader, "rb") as stream:
        said = stream.read().decode(errors="replace")
    return f"the process ended by signal {status & 127}" if status & 127 else said


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def run_case(kind: str, base: Path, case: int, seed: int, folder: Path) -> str:
    """One case: a copy is changed (but for a negative number), opened and run."""
    dice = random.Random(f"{seed} {kind} {case}")
    place = Path(tempfile.mkdtemp(dir=folder))
    file = place / base.name
    if base.is_dir():
        shutil.copytree(base, file)
    else:
        shutil.copyfile(base, file)
    if case >= 0:
        CHANGES[kind](file, dice)
    before = names_below(folder)
    os.chdir(place)
    result = in_a_fork(kind, file)
    os.chdir(folder)
    allowed = {f"{place.name}/study.db{end}" for end in ("-journal", "-wal", "-shm")}
    made = names_below(folder) - before - allowed
    if made or Path(f"/tmp/{MARK}").exists():
        result = f"wrote {', '.join(sorted(made)) or MARK}"
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
    return result


def prepared(folder: Path, kinds: list[str]) -> dict[str, Path]:
    """The valid files, and every package imported that a case needs; no library has started threads yet."""
    torch.set_num_threads(1)
    tried.run_program = forked_trial  # type: ignore[assignment]
    child = os.fork()  # a process that has run OpenVINO cannot be forked
    if child == 0:
        try:
            with quiet():
                bases(folder, kinds)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    ends = {"pt2": "a.pt2", "torchscript": "a.torchscript", "onnx": "a.onnx", "openvino": "a_openvino_model"}
    ends |= {"tflite": "a.tflite", "executorch": "a.pte", "coreml": "a.mlpackage"}
    found = {kind: folder / name for kind, name in ends.items() if kind in kinds}
    for module in ("onnx", "onnxruntime", "openvino"):
        __import__(module)
    if "executorch" in kinds:
        __import__("executorch.runtime")
    if "study" in kinds:
        (folder / "study").mkdir()
        found["study"] = study(folder / "study")
    torch.zeros(1, device="meta").add(1)  # loads what it takes
    return found


def fuzz(n: int, seed: int, kinds: list[str], first: int = 0) -> list[str]:
    """Run the cases, divided among the kinds; the failures."""
    counts: Counter[str] = Counter()
    failures = []
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        found = prepared(folder, kinds)
        for kind, base in found.items():
            if (result := run_case(kind, base, -1, seed, folder)) != "opened":
                raise SystemExit(f"the unchanged {kind} file: {result}")
        for case in range(first, first + n):
            kind = kinds[case % len(kinds)]
            result = run_case(kind, found[kind], case, seed, folder)
            counts[f"{kind} {result if result in ('opened', 'refused') else 'FAILED'}"] += 1
            if result not in ("opened", "refused"):
                failures.append(f"case {case} ({kind}): {result}")
        os.chdir(ROOT)
    print("; ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=(*KINDS, *OF_PACKAGES), default=list(KINDS))
    options = parser.parse_args()
    failures = fuzz(options.n, options.seed, options.kinds, options.first)
    print("\n".join(failures[:20]))
    print(f"{options.n} cases, {len(failures)} failures")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
