"""trainkit from Python: train, load, and list runs, by the same code as the commands. torch is imported when used."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import CheckpointError, TrainkitError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from trainkit.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished training run: its folder, and the metrics of its best epoch by name, as in `test/accuracy`."""

    run: Path
    metrics: dict[str, float]


def train(*overrides: str, plugins: Sequence[str] = ()) -> Result:
    """Train as `trainkit train OVERRIDES…` does, in this process; the same files and the same bits come of it.

    plugins: modules whose components take part. Raises what went wrong as a TrainkitError: ConfigError, DataError and
    so on, after it was printed and recorded; KeyboardInterrupt when the run was stopped, which `trainkit resume` then
    goes on with.
    """
    from trainkit.console.console import Console
    from trainkit.launch.job import run_job
    from trainkit.launch.run import compose_job

    words = [*overrides, *([f"plugins=[{','.join(plugins)}]"] if plugins else [])]
    with _logging_restored():
        job = compose_job("train", words)
        ended = run_job(job, Console(live=False))
    if ended.error is not None:
        raise ended.error
    if ended.result is None:
        raise TrainkitError(f"the run in {job.folder} ended with exit code {ended.code}")
    splits = ended.result["metrics"].items()
    return Result(job.folder, {f"{split}/{name}": value for split, found in splits for name, value in found.items()})


@contextlib.contextmanager
def _logging_restored() -> Iterator[None]:
    # a run's log is all that a command logs to; a notebook has handlers of its own
    import logging

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model out of a checkpoint, on the CPU, with all that it needs to know of its inputs.

    spec: the inputs and targets that it was trained on. module: the network; it takes normalized inputs.
    """

    spec: DataSpec
    module: nn.Module

    def predict(self, inputs: Any, *, batch_size: int = 256) -> NDArray[np.generic]:
        """What the model says of raw inputs (N, …), which are of the shape and type that it was trained on.

        inputs: an array, or several by name. Returns, in their order, the probabilities (N, C) of classes or labels, or
        numbers (N, T) in the targets' own unit. Raises DataError for inputs of another shape or type.
        """
        from trainkit.predict.model import predict

        found: NDArray[np.generic] = predict(self.module, self.spec, inputs, batch_size)
        return found


def load(path: str | Path, *, plugins: Sequence[str] = ()) -> Model:
    """The model of a run folder (its best epoch) or of a checkpoint file.

    plugins: modules whose components it is built of. Raises CheckpointError when there is none, or when it is damaged.
    """
    from trainkit import registry
    from trainkit.checkpoints import checkpoint
    from trainkit.config.check import check_component
    from trainkit.config.trust import refuse_interpolations, refuse_targets
    from trainkit.predict.model import restore_model

    registry.import_plugins(list(plugins))
    file = checkpoint.locate(Path(path))
    node = checkpoint.read_header(file)["config"].get("model")
    refuse_targets(node, file)
    refuse_interpolations(node, file)
    problems: list[str] = []
    choice = check_component("model", node, problems)
    if choice is None or problems:
        raise CheckpointError(f"'{file}' has a model that cannot be built here: {'; '.join(problems)}")
    module, spec, _ = restore_model(choice, file)
    return Model(spec, module)


def runs(folder: str | Path = "outputs") -> list[dict[str, Any]]:
    """The runs in and below a folder, oldest first, each as one flat row: facts, metrics and config keys.

    `pandas.DataFrame(trainkit.runs())` is a table of them. Raises ConfigError when there is no such folder.
    """
    from trainkit.run_folders.records import find

    found, _ = find(Path(folder))
    return [{**record.config, **record.metrics, **record.facts} for record in found]
