"""train.py from the options to the run folder."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import train
from models.dynamic import get_temperature
from utils.checkpoint import Checkpoint, load_checkpoint, load_model
from utils.config.options import TrainOptions
from utils.core.callbacks import BatchEnd, Callback, CheckpointSaved, EpochEnd, EpochStart
from utils.core.errors import InputError
from utils.loggers.results_csv import V61_COLUMNS
from utils.loss import LossItems
from utils.training import saver, validation
from utils.training.multi_scale import resize_batch
from utils.training.session import Session
from utils.training.setup import prepare

ROOT = Path(__file__).resolve().parents[2]
DYNAMIC = "yolov5n_dynamic.yaml"
WEIGHTS = {"last.pt", "best.pt", "resume.pt"}  # of a finished run

Rows = Callable[[Path], list[dict[str, str]]]
Options = Callable[..., TrainOptions]
Training = Callable[..., Session]
MakeDataset = Callable[..., Path]


class InterruptAt(Callback):
    """Ctrl-C as an epoch begins."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, event: EpochStart) -> None:
        if event.epoch == self.epoch:
            raise KeyboardInterrupt


class Watch(Callback):
    """Notes what goes by."""

    def __init__(self) -> None:
        self.batches: list[BatchEnd] = []
        self.saved: list[CheckpointSaved] = []
        self.epochs: list[EpochEnd] = []

    def on_train_batch_end(self, event: BatchEnd) -> None:
        self.batches.append(event)

    def on_train_epoch_end(self, event: EpochEnd) -> None:
        self.epochs.append(event)

    def on_model_save(self, event: CheckpointSaved) -> None:
        self.saved.append(event)


def listening(*callbacks: Callback) -> Callable[[Session], None]:
    """A hook that adds callbacks."""

    def hook(session: Session) -> None:
        for callback in callbacks:
            session.callbacks.add(callback)

    return hook


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def differences(a: Any, b: Any, place: str = "") -> list[str]:
    """Where two nested records of plain values and tensors differ, to the last digit."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{place}: keys {a.keys() ^ b.keys()}"]
        return [text for key in a for text in differences(a[key], b[key], f"{place}/{key}")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [place]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return [text for i, (x, y) in enumerate(zip(a, b)) for text in differences(x, y, f"{place}/{i}")]
    return [] if type(a) is type(b) and a == b else [place]


def state_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything a run is made of, without where and when it was written."""
    return {k: v for k, v in vars(checkpoint).items() if k not in ("options", "date", "versions")}


# What a run leaves behind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "weights/last.pt", "weights/best.pt", "results.csv", "results.png", "labels.jpg", "labels_correlogram.jpg",
        "train_batch0.jpg",
        "train_batch1.jpg", "val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png", "PR_curve.png",
        "F1_curve.png", "P_curve.png", "R_curve.png", "opt.yaml", "hyp.yaml",
    ],
)  # fmt: skip
def test_a_run_leaves_the_files_of_v61(trained: Path, name: str) -> None:
    assert (trained / name).stat().st_size > 0


def test_the_results_have_the_columns_of_v61_first(trained: Path, results: Rows) -> None:
    rows = results(trained)
    assert tuple(rows[0])[: len(V61_COLUMNS)] == V61_COLUMNS
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())


def test_the_options_and_hyper_parameters_are_recorded(trained: Path) -> None:
    options = yaml.safe_load((trained / "opt.yaml").read_text(encoding="utf-8"))
    hyp = yaml.safe_load((trained / "hyp.yaml").read_text(encoding="utf-8"))
    assert (options["imgsz"], options["cfg"], options["epochs"], hyp["lr0"]) == (64, DYNAMIC, 2, 0.01)


def test_a_finished_checkpoint_is_half_precision_without_optimizer(trained: Path) -> None:
    checkpoint = load_checkpoint(trained / "weights/best.pt")
    assert not checkpoint.resumable and checkpoint.ema is None
    assert checkpoint.model["model.0.conv.weight"].dtype == torch.float16
    assert checkpoint.names == ["red", "green"]


