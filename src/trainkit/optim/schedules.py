"""Learning-rate schedules: pure functions of the 0-based optimizer step, giving the factor on the base lr.

Epoch-wise schedules (step, multistep, exponential) change at epoch boundaries, like the torch.optim.lr_scheduler
class of that name stepped once per epoch. Step-wise ones (cosine, linear, polynomial) run over the steps after the
warm-up and reach `final` at the end of the run. `warmup` is in epochs: over its W steps the factor is multiplied by
1/W, 2/W, ..., 1 (Goyal et al. 2017, arXiv:1706.02677); every builder raises ConfigError when it is longer than the
run.
"""

from __future__ import annotations

import bisect
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Literal

from trainkit.errors import ConfigError
from trainkit.registry import register
from trainkit.schema import Count, NonNegative, Positive, Probability

Factor = Callable[[int], float]


def scheduled(
    make: Callable[[int], Callable[..., float]],
    name: str,
    extensions: Sequence[str],
    epochs: int,
    steps_per_epoch: int,
    history: list[float],
) -> Factor:
    """The schedule of a run, with its extensions (`hold@10`: how it went on after epoch 10).

    make: the schedule of so many steps; it may ask for the history too, of which it gets the epochs done.
    Raises ConfigError for extensions that are not in order or within `epochs`, and for a schedule that is not pure.
    """
    parts = [text.partition("@") for text in extensions]
    ends = [*(int(epoch) for _, _, epoch in parts), epochs]
    if ends != sorted(set(ends)):
        raise ConfigError(f"extensions={extensions}: epochs must grow, up to epochs={epochs}")

    def part(total_steps: int, first_epoch: int) -> Factor:
        factor = make(total_steps)
        if len(inspect.signature(factor).parameters) < 2:
            return factor
        return lambda step: factor(step, known[first_epoch : first_epoch + step // steps_per_epoch])

    whole = functools.partial(extended, part, ends, [rule for rule, _, _ in parts], steps_per_epoch)
    known = [*history, *[0.0] * (epochs - len(history))]  # of epochs to come too: without any, all is a first epoch
    factor = pure(whole, name, epochs * steps_per_epoch, steps_per_epoch)
    known = history
    return factor


def extended(make: Callable[[int, int], Factor], ends: list[int], rules: list[str], steps_per_epoch: int) -> Factor:
    """A schedule that goes on after its end, in parts.

    make: the schedule of so many steps that begins with this epoch. ends: after how many epochs each part ends,
    the first being the run as it was first planned. rules: how each further part goes on: `hold` keeps the last factor,
    `stretch` takes the schedule of a run that was planned to the part's end, `rewarm` begins it anew.
    """
    factor = make(ends[0] * steps_per_epoch, 0)
    for rule, begin, end in zip(rules, ends, ends[1:], strict=False):
        factor = _continued(factor, rule, begin * steps_per_epoch, end * steps_per_epoch, make, steps_per_epoch)
    return factor


def _continued(
    before: Factor, rule: str, begin: int, end: int, make: Callable[[int, int], Factor], steps_per_epoch: int
) -> Factor:
    if rule == "hold":
        return lambda step: before(min(step, begin - 1))  # asked anew: what it depends on is not known before then
    if rule == "stretch":
        longer = make(end, 0)
        return lambda step: before(step) if step < begin else longer(step)
    anew = make(end - begin, begin // steps_per_epoch)
    return lambda step: before(step) if step < begin else anew(step - begin)


def pure(make: Callable[[], Factor], name: str, total_steps: int, steps_per_epoch: int) -> Factor:
    """What `make` makes, if the factor of a step is a finite number, the same whatever was asked before.

    Raises ConfigError otherwise: a resumed run asks only for the steps that are left. Two are made and asked for the
    first steps, the first steps of epochs and some of the whole run, one of them forwards, the other backwards.
    """
    first, begins = range(total_steps)[:32], range(0, total_steps, steps_per_epoch)[:32]
    steps = sorted({*first, *begins, *(total_steps * part // 32 for part in range(32)), total_steps - 1})
    factor, again = make(), make()
    known = {step: _number(factor, name, step) for step in steps}
    for step in reversed(steps):
        if (value := _number(again, name, step)) != known[step]:
            raise ConfigError(
                f"schedule '{name}' gave {known[step]:.6g} for step {step} and, asked in another order, {value:.6g}; "
                "it must depend on the step alone, or a resumed run would have another lr"
            )
    return factor


def _number(factor: Factor, name: str, step: int) -> float:
    value = factor(step)
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        shown = value if isinstance(value, numbers.Real) else type(value).__name__
        raise ConfigError(f"schedule '{name}' gave {shown} for step {step}; it must give a finite number")
    return value


@register("schedule")
def constant(total_steps: int, steps_per_epoch: int, *, warmup: NonNegative = 0.0) -> Factor:
    """The base lr throughout, after an optional warm-up."""
    return _warmed_up(lambda step: 1.0, _warmup_steps(total_steps, steps_per_epoch, warmup))


@register("schedule")
def step(
    total_steps: int, steps_per_epoch: int, *, every: Count = 10, gamma: Positive = 0.1, warmup: NonNegative = 0.0
) -> Factor:
    """Multiply the lr by gamma every few epochs."""
    return _warmed_up(
        lambda step: gamma ** (step // steps_per_epoch // every), _warmup_steps(total_steps, steps_per_epoch, warmup)
    )


@register("schedule")
def multistep(
    total_steps: int,
    steps_per_epoch: int,
    *,
    milestones: list[Count] = [10, 20],
    gamma: Positive = 0.1,
    warmup: NonNegative = 0.0,
) -> Factor:
    """Multiply the lr by gamma at given epochs."""
    epochs = sorted(milestones)
    return _warmed_up(
        lambda step: gamma ** bisect.bisect_right(epochs, step // steps_per_epoch),
        _warmup_steps(total_steps, steps_per_epoch, warmup),
    )


@register("schedule")
def exponential(total_steps: int, steps_per_epoch: int, *, gamma: Positive = 0.95, warmup: NonNegative = 0.0) -> Factor:
    """Multiply the lr by gamma after every epoch."""
    return _warmed_up(
        lambda step: gamma ** (step // steps_per_epoch), _warmup_steps(total_steps, steps_per_epoch, warmup)
    )


@register("schedule")
def cosine(total_steps: int, steps_per_epoch: int, *, final: Probability = 0.0, warmup: NonNegative = 0.0) -> Factor:
    """Half a cosine from the base lr down to final * lr.

    Without restarts (Loshchilov & Hutter 2017, arXiv:1608.03983).
    """
    steps = _warmup_steps(total_steps, steps_per_epoch, warmup)
    return _decay(total_steps, steps, final, lambda progress: (1 + math.cos(math.pi * progress)) / 2)


@register("schedule")
def linear(total_steps: int, steps_per_epoch: int, *, final: Probability = 0.0, warmup: NonNegative = 0.0) -> Factor:
    """A straight line from the base lr down to final * lr."""
    steps = _warmup_steps(total_steps, steps_per_epoch, warmup)
    return _decay(total_steps, steps, final, lambda progress: 1 - progress)


@register("schedule")
def polynomial(
    total_steps: int,
    steps_per_epoch: int,
    *,
    power: Positive = 0.9,
    final: Probability = 0.0,
    warmup: NonNegative = 0.0,
) -> Factor:
    """A power of the remaining share of the run.

    (1 - progress) ** power; 0.9 is the "poly" policy of DeepLab (Chen et al. 2016, arXiv:1606.00915).
    """
    steps = _warmup_steps(total_steps, steps_per_epoch, warmup)
    return _decay(total_steps, steps, final, lambda progress: (1 - progress) ** power)


@register("schedule")
def onecycle(
    total_steps: int,
    steps_per_epoch: int,
    *,
    pct_start: Probability = 0.3,
    div_factor: Positive = 25.0,
    final_div_factor: Positive = 1.0e4,
    anneal: Literal["cos", "linear"] = "cos",
    warmup: NonNegative = 0.0,
) -> Factor:
    """Up to the base lr, then down to almost nothing (1cycle).

    The curve of torch's OneCycleLR with the base lr as `max_lr`, without its momentum cycle (Smith & Topin 2017,
    arXiv:1708.07120). It rises from 1 / div_factor over the share `pct_start` of the run and falls to
    1 / (div_factor * final_div_factor). A warm-up comes before the cycle, which then has the steps that are left.
    """
    warmup_steps = _warmup_steps(total_steps, steps_per_epoch, warmup)
    cycle_steps = total_steps - warmup_steps
    lowest, start, last = 1 / (div_factor * final_div_factor), 1 / div_factor, cycle_steps - 1
    peak = pct_start * cycle_steps - 1  # the last step of the rise; it need not be a whole number

    def between(begin: float, end: float, progress: float) -> float:
        rest = (1 + math.cos(math.pi * progress)) / 2 if anneal == "cos" else 1 - progress
        return end + (begin - end) * rest

    def factor(step: int) -> float:
        step = max(step - warmup_steps, 0)
        if step <= peak:
            return between(start, 1.0, step / peak if peak > 0 else 1.0)
        return between(1.0, lowest, min((step - peak) / (last - peak), 1.0)) if step < last else lowest

    return _warmed_up(factor, warmup_steps)


def _warmup_steps(total_steps: int, steps_per_epoch: int, warmup: float) -> int:
    steps = round(warmup * steps_per_epoch)
    if steps > total_steps:
        raise ConfigError(
            f"schedule.warmup: {warmup:g} epochs ({steps} steps) are longer than the run of {total_steps} steps"
        )
    return steps


def _warmed_up(factor: Factor, warmup_steps: int) -> Factor:
    return lambda step: factor(step) * (step + 1) / warmup_steps if step < warmup_steps else factor(step)


def _decay(total_steps: int, warmup_steps: int, final: float, curve: Callable[[float], float]) -> Factor:
    # `curve` falls from 1 at progress 0 to 0 at progress 1, the end of the run: the last step still moves the weights.
    steps = max(total_steps - warmup_steps, 1)

    def factor(step: int) -> float:
        progress = min(max(step - warmup_steps, 0) / steps, 1.0)
        return final + (1 - final) * curve(progress)

    return _warmed_up(factor, warmup_steps)
