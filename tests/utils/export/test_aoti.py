"""AOTInductor packages: made, equal to PyTorch, and never run before what they say of themselves was read."""

from __future__ import annotations

import json
import logging
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from utils.checkpoint import load_model
from utils.config.options import ExportOptions
from utils.core.errors import InputError
from utils.export import ExportResult, export_checkpoint
from utils.inference.backends import DetectMultiBackend, open_exported
from utils.inference.backends.aoti import PROCESSOR, package_metadata
from utils.inference.weights import open_weights

CPU = torch.device("cpu")
Tiny = Callable[[str], Path]
Exported = Callable[..., list[Any]]


def compiler_is_there() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except RuntimeError:
        return False


needs_compiler = pytest.mark.skipif(not compiler_is_there(), reason="no C++ compiler")


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportResult, str]:
    """The row of one package with free axes, and what was warned about while it was made."""
    warned: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warned.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("utils").addHandler(handler)
    folder = tmp_path_factory.mktemp("aoti") / "mit Leerzeichen ü 图"
    options = ExportOptions(
        weights=(str(tiny("dynamic")),), include=("aoti",), imgsz=(64,), dynamic=True, output=str(folder)
    )
    row = export_checkpoint(tiny("dynamic"), options, CPU)[1]
    logging.getLogger("utils").removeHandler(handler)
    assert row.made, row.note
    return row, "\n".join(warned)


@pytest.fixture(scope="module")
def package(made: tuple[ExportResult, str]) -> Path:
    assert made[0].path is not None
    return made[0].path


