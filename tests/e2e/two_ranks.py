"""What two processes find out together; started twice by test_distributed.py, the answers go to a file per rank.

python tests/e2e/two_ranks.py data.yaml folder
"""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import train
from models.dynamic import attention_layers, temperatures
from models.yolo import Model
from utils.checkpoint import load_checkpoint
from utils.config.dataset_spec import DatasetSpec
from utils.config.hyp import Hyp
from utils.config.options import TrainOptions
from utils.core.callbacks import BatchEnd, Callback
from utils.core.dist import ALONE, Ranks, connect_ranks
from utils.core.errors import InputError
from utils.datasets.dataset import DetectionDataset
from utils.datasets.labels.splits import load_labels
from utils.datasets.loader import build_loader
from utils.evaluation import Evaluator
from utils.evaluation.observers import RoutingObserver
from utils.loss import DetectionLoss
from utils.training import validation
from utils.training.batch_norm import JointBatchNorm2d, synchronize_norms
from utils.training.distributed import distribute
from utils.training.session import Session

CPU = torch.device("cpu")
DATA, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])


def loss_of(model: Model, ranks: Ranks) -> DetectionLoss:
    return DetectionLoss(model.head.anchors, model.head.stride, model.nc, Hyp(), ranks)


def gradients(ranks: Ranks, count: int, cfg: str, sync_bn: bool) -> dict[str, float]:
    """How far loss and gradients of two processes are from those of one with the batch of both."""
    torch.manual_seed(0)
    model = Model(cfg, nc=2)
    alone = copy.deepcopy(model)
    if sync_bn:
        synchronize_norms(model, CPU, ranks)
    network = distribute(model, CPU, ranks)
    for module in (*model.modules(), *alone.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.training = sync_bn
    images = torch.rand(count, 3, 64, 64)
    # Many boxes on the first image, one on the last: means over each half alone would weigh them otherwise.
    boxes = torch.rand(6, 4) * 0.3 + 0.35
    image = torch.tensor([[0.0]] * 5 + [[count - 1.0]])
    targets = torch.cat([image, torch.arange(6.0)[:, None] % 2, boxes], dim=1)

    whole = loss_of(alone, ALONE)(alone(images), targets)
    whole.total.backward()
    half = math.ceil(count / 2)
    places = range(half) if ranks.main else range(half, count)
    own = targets[(targets[:, 0] >= places.start) & (targets[:, 0] < places.stop)]
    own[:, 0] -= places.start
    mine = images[places.start : places.stop] if len(places) else torch.full((1, 3, 64, 64), 0.4)
    for norm in (module for module in model.modules() if isinstance(module, JointBatchNorm2d)):
        norm.empty_batch = len(places) == 0
    items = loss_of(model, ranks)(network(mine), own, len(places))
    items.total.backward()

    expected = [p.grad for p in alone.parameters() if p.grad is not None]
    found = [p.grad for p in model.parameters() if p.grad is not None]
    parts = [(whole.box, items.box), (whole.obj, items.obj), (whole.cls, items.cls)]
    scale = max(float(g.abs().max()) for g in expected)
    return {
        "loss": max(abs(float(a - b)) for a, b in parts),
        "gradient": max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True)) / scale,
        "statistics": max(
            float((a.float() - b.float()).abs().max())
            for a, b in zip(alone.state_dict().values(), model.state_dict().values(), strict=True)
        ),
    }