# Temperature ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def annealed(tmp_path_factory: pytest.TempPathFactory, training: Training) -> tuple[Path, list[tuple[Any, ...]]]:
    """Fourteen epochs of one batch, and the temperatures met on the way: (epoch, what, T)."""
    seen: list[tuple[Any, ...]] = []

    def save(path: Path, checkpoint: Checkpoint) -> None:
        assert checkpoint.ema is not None
        epoch = checkpoint.train_state["epoch"]
        for part, state in (("model", checkpoint.model), ("ema", checkpoint.ema)):
            found = {float(v) for k, v in state.items() if k.endswith("temperature")}
            seen.append((epoch, f"{path.name} {part}", *found))
        if epoch == 13:
            written(path, checkpoint)

    def hook(session: Session) -> None:
        run = session.evaluator.run

        def watched(model: Any, *rest: Any) -> Any:
            seen.append((None, "scored", get_temperature(model)))
            return run(model, *rest)

        session.evaluator.run = watched  # type: ignore[method-assign]

    with pytest.MonkeyPatch.context() as patch:
        written = saver.save_checkpoint
        patch.setattr(saver, "save_checkpoint", save)
        better = iter(range(1, 100))  # every epoch is the best so far, so that every epoch writes best.pt
        patch.setattr(validation, "fitness", lambda _: np.array([next(better)]))
        session = training(tmp_path_factory.mktemp("annealed"), hook, cfg=DYNAMIC, epochs=14)
    return session.save_dir, seen


TEMPERATURES = [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1, 1]


def test_the_temperature_falls_by_three_an_epoch_to_one(annealed: tuple[Path, Any], results: Rows) -> None:
    assert column(results(annealed[0]), "temperature") == TEMPERATURES


def test_the_averaged_model_is_scored_at_the_temperature_of_its_epoch(annealed: tuple[Path, Any]) -> None:
    scored = [entry[2] for entry in annealed[1] if entry[1] == "scored"]
    assert scored == [*TEMPERATURES, 1]  # the last one is best.pt


@pytest.mark.parametrize("what", ["last.pt model", "last.pt ema", "best.pt model", "best.pt ema"])
def test_every_checkpoint_carries_the_temperature_of_its_epoch(annealed: tuple[Path, Any], what: str) -> None:
    found = {entry[0]: entry[2:] for entry in annealed[1] if entry[1] == what}
    assert found == {epoch: (t,) for epoch, t in enumerate(TEMPERATURES)}


def test_the_finished_file_is_at_the_last_temperature(annealed: tuple[Path, Any]) -> None:
    model, _ = load_model(annealed[0] / "weights/last.pt")
    assert get_temperature(model) == 1


def test_a_static_model_has_no_temperature_column(tmp_path: Path, training: Training, results: Rows) -> None:
    assert "temperature" not in results(training(tmp_path, files=False).save_dir)[0]


# Going on after an interruption ---------------------------------------------------------------------------------------


def interrupted(training: Training, project: Path, epoch: int, **options: Any) -> Path:
    """Run until Ctrl-C at the start of ``epoch``; returns the run folder."""
    folders = []

    def hook(session: Session) -> None:
        folders.append(session.save_dir)
        session.callbacks.add(InterruptAt(epoch))

    with pytest.raises(KeyboardInterrupt):
        training(project, hook, **options)
    return folders[0]


VARIANTS = {
    "one batch an epoch": {"batch_size": 4, "optimizer": "Adam"},
    "gathered gradients": {"batch_size": 2, "image_weights": True, "multi_scale": True, "cos_lr": True},
}


