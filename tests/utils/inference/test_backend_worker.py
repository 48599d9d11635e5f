"""Model files that another interpreter runs, with a small library of our own in the place of the real one."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.config.paths import ROOT
from utils.core.errors import InputError
from utils.inference import backend_worker as worker
from utils.inference import venvs
from utils.inference.backend_client import RemoteModel
from utils.inference.backends import DetectMultiBackend, tflite
from utils.inference.backends.base import UnknownPartError
from utils.inference.backends.metadata import Metadata

# Gives for every image one box, whose centre is the mean of its red and of its green; b"crash" ends the process.
LIBRARY = """
import os, signal, sys
import numpy as np

class Interpreter:
    def __init__(self, model_content, num_threads=None):
        print("a page that nobody asked for")
        if model_content.startswith(b"crash"):
            sys.stderr.write("about to fall\\n"); sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if b"greedy" in model_content[:12]:
            self.held = bytearray(2 << 30)
        if not model_content.startswith(b"model"):
            raise ValueError("no model in it\\nand a long story")
        self.content = model_content
        whole = b"int8" in model_content[:10]
        self.type, self.quantization = (np.int8, (1 / 256, -128)) if whole else (np.float32, (0.0, 0))

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        shape = [2, 32, 64, 3] if b"wide" not in self.content[:10] else [1, 3, 32, 64]
        return [{"index": 0, "shape_signature": shape, "dtype": self.type, "quantization": self.quantization}]

    def get_output_details(self):
        return [{"index": 1, "shape": [2, 1, 7], "dtype": self.type, "quantization": self.quantization}]

    def set_tensor(self, index, array):
        assert array.dtype == self.type and array.shape == (2, 32, 64, 3)
        self.images = array

    def invoke(self):
        if self.images.max() == 1 and b"falls" in self.content[:12]:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.images.max() == 1 and b"picky" in self.content[:12]:
            raise RuntimeError("not with white in it")

    def get_tensor(self, index):
        means = self.images.mean((1, 2))
        return np.concatenate([means[:, :2], means[:, :2], means], axis=1)[:, None].astype(self.type)

def load_delegate(name):
    raise OSError(f"{name}: no such library")
"""


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of environments, of which ``litert`` has the library."""
    folder = tmp_path_factory.mktemp("mit Leerzeichen ü") / ".venvs"
    venv.create(folder / "litert", symlinks=os.name != "nt", with_pip=False)
    packages = next(p for p in (folder / "litert").rglob("site-packages") if p.is_dir())
    (packages / "numpy.pth").write_text(str(Path(np.__file__).parents[1]), encoding="utf-8")
    (packages / "ai_edge_litert").mkdir()
    (packages / "ai_edge_litert/__init__.py").touch()
    (packages / "ai_edge_litert/interpreter.py").write_text(LIBRARY, encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def _used(environments: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(venvs.VENVS_VARIABLE, str(environments))
    find = venvs.importlib.util.find_spec
    hidden = {"ai_edge_litert", "tensorflow"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name in hidden else find(name, *a))
    monkeypatch.setattr(tflite, "check_tflite", lambda content: None)  # these are no models


def model_file(folder: Path, content: bytes = b"model", about: Metadata | None = None, name: str = "größe 图") -> Path:
    file = folder / f"{name}.tflite"
    file.write_bytes(content)
    if about is not None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("about.json", json.dumps(about.to_plain()))
    return file


ABOUT = Metadata(names=("ant", "bee"), imgsz=(32, 64), batch=2)


def test_messages_arrive_as_they_were_sent() -> None:
    stream = io.BytesIO()
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros((0, 4), np.int8), np.array(7, np.uint8)]
    worker.write_message(stream, {"über": 1}, arrays)
    stream.seek(0)
    head, found = worker.read_message(stream)
    assert head == {"über": 1}
    for before, after in zip(arrays, found, strict=True):
        assert before.dtype == after.dtype
        np.testing.assert_array_equal(before, after)
    with pytest.raises(EOFError):
        worker.read_message(stream)


@pytest.mark.parametrize("content", [b"model", b"model int8"])
def test_a_file_runs_in_the_environment_and_gives_boxes_in_pixels(tmp_path: Path, content: bytes) -> None:
    backend = DetectMultiBackend(model_file(tmp_path, content, ABOUT))
    assert (backend.names, backend.tflite, backend.edgetpu, backend.fixed_hw) == (["ant", "bee"], True, False, (32, 64))
    images = torch.zeros(3, 3, 32, 64)  # one more than its batch
    images[:, 0], images[:, 1], images[2] = 0.5, 0.25, 0.75
    expected = torch.tensor([[32, 8, 32, 8, 0.5, 0.25, 0]] * 2 + [[48, 24, 48, 24, 0.75, 0.75, 0.75]])
    torch.testing.assert_close(backend(images)[:, 0], expected, rtol=0, atol=1 if b"int8" in content else 0)


def test_a_file_that_says_nothing_gets_its_classes_from_elsewhere(tmp_path: Path) -> None:
    backend = DetectMultiBackend(model_file(tmp_path))
    assert (backend.names, backend.stride, backend.backend.info.fixed_batch) == (["class0", "class1"], 32, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a TFLite file: no model in it"),
        (b"PK\x03\x04", "cannot be read as a TFLite file: no model in it"),
        (
            b"crash",
            r"cannot be read as a TFLite file: the process that runs it was killed \(SIGKILL, .*\): about to fall",
        ),
        (b"model wide", r"takes \[\[1, 3, 32, 64\]\], expected images \[batch, height, width, 3\]"),
    ],
)
def test_a_file_that_is_no_model_is_named_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        DetectMultiBackend(model_file(tmp_path, content))
    assert "größe 图" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_for_the_edge_tpu_needs_its_library(tmp_path: Path) -> None:
    file = model_file(tmp_path, name="a_edgetpu")
    with pytest.raises(InputError, match=r"cannot be read as a file for the Edge TPU: \S*edgetpu\S*: no such library"):
        DetectMultiBackend(file, trust=True)
    with pytest.raises(InputError, match=r"a_edgetpu\.tflite: is machine code.* give --trust"):
        DetectMultiBackend(file)