class Seer(torch.nn.Module):
    """Finds the coloured rectangle of an image, in some images better than in others."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, None]:
        found = torch.zeros(len(images), 1, 7)
        for i, image in enumerate(images):
            y, x = (image.amax(0) - image.amin(0) > 0.2).nonzero(as_tuple=True)
            if len(x):
                wh = torch.stack([x.max() - x.min(), y.max() - y.min()]) + 1.0
                centre = torch.stack([x.min(), y.min()]) + wh * (0.5 + (image.mean() * 1000).frac() / 5)
                red = float(image[0, y, x].mean() > image[1, y, x].mean())
                found[i, 0] = torch.tensor([*centre, *wh, 1 - image.mean(), red, 1 - red])
        return found, None


def evaluation(ranks: Ranks) -> dict[str, Any]:
    """Figures of a validation by two processes, and by this one alone."""
    records = load_labels(DatasetSpec.load(DATA), "val").records  # 5 images in batches of 4: a blank one for rank 1
    torch.manual_seed(0)
    model = Model("yolov5n_dynamic.yaml", nc=2)
    with torch.no_grad():
        for conv in model.head.m:
            conv.bias.view(model.head.na, -1)[:, 4:] = 2.0  # sure of objects everywhere
    found = {}
    for name, who in (("two", ranks), ("one", ALONE)):
        data = DetectionDataset(records, 64, rect=True, batch_size=4, pad=0.5)
        loader = build_loader(data, batch_size=4, workers=0, ranks=who)
        with RoutingObserver(model, 2, who) as routing:
            result = Evaluator(loader, 2, CPU, ranks=who).run(model, loss_of(model, who), [routing])
        seen = Evaluator(loader, 2, CPU, ranks=who).run(Seer())
        found[name] = {
            "figures": [seen.precision, seen.recall, seen.map50, seen.map],
            "losses": result.losses,
            "counts": [result.images, result.labels, result.detections, *result.labels_per_class.tolist()],
            "confusion": result.confusion.matrix.tolist(),
            "routing": [[r.samples, r.entropy, r.mean.tolist(), r.per_class.tolist()] for r in routing.layer_stats()],
        }  # fmt: skip
    return found


# Runs -----------------------------------------------------------------------------------------------------------------


class At(Callback):
    """Does something after a batch."""

    def __init__(self, epoch: int, index: int, action: Callable[[], Any]) -> None:
        self.place, self.action = (epoch, index), action

    def on_train_batch_end(self, event: BatchEnd) -> None:
        if (event.epoch, event.index) == self.place:
            self.action()


@contextmanager
def prepared(hook: Callable[[Session], Session | None] | None, sessions: list[Session]) -> Iterator[None]:
    """While open, ``hook`` sees each run before its first epoch."""
    original = train.prepare

    def prepare(*given: Any) -> Session:
        session = original(*given)
        sessions.append((hook and hook(session)) or session)
        return sessions[-1]

    train.prepare = prepare
    try:
        yield
    finally:
        train.prepare = original


def run(
    ranks: Ranks, hook: Callable[[Session], Session | None] | None = None, **given: Any
) -> tuple[Session, int | str]:
    """A run of train.py: its session, and its exit code or the error it ended with."""
    settings = {"data": str(DATA), "cfg": "yolov5n.yaml", "epochs": 2, "batch_size": 4, "imgsz": 64, "name": "x"}
    settings |= {"workers": 0, "device": "cpu", "project": str(FOLDER), "exist_ok": True}
    options = TrainOptions(**given) if "resume" in given else TrainOptions(**settings | given)
    sessions: list[Session] = []
    with prepared(hook, sessions):
        try:
            code: int | str = train.train(options, ranks)
        except InputError as error:
            code = str(error)
    return sessions[0] if sessions else None, code  # type: ignore[return-value]


def state(session: Session) -> dict[str, Any]:
    """A run's tensors as sums, by which runs can be told apart, and where it stands."""
    sums = {
        part: float(sum(value.double().abs().sum() for value in module.state_dict().values()))
        for part, module in (("model", session.model), ("ema", session.ema.model))
    }
    return {
        **sums,
        "epochs": session.state.first_epoch,
        "best": session.state.early_stopping.best_fitness,
        "updates": session.ema.updates,
    }


def early_stop(ranks: Ranks) -> dict[str, Any]:
    """Patience 1 with a fitness that only falls, which rank 0 alone sees; the images are drawn by weight."""
    values = iter(np.arange(0.9, 0, -0.1))
    original, drawn = validation.fitness, []
    validation.fitness = lambda _: np.array([next(values) if ranks.main else 1.0])

    def hook(session: Session) -> None:
        session.callbacks.add(At(1, 0, lambda: drawn.extend(list(session.sampler))))

    try:
        session, code = run(ranks, hook, epochs=6, patience=1, image_weights=True, name="early")
    finally:
        validation.fitness = original
    return {"code": code, "epoch": session.state.progress.epoch, "drawn": drawn}