@pytest.fixture(scope="module", params=VARIANTS)
def twice(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_dataset: MakeDataset,
    training: Training,
) -> tuple[Path, Path, Checkpoint]:
    """Four epochs at once; two, Ctrl-C and two more; and last.pt as the interruption left it."""
    project = tmp_path_factory.mktemp("resume")
    options = {"cfg": DYNAMIC, "epochs": 4, **VARIANTS[request.param]}
    gathered = request.param == "gathered gradients"
    with pytest.MonkeyPatch.context() as patch:
        if gathered:
            # 5 batches an epoch, a step every 3: after 10 batches a gradient waits, and the next batch brings no step.
            hyp = project / "hyp.yaml"
            hyp.write_text("warmup_epochs: 0\nnominal_batch: 6\n", encoding="utf-8")
            options |= {"data": str(make_dataset(project / "set", n_train=10)), "hyp": str(hyp)}
            # As if one class were known well, so that the weights of the images differ from those of the start.
            patch.setattr("utils.evaluation.evaluator.EvalResult.map_per_class", lambda *_: np.array([0.95, 0.0]))
        patch.setattr(saver, "strip_checkpoint", lambda _: 0.0)
        whole = training(project, **options).save_dir
        parts = interrupted(training, project, 2, **options)
        between = load_checkpoint(parts / "weights/last.pt")
        resumed = training(project, resume=str(parts / "weights/last.pt")).save_dir
    assert resumed.resolve() == parts.resolve()
    if gathered:
        assert between.train_state["gradients"] and between.train_state["last_step"] == 8
    return whole, parts, between


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_last_digit(twice: tuple[Path, ...], name: str) -> None:
    whole, parts = (state_of(load_checkpoint(folder / "weights" / name)) for folder in twice[:2])
    assert differences(whole, parts) == []


def test_a_resumed_run_has_the_results_of_an_uninterrupted_one(twice: tuple[Path, ...], results: Rows) -> None:
    whole, parts = (without_times(results(folder)) for folder in twice[:2])
    assert whole == parts
    assert [row["epoch"] for row in whole] == ["0", "1", "2", "3"]


def test_the_comparison_sees_two_epochs_of_training(twice: tuple[Path, Path, Checkpoint]) -> None:
    """The two tests above mean nothing if the last epochs change nothing."""
    whole, between = state_of(load_checkpoint(twice[0] / "weights/last.pt")), state_of(twice[2])
    changed = {place.split("/")[1] for place in differences(whole, between)}
    assert {"model", "ema", "ema_updates", "optimizer", "train_state"} <= changed


