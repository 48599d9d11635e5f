"""One run of a study, in a separate process: train or resume, evaluate the last EMA weights, write result.json.

    python -m tools.study.worker RUN_FOLDER

The folder has ``run.json`` (what to do). A second process for the same folder waits for the first.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import train
from models.summary import summarize
from models.yolo import Model
from utils.checkpoint import load_model
from utils.config.cli import run_script
from utils.config.dataset_spec import DatasetSpec
from utils.config.flags import option
from utils.config.paths import ROOT
from utils.core.errors import InputError, UntrainableError
from utils.core.files import write_atomic
from utils.datasets.labels.splits import load_labels
from utils.evaluation import Evaluator
from utils.evaluation.batches import validation_loader
from utils.evaluation.routing_scores import RoutingScores, evaluate_routings, read_conditions

LOG = logging.getLogger(__name__)
RESULT, TASK, TRAINED = "result.json", "run.json", "train"


class Unfinished(InputError):
    """A signal stopped the run; it is resumed when it is started again."""


def commit() -> str:
    """The commit of this tree, with ``-dirty`` if it was changed since; ``unknown`` outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def train_or_resume(folder: Path, task: Mapping[str, Any]) -> Path:
    """Train by the task; return the EMA weights of the last epoch.

    Raises:
        UntrainableError: the losses are not finite.
        Unfinished: a signal stopped the run.
    """
    weights = folder / TRAINED / "weights"
    done = weights / "resume.pt"
    if not done.exists():
        options = {**task["train"], "data": task["yaml"], "seed": task["seed"], "noval": True, "project": str(folder)}
        files = {"cfg": folder / "model.yaml", "hyp": folder / "hyp.yaml"}
        write_atomic(files["cfg"], yaml.safe_dump(task["model"], sort_keys=False).encode())
        write_atomic(files["hyp"], yaml.safe_dump(task["hyp"], sort_keys=False).encode())
        options |= {key: str(file) for key, file in files.items()} | {"name": TRAINED, "exist_ok": True}
        if (weights / "last.pt").exists():
            try:
                train.run(resume=str(weights / "last.pt"))
            except UntrainableError:
                raise
            except InputError as error:
                LOG.warning("%s: cannot be resumed (%s), starting again", folder.name, error)
                shutil.rmtree(folder / TRAINED)
        if not (weights / "last.pt").exists():
            train.run(**options)
    if not done.exists():
        raise Unfinished(f"{folder.name}: stopped; it is resumed when it is started again")
    return weights / "last.pt"


def score(model: Model, task: Mapping[str, Any], split: str, imgsz: int) -> RoutingScores:
    """The scores of a model on a split; for a dynamic model, on test, with other images' kernel weights too."""
    spec = DatasetSpec.load(task["yaml"])
    records = load_labels(spec, split).records
    loader = validation_loader(records, imgsz, int(model.stride.max()), batch_size=32, workers=0)
    conditions = read_conditions(Path(task["yaml"]).parent)
    evaluator = Evaluator(loader, spec.nc, torch.device("cpu"))
    return evaluate_routings(model, evaluator, conditions, foreign=split == "test")


def result_columns(weights: Path, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of results.csv for a trained run, and the routing by condition."""
    imgsz = int(task["train"].get("imgsz", 640))
    model, _ = load_model(weights)
    summary = summarize(model, imgsz)
    row: dict[str, Any] = {"parameters": summary.parameters, "gflops": round(summary.gflops, 6)}
    for split in task["score"]:
        scores = score(model, task, split, imgsz)
        row |= {f"{split}_map50": scores.own.map50, f"{split}_map": scores.own.map}
        row |= {f"{split}_map_{kind}_pi": result.map for kind, result in scores.foreign.items()}
        if scores.stats:
            entropies = [layer.relative_entropy for layer in scores.stats]
            row |= {
                f"{split}_entropy": float(np.mean(entropies)),
                f"{split}_entropy_low": min(entropies),
                f"{split}_entropy_high": max(entropies),
                f"{split}_sd_pi": float(np.mean([layer.spread for layer in scores.stats])),
                f"{split}_idle": sum(layer.verdict != "ok" for layer in scores.stats) / len(scores.stats),
            }
            row["routing"] = {
                name: {group: mean.tolist() for group, mean in means.items()}
                for name, means in scores.by_condition.items()
            }
    return row


def work(folder: Path) -> None:
    """Do the run of ``folder``, unless it is done."""
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    start, before = time.perf_counter(), os.times()
    error, row = "", {}
    try:
        row = result_columns(train_or_resume(folder, task), task)
    except UntrainableError as untrainable:  # a result too: this rate is too high
        error = str(untrainable)
    after = os.times()
    row |= {
        "commit": commit(),
        "minutes": (time.perf_counter() - start) / 60,
        "cpu_minutes": (after.user + after.system - before.user - before.system) / 60,
        "error": error,
    }
    clean = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
    write_atomic(folder / RESULT, json.dumps(clean).encode())
    for name in ("resume.pt", "best.pt"):
        (folder / TRAINED / "weights" / name).unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Options of ``python -m tools.study.worker``."""

    folder: str = option("", str, "folder", "folder of the run, with its run.json")


def main(options: WorkerOptions) -> None:
    torch.set_num_threads(1)
    folder = Path(options.folder)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system when the process ends, however it does
        if not (folder / RESULT).exists():
            work(folder)


if __name__ == "__main__":
    sys.exit(run_script(main, WorkerOptions))
