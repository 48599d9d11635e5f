"""A run survives signals, a full disk, broken numbers and lost images, and is the same run afterwards."""

from __future__ import annotations

import errno
import logging
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from utils.checkpoint import Checkpoint, load_checkpoint
from utils.config.options import TrainOptions
from utils.core.callbacks import BatchEnd, Callback, EpochEnd, EpochStart
from utils.core.errors import InputError
from utils.training import saver, validation
from utils.training.session import Session

Rows = Callable[[Path], list[dict[str, str]]]
Options = Callable[..., TrainOptions]
Training = Callable[..., Session]
MakeDataset = Callable[..., Path]
BATCHES = 5


class At(Callback):
    """Does something when a batch is done, or when the batches of an epoch are."""

    def __init__(self, epoch: int, index: int, action: Callable[[], Any]) -> None:
        self.place, self.action = (epoch, index), action

    def on_train_batch_end(self, event: BatchEnd) -> None:
        if (event.epoch, event.index) == self.place:
            self.action()

    def on_train_epoch_end(self, event: EpochEnd) -> None:
        if (event.epoch, -1) == self.place:  # the validation comes next
            self.action()


def does(epoch: int, index: int, action: Callable[[], Any]) -> Callable[[Session], None]:
    return lambda session: session.callbacks.add(At(epoch, index, action))