def test_a_killed_run_goes_on_at_its_epoch(tmp_path: Path, toy: Path, training: Training, results: Rows) -> None:
    options = {"cfg": DYNAMIC, "epochs": 6, "batch_size": 4, "imgsz": 64}
    words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
    command = [sys.executable, "train.py", *words, f"--data={toy}", "--workers=0", "--device=cpu", "--name=killed"]
    process = subprocess.Popen(
        [*command, f"--project={tmp_path}"], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    file, limit = tmp_path / "killed/results.csv", time.monotonic() + 240
    while process.poll() is None and time.monotonic() < limit:
        if file.exists() and file.read_bytes().count(b"\n") >= 3:  # header and two epochs: the third one runs
            break
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode() if process.stderr else ""
    if process.stderr:
        process.stderr.close()
    training(tmp_path, resume=str(tmp_path / "killed/weights/last.pt"))
    whole = training(tmp_path, name="whole", files=False, **options).save_dir
    for name in ("epoch", "x/lr0", "x/lr1", "x/lr2", "temperature"):
        assert column(results(tmp_path / "killed"), name) == column(results(whole), name)


def test_a_finished_run_is_not_resumed_but_says_how_to_extend_it(trained: Path) -> None:
    with pytest.raises(InputError, match=r"resume\.pt: this run is finished: .* after epoch 2 of 2.* --epochs N"):
        train.main(TrainOptions(resume=str(trained / "weights/last.pt")))


def test_unfinished_weights_without_resume_start_a_new_run(
    tmp_path: Path, training: Training, options_for: Options, results: Rows
) -> None:
    last = interrupted(training, tmp_path, 1, cfg=DYNAMIC, epochs=3) / "weights/last.pt"
    checkpoint = load_checkpoint(last)
    assert checkpoint.ema is not None and checkpoint.resumable
    fresh = prepare(options_for(tmp_path, cfg="", weights=str(last), epochs=2))
    assert (fresh.ema.updates, fresh.state.first_epoch, fresh.state.best_written) == (0, 0, False)
    assert fresh.state.early_stopping.best_fitness == 0
    assert not fresh.optimizer.state
    assert get_temperature(fresh.model) == get_temperature(fresh.ema.model) == 34
    taken = {k: v for k, v in fresh.model.state_dict().items() if not k.endswith(("temperature", "anchors"))}
    assert differences(taken, {k: v for k, v in checkpoint.ema.items() if k in taken}) == []
    rows = results(training(tmp_path, cfg="", weights=str(last), epochs=2, files=False).save_dir)
    assert (column(rows, "epoch"), column(rows, "temperature")) == ([0, 1], [34, 1])


def test_a_loss_that_is_not_a_number_stops_the_run_and_spares_the_last_checkpoint(
    tmp_path: Path, training: Training
) -> None:
    folders = []

    def hook(session: Session) -> Session:
        folders.append(session.save_dir)

        def loss(*inputs: Any) -> LossItems:
            items = session.loss(*inputs)
            factor = float("nan") if session.state.progress.epoch == 1 else 1.0
            return LossItems(items.total * factor, items.box, items.obj, items.cls)

        return replace(session, loss=loss)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"epoch 2, batch 1 of 1 .*nan.*last\.pt is unchanged"):
        training(tmp_path, hook, epochs=3)
    checkpoint = load_checkpoint(folders[0] / "weights/last.pt")
    assert checkpoint.resumable and checkpoint.train_state["epoch"] == 0
    assert all(v.isfinite().all() for v in checkpoint.model.values())


# Options --------------------------------------------------------------------------------------------------------------


def test_frozen_layers_do_not_change_in_the_model_nor_in_the_average(tmp_path: Path, training: Training) -> None:
    before: dict[str, dict[str, torch.Tensor]] = {}

    def copy_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        return {k: v.clone() for k, v in module.state_dict().items()}

    def hook(session: Session) -> None:
        before.update(model=copy_of(session.model), ema=copy_of(session.ema.model))

    session = training(tmp_path, hook, cfg=DYNAMIC, freeze=(10,), epochs=2, batch_size=2, files=False)
    layers = tuple(f"model.{i}." for i in range(10))
    for name, module in (("model", session.model), ("ema", session.ema.model)):
        changed = {k for k, v in module.state_dict().items() if not torch.equal(v, before[name][k])}
        assert [k for k in changed if k.startswith(layers)] == []
        assert {k.split(".")[1] for k in changed} >= {"10", "13", "24"}, f"{name}: the other layers should learn"


@pytest.fixture(scope="module")
def sparing(tmp_path_factory: pytest.TempPathFactory, training: Training) -> Path:
    """Three epochs with --noval --save-period 2 --cos-lr and no warm-up."""
    folder = tmp_path_factory.mktemp("sparing")
    hyp = folder / "hyp.yaml"
    hyp.write_text("warmup_epochs: 0\n", encoding="utf-8")
    return training(folder, epochs=3, noval=True, save_period=2, cos_lr=True, hyp=str(hyp)).save_dir


def test_noval_scores_the_last_epoch_only(sparing: Path, results: Rows) -> None:
    assert [row["metrics/mAP_0.5"] != "" for row in results(sparing)] == [False, False, True]


