"""`loggers=[mlflow]`: MLflow, in OUTPUT_DIR/mlflow.db unless MLFLOW_TRACKING_URI says otherwise."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import storage
from trainkit.config.changes import flat
from trainkit.loggers.facts import EpochFacts, Plan, StepFacts

if TYPE_CHECKING:
    from mlflow import MlflowClient


EVERY = 5.0  # seconds: what is logged more often is written together, as a commit takes milliseconds
MOST = 1000  # numbers in one request, by MLflow's own limit
LONGEST = 6000  # characters of a parameter's value, likewise


class MLflow:
    """A run of the experiment `trainkit` (or MLFLOW_EXPERIMENT_NAME), its id kept in RUN/mlflow.json for resuming.

    One data base for all runs of an `output_dir`, because they are there to be compared.
    """

    name = "mlflow"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.output_dir = Path(config["output_dir"])
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.output_dir / 'mlflow.db'}"
        self.client: MlflowClient | None = None
        self.run_id = ""
        self.done = False
        self.waiting: list[tuple[str, float, int, int]] = []  # name, value, milliseconds since 1970, step
        self.written = 0.0

    def begin(self, plan: Plan) -> None:
        # MLflow reports its use to its makers, and asks a server that does not answer seven times, for minutes.
        for name, value in (
            ("MLFLOW_DISABLE_TELEMETRY", "true"),
            ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
            ("MLFLOW_HTTP_REQUEST_TIMEOUT", "20"),
            ("MLFLOW_LOGGING_LEVEL", "WARNING"),
        ):
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.output_dir.mkdir(parents=True, exist_ok=True)
        with locked(self.output_dir):  # jobs of a sweep must not make the tables, or the experiment, twice
            self.client = MlflowClient(self.uri)
            experiment = self._experiment(self.client)
        place = self.folder / "mlflow.json"
        if place.exists():
            self.run_id = str(json.loads(storage.read_regular(place))["run_id"])
            self.client.update_run(self.run_id, status="RUNNING")
            return
        self.run_id = self.client.create_run(experiment, run_name=self.folder.name).info.run_id
        storage.replace_json(place, {"tracking_uri": self.uri, "run_id": self.run_id})
        self._parameters(self.client)

    def _experiment(self, client: MlflowClient) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "trainkit")
        if (found := client.get_experiment_by_name(name)) is not None:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite:")  # without a place of their own, artifacts go into the current folder
        return str(client.create_experiment(name, str(self.output_dir / "mlflow") if local else None))

    def _parameters(self, client: MlflowClient) -> None:
        from mlflow.entities import Param

        values = [Param(key, str(value)[:LONGEST]) for key, value in flat(self.config).items()]
        for start in range(0, len(values), 100):
            client.log_batch(self.run_id, params=values[start : start + 100])

    def step(self, facts: StepFacts) -> None:
        self._keep({"step/loss": facts.loss, "step/lr": facts.lr}, facts.step)
        if time.monotonic() - self.written > EVERY:
            self._write()

    def epoch(self, facts: EpochFacts) -> None:
        numbers = facts.numbers | {"time/train_seconds": facts.train_seconds, "time/data_wait": facts.data_wait}
        self._keep({"epoch": facts.epoch, **numbers}, facts.step)
        if time.monotonic() - self.written > EVERY:
            self._write()

    def end(self, result: dict[str, Any]) -> None:
        for split, metrics in result["metrics"].items():
            numbers = {f"best/{split}/{name}": value for name, value in metrics.items()}
            self._keep(numbers, result["steps"])
        self._keep({"best_epoch": result["best_epoch"]}, result["steps"])
        self.done = True

    def close(self) -> None:
        if self.client is not None:
            self._write()
            self.client.set_terminated(self.run_id, "FINISHED" if self.done else "KILLED")
            self.client = None

    def look(self) -> str:
        return f"mlflow ui --backend-store-uri {shlex.quote(self.uri)}"

    def _keep(self, numbers: dict[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.waiting += [(name, float(value), now, step) for name, value in numbers.items()]

    def _write(self) -> None:
        from mlflow.entities import Metric

        assert self.client is not None
        for start in range(0, len(self.waiting), MOST):
            metrics = [Metric(*values) for values in self.waiting[start : start + MOST]]
            self.client.log_batch(self.run_id, metrics=metrics)
        self.waiting.clear()
        self.written = time.monotonic()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the kernel frees when the process dies."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
