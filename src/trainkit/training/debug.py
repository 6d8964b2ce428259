"""Questions asked before a long run: can the model learn one batch, where does the time go, what made the first nan."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.module_tracker import ModuleTracker

from trainkit import storage
from trainkit.errors import NumericsError, TrainkitError
from trainkit.loggers.facts import StepFacts
from trainkit.loggers.sinks import Report
from trainkit.loop import Done, refuse_bad_steps, steps
from trainkit.tasks.meter import sum_terms
from trainkit.training.run import Run

log = logging.getLogger("trainkit")
NEAR_ZERO = 0.01  # a mean loss that a model has only when it knows the batch by heart
WARM_UP = 5  # steps before those that are profiled: first uses of kernels and memory
ROWS = 15
Result = dict[str, Any]


def overfit(run: Run, report: Report) -> tuple[Result, list[str]]:
    """Train until the loss of a batch is near zero; returns the result and the lines that say so.

    Raises TrainkitError when `epochs` were not enough, and NumericsError as `loop.fit` does. Nothing is saved.
    """
    losses: list[float] = []
    for done in itertools.islice(steps(run), run.epochs * run.train.steps_per_epoch):
        refuse_bad_steps(run)
        losses.append(float(sum_terms(done.loss)))
        near = losses[-1] <= NEAR_ZERO
        if run.step % run.log_every == 0 or run.step == 1 or near:
            report.step(StepFacts(run.step, run.epoch + 1, losses[-1], run.lr, dict))
        report.tick(run.step, None)
        run.stop.check()
        if near and run.steps_into_epoch == run.train.steps_per_epoch:
            break
    story = f"the loss of {run.train.num_samples} samples went from {losses[0]:.4f} to {losses[-1]:.4f}"
    if losses[-1] > NEAR_ZERO:
        raise TrainkitError(
            f"overfit: no: {story} in {run.step} steps, not to {NEAR_ZERO}: look at labels, loss and model, at "
            f"optim.lr={run.lr:g}, and at what keeps a loss up: dropout, label smoothing, weight decay; or epochs=N"
        )
    return _result(run, "train/loss", losses[-1]), [f"overfit: yes: {story} in {run.step} steps"]


def profile(run: Run, folder: Path, count: int) -> tuple[Result, list[str]]:
    """Time so many training steps by operation, after some to warm up; returns the result and a table.

    Writes trace.json.gz into the folder, for https://ui.perfetto.dev. Raises ResourceError when that fails.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler's library says on stderr that it starts
    stream = steps(run)
    for _ in range(WARM_UP):
        _profiled_step(run, stream)
    on_gpu = run.device.type == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * on_gpu
    with torch.profiler.profile(activities=kinds, acc_events=True) as found:
        started, waited = time.perf_counter(), 0.0
        for _ in range(count):
            waited += _profiled_step(run, stream)
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    refuse_bad_steps(run)
    trace = folder / "trace.json.gz"
    try:
        found.export_chrome_trace(str(trace))
    except OSError as error:
        raise storage.cannot_write(trace, error) from error
    step_ms = 1000 * seconds / count
    title = f"{count} steps of {run.train.batch_size} on {run.device} after {WARM_UP} to warm up: {step_ms:.3f} ms each"
    lines = [f"{title}, {waited / seconds:.0%} of it data", *_table(found, "device" if on_gpu else "cpu")]
    return _result(run, "profile/step_ms", step_ms), [*lines, f"trace for https://ui.perfetto.dev: {trace.name}"]


def _profiled_step(run: Run, stream: Iterator[Done]) -> float:
    """One step; returns the seconds that its batch took."""
    done = next(stream)
    run.stop.check()
    return done.waited


def _table(found: torch.profiler.profile, where: str) -> list[str]:
    """The operations that took most time themselves, without those that they call."""
    times = [(getattr(event, f"self_{where}_time_total") / 1000, event) for event in found.key_averages()]
    total = sum(spent for spent, _ in times) or 1.0
    first = sorted(times, key=lambda pair: -pair[0])[:ROWS]
    rows = [f"{spent:10.3f} {spent / total:6.1%} {event.count:7,}  {event.key[:50]}" for spent, event in first]
    return [f"{'self ms':>10} {'share':>6} {'calls':>7}  operation, by its own time on the {where}", *rows]


def _result(run: Run, name: str, value: float) -> Result:
    split, _, metric = name.partition("/")
    epochs = -(-run.step // run.train.steps_per_epoch)
    done = {"best_epoch": epochs, "epochs": epochs, "steps": run.step}
    return {"objective": value, "monitor": name, "mode": "min", **done, "metrics": {split: {metric: value}}}


@contextlib.contextmanager
def naming_nan(run: Run) -> Iterator[None]:
    """Have the operation that makes the first nan raise NumericsError with its name, its module and its line.

    Forward, every operation is looked at; backward, it is torch's anomaly mode, which knows the operation's forward
    call. Slow: both wait for the device after every operation.
    """
    finder = _NanFinder(run)
    with (
        warnings.catch_warnings(record=True) as caught,
        torch.autograd.set_detect_anomaly(True),
        finder.tracker,
        finder,
    ):
        warnings.simplefilter("always")
        try:
            yield
        except NumericsError as error:
            if finder.infinite is None or finder.found:
                raise
            raise NumericsError(f"{error}; the first infinity came from {finder.infinite}") from error
        except RuntimeError as error:
            match = re.search(r"Function '(\w+)' returned nan values", str(error))
            if match is None:
                raise
            where = _forward_line([str(warning.message) for warning in caught])
            raise NumericsError(
                f"anomaly: in step {run.step + 1} the backward pass of {match[1]} gave nan; its forward call is {where}"
            ) from error
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


class _NanFinder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at what every operation takes and gives, outside of the backward pass."""

    def __init__(self, run: Run) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.run = run
        self.tracker = ModuleTracker()
        self.infinite: str | None = None  # what made the first infinity: often the cause of a later nan
        self.found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = _floats((args, kwargs))
        if torch._C._current_autograd_node() is not None or not taken or "empty" in func.name():
            return func(*args, **(kwargs or {}))
        had_nan, had_inf = _any(torch.isnan, taken), _any(torch.isinf, taken)
        result = func(*args, **(kwargs or {}))
        given = _floats(result) + (taken if func._schema.is_mutable else [])
        if not had_nan and _any(torch.isnan, given):
            self.found = True
            before = f"; the first infinity came from {self.infinite}" if self.infinite else ""
            raise NumericsError(
                f"anomaly: in step {self.run.step + 1} the first nan came from {self._where(func)}{before}"
            )
        if self.infinite is None and not had_inf and _any(torch.isinf, given):
            self.infinite = self._where(func)
        return result

    def _where(self, func: Any) -> str:
        module = max(self.tracker.parents - {"Global"}, key=len, default="no module")
        frames = [f for f in traceback.extract_stack()[:-2] if "/torch/" not in f.filename and f.filename != __file__]
        return f"{func.name()} in {module} ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})"


def _floats(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _any(test: Any, tensors: list[torch.Tensor]) -> bool:
    return any(bool(test(tensor).any()) for tensor in tensors)


def _forward_line(texts: list[str]) -> str:
    """The innermost line outside of torch, in the traceback that anomaly mode has warned with."""
    text = next((text for text in texts if "Traceback of forward call" in text), "")
    frames = re.findall(r'File "(.+?)", line (\d+), in .+\n\s*(.+)', text)
    own = [frame for frame in frames if "/torch/" not in frame[0]] or [("?", "?", "not known")]
    file, line, code = own[-1]
    return f"{code} ({file}:{line})"
