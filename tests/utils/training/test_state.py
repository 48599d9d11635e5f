"""What a checkpoint records of the course of a run."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from utils.loss import LossItems
from utils.training.early_stop import EarlyStopping
from utils.training.state import EpochProgress, TrainState


def state_after(epochs: int, batches: int = 0, **values: bool) -> TrainState:
    """The state of a run after some epochs, and some batches of the next one."""
    progress = EpochProgress(epochs if batches else epochs - 1, batches or 5, 1, torch.tensor([0.1, 0.2, 0.3]) / 3, 1.5)
    stopping = EarlyStopping(patience=3)
    stopping(0, 0.5)
    return TrainState(
        stopping, np.array([0.25, 0.75]), progress, epochs_done=epochs, last_step=7, skipped=2, **values
    )  # fmt: skip


def test_mean_losses_do_not_count_skipped_batches() -> None:
    progress = EpochProgress(0, batches=4, skipped=1, loss_sums=torch.tensor([3.0, 6.0, 9.0]))
    assert progress.mean_losses == (1.0, 2.0, 3.0)
    assert all(math.isnan(mean) for mean in EpochProgress().mean_losses)


def test_the_losses_of_a_batch_are_added_and_returned() -> None:
    progress = EpochProgress(loss_sums=torch.ones(3))
    losses = progress.add_losses(LossItems(torch.tensor(9.0), *(torch.tensor(float(i)) for i in (1, 2, 3))))
    assert losses == (1.0, 2.0, 3.0) and progress.loss_sums.tolist() == [2, 3, 4]


def test_a_state_inside_an_epoch_is_restored_to_the_last_digit() -> None:
    state = state_after(4, batches=3, best_written=True)
    restored = TrainState.from_checkpoint(state.to_checkpoint(), patience=3)
    assert torch.equal(restored.progress.loss_sums, state.progress.loss_sums)
    assert (restored.progress.epoch, restored.progress.batches) == (4, 3)
    assert (restored.progress.skipped, restored.progress.seconds) == (1, 1.5)
    assert (restored.epochs_done, restored.first_epoch, restored.last_step, restored.skipped) == (4, 4, 7, 2)
    assert restored.class_map.tolist() == [0.25, 0.75] and restored.best_written
    assert restored.early_stopping.best_fitness == 0.5


def test_after_a_whole_epoch_no_place_inside_one_is_recorded() -> None:
    values = state_after(4).to_checkpoint()
    assert values["epoch"] == 3 and "position" not in values
    assert TrainState.from_checkpoint(values, patience=3).start_epoch(4).batches == 0


def test_a_run_continues_inside_its_epoch_and_starts_the_next_one_anew() -> None:
    state = state_after(4, batches=3)
    assert state.start_epoch(4).batches == 3
    assert state.start_epoch(5).batches == 0 and state.progress.epoch == 5


def test_a_skipped_batch_counts_in_the_epoch_and_in_the_run() -> None:
    state = state_after(4, batches=3)
    state.count_skipped()
    assert (state.progress.skipped, state.skipped) == (2, 3)


@pytest.mark.parametrize("extended", [False, True])
def test_a_run_that_stopped_early_waits_anew_only_when_it_is_extended(extended: bool) -> None:
    values = state_after(4, stopped_early=True).to_checkpoint()
    state = TrainState.from_checkpoint(values, patience=3, extended=extended)
    assert state.stopped_early is not extended
    assert state.early_stopping.since == (4 if extended else 0)


def test_files_of_earlier_versions_lack_some_values() -> None:
    values = state_after(4).to_checkpoint()
    for key in ("skipped", "stopped_early", "best_written"):
        del values[key]
    state = TrainState.from_checkpoint(values, patience=3)
    assert (state.skipped, state.stopped_early, state.best_written) == (0, False, True)