def test_the_content_is_checked_before_the_process_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = model_file(tmp_path, b"model", ABOUT)
    seen = []

    def look(content: bytes) -> None:
        seen.append(content)
        raise UnknownPartError("it uses the operation 'FlexWriteFile'")

    monkeypatch.setattr(tflite, "check_tflite", look)
    with pytest.raises(InputError, match=r"refused, it uses the operation 'FlexWriteFile'; .* give --trust$"):
        DetectMultiBackend(file)
    assert seen == [file.read_bytes()]
    assert DetectMultiBackend(file, trust=True).names == ["ant", "bee"]
    assert "opened without a check of its content" in caplog.text


def test_a_model_that_takes_more_memory_than_there_is_ends_without_it(
    tmp_path: Path, environments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utils.inference.backend_client.free_memory", lambda device: 1 << 30)
    with pytest.raises(InputError, match=r"cannot be read as a TFLite file: (MemoryError|Unable to allocate)"):
        DetectMultiBackend(model_file(tmp_path, b"model greedy", ABOUT))


def test_what_a_file_says_about_itself_must_be_readable(tmp_path: Path) -> None:
    file = model_file(tmp_path)
    for said in ("[", "[1]", '{"names": 3, "yolov5_dynamic": "1"}'):
        file.write_bytes(b"model")
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("about.json", said)
        with pytest.raises(InputError, match="größe 图"):
            DetectMultiBackend(file)


def test_a_model_that_falls_while_it_runs_is_named_and_stays_down(tmp_path: Path) -> None:
    backend = DetectMultiBackend(model_file(tmp_path, b"model falls", ABOUT))
    backend(torch.zeros(2, 3, 32, 64))
    with pytest.raises(InputError, match=r"größe 图\.tflite: cannot be run: .* was killed \(SIGKILL, "):
        backend(torch.ones(2, 3, 32, 64))
    with pytest.raises(InputError, match="was ended"):
        backend(torch.zeros(2, 3, 32, 64))


def test_a_model_that_refuses_an_image_takes_the_next(tmp_path: Path) -> None:
    backend = DetectMultiBackend(model_file(tmp_path, b"model picky", ABOUT))
    with pytest.raises(InputError, match="cannot be run: not with white in it"):
        backend(torch.ones(2, 3, 32, 64))
    assert backend(torch.zeros(2, 3, 32, 64)).shape == (2, 1, 7)


def test_the_process_ends_with_the_object(tmp_path: Path) -> None:
    backend = DetectMultiBackend(model_file(tmp_path, about=ABOUT))
    process = backend.backend.model._process
    assert process.poll() is None
    del backend
    assert process.wait(10) is not None


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_the_process_ends_with_its_parent_however_that_ends(tmp_path: Path, sent: signal.Signals) -> None:
    lines = (
        "import sys, time",
        "from utils.inference.backends import DetectMultiBackend",
        "backend = DetectMultiBackend(sys.argv[1], trust=True)",
        "print(backend.backend.model._process.pid, flush=True)",
        "time.sleep(60)",
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines), str(model_file(tmp_path, about=ABOUT))], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(sent)
    _, error = parent.communicate(timeout=20)
    assert error.count("Traceback") == (sent == signal.SIGINT)  # the parent's own, none of the child
    _wait_for_the_end_of(child)