def stopped_and_resumed(ranks: Ranks) -> dict[str, Any]:
    """A run with a signal to rank 1 in its second epoch, gone on with, against a whole one."""
    whole, _ = run(ranks, name="whole", multi_scale=True)

    def hook(session: Session) -> None:
        if ranks.rank == 1:
            session.callbacks.add(At(1, 0, lambda: signal.raise_signal(signal.SIGTERM)))

    parts, code = run(ranks, hook, name="parts", multi_scale=True)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    at = [parts.state.progress.epoch, parts.state.progress.batches, parts.stop.requested]
    done = load_checkpoint(FOLDER / "parts/weights/last.pt").train_state["position"]["batches"]
    resumed, _ = run(ranks, resume=str(FOLDER / "parts"))
    return {"code": code, "at": at, "saved": done, "whole": state(whole), "resumed": state(resumed)}


def other_numbers(ranks: Ranks) -> dict[str, Any]:
    """Runs of one process that two go on with, and the other way round, in the middle of an epoch."""

    def stop(session: Session) -> None:
        session.callbacks.add(At(1, 0, lambda: signal.raise_signal(signal.SIGTERM)))

    given = {
        "sync_bn": True,
        "multi_scale": True,
        "noval": True,
    }  # joint batch norm: else each process has statistics of its own
    mine = f"alone{ranks.rank}"
    whole, _ = run(ALONE, name=f"undivided{ranks.rank}", **given)
    first, _ = run(ALONE, stop, name=mine, **given)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ranks.gather(None)
    more, code = run(ranks, resume=str(FOLDER / "alone0"))
    pair, _ = run(ranks, stop, name="pair", **given)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ranks.gather(None)
    shutil.copytree(FOLDER / "pair", FOLDER / f"pair{ranks.rank}")
    fewer, other_code = run(ALONE, resume=str(FOLDER / f"pair{ranks.rank}"))
    return {
        "codes": [code, other_code], "stopped": [first.state.progress.batches, pair.state.progress.batches],
        "whole": state(whole), "more": state(more), "fewer": state(fewer),
    }  # fmt: skip


def two_machines(ranks: Ranks) -> dict[str, Any]:
    """A run of two machines of one process each, which have a copy of the data each; then one has an image less."""
    alone_there = replace(ranks, local_rank=0, local_size=1)
    own = FOLDER / f"machine{ranks.rank}"
    shutil.copytree(DATA.parent, own / "set")
    given = {"data": str(own / "set" / DATA.name), "project": str(own / "runs"), "epochs": 1}
    session, code = run(alone_there, **given)
    if ranks.rank == 1:
        (own / "set/images/train/0.png").unlink()
    ranks.gather(None)
    refused = run(alone_there, **given)[1]
    return {
        "code": code, "refused": refused, "own": session.records[0].image.is_relative_to(own),
        "written": [(FOLDER / f"machine{rank}/runs/x/weights/best.pt").is_file() for rank in range(2)],
    }  # fmt: skip


def faulty_batch(ranks: Ranks) -> dict[str, Any]:
    """A loss that is not a number on rank 1 only: refused, or left out if that is allowed."""

    def hook(session: Session) -> None:
        if ranks.rank == 1:
            session.model.model[9].register_forward_hook(
                lambda m, _, out: out * math.nan if m.training and session.state.progress.batches == 1 else out
            )

    _, refused = run(ranks, hook, epochs=1, noval=True, name="refused")
    session, code = run(ranks, hook, epochs=1, skip_nonfinite=2, noval=True, name="skipped")

    def behind_the_norms(session: Session) -> None:
        if ranks.rank == 1:
            session.model.head.m[0].register_forward_hook(
                lambda m, _, out: out * math.nan if m.training and session.state.progress.batches == 1 else out
            )

    joint, joint_code = run(
        ranks, behind_the_norms, epochs=1, skip_nonfinite=2, noval=True, sync_bn=True, name="joint"
    )  # fmt: skip
    return {
        "refused": refused, "code": code, "skipped": session.state.skipped, "state": state(session),
        "joint": [joint_code, joint.state.skipped],
    }  # fmt: skip


def no_batch(ranks: Ranks) -> Any:
    """An image that rank 1 cannot read."""

    def hook(session: Session) -> None:
        def fail(keys: Any) -> Any:
            if session.state.progress.batches == 1:
                raise InputError("a.png: gone")
            return collate(keys)

        if ranks.rank == 1:
            collate = session.loader.collate_fn
            session.loader.collate_fn = fail

    return run(ranks, hook, epochs=1, name="nobatch")[1]


