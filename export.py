"""Turn a trained model into files for other programs, and prove each against PyTorch.

    python export.py --weights runs/train/exp/weights/best.pt --include onnx --dynamic --simplify
    python export.py --weights best.pt --include onnx --nms --data my.yaml      # NMS inside; mAP in the table
    python detect.py --weights best.onnx

Files lie beside the weights, or in ``--output``. The table at the end says for each format the size, the worst
difference to PyTorch, the time per image, or why there is no file; the exit code is 1 if one is missing.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from utils.config.cli import EXIT_INPUT, answer_early, run_script
from utils.config.options import ExportOptions

answer_early(ExportOptions, __name__)

import shlex

from models.user_modules import load_modules
from utils.checkpoint.detector import newest_checkpoint
from utils.checkpoint.official import fetch_official
from utils.config.keywords import as_options, options_from
from utils.config.paths import TRAIN_RUNS
from utils.core.device import select_device
from utils.core.v61 import import_served
from utils.export import export_checkpoint, log_results

LOG = logging.getLogger(__name__)


def main(options: ExportOptions | argparse.Namespace) -> int:
    options = as_options(ExportOptions, options)
    load_modules(options.modules)
    for line in options.idle():
        LOG.warning("%s", line)
    fetch_official(options.weights, options.download)
    device = select_device(options.device)
    files = [Path(name) for name in options.weights] or [newest_checkpoint(TRAIN_RUNS, "best.pt")]
    complete = True
    for weights in files:
        rows = export_checkpoint(weights, options, device)
        log_results(rows)
        made = [row.path for row in rows[1:] if row.path]
        usable = [row.path for row in rows[1:] if row.path and row.ran]
        complete &= len(made) == len(rows) - 1
        if usable:
            LOG.info(
                "results are in %s; use them: python detect.py --weights %s",
                usable[0].parent,
                shlex.quote(str(usable[0])),
            )
        elif made:
            LOG.info("results are in %s", made[0].parent)
    return 0 if complete else EXIT_INPUT


def run(**options: Any) -> int:
    """Export from Python, with the options by their names: ``export.run(weights="best.pt", include=["onnx"])``."""
    return main(options_from(ExportOptions, options))


def __getattr__(name: str) -> Any:
    """Names that scripts import from here, see ``utils/compat``."""
    return import_served("export", name)


if __name__ == "__main__":
    sys.exit(run_script(main, ExportOptions))