def test_save_period_keeps_every_second_checkpoint(sparing: Path) -> None:
    assert {path.name for path in (sparing / "weights").iterdir()} == WEIGHTS | {"epoch1.pt"}
    assert load_checkpoint(sparing / "weights/epoch1.pt").train_state["epoch"] == 1


def test_cos_lr_follows_half_a_cosine(sparing: Path, results: Rows) -> None:
    # 0.01 * (0.01 + 0.99 * (1 + cos(pi * epoch / 3)) / 2)
    assert column(results(sparing), "x/lr0") == pytest.approx([0.01, 0.007525, 0.002575])


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, training: Training) -> tuple[Session, Watch]:
    """--patience 2 --nosave with a fitness that only falls: 0.9, 0.8, 0.7 ..."""
    watch, values = Watch(), iter(np.arange(0.9, 0, -0.1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "fitness", lambda _: np.array([next(values)]))
        session = training(tmp_path_factory.mktemp("patience"), listening(watch), epochs=6, patience=2, nosave=True)
    return session, watch


def test_patience_stops_after_as_many_epochs_without_a_better_one(impatient: tuple[Session, Watch]) -> None:
    assert [event.epoch for event in impatient[1].saved] == [2]
    assert len(impatient[1].epochs) == 3


def test_nosave_writes_only_the_final_checkpoint(impatient: tuple[Session, Watch]) -> None:
    session, watch = impatient
    assert len(watch.saved) == 1
    assert {path.name for path in session.saver.last.parent.iterdir()} == WEIGHTS


def test_rect_batches_keep_shape_and_order(tmp_path: Path, make_dataset: MakeDataset, options_for: Options) -> None:
    data = make_dataset(tmp_path / "wide", hw=(64, 96))
    session = prepare(options_for(tmp_path, data=str(data), imgsz=96, rect=True, batch_size=2))
    epochs = []
    for epoch in range(2):
        session.sampler.set_epoch(epoch)
        batches = list(session.loader)
        assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 64, 96)] * 2
        epochs.append([path for batch in batches for path in batch.paths])
    assert epochs[0] == epochs[1]


def test_without_rect_images_are_square_and_shuffled(
    tmp_path: Path, make_dataset: MakeDataset, options_for: Options
) -> None:
    data = make_dataset(tmp_path / "wide", n_train=8, hw=(64, 96))
    session = prepare(options_for(tmp_path, data=str(data), imgsz=96, batch_size=8))
    orders = []
    for epoch in range(2):
        session.sampler.set_epoch(epoch)
        (batch,) = session.loader
        assert tuple(batch.images.shape) == (8, 3, 96, 96)
        orders.append(batch.paths)
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])


@pytest.mark.parametrize(("cache", "reads"), [(None, True), ("ram", False)])
def test_cache_keeps_the_images_in_memory(
    tmp_path: Path, options_for: Options, monkeypatch: pytest.MonkeyPatch, cache: str | None, reads: bool
) -> None:
    session = prepare(options_for(tmp_path, cache=cache))
    read = []
    original = sys.modules["utils.datasets.image_store"].read_image_reduced  # type: ignore[attr-defined]
    monkeypatch.setattr(
        "utils.datasets.image_store.read_image_reduced",
        lambda path, *rest: (read.append(path), original(path, *rest))[1],
    )
    list(session.loader)
    assert bool(read) is reads