def _wait_for_the_end_of(pid: int) -> None:
    for _ in range(200):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the process outlives its parent")


def test_after_ctrl_c_in_the_middle_of_a_run_no_old_answer_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = RemoteModel(Path(sys.executable), "x", tmp_path, 1, program=_echo(tmp_path))
    assert model.run([np.ones(3)])[0].tolist() == [1, 1, 1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("utils.inference.backend_client.read_message", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.run([np.zeros(3)])
    with pytest.raises(InputError, match="was ended"):
        model.run([np.ones(3)])


def _echo(folder: Path) -> Path:
    """A program that answers with what it gets, by nothing but the standard library."""
    file = folder / "echo.py"
    file.write_text(
        "import json, struct, sys\n"
        "i, o = sys.stdin.buffer, sys.stdout.buffer\n"
        "def send(body):\n    o.write(body); o.flush()\n"
        "head = json.dumps({'arrays': []}).encode(); send(struct.pack('<I', len(head)) + head)\n"
        "while size := i.read(4):\n"
        "    head = i.read(struct.unpack('<I', size)[0]); send(size + head + i.read(24))\n"
    )
    return file


def test_a_missing_environment_is_named_with_the_commands_that_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(venvs.VENVS_VARIABLE, str(tmp_path / "no where"))
    with pytest.raises(InputError) as caught:
        DetectMultiBackend(model_file(tmp_path))
    folder = f"'{tmp_path / 'no where' / 'litert'}"
    assert f"python3 -m venv {folder}' && {folder}/bin/pip' install ai-edge-litert" in str(caught.value)


def test_an_environment_without_the_package_gets_the_one_command(environments: Path) -> None:
    line = venvs.LITERT_TORCH.missing()
    assert line is not None and " -m venv " not in line and line.endswith("bin/pip' install litert-torch")


def test_an_environment_is_probed_once_and_its_lack_told_after_one_look(
    environments: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, run = [], subprocess.run
    monkeypatch.setattr("subprocess.run", lambda words, **more: (started.append(words), run(words, **more))[1])
    monkeypatch.setattr(venvs, "_COMPLETE", set())
    for _ in range(2):
        assert venvs.LITERT.missing() is None
        assert venvs.LITERT.require("a.tflite") == environments / "litert/bin/python"
    assert len(started) == 1
    with pytest.raises(InputError, match="a: needs litert-torch"):  # which may be installed any moment
        venvs.LITERT_TORCH.require("a")
    assert len(started) == 2
    with pytest.raises(InputError, match="a: needs litert-torch"):
        venvs.LITERT_TORCH.require("a")
    assert len(started) == 3


def test_the_running_interpreter_is_used_where_it_has_the_packages() -> None:
    stack = venvs.Stack("absent", ("json",), ("json",))
    assert stack.find_python() == Path(sys.executable)
    assert stack.missing() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise ValueError('no such\\nthing')", "the converter failed (exit code 1): no such"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the converter crashed (SIGSEGV): it said nothing"),
        ("import time; time.sleep(60)", "the converter took longer than 1 s and was ended"),
    ],
)
def test_a_program_that_fails_is_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    program = tmp_path / "a.py"
    program.write_text(text)
    with pytest.raises(InputError) as caught:
        venvs.run_program(Path(sys.executable), program, [], seconds=1 if "sleep" in text else 30)
    assert str(caught.value) == message


def test_the_converter_ends_with_its_parent_and_well_by_itself(tmp_path: Path) -> None:
    program = tmp_path / "slow.py"
    lifeline = "import runpy, sys, threading, time\n"
    lifeline += f"end = runpy.run_path({str(ROOT / 'utils/export/tensorflow_worker.py')!r})['_end_with_parent']\n"
    program.write_text(lifeline + "threading.Thread(target=end, daemon=True).start()\ntime.sleep(float(sys.argv[1]))\n")
    venvs.run_program(Path(sys.executable), program, ["0.2"])  # the thread does not disturb the end
    process = subprocess.Popen([sys.executable, str(program), "60"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(20) == 1


def test_a_program_sees_no_module_beside_it(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong one')")
    (tmp_path / "a.py").write_text("import json")
    venvs.run_program(Path(sys.executable), tmp_path / "a.py", [])