def altered(package: Path, target: Path, **changes: str | None) -> Path:
    """A copy whose description says something else; a key given None is left out."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(target, "w") as archive:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("_metadata.json"):
                said = {**json.loads(content), **changes}
                content = json.dumps({key: value for key, value in said.items() if value is not None}).encode()
            archive.writestr(entry.filename, content)
    return target


@pytest.fixture
def no_code_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.inference.backends.aoti.load_package", lambda *_: pytest.fail("code was loaded"))


@needs_compiler
def test_a_package_with_free_axes_equals_pytorch_at_any_batch_and_size(
    made: tuple[ExportResult, str], package: Path, tiny: Tiny
) -> None:
    assert made[0].worst is not None and made[0].worst < 1e-4
    assert sorted(path.name for path in package.parent.iterdir()) == ["dynamic_aoti.pt2"]
    backend, (model, _) = DetectMultiBackend(package, trust=True), load_model(tiny("dynamic"))
    assert (backend.aoti, backend.pt2, backend.names, backend.stride) == (True, False, ["ant", "bee", "甲虫"], 16)
    info = backend.backend.info
    assert (info.form, info.temperature, backend.fixed_hw) == ("B/F", 2.0, None)
    for shape in [(1, 3, 64, 64), (3, 3, 96, 32), (8, 3, 32, 64), (1, 3, 128, 160)]:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        for memory in (torch.contiguous_format, torch.channels_last):
            with torch.no_grad():
                found = backend(images.contiguous(memory_format=memory))
                torch.testing.assert_close(found, model(images)[0], rtol=1e-4, atol=1e-3)


@needs_compiler
def test_a_package_is_opened_for_those_who_trust_it_and_that_is_said(
    made: tuple[ExportResult, str], package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert "trust" not in made[1]  # our own file, just made
    with pytest.raises(InputError, match=r"is machine code, .* give --trust"):
        open_weights(str(package), CPU)
    open_weights(str(package), CPU, trust=True)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [f"--trust: {package} is opened with whatever code its maker put into it"]


@needs_compiler
def test_a_package_runs_where_there_is_no_compiler(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a process was started"))
    monkeypatch.setattr("torch._inductor.codecache.get_device_information", lambda *_: pytest.fail("vectors tried out"))
    assert open_exported(package, CPU, trust=True)(torch.rand(2, 3, 64, 64))[0].shape[0] == 2


@needs_compiler
@pytest.mark.usefixtures("no_code_runs")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"yolov5_dynamic": None}, "not exported by this program; make it with export.py --include aoti"),
        ({"yolov5_dynamic": "999"}, "exported by another version of this program"),
        ({"names": "__import__('os')"}, "cannot be read"),
        ({"task": '"segment"'}, "is for the task 'segment'"),
        ({"AOTI_DEVICE_KEY": "cuda"}, "compiled for cuda, requested is cpu: give --device 0"),
        ({"AOTI_PLATFORM": "win32"}, "compiled on win32 for processors with"),
        ({PROCESSOR: "SVE256"}, "for processors with SVE256, this is"),
        ({PROCESSOR: None}, "for processors with , this is"),
    ],
)
def test_nothing_of_a_package_that_does_not_fit_is_run(
    package: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = altered(package, tmp_path / "other_aoti.pt2", **changes)
    with pytest.raises(InputError, match=message):
        open_exported(file, CPU, trust=True)


@needs_compiler
@pytest.mark.parametrize(("here", "fits"), [("AVX512", True), ("AVX2", True), ("DEFAULT", False)])
def test_a_processor_with_more_vectors_takes_what_is_made_for_less(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, fits: bool
) -> None:
    from utils.inference.backends.aoti import check_machine

    said = package_metadata(altered(package, tmp_path / "other_aoti.pt2", **{PROCESSOR: "AVX2"}))
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: here)
    if fits:
        check_machine(package, said, CPU)
        return
    with pytest.raises(InputError, match="export it on a machine like this one"):
        check_machine(package, said, CPU)


@needs_compiler
def test_a_broken_package_is_named_in_one_line(package: Path, tmp_path: Path) -> None:
    file = tmp_path / "half_aoti.pt2"
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(file, "w") as archive:
        for entry in source.infolist():
            archive.writestr(entry.filename, b"" if entry.filename.endswith(".so") else source.read(entry))
    with pytest.raises(InputError, match=r"half_aoti\.pt2: cannot be read as an AOTInductor package: ") as caught:
        open_exported(file, CPU, trust=True)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_code_runs")
def test_the_two_kinds_of_pt2_are_told_apart(exported: Exported, tmp_path: Path) -> None:
    graph = exported("static", include=("pt2",))[1].path
    with pytest.raises(InputError, match=r"no machine code in it; a file of torch\.export ends in \.pt2 without _aoti"):
        open_exported(graph.rename(tmp_path / "graph_aoti.pt2"), CPU, trust=True)
    with zipfile.ZipFile(tmp_path / "code.pt2", "w") as archive:
        archive.writestr("code/data/aotinductor/model/a.so", b"\x7fELF")
    with pytest.raises(InputError, match=r"it holds 'code/data/aotinductor/model/a\.so', which no such file needs"):
        open_exported(tmp_path / "code.pt2", CPU)


def test_the_form_that_a_batch_is_compiled_into_is_refused(exported: Exported) -> None:
    row = exported("dynamic", include=("aoti",), dynamic_form="A")[1]
    assert row.note == "--dynamic-form A does not run as aoti; possible are B, F, M, A1"


def test_the_missing_compiler_is_named_before_any_work(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    row = exported("static", include=("aoti",))[1]
    assert (row.made, row.impossible) == (False, True)
    assert row.note.startswith("it takes a C++ compiler (apt install g++, or CXX=path): No working C++ compiler found")


KILLED = (
    "the C++ compiler was killed (SIGKILL, which is what the system sends when memory runs out): it printed nothing"
)


@pytest.mark.parametrize(
    ("code", "said", "note"),
    [
        (-9, b"", KILLED),
        (1, b"a.cpp: in f\na.s: No space left on device\nstopped\n", "exit code 1): a.s: No space left on device"),
        (1, "a.cpp:1: error: no such thing\n1 | x\n", "exit code 1): a.cpp:1: error: no such thing"),
        (None, b"", "no kernel for this"),
    ],
)
def test_a_compiler_that_fails_is_told_with_its_own_words_and_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, said: Any, note: str
) -> None:
    def compile_(*_: Any, package_path: str, **__: Any) -> None:
        Path(package_path).write_bytes(b"half")
        if code is None:
            raise ValueError("no kernel for this")
        try:
            raise subprocess.CalledProcessError(code, "g++", said)
        except subprocess.CalledProcessError as error:
            inner = RuntimeError("C++ compile error")
            inner.__cause__ = error
            raise RuntimeError("torch's own around it") from inner

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr("torch._inductor.aoti_compile_and_package", compile_)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    row = exported("static", include=("aoti",), output=str(tmp_path / "out"))[1]
    log = tmp_path / "out/static.aoti.log"
    assert not row.made
    assert row.note.endswith(f"{note}; full text in {log}" if code is None else note)
    left = [*(tmp_path / "out").iterdir(), *(tmp_path / "temporary").iterdir()]
    assert left == ([log] if code is None else [])
