"""The end of a run: by its last epoch, by a signal or by an error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from utils.checkpoint import load_model
from utils.config.cli import EXIT_INPUT
from utils.core.callbacks import TrainEnd
from utils.core.errors import InputError
from utils.core.memory import describe_peak_memory
from utils.core.names import counted
from utils.datasets.loader_errors import NoBatchError, loader_failure
from utils.evaluation import EvalResult
from utils.evaluation.observers import BatchPlots
from utils.evaluation.report import log_metrics, save_plots
from utils.training.checkpoints import save_in_epoch
from utils.training.saver import keep_resumable, strip
from utils.training.session import Session

LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def saved_on_loader_failure(s: Session) -> Iterator[None]:
    """While open, save what has been trained before the error of a loader that cannot make a batch leaves."""
    try:
        yield
    except NoBatchError:
        if s.state.progress.batches:
            s.ranks.on_main(save_in_epoch, s)
        raise


@contextlib.contextmanager
def resume_hints(s: Session) -> Iterator[None]:
    """While open, add to errors of loaders, other ranks and Ctrl-C how the run can be resumed.

    Raises:
        InputError: instead of such an error.
    """
    try:
        yield
    except (NoBatchError, RuntimeError) as error:
        reason = str(error) if isinstance(error, NoBatchError) else loader_failure(error)
        if s.ranks.lost(error):
            reason = "a process of this run has ended, and only its own output says why"
        if not reason:
            raise
        raise InputError(f"{reason}; then {_resume_hint(s)}") from error
    except KeyboardInterrupt:
        LOG.info("stopped at once, without a save; %s", _resume_hint(s))
        raise


def _resume_hint(s: Session) -> str:
    """Say how to resume from the last save."""
    if s.saver.last in s.saver.written or (not s.ranks.main and s.saver.last.exists()):  # only rank 0 writes
        return f"resume with: {s.resume_command}"
    return "give the same command again: nothing has been saved since this start"


def finish(s: Session, complete: bool) -> int:
    """End a run: write what could not be written before and, when it is complete, evaluate its best checkpoint.

    Returns:
        The exit code.
    """
    LOG.info("peak memory: %s", describe_peak_memory(s.device))
    if not s.ranks.share(s.saver.retry()):
        LOG.error("error: no room for %s; the file there is older", ", ".join(map(str, s.saver.unwritten)))
        return EXIT_INPUT
    if complete:
        evaluate_best(s)
    else:
        progress = s.state.progress
        LOG.info(
            f"{s.stop.requested}: stopped in epoch {progress.epoch + 1} after {progress.batches} of "
            f"{counted(len(s.loader), 'batch')}; resume with: {s.resume_command}"
        )
    return 0


def evaluate_best(s: Session) -> None:
    """Strip the checkpoints to what their use requires, evaluate the best one, and report the end of the run."""
    best = None
    # Without a best one no epoch was trained, and files in the folder belong to another run.
    if s.ranks.share(s.state.best_written and s.saver.best.exists()):
        best = s.saver.best
        s.ranks.on_main(strip, best)
        model = load_model(best, s.device)[0] if s.ranks.main else s.ema.model
        s.ranks.spread(model)
        LOG.info("evaluating %s", best)
        plots = [BatchPlots(s.save_dir, s.model.names)] if s.ranks.main else []
        s.ranks.on_main(_save_results, s, s.evaluator.run(model, None, plots))
    report_end(s, best is not None)


def _save_results(s: Session, result: EvalResult) -> None:
    """Log and plot the metrics, and strip last.pt: from now on there is nothing left to resume."""
    log_metrics(result, s.model.names)
    save_plots(result, s.model.names, s.save_dir)
    keep_resumable(s.saver.last)
    strip(s.saver.last)


def report_end(s: Session, has_best: bool) -> None:
    """Report that the run is over."""
    epochs = s.state.epochs_done - s.state.first_epoch
    best = s.saver.best if has_best else None
    s.callbacks.on_train_end(TrainEnd(save_dir=s.save_dir, best=best, epochs_run=epochs))
