"""All formats of one model: each is made, run beside PyTorch and only then kept; a failure does not stop the others."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator

from torch import nn

from utils.errors import InputError, first_line
from utils.export.aoti import AOTInductorExporter
from utils.export.base import Exporter, draft
from utils.export.coreml import CoreMLExporter
from utils.export.elsewhere import REASONS, Elsewhere
from utils.export.engine import EngineExporter
from utils.export.executorch import ExecuTorchExporter
from utils.export.exported_program import ExportedProgramExporter
from utils.export.job import Job
from utils.export.ncnn import NcnnExporter
from utils.export.onnx import OnnxExporter
from utils.export.openvino import OpenVINOExporter
from utils.export.report import Row
from utils.export.static import StaticExporter
from utils.export.tensorflow import FrozenGraphExporter, SavedModelExporter
from utils.export.tflite import TFLiteExporter
from utils.export.torchscript import TorchScriptExporter

LOG = logging.getLogger(__name__)
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
    *map(Elsewhere, REASONS),
)
Scorer = Callable[[nn.Module], tuple[float, float]]  # a model -> mAP@.5, mAP@.5:.95


def export_all(job: Job, source: Row, score: Scorer | None = None) -> list[Row]:
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
        rows.append(Row(format=exporter.name, note=reason, impossible=True))
    for exporter in possible:
        LOG.info("%s ...", exporter.name)
        rows.append(_export(exporter, job, source, score))
    return sorted(rows, key=lambda row: [source.format, *(e.name for e in wanted)].index(row.format))


def _obstacle(exporter: Exporter, job: Job) -> str | None:
    reason = exporter.obstacle(job)
    if reason is None:
        try:
            exporter.form(job.options)
        except InputError as error:
            return str(error)
    return reason


def _export(exporter: Exporter, job: Job, source: Row, score: Scorer | None) -> Row:
    path = exporter.path(job)
    unproved = path
    try:
        with draft(path) as unproved:
            with _quiet(job.options.verbose):
                notes = exporter.write(job, unproved)
            net, proof = exporter.check(job, unproved)
            map50, map_ = score(net) if score and net is not None and not job.options.train else (None, None)
            del net  # a file in use cannot be moved everywhere
    except Exception as error:  # an exporter raises whatever its library does; the other formats are still wanted
        LOG.debug("%s", exporter.name, exc_info=True)
        reason = first_line(error).replace(str(unproved), path.name)
        LOG.warning("%s was not made: %s", exporter.name, reason)
        return Row(format=exporter.name, note=reason)
    if map_ is not None and source.map is not None and not proof.exact:
        notes.append(f"mAP@.5:.95 {map_ - source.map:+.3f}")
    notes += [proof.note] if proof.note else []
    return Row(
        format=exporter.name, path=path, worst=proof.worst, ms=proof.ms, map50=map50, map=map_, note=", ".join(notes)
    )


@contextlib.contextmanager
def _quiet(verbose: bool) -> Iterator[None]:
    """Without the pages that exporters print, unless they are wanted."""
    if verbose:
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
