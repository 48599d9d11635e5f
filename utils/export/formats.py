"""All formats of one model: each is made, run beside PyTorch and only then kept; a failure does not stop the others."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

from torch import nn

from utils.config.export_options import UNAVAILABLE_FORMATS
from utils.core.errors import InputError, first_line
from utils.core.output import OutputFolder
from utils.export.aoti import AOTInductorExporter
from utils.export.base import Exporter, draft
from utils.export.coreml import CoreMLExporter
from utils.export.engine import EngineExporter
from utils.export.executorch import ExecuTorchExporter
from utils.export.export_job import ExportJob
from utils.export.exported_program import ExportedProgramExporter
from utils.export.faulty_layer import faulty_layer
from utils.export.ncnn import NcnnExporter
from utils.export.onnx import OnnxExporter
from utils.export.openvino import OpenVINOExporter
from utils.export.results import ExportResult
from utils.export.static_checkpoint import StaticExporter
from utils.export.tensorflow import FrozenGraphExporter, SavedModelExporter
from utils.export.tflite import TFLiteExporter
from utils.export.torchscript import TorchScriptExporter
from utils.export.yolov5 import YOLOv5Exporter

LOG = logging.getLogger(__name__)
_LONG = 120  # characters of what a library says


class UnavailableFormat(Exporter):
    """A format that is only named."""

    name: str  # type: ignore[misc]
    ending: ClassVar[str] = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def obstacle(self, job: ExportJob) -> str | None:
        return UNAVAILABLE_FORMATS[self.name]


EXPORTERS: tuple[Exporter, ...] = (
    TorchScriptExporter(),
    OnnxExporter(),
    OpenVINOExporter(),
    EngineExporter(),
    CoreMLExporter(),
    SavedModelExporter(),
    FrozenGraphExporter(),
    TFLiteExporter(),
    NcnnExporter(),
    ExecuTorchExporter(),
    ExportedProgramExporter(),
    AOTInductorExporter(),
    StaticExporter(),
    YOLOv5Exporter(),
    *(UnavailableFormat(name) for name in UNAVAILABLE_FORMATS),
)
Scorer = Callable[[nn.Module], tuple[float, float]]  # a model -> mAP@.5, mAP@.5:.95


def export_all(job: ExportJob, source: ExportResult, score: Scorer | None = None) -> list[ExportResult]:
    """Make every format of ``--include``.

    Args:
        source: the row of the checkpoint itself, to compare with.
        score: gives the mAP of a model or of a file.

    Returns:
        The row of the checkpoint, then one for each format.
    """
    wanted = [exporter for exporter in EXPORTERS if exporter.name in job.options.include]
    rows, possible = [source], []
    for exporter in wanted:
        reason = _obstacle(exporter, job)
        if reason is None:
            possible.append(exporter)
            continue
        LOG.warning("%s cannot be made: %s", exporter.name, reason)
        rows.append(ExportResult(format=exporter.name, note=reason, impossible=True))
    for exporter in possible:
        LOG.info("%s ...", exporter.name)
        rows.append(_export(exporter, job, source, score))
    return sorted(rows, key=lambda row: [source.format, *(e.name for e in wanted)].index(row.format))


def _obstacle(exporter: Exporter, job: ExportJob) -> str | None:
    reason = exporter.obstacle(job)
    if reason is None:
        try:
            exporter.form(job.options)
            path = exporter.path(job)
            OutputFolder(path.parent, lambda: job.inputs).path(path.name)
        except InputError as error:
            return str(error)
    return reason


def _export(exporter: Exporter, job: ExportJob, source: ExportResult, score: Scorer | None) -> ExportResult:
    path, log = exporter.path(job), job.stem.with_name(f"{job.stem.name}.{exporter.name}.log")
    unproved, written = path, False
    log.unlink(missing_ok=True)  # of an earlier attempt
    try:
        with draft(path) as unproved:
            with printed_to(log, job.options.verbose):
                notes = exporter.write(job, unproved)
                written = True
                net, proof = exporter.check(job, unproved)
            map50, map_ = score(net) if score and net is not None and not job.options.train else (None, None)
            del net  # a file in use cannot be moved everywhere
    except Exception as error:  # an exporter raises whatever its library does; the other formats are still wanted
        LOG.debug("%s", exporter.name, exc_info=True)
        reason = _reason(error, exporter, job, written, log).replace(str(unproved), path.name)
        LOG.warning("%s was not made: %s", exporter.name, reason)
        return ExportResult(format=exporter.name, note=reason)
    log.unlink(missing_ok=True)  # warnings about a file that is fine
    if map_ is not None and source.map is not None and not proof.exact:
        notes.append(f"mAP@.5:.95 {map_ - source.map:+.3f}")
    notes += [proof.note] if proof.note else []
    return ExportResult(
        format=exporter.name,
        path=path,
        worst=proof.worst,
        limit=proof.limit,
        ms=proof.ms,
        map50=map50,
        map=map_,
        note=", ".join(notes),
    )


def _reason(error: Exception, exporter: Exporter, job: ExportJob, written: bool, log: Path) -> str:
    """Why a file was not made, in one line: what the library says, the layer it is about, where the full text is."""
    reason = first_line(error)
    if len(reason) > _LONG:  # then comes how to ask for help
        reason = reason.partition(". ")[0][: 2 * _LONG]
    if isinstance(error, (OSError, MemoryError)) or "differs from PyTorch" in reason:
        return reason  # no layer's fault, or none that fails by itself
    with printed_to(None, job.options.verbose):
        layer = "" if job.options.train else faulty_layer(exporter, job, written)
    if not isinstance(error, InputError):
        with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as stream:
            traceback.print_exception(error, file=stream)
    place = f"full text in {log}" if log.is_file() else ""
    return "; ".join(filter(None, (reason.rstrip(". "), layer, place)))


@contextlib.contextmanager
def printed_to(log: Path | None, verbose: bool) -> Iterator[None]:
    """Send what exporters print, from Python and from C++ alike, to a file or to nowhere, unless it is wanted.

    A file that would stay empty is not left.
    """
    if verbose:
        yield
        return
    before = logging.root.manager.disable
    with tempfile.TemporaryFile() as stream, contextlib.ExitStack() as restored:
        for number, python in ((1, sys.stdout), (2, sys.stderr)):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # there is none, as in a window program
                python.flush()
                restored.callback(os.close, kept := os.dup(number))
                restored.callback(os.dup2, kept, number)
                os.dup2(stream.fileno(), number)
        text = restored.enter_context(io.TextIOWrapper(os.fdopen(os.dup(stream.fileno()), "wb"), "utf-8", "replace"))
        restored.enter_context(contextlib.redirect_stdout(text))
        restored.enter_context(contextlib.redirect_stderr(text))
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
            restored.close()
            stream.seek(0)
            if log is not None and (said := stream.read()):
                with contextlib.suppress(OSError):
                    log.write_bytes(said)