def state_in(file: Path) -> dict[str, Any]:
    """What a checkpoint is made of, flat, without where and when it was written."""
    flat: dict[str, Any] = {}

    def walk(value: Any, place: str) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                walk(part, f"{place}/{key}")
        elif isinstance(value, list) and any(isinstance(part, (dict, torch.Tensor)) for part in value):
            walk(dict(enumerate(value)), place)
        else:
            flat[place] = value

    content = vars(load_checkpoint(file))
    walk({k: v for k, v in content.items() if k not in ("options", "date", "versions")}, "")
    return flat


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Places where two states differ, to the last digit."""
    assert a.keys() == b.keys()
    return [k for k in a if not (torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k])]


def figures(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


# Signals --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, make_dataset: MakeDataset) -> dict[str, Any]:
    """Two epochs of five batches, an optimizer step every third of them."""
    folder = tmp_path_factory.mktemp("settings")
    hyp = folder / "hyp.yaml"
    own = "temperature_span: 0.6\nkernel_lr: 4\nattention_lr: 0.5\n"  # what changes from batch to batch, or has a group
    hyp.write_text(f"warmup_epochs: 0\nnominal_batch: 6\n{own}", encoding="utf-8")
    data = make_dataset(folder / "set", n_train=2 * BATCHES)
    return {
        "cfg": "yolov5n_dynamic.yaml", "epochs": 2, "batch_size": 2, "data": str(data), "hyp": str(hyp),
        "multi_scale": True,
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, training: Training, settings: dict[str, Any]) -> Path:
    """Run folder without any interruption."""
    return training(tmp_path_factory.mktemp("whole"), **settings).save_dir


@pytest.mark.parametrize(
    ("epoch", "index", "number"),
    [(0, 1, signal.SIGINT), (1, BATCHES - 1, signal.SIGTERM), (1, -1, signal.SIGINT)],
    ids=["in the first epoch", "after the last batch", "before the validation"],
)
def test_a_run_interrupted_in_an_epoch_ends_as_if_it_had_not_been(
    tmp_path: Path,
    training: Training,
    settings: dict[str, Any],
    whole: Path,
    results: Rows,
    caplog: pytest.LogCaptureFixture,
    epoch: int,
    index: int,
    number: signal.Signals,
) -> None:
    with caplog.at_level(logging.INFO):
        session = training(tmp_path, does(epoch, index, lambda: signal.raise_signal(number)), **settings)
    assert f"resume with: python train.py --resume {session.saver.last}" in caplog.text
    done = load_checkpoint(session.saver.last).train_state
    assert (done["epoch"], done["position"]["batches"]) == (epoch - 1, index + 1 if index >= 0 else BATCHES)
    assert not (session.saver.last.parent / "resume.pt").exists()  # the run did not finish
    training(tmp_path, resume=str(session.saver.last))
    assert differing(state_in(whole / "weights/resume.pt"), state_in(session.saver.last.parent / "resume.pt")) == []
    assert figures(results(whole)) == figures(results(session.save_dir))


def test_a_signal_is_exit_code_0_and_a_second_one_stops_at_once(
    tmp_path: Path, training: Training, settings: dict[str, Any], options_for: Options
) -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, does(1, 1, twice), **settings)
    assert load_checkpoint(tmp_path / "exp/weights/last.pt").train_state["epoch"] == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", lambda _: False)
        assert train.main(options_for(tmp_path, **settings)) == 0


def test_before_the_first_step_a_signal_stops_at_once(tmp_path: Path, training: Training) -> None:
    class Early(Callback):
        def on_train_epoch_start(self, event: EpochStart) -> None:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        training(tmp_path, lambda session: session.callbacks.add(Early()))
    assert not (tmp_path / "exp/weights/last.pt").exists()


def test_save_steps_save_inside_the_epoch(tmp_path: Path, training: Training, settings: dict[str, Any]) -> None:
    seen = []
    last = tmp_path / "exp/weights/last.pt"

    def look() -> None:
        seen.append(load_checkpoint(last).train_state["position"]["batches"] if last.exists() else None)

    def hook(session: Session) -> None:
        for index in range(BATCHES):
            session.callbacks.add(At(0, index, look))

    training(tmp_path, hook, **settings | {"epochs": 1, "save_steps": 2, "noval": True})
    assert seen == [None, None, 2, 2, 4]


# Extending ------------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_extended_with_the_longer_schedule(
    tmp_path: Path, training: Training, results: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    session = training(tmp_path, cfg="yolov5n_dynamic.yaml", epochs=2)
    with caplog.at_level(logging.INFO):
        again = training(tmp_path, resume=str(session.save_dir), epochs=4)
    assert again.save_dir.resolve() == session.save_dir.resolve()
    rows = results(session.save_dir)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    # Four epochs: 0.01 * (0.01 + 0.99 * (1 - epoch / 4)); T falls by 11 to 1 in the last one.
    assert [float(row["x/lr0"]) for row in rows[2:]] == pytest.approx([0.00505, 0.002575])
    assert [float(row["temperature"]) for row in rows] == [34, 1, 12, 1]
    assert "4 epochs instead of 2: in epoch 3 the learning rate is 0.00505 instead of 0.0001" in caplog.text
    assert not load_checkpoint(session.saver.last).resumable
    assert load_checkpoint(session.saver.last.parent / "resume.pt").train_state["epoch"] == 3


def test_a_run_that_stopped_early_is_extended_and_waits_anew(
    tmp_path: Path, training: Training, results: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(np.arange(0.9, 0, -0.1))  # the first epoch is the best
    monkeypatch.setattr(validation, "fitness", lambda _: np.array([next(values)]))
    session = training(tmp_path, epochs=9, patience=1)
    assert len(results(session.save_dir)) == 2
    with pytest.raises(InputError, match="after epoch 2 of 9, no better fitness for 1 epoch"):
        training(tmp_path, resume=str(session.saver.last))
    training(tmp_path, resume=str(session.saver.last), patience=2)
    assert len(results(session.save_dir)) == 5  # the third, and two of waiting


def test_a_run_killed_between_its_last_epoch_and_its_end_is_only_ended(
    tmp_path: Path, training: Training, results: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter(np.arange(0.9, 0, -0.1))
    monkeypatch.setattr(validation, "fitness", lambda _: np.array([next(values)]))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "finish", lambda *_: signal.raise_signal(signal.SIGINT))
        training(tmp_path, epochs=9, patience=1)
    folder = tmp_path / "exp"
    training(tmp_path, resume=str(folder))
    assert len(results(folder)) == 2
    assert not load_checkpoint(folder / "weights/last.pt").resumable


# Numbers --------------------------------------------------------------------------------------------------------------


def poisoned(session: Session, batches: set[int], layer: int | None) -> None:
    """In these batches of the run one layer gives not-a-number, or without ``layer`` its gradient is that."""
    count = iter(range(1000))

    def output(module: torch.nn.Module, _: Any, out: torch.Tensor) -> torch.Tensor:
        return out * math.nan if module.training and torch.is_grad_enabled() and next(count) in batches else out

    def gradient(grad: torch.Tensor) -> torch.Tensor:
        return grad * math.nan if next(count) in batches else grad

    if layer is None:
        session.model.get_parameter("model.9.cv2.conv.weight").register_hook(gradient)
    else:
        session.model.model[layer].register_forward_hook(output)


@pytest.fixture
def five(settings: dict[str, Any]) -> dict[str, Any]:
    """One epoch of five batches, of a static model, a step after each."""
    return {"epochs": 1, "batch_size": 2, "data": settings["data"], "noval": True}


def test_a_gradient_that_is_not_a_number_stops_the_run_and_names_where(
    tmp_path: Path, training: Training, five: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"epoch 1, batch 3 of 5 .*way back, model\.9\.cv2\.conv\.weight is the first"):
        training(tmp_path, lambda s: poisoned(s, {2}, None), files=False, **five)


def test_a_loss_that_is_not_a_number_names_the_layer(
    tmp_path: Path, training: Training, five: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(session: Session) -> None:
        conv = session.model.model[9].cv1.conv

        def hook(module: torch.nn.Module, _: Any, out: torch.Tensor) -> torch.Tensor:
            return out * (math.nan if session.state.progress.batches == 1 else 1)

        conv.register_forward_hook(hook)

    with pytest.raises(InputError, match=r"batch 2 of 5 .*nan: the first layer .* is model\.9\.cv1\.conv \(Conv2d\)"):
        training(tmp_path, broken, files=False, **five)


@pytest.mark.parametrize("layer", [9, None], ids=["loss", "gradient"])
def test_faulty_batches_are_left_out_up_to_a_number(
    tmp_path: Path, training: Training, results: Rows, five: dict[str, Any], layer: int | None
) -> None:
    session = training(tmp_path, lambda s: poisoned(s, {1, 3}, layer), skip_nonfinite=2, **five)
    assert session.state.skipped == 2 and session.state.progress.skipped == 2
    assert all(v.isfinite().all() for v in session.model.state_dict().values())
    assert load_checkpoint(session.saver.last.parent / "resume.pt").train_state["skipped"] == 2
    assert np.isfinite(float(results(session.save_dir)[0]["train/box_loss"]))
    with pytest.raises(InputError, match=r"batch 4 of 5 .*\(batches skipped before: 1\)"):
        training(tmp_path, lambda s: poisoned(s, {1, 3}, layer), skip_nonfinite=1, files=False, **five)


def test_long_gradients_are_clipped(tmp_path: Path, training: Training, five: dict[str, Any]) -> None:
    hyp, norms = tmp_path / "hyp.yaml", []

    def hook(session: Session) -> None:
        def measure(*_: Any) -> None:
            gradients = [p.grad for p in session.model.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)))

        session.optimizer.register_step_pre_hook(measure)

    for clip in (0, 0.5):
        hyp.write_text(f"warmup_epochs: 0\nnominal_batch: 2\ngrad_clip: {clip}\n", encoding="utf-8")
        training(tmp_path, hook, hyp=str(hyp), files=False, **five)
    assert min(norms[:5]) > 0.6  # the clipping has something to do
    assert norms[5:] == pytest.approx([0.5] * 5, rel=1e-4)


@pytest.mark.parametrize(("amp", "dtype"), [(None, torch.float32), (True, torch.bfloat16), (False, torch.float32)])
def test_mixed_precision_on_a_cpu_is_for_those_who_ask(
    tmp_path: Path, training: Training, five: dict[str, Any], amp: bool | None, dtype: torch.dtype
) -> None:
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def hook(session: Session) -> None:
        for model in (session.model, session.ema.model):
            model.model[0].conv.register_forward_hook(lambda m, _, out: seen[m.training].add(out.dtype))

    given = {} if amp is None else {"amp": amp}
    session = training(tmp_path, hook, files=False, **five | {"noval": False} | given)
    assert seen == {True: {dtype}, False: {dtype}}  # training and validation
    assert not session.scaler.is_enabled()
    assert all(p.dtype == torch.float32 for p in session.model.parameters())


# The disk -------------------------------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, epochs: set[int]) -> None:
    """No checkpoint of these epochs can be written when it is made."""
    write = saver.save_checkpoint
    now = {"epoch": -1}

    def save(path: Path, checkpoint: Checkpoint) -> None:
        now["epoch"] = max(now["epoch"], checkpoint.train_state["epoch"])
        if now["epoch"] in epochs:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, checkpoint)

    monkeypatch.setattr(saver, "save_checkpoint", save)


def test_a_disk_full_for_an_epoch_costs_a_warning(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full_disk(monkeypatch, {1})
    values = iter([0.1, 0.9, 0.5])  # the best epoch is the one that could not be written
    monkeypatch.setattr(validation, "fitness", lambda _: np.array([next(values)]))
    session = training(tmp_path, epochs=3)
    assert "could not be written (No space left on device)" in caplog.text
    assert load_checkpoint(session.saver.best).train_state["epoch"] == 1  # it was kept until there was room
    assert load_checkpoint(session.saver.last).train_state["epoch"] == 2


def test_a_disk_full_to_the_end_is_exit_code_1_and_the_old_file_is_whole(
    tmp_path: Path, training: Training, options_for: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, {1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("utils.loggers.plots_logger.plot_labels", lambda *_: None)
        patch.setattr("utils.loggers.plots_logger.plot_label_correlogram", lambda *_: None)
        patch.setattr("utils.loggers.plots_logger.plot_batch", lambda *_: None)
        assert train.main(options_for(tmp_path, epochs=2)) == 1
    old = load_checkpoint(tmp_path / "exp/weights/last.pt")
    assert old.resumable and old.train_state["epoch"] == 0


def test_images_lost_on_the_way_stop_the_run_where_it_can_go_on(
    tmp_path: Path,
    training: Training,
    settings: dict[str, Any],
    make_dataset: MakeDataset,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("utils.datasets.loader.free_memory", lambda _: 0)  # else all images are kept after an epoch
    data = make_dataset(tmp_path / "set", n_train=2 * BATCHES)
    gone, aside = data.parent / "images/train", tmp_path / "aside"
    given = settings | {"data": str(data)}
    with pytest.raises(
        InputError, match=r"images/train/\d\.png: .* was removed after the start.*; then resume with: .*--resume .*last"
    ):
        training(tmp_path, does(1, 1, lambda: gone.rename(aside)), **given)
    aside.rename(gone)
    training(tmp_path, resume=str(tmp_path / "exp"))
    weights = state_in(tmp_path / "exp/weights/resume.pt")
    assert differing(weights, state_in(whole / "weights/resume.pt")) == []


# Loader processes -----------------------------------------------------------------------------------------------------


def test_a_dead_loader_process_costs_nothing_but_a_restart(
    tmp_path: Path, training: Training, settings: dict[str, Any], whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(*_: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    before = signal.signal(signal.SIGCHLD, report)  # as torch does
    try:
        with pytest.raises(InputError, match=r"a worker died .*--workers 0 .*; then resume with: .*--resume"):
            training(tmp_path, does(0, 1, lambda: signal.raise_signal(signal.SIGCHLD)), **settings)
    finally:
        signal.signal(signal.SIGCHLD, before)
    last = tmp_path / "exp/weights/last.pt"
    assert load_checkpoint(last).train_state["position"]["batches"] == 2  # the step in progress was finished
    training(tmp_path, resume=str(last))
    assert differing(state_in(whole / "weights/resume.pt"), state_in(last.with_name("resume.pt"))) == []


def test_a_dead_loader_process_outside_of_the_steps_leaves_the_last_save(
    tmp_path: Path, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    monkeypatch.setattr(train, "report_epoch", dies)
    with pytest.raises(InputError, match=r"a worker died .*; then give the same command again: nothing .*saved"):
        training(tmp_path, epochs=2)


def test_an_image_lost_before_the_validation_is_named_and_the_epoch_is_kept(
    tmp_path: Path, training: Training, settings: dict[str, Any], make_dataset: MakeDataset, whole: Path
) -> None:
    data = make_dataset(tmp_path / "set", n_train=2 * BATCHES)
    image, aside = data.parent / "images/val/2.png", tmp_path / "2.png"
    given = settings | {"data": str(data)}
    with pytest.raises(InputError, match=r"images/val/2\.png: .* was removed .*; then resume with: .*--resume .*last"):
        training(tmp_path, does(1, -1, lambda: image.rename(aside)), **given)
    aside.rename(image)
    assert load_checkpoint(tmp_path / "exp/weights/last.pt").train_state["position"]["batches"] == BATCHES
    training(tmp_path, resume=str(tmp_path / "exp"))
    weights = state_in(tmp_path / "exp/weights/resume.pt")
    assert differing(weights, state_in(whole / "weights/resume.pt")) == []
