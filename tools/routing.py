"""Which kernels the dynamic layers of a trained model use, on the images of a set.

    python -m tools.routing --weights runs/train/exp/weights/best.pt --data my.yaml

Prints a line per layer; ``routing.csv``, ``routing.json`` and images go to ``runs/routing/exp``.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tools.options import RoutingOptions
from utils.config.cli import answer_early, run_script

answer_early(RoutingOptions, __name__)

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.routing import RoutingStats, layer_names
from models.user_modules import load_modules
from utils.checkpoint import Checkpoint, load_model
from utils.checkpoint.detector import newest_checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.paths import ROOT, TRAIN_RUNS
from utils.config.sizes import chosen_side
from utils.core.device import select_device
from utils.core.errors import InputError
from utils.core.files import write_atomic
from utils.core.image import to_model_input
from utils.core.names import counted
from utils.core.output import run_folder
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import Batch, build_loader
from utils.evaluation import Evaluator
from utils.evaluation.batches import validation_loader
from utils.evaluation.observers import RoutingObserver
from utils.evaluation.routing_scores import RoutingScores, evaluate_routings, read_conditions
from utils.loggers.routing_csv import ROUTING_CSV, csv_table
from utils.plots.routing import plot_class_routing, plot_shares
from utils.training.schedule import too_short

LOG = logging.getLogger(__name__)
TOO_EARLY = "too early to say"


@torch.no_grad()
def observe(model: nn.Module, batches: Iterable[Batch], nc: int, device: torch.device) -> tuple[RoutingStats, ...]:
    """Run ``model`` on all images; returns the statistics of its dynamic layers, in the order of the model."""
    model.eval()
    with RoutingObserver(model, nc) as observer:
        for index, batch in enumerate(tqdm(batches, desc="routing", leave=False, dynamic_ncols=True)):
            model(to_model_input(batch.images, device))
            observer.on_batch(index, batch, [])
    return observer.layer_stats()


def require_dynamic(model: nn.Module, weights: Path) -> None:
    """Raise InputError: the model has no dynamic layers."""
    if layer_names(model):
        return
    shipped = {path.name for path in (ROOT / "models").rglob("*.yaml") if "dynamic" in str(path.relative_to(ROOT))}
    raise InputError(
        f"--weights {weights}: the model has no dynamic layers, so there is no routing to show; train one of these "
        f"with --cfg: {', '.join(sorted(shipped))}"
    )


def trained_too_little(checkpoint: Checkpoint) -> bool:
    """Whether the weights have seen too few optimizer steps for a verdict; False where none are recorded."""
    epoch = checkpoint.train_state.get("epoch", -1)
    return epoch >= 0 and too_short(epoch + 1, checkpoint.ema_updates)


def log_layers(stats: Sequence[RoutingStats], early: bool = False) -> None:
    """Log the table: a line per layer, with the verdict ``TOO_EARLY`` if ``early``."""
    width = max(5, *(len(layer.name) for layer in stats))
    shares = [" ".join(f"{share:4.2f}" for share in layer.dominant) for layer in stats]
    wide = max(8, *(len(text) for text in shares))
    LOG.info(f"{'layer':<{width}}  {'K':>2}  {'T':>5}  {'H/lnK':>5}  {'spread':>6}  {'dominant':<{wide}}  verdict")
    for layer, share in zip(stats, shares):
        t = "-" if layer.temperature is None else f"{layer.temperature:g}"
        numbers = f"{layer.kernels:>2}  {t:>5}  {layer.relative_entropy:5.3f}  {layer.spread:6.4f}"
        LOG.info(f"{layer.name:<{width}}  {numbers}  {share:<{wide}}  {TOO_EARLY if early else layer.verdict}")
    LOG.info("H/lnK: 1 mixes all kernels evenly, 0 takes one an image; dominant: share of images led by each kernel")
    if any(layer.normalized for layer in stats):
        names = ", ".join(layer.name for layer in stats if layer.normalized)
        LOG.info("weights that do not sum to one were divided by their sum first: %s", names)
    if any(layer.temperature is not None and layer.temperature > 1 for layer in stats):
        LOG.info("T is above 1: the softmax is still smoothed, and layers look more uniform than they will be at T=1")


def as_plain(layer: RoutingStats, names: Sequence[str], early: bool = False) -> dict[str, Any]:
    """All statistics of a layer as plain values; classes by name, null for those that no image contains."""
    return {
        "layer": layer.name,
        "kernels": layer.kernels,
        "temperature": layer.temperature,
        "samples": layer.samples,
        "normalized": layer.normalized,
        "mean": layer.mean.tolist(),
        "entropy": layer.entropy,
        "ln_kernels": math.log(layer.kernels),
        "entropy_of_mean": layer.entropy_of_mean,
        "dominant": layer.dominant.tolist(),
        "spread": layer.spread,
        "class_contrast": layer.class_contrast,
        "per_class": [
            {"class": c, "name": name, "mean": row.tolist() if np.isfinite(row).all() else None}
            for c, (name, row) in enumerate(zip(names, layer.per_class))
        ],
        "verdict": TOO_EARLY if early else layer.verdict,
    }


def write_routing_files(
    stats: Sequence[RoutingStats], names: Sequence[str], about: dict[str, Any], folder: Path, early: bool = False
) -> None:
    """Write the table, the statistics and the plots."""
    write_atomic(folder / ROUTING_CSV, csv_table(stats).encode())
    content = {**about, "layers": [as_plain(layer, names, early) for layer in stats]}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "routing.json", text.encode())
    plot_shares(stats, folder / "routing_layers.png")
    plot_shares(stats, folder / "routing_dominant.png", dominant=True)
    if not plot_class_routing(stats, names, folder / "routing_classes.png"):
        LOG.warning("the images have no labels: no routing_classes.png")


def log_foreign(scores: RoutingScores) -> None:
    """Log the mAP with the weights of other images: the layers depend on the image as far as it becomes lower."""
    words = {
        "mean": "the mean weights of all images",
        "same": "those of another image of the same condition",
        "other": "those of an image of another condition",
        "any": "those of another image",
    }
    LOG.info("mAP@.5:.95 %.4f with its own kernel weights", scores.own.map)
    for kind, result in scores.foreign.items():
        LOG.info("mAP@.5:.95 %.4f (%+.4f) with %s", result.map, result.map - scores.own.map, words[kind])


def main(options: RoutingOptions) -> None:
    load_modules(options.modules)
    device = select_device(options.device)
    weights = Path(options.weights) if options.weights else newest_checkpoint(TRAIN_RUNS, "best.pt")
    model, checkpoint = load_model(weights, device)
    require_dynamic(model, weights)
    data = options.data or checkpoint.options.get("data") or ROOT / "data/digits.yaml"
    spec = DatasetSpec.load(data)
    labels = load_labels(spec, options.task)
    stride = int(model.stride.max())
    imgsz = chosen_side(options.imgsz, [model.imgsz], stride)
    dataset = DetectionDataset(labels.records, imgsz, rect=True, batch_size=options.batch_size, stride=stride, pad=0.5)
    loader = build_loader(dataset, batch_size=options.batch_size, workers=options.workers)
    stats = observe(model, loader, spec.nc, device)
    if not stats:
        raise InputError(f"--weights {weights}: no dynamic layer gave kernel weights; is the checkpoint damaged?")
    with run_folder(options.project, options.name, options.exist_ok) as folder:
        LOG.info("%s on %s (%s, %s)", weights, counted(len(labels.records), "image"), data, options.task)
        early = trained_too_little(checkpoint)
        log_layers(stats, early)
        if early:
            LOG.info(
                "trained for %s, %s: too early to say whether its layers will use their kernels",
                counted(checkpoint.train_state["epoch"] + 1, "epoch"),
                counted(checkpoint.ema_updates, "optimizer step"),
            )
        about: dict[str, Any] = {"weights": str(weights), "data": str(data), "task": options.task, "imgsz": imgsz}
        if options.foreign:
            scored = validation_loader(
                labels.records, imgsz, stride, batch_size=options.batch_size, workers=options.workers
            )
            conditions = read_conditions(labels.records[0].image.parent)
            scores = evaluate_routings(model, Evaluator(scored, spec.nc, device), conditions)
            log_foreign(scores)
            about["map"] = scores.own.map
            about["map_foreign"] = {kind: result.map for kind, result in scores.foreign.items()}
        write_routing_files(stats, spec.names, about, folder, early)
        LOG.info("results are in %s", folder)


if __name__ == "__main__":
    sys.exit(run_script(main, RoutingOptions))
