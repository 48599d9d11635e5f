"""The model of a run before its first epoch: weights, anchors, precision and the start of its routing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.dynamic import temperatures
from models.dynamic_convolution import DEFAULT_TEMPERATURE
from models.inflate import DEVIATION, calibrate_routing
from models.yolo import Model
from utils.checkpoint import load_checkpoint, transfer
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.train_slices import ModelOptions
from utils.core.dist import Ranks
from utils.core.errors import InputError, UntrainableError
from utils.core.image import to_model_input
from utils.datasets.anchors import box_sizes, check_anchors
from utils.datasets.labels.records import LabelRecord
from utils.evaluation.batches import validation_loader
from utils.training.batch_norm import synchronize_norms
from utils.training.freeze import FrozenLayers
from utils.training.precision import kept_precision, mixed_precision
from utils.training.resume import Resumed, check_resumable, same_model

LOG = logging.getLogger(__name__)
CALIBRATION_IMAGES = 64  # over which the routing of inflated layers is calibrated
DEFAULT_CFG = "yolov5n_dynamic.yaml"  # when neither --cfg nor --weights is given


@dataclass(frozen=True)
class StartModel:
    """The model that a run starts with.

    Attributes:
        model: with the weights of ``--weights`` where they fit; those of a resumed run are loaded later.
        frozen: its layers that are not trained.
        inflated: names of its dynamic layers made from static ones; None: a run is resumed.
    """

    model: Model
    frozen: FrozenLayers
    inflated: list[str] | None


def start_model(
    options: ModelOptions, hyp: Hyp, spec: DatasetSpec, device: torch.device, ranks: Ranks, resumed: Resumed | None
) -> StartModel:
    """Build the model of ``--cfg``, of ``--weights`` or of the run that is resumed, on the CPU.

    Raises:
        FileNotFoundError, InputError: the model cannot be built, or the checkpoint of the run does not fit it.
    """
    if resumed is None:
        model, inflated = _new_model(options, hyp, spec)
    else:
        model, inflated = same_model(resumed, spec), None
    if options.sync_bn:
        synchronize_norms(model, device, ranks)
    frozen = FrozenLayers(model, options.freeze)
    ranks.on_main(check_resumable, resumed, model, hyp, options.optimizer)
    return StartModel(model, frozen, inflated)


def _new_model(options: ModelOptions, hyp: Hyp, spec: DatasetSpec) -> tuple[Model, list[str]]:
    anchors = None if hyp.anchors is None else round(hyp.anchors)
    source = load_checkpoint(options.weights) if options.weights else None
    if source is None and not options.cfg:
        LOG.info("neither --cfg nor --weights given: training %s from scratch", DEFAULT_CFG)
    of_weights = {**source.model_yaml, "yaml_file": options.weights} if source else DEFAULT_CFG
    cfg: Any = options.cfg or of_weights
    model = Model(cfg, nc=spec.nc, anchors=anchors)
    model.names = list(spec.names)
    if own := [t for t in temperatures(model) if t not in (DEFAULT_TEMPERATURE, hyp.temperature_start)]:
        LOG.warning(
            f"a temperature of {own[0]:g} in the model yaml has no effect on training: temperature_start of the --hyp "
            f"file ({hyp.temperature_start:g}) is that of all dynamic layers"
        )
    if source is None:
        return model, []
    model.imgsz = source.recorded_size(options.weights)
    exclude = ("anchors",) if options.cfg or anchors else ()
    report = transfer(model, source.weights, exclude, hyp.kernel_spread)
    report.log(options.weights)
    if not report.taken and not report.inflated:
        raise InputError(f"--weights {options.weights}: not one tensor fits the model {options.cfg}")
    return model, [one.layer for one in report.inflated]


def set_anchors(model: Model, records: Sequence[LabelRecord], hyp: Hyp, imgsz: int, seed: int, ranks: Ranks) -> None:
    """Replace the anchors of the model where they do not fit the boxes of the training set."""
    anchors = ranks.on_main(_fit_anchors, model, records, hyp, imgsz, seed)
    if anchors is not None:
        model.head.set_anchors_px(anchors)


def _fit_anchors(model: Model, records: Sequence[LabelRecord], hyp: Hyp, imgsz: int, seed: int) -> Tensor | None:
    """Return anchors [nl, na, 2] in pixels at the training size; None to keep those of the model."""
    wh, owner = box_sizes([r.hw for r in records], [r.boxes for r in records], imgsz)
    rng = np.random.default_rng(seed)
    check = check_anchors(wh, model.head.anchors_px.numpy().reshape(-1, 2), hyp.anchor_t, imgsz, rng, owner)
    LOG.info(check.message)
    return None if check.anchors is None else torch.from_numpy(check.anchors).float()


def require_anchors(model: Model, hyp_file: str) -> None:
    """Raise UntrainableError: the model has placeholders in place of anchors."""
    if (model.head.anchors <= 0).any():
        raise UntrainableError(
            f"the model has placeholder anchors: its yaml or --hyp {hyp_file} gives only their number and they were "
            "not fitted; omit --noautoanchor, label more boxes, or list the anchors in the yaml"
        )


def choose_precision(
    requested: bool | None, model: Model, device: torch.device, ranks: Ranks, resumed: Resumed | None
) -> bool:
    """Decide whether the run uses mixed precision, the same for all ranks.

    Args:
        requested: by ``--amp`` or ``--no-amp``; None: by neither.
        model: on ``device``.
    """
    if resumed is not None:
        return kept_precision(requested, resumed.checkpoint.train_state.get("amp"), device)
    return not ranks.any(not mixed_precision(requested, model, device))


def start_routing(
    start: StartModel, hyp: Hyp, records: Sequence[LabelRecord], imgsz: int, device: torch.device, ranks: Ranks
) -> None:
    """Calibrate the routing of dynamic layers on some training images, see ``Hyp.routing_deviation``."""
    model, inflated = start.model, start.inflated
    if inflated is None or (hyp.routing_deviation is None and (hyp.kernel_spread or not inflated)):
        return
    places = np.linspace(0, len(records) - 1, min(len(records), CALIBRATION_IMAGES)).astype(int)
    chosen = [records[i] for i in places]
    loader = validation_loader(chosen, imgsz, int(model.stride.max()), batch_size=16, workers=0, rect=False)
    images = (to_model_input(batch.images, device) for batch in loader)
    if hyp.routing_deviation is None:
        deviation, layers = DEVIATION, inflated
    else:
        deviation, layers = hyp.routing_deviation, None
    if count := calibrate_routing(model, images, deviation, layers):
        LOG.info(
            f"routing of {count} dynamic layers set on {len(chosen)} images: logits of mean 0 and standard deviation "
            f"{deviation:g}"
        )
    ranks.spread(model)