def idle_parameter(ranks: Ranks) -> dict[str, Any]:
    """A layer with a parameter that gets no gradient."""

    def hook(session: Session) -> Session:
        session.model.model[3].register_parameter("spare", torch.nn.Parameter(torch.ones(1)))
        return replace(session, network=distribute(session.model, CPU, ranks))

    session, code = run(ranks, hook, epochs=1, noval=True, name="idle")
    return {"code": code, "spare": float(session.model.model[3].spare), "batches": session.state.progress.batches}


class RoutingNotes(Callback):
    """After every batch: the temperatures of model and average, and the sum of the routing weights' parameters."""

    def __init__(self, session: Session) -> None:
        self.session, self.steps = session, list[list[float]]()

    def on_train_batch_end(self, event: BatchEnd) -> None:
        models = self.session.model, self.session.ema.model
        self.steps.append([*(t for model in models for t in temperatures(model)), *map(routing_sum, models)])


def routing_sum(model: torch.nn.Module) -> float:
    """Sum of the parameters of all routings, each times its index, so that exchanged values show."""
    parameters = [p.detach().double() for _, layer in attention_layers(model) for p in layer.parameters()]
    return float(sum((p * torch.arange(1, p.numel() + 1).view_as(p)).sum() for p in parameters))


def dynamic_start(ranks: Ranks) -> dict[str, Any]:
    """The routing after calibration, from scratch and from static weights, and in every step of a temperature span."""
    hyp = FOLDER / f"span{ranks.rank}.yaml"
    hyp.write_text("routing_deviation: 1\ntemperature_span: 0.5\n", encoding="utf-8")
    given = {"cfg": "yolov5n_dynamic_head.yaml", "noval": True, "hyp": str(hyp)}
    notes: list[RoutingNotes] = []
    starts: list[float] = []

    def hook(session: Session) -> None:
        starts.append(routing_sum(session.model))
        notes.append(RoutingNotes(session))
        session.callbacks.add(notes[0])

    run(ranks, hook, epochs=4, name="span", **given)
    alone, _ = run(ALONE, epochs=0, name=f"alone-start{ranks.rank}", **given)
    if ranks.main:
        run(ALONE, epochs=1, noval=True, name="static")
    ranks.gather(None)
    inflated, _ = run(
        ranks, epochs=0, name="inflated", cfg=given["cfg"], weights=str(FOLDER / "static/weights/last.pt")
    )
    layer = inflated.model.model[10].conv
    return {
        "start": starts[0], "alone": routing_sum(alone.model), "steps": notes[0].steps,
        "inflated": routing_sum(inflated.model),
        "equal kernels": all(torch.equal(kernel, layer.weight[0]) for kernel in layer.weight),
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in ("plot_labels", "plot_batch", "plot_results", "plot_routing"):
        setattr(sys.modules["utils.loggers.plots_logger"], name, lambda *_: None)
    sys.modules["utils.evaluation.observers"].plot_batch = lambda *_: None  # type: ignore[attr-defined]
    sys.modules["utils.training.finish"].save_plots = lambda *_: None  # type: ignore[attr-defined]
    sys.modules["utils.training.setup"]._log_summary = lambda *_, **__: None  # type: ignore[attr-defined]
    with connect_ranks() as ranks:
        answers: dict[str, Any] = {
            "batch norm still": gradients(ranks, 5, "yolov5n_dynamic.yaml", sync_bn=False),
            "batch norm joint": gradients(ranks, 5, "yolov5n.yaml", sync_bn=True),
            "nothing for rank 1": gradients(ranks, 1, "yolov5n.yaml", sync_bn=False),
            "joint, nothing for rank 1": gradients(ranks, 1, "yolov5n.yaml", sync_bn=True),
        }
        for answer in (
            evaluation,
            early_stop,
            stopped_and_resumed,
            other_numbers,
            two_machines,
            faulty_batch,
            no_batch,
            idle_parameter,
            dynamic_start,
        ):
            answers[answer.__name__] = answer(ranks)
            (FOLDER / f"rank{ranks.rank}.json").write_text(json.dumps(answers), encoding="utf-8")
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    main()