def test_multi_scale_varies_the_side_from_batch_to_batch(tmp_path: Path, training: Training) -> None:
    seen = []

    def note(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if model.training:
            seen.append(inputs[0].shape[-1])

    def hook(session: Session) -> None:
        session.model.register_forward_pre_hook(note)

    training(tmp_path, hook, multi_scale=True, epochs=4, batch_size=2, noval=True, files=False)
    assert len(seen) == 8 and len(set(seen)) > 1


def test_multi_scale_sides_are_all_multiples_of_the_stride_between_half_and_one_and_a_half() -> None:
    sides = {resize_batch(torch.zeros(1, 3, 128, 128), 128, 32, (0, i)).shape[-1] for i in range(100)}
    assert sides == {64, 96, 128, 160, 192}


def test_multi_scale_at_the_smallest_size_trains_a_single_image(tmp_path: Path, training: Training) -> None:
    """One stride would leave batch norm a single value a channel, on which it refuses to train."""
    sides = {resize_batch(torch.zeros(1, 3, 64, 64), 64, 32, (0, i)).shape[-1] for i in range(50)}
    assert sides == {64, 96}
    training(tmp_path, multi_scale=True, batch_size=1, epochs=2, noval=True, files=False)


def test_image_weights_draw_only_images_with_objects(
    tmp_path: Path, make_dataset: MakeDataset, training: Training
) -> None:
    data = make_dataset(tmp_path / "set")
    for i in (1, 2, 3):
        (data.parent / f"labels/train/{i}.txt").write_text("", encoding="utf-8")
    watch = Watch()
    training(tmp_path, listening(watch), data=str(data), image_weights=True, files=False)
    assert [Path(path).name for path in watch.batches[0].batch.paths] == ["0.png"] * 4


def test_single_cls_trains_one_class(tmp_path: Path, training: Training) -> None:
    session = training(tmp_path, single_cls=True)
    checkpoint = load_checkpoint(session.saver.best)
    assert (checkpoint.nc, checkpoint.names, session.model.nc) == (1, ["item"], 1)


def test_noautoanchor_keeps_the_anchors_of_the_model(
    tmp_path: Path, make_dataset: MakeDataset, options_for: Options
) -> None:
    data = make_dataset(tmp_path / "set", boxes=4)
    rng = np.random.default_rng(0)
    for file in sorted((data.parent / "labels/train").glob("*.txt")):
        # Strips of 4 by 50 pixels and thereabouts: more than four times as narrow as any anchor near their height.
        rows = [f"0 0.5 0.5 {rng.uniform(0.04, 0.06):.4f} {rng.uniform(0.7, 0.9):.4f}\n" for _ in range(4)]
        file.write_text("".join(rows), encoding="utf-8")
    kept = prepare(options_for(tmp_path, data=str(data), noautoanchor=True)).model.head.anchors_px
    fitted = prepare(options_for(tmp_path, data=str(data))).model.head.anchors_px
    assert kept.flatten().tolist()[:6] == pytest.approx([10, 13, 16, 30, 33, 23])
    assert not torch.allclose(kept, fitted)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_optimizer_can_be_chosen(tmp_path: Path, options_for: Options, name: str) -> None:
    assert type(prepare(options_for(tmp_path, optimizer=name)).optimizer) is getattr(torch.optim, name)


def test_label_smoothing_reaches_the_loss_and_the_record(tmp_path: Path, options_for: Options) -> None:
    session = prepare(options_for(tmp_path, label_smoothing=0.1))
    assert session.loss.hyp.label_smoothing == 0.1
    assert yaml.safe_load((session.save_dir / "hyp.yaml").read_text(encoding="utf-8"))["label_smoothing"] == 0.1


def test_the_seed_decides_the_run(tmp_path: Path, training: Training, results: Rows) -> None:
    rows = [without_times(results(training(tmp_path, seed=seed, files=False).save_dir)) for seed in (0, 0, 1)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_a_new_run_in_an_old_folder_leaves_nothing_of_the_old_one(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, single_cls=True)
    values = iter([0.5, 0.4])  # the first epoch is the best, and --nosave does not write it
    monkeypatch.setattr(validation, "fitness", lambda _: np.array([next(values)]))
    session = training(tmp_path, exist_ok=True, nosave=True, epochs=2)
    assert load_checkpoint(session.saver.best).nc == 2


# Small and empty sets -------------------------------------------------------------------------------------------------


def test_a_set_smaller_than_a_batch_is_learned_from_in_every_epoch(tmp_path: Path, training: Training) -> None:
    watch, steps = Watch(), []

    def hook(session: Session) -> None:
        session.callbacks.add(watch)
        session.optimizer.register_step_post_hook(lambda *_: steps.append(len(watch.epochs)))

    training(tmp_path, hook, epochs=3, batch_size=16, noval=True, files=False)
    assert set(steps) == {0, 1, 2}


def test_a_batch_without_boxes_has_a_finite_loss(tmp_path: Path, make_dataset: MakeDataset, training: Training) -> None:
    data = make_dataset(tmp_path / "set")
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("mosaic: 0\n", encoding="utf-8")
    for i in (1, 3):
        (data.parent / f"labels/train/{i}.txt").write_text("", encoding="utf-8")
    watch = Watch()
    training(tmp_path, listening(watch), data=str(data), hyp=str(hyp), batch_size=1, files=False)
    empty = [event.losses for event in watch.batches if len(event.batch.targets) == 0]
    assert len(empty) == 2
    assert all(box == 0 and obj > 0 and cls == 0 for box, obj, cls in empty)


@pytest.fixture(scope="module")
def background(
    tmp_path_factory: pytest.TempPathFactory, make_dataset: MakeDataset, training: Training
) -> tuple[Path, Watch, str]:
    """One epoch on images without a single object, every image drawn: run folder, events, log."""
    folder, watch, lines = tmp_path_factory.mktemp("background"), Watch(), []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, root = Lines(), logging.getLogger()
    root.addHandler(handler)
    try:
        session = training(folder, listening(watch), figures=True, data=str(make_dataset(folder / "set", labels=False)))
    finally:
        root.removeHandler(handler)
    return session.save_dir, watch, "\n".join(lines)


def test_a_validation_set_of_background_scores_zero(background: tuple[Path, Watch, str], results: Rows) -> None:
    (row,) = results(background[0])
    assert float(row["metrics/mAP_0.5"]) == 0 and np.isfinite(float(row["val/obj_loss"]))
    assert "the set has no labels" in background[2]


def test_a_training_set_of_background_is_pointed_out(background: tuple[Path, Watch, str]) -> None:
    assert "train labels: all label files are empty: 4 images of background only" in background[2]
    assert np.isfinite(background[1].batches[0].losses).all()


def test_no_epochs_leave_another_runs_checkpoints_alone(tmp_path: Path, training: Training) -> None:
    last = training(tmp_path).saver.last
    before = last.read_bytes()
    training(tmp_path, exist_ok=True, epochs=0)
    assert last.read_bytes() == before


def test_placeholder_anchors_are_refused_unless_they_are_fitted(tmp_path: Path, training: Training) -> None:
    hyp = tmp_path / "hyp.yaml"
    hyp.write_text("anchors: 3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"placeholder anchors.*omit --noautoanchor"):
        training(tmp_path / "runs", hyp=str(hyp), noautoanchor=True)
    assert not (tmp_path / "runs").exists()


HOLD = (
    "import sys; from pathlib import Path; from utils.core.output import lock_folder; lock_folder(Path(sys.argv[1])); "
    "print(flush=True); input()"
)


@pytest.mark.parametrize("how", ["exist_ok", "resume"])
def test_a_second_training_in_a_folder_is_refused_at_its_start(tmp_path: Path, training: Training, how: str) -> None:
    folder = training(tmp_path).save_dir
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None and other.stdin is not None
    other.stdout.readline()
    again = {"exist_ok": True} if how == "exist_ok" else {"resume": str(folder), "epochs": 2}
    try:
        with pytest.raises(
            InputError, match="another run is writing there; wait for its end, or choose another --name"
        ):
            training(tmp_path, **again)
    finally:
        other.communicate(b"\n")
    (folder / ".lock").unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    training(tmp_path, **again)  # the other process is gone
