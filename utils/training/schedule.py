"""Learning rates, momentum, accumulation and temperature as functions of the position in the run.

They have no state, so a resumed run needs nothing but its epoch and batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from utils.config.hyp import Hyp
from utils.core.names import counted

_WARMUP_FLOOR = 100
_WARMUP_FLOOR_V61 = 1000
_FEW_STEPS = 100


def lr_factor(epoch: int, epochs: int, lrf: float, cosine: bool) -> float:
    """Return the multiple of ``lr0`` in an epoch: from 1 at 0 to ``lrf`` at ``epochs``, linear or as a cosine."""
    done = epoch / max(epochs, 1)
    left = (1 + math.cos(math.pi * done)) / 2 if cosine else 1 - done
    return lrf + (1 - lrf) * left


def warmup_iterations(epochs: int, batches_per_epoch: int, warmup_epochs: float, v61: bool = False) -> int:
    """Return the batches of the warm-up, until learning rate and momentum have their final values.

    In v6.1 they are at least 1000, so that a short run on a small set never leaves the warm-up. By default they are at
    least 100 and at most a third of the run; ``warmup_epochs`` 0 means no warm-up.
    """
    requested = round(warmup_epochs * batches_per_epoch)
    if v61:
        return max(requested, _WARMUP_FLOOR_V61)
    if warmup_epochs <= 0:
        return 0
    return min(max(requested, _WARMUP_FLOOR), epochs * batches_per_epoch // 3)


def accumulate_steps(batch_size: int, batches_per_epoch: int | None = None, nominal_batch: float = 64) -> int:
    """Return the batches per optimizer step after the warm-up, for about ``nominal_batch`` images each.

    They are at most those of an epoch: otherwise a very small set would have epochs without a step.
    """
    requested = max(1, round(nominal_batch / batch_size))
    return requested if batches_per_epoch is None else min(requested, max(1, batches_per_epoch))


def temperature_at(done: float, epochs: int, hyp: Hyp) -> float:
    """Return the softmax temperature of dynamic convolution after ``done`` epochs (iteration / batches per epoch).

    With ``temperature_span`` it falls linearly, batch by batch, over that share of the run. Otherwise it is constant in
    an epoch: max(end, start - step * epoch), arXiv 1912.03458. In a run too short to reach the end in this way it falls
    in equal steps, so that the last epoch trains at the end temperature (as does a single epoch). A step of 0 keeps the
    start temperature.
    """
    start, end, step = hyp.temperature_start, hyp.temperature_end, hyp.temperature_step
    if hyp.temperature_span:
        return max(end, start - (start - end) * done / (hyp.temperature_span * epochs)) if epochs else end
    epoch = int(done)
    if step <= 0 or start <= end:
        return max(start, end)
    last = epochs - 1
    if last <= 0:
        return end
    if start - step * last > end:
        step = (start - end) / last
        if epoch >= last:
            return end  # exactly, without the rounding of the division
    return max(end, start - step * epoch)


def describe_change(old_epochs: int, new_epochs: int, epoch: int, hyp: Hyp, cosine: bool) -> str:
    """Return a line for the log: what another number of epochs changes in a run that continues with ``epoch``."""

    def at(epochs: int) -> tuple[float, float]:
        return hyp.lr0 * lr_factor(min(epoch, epochs), epochs, hyp.lrf, cosine), temperature_at(epoch, epochs, hyp)

    (rate, temperature), (old_rate, old_temperature) = at(new_epochs), at(old_epochs)
    other = f", the temperature of dynamic layers {temperature:g} instead of {old_temperature:g}"
    return (
        f"{counted(new_epochs, 'epoch')} instead of {old_epochs}: in epoch {epoch + 1} the learning rate is {rate:.3g} "
        f"instead of {old_rate:.3g}{other if temperature != old_temperature else ''}"
    )


def too_short(epochs: int, optimizer_steps: int) -> bool:
    """Return whether a run of so many epochs and steps is too short to assess the routing of dynamic layers."""
    return epochs < 2 or optimizer_steps < _FEW_STEPS


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run, planned before it starts.

    Attributes:
        epochs, batches_per_epoch, batch_size: size of the run.
        warmup: iterations (batches) of the warm-up; may exceed the run with ``warmup_v61``.
        accumulate: batches per optimizer step after the warm-up.
        nominal_batch: images that an optimizer step should have.
    """

    epochs: int
    batches_per_epoch: int
    batch_size: int
    warmup: int
    accumulate: int
    nominal_batch: float = 64

    @property
    def iterations(self) -> int:
        """Batches of the whole run."""
        return self.epochs * self.batches_per_epoch

    @property
    def optimizer_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.count_steps(self.iterations)

    @property
    def too_short(self) -> bool:
        """Whether :func:`too_short` holds for the whole run."""
        return too_short(self.epochs, self.optimizer_steps)

    @property
    def decay_factor(self) -> float:
        """Multiple of the weight decay, in proportion to the images per step."""
        return self.batch_size * self.accumulate / self.nominal_batch

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps in the warm-up."""
        return self.count_steps(min(self.iterations, self.warmup))

    def progress(self, iteration: int) -> float:
        """Return the share of the warm-up that is done, 0..1."""
        return min(iteration / self.warmup, 1.0) if self.warmup else 1.0

    def accumulate_at(self, iteration: int) -> int:
        """Return the batches per optimizer step at an iteration; it rises from 1 during the warm-up."""
        goal = self.nominal_batch / self.batch_size
        return min(self.accumulate, max(1, round(1 + (goal - 1) * self.progress(iteration))))

    def count_steps(self, iterations: int) -> int:
        """Return the optimizer steps in the first ``iterations``: one as soon as enough batches follow the last one."""
        steps, last = 0, -1
        for iteration in range(min(iterations, self.warmup)):
            if iteration - last >= self.accumulate_at(iteration):
                steps, last = steps + 1, iteration
        # After the warm-up the distance is constant, counted from the last step before.
        return steps + max(0, iterations - 1 - last) // self.accumulate if iterations > self.warmup else steps

    def describe(self) -> str:
        """Return one or two lines for the log."""
        line = (
            f"{counted(self.epochs, 'epoch')} of {counted(self.batches_per_epoch, 'batch')} "
            f"make{'s' * (self.epochs == 1)} {counted(self.optimizer_steps, 'optimizer step')} of "
            f"up to {counted(self.batch_size * self.accumulate, 'image')}, {self.warmup_steps} of them in the warm-up"
        )
        if self.optimizer_steps and self.warmup >= self.iterations:
            line += "\nthe run ends before its warm-up and learns little: set warmup_v61: false (--hyp) or train longer"
        elif 0 < self.optimizer_steps < _FEW_STEPS:
            line += (
                f"\nso few optimizer steps ({self.optimizer_steps}) learn little: more --epochs, a smaller "
                "--batch-size and nominal_batch in the --hyp file (see hyp.small.yaml) make more, --weights need fewer"
            )
        return line


def plan_steps(epochs: int, batches_per_epoch: int, batch_size: int, hyp: Hyp) -> StepPlan:
    """Plan warm-up and accumulation of a run."""
    warmup = warmup_iterations(epochs, batches_per_epoch, hyp.warmup_epochs, hyp.warmup_v61)
    accumulate = accumulate_steps(batch_size, batches_per_epoch, hyp.nominal_batch)
    return StepPlan(epochs, batches_per_epoch, batch_size, warmup, accumulate, hyp.nominal_batch)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, plan: StepPlan, iteration: int, epoch: int, hyp: Hyp, cosine: bool = False
) -> None:
    """Set learning rates and momentum for one iteration, in the warm-up and after it; call it before each batch.

    In the warm-up rates rise from 0 to that of the epoch, that of the biases falls to it from ``warmup_bias_lr``,
    because biases start far from their final values; momentum rises from ``warmup_momentum``. Adam's betas are
    constant, as in v6.1.
    """
    share = plan.progress(iteration)
    if hyp.warmup_v61 and iteration > plan.warmup and epoch > plan.warmup // plan.batches_per_epoch:
        epoch -= 1  # v6.1's scheduler is an epoch behind the warm-up
    rate = hyp.lr0 * lr_factor(epoch, plan.epochs, hyp.lrf, cosine)
    for group in optimizer.param_groups:
        start = hyp.warmup_bias_lr if group["kind"] == "bias" else 0.0
        group["lr"] = start + (rate * group["lr_factor"] - start) * share
        if "momentum" in group:
            group["momentum"] = hyp.warmup_momentum + (hyp.momentum - hyp.warmup_momentum) * share


def learning_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the present learning rate of each group by its name."""
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
