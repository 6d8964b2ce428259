"""`loggers=[wandb]`: Weights & Biases, offline in RUN/wandb unless WANDB_MODE says otherwise."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import storage
from trainkit.loggers.facts import EpochFacts, Plan, StepFacts
from trainkit.run_folders import rundir

if TYPE_CHECKING:
    import wandb


class WandB:
    """A run whose x axis is its own number `step`; its id is kept in RUN/wandb.json, so that a resumed run is the same.

    WANDB_PROJECT, WANDB_ENTITY and the like are W&B's own; without them the project is `trainkit`.
    """

    name = "wandb"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.mode = os.environ.get("WANDB_MODE", "offline")
        self.run: wandb.Run | None = None
        self.done = False

    def begin(self, plan: Plan) -> None:
        # Read at import: reports of errors in W&B itself go to its makers, also when it is offline.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "true" if self.mode == "online" else "false")
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "trainkit"),
            id=self._id(),
            name=self.folder.name,
            dir=self.folder,
            mode=self.mode,
            config=self.config,
            resume="allow" if self.mode == "online" else None,
            reinit="finish_previous",
            settings=wandb.Settings(console="off", silent=True, init_timeout=30, disable_code=True),
        )
        self.run.define_metric("*", step_metric="step")

    def _id(self) -> str:
        place = self.folder / "wandb.json"
        if place.exists():
            return str(json.loads(storage.read_regular(place))["id"])
        new = secrets.token_hex(4)
        storage.replace_json(place, {"id": new})
        return new

    def step(self, facts: StepFacts) -> None:
        self._write({"step": facts.step, "step/loss": facts.loss, "step/lr": facts.lr})

    def epoch(self, facts: EpochFacts) -> None:
        numbers = facts.numbers | {"time/train_seconds": facts.train_seconds, "time/data_wait": facts.data_wait}
        self._write({"step": facts.step, "epoch": facts.epoch, **numbers})

    def end(self, result: dict[str, Any]) -> None:
        assert self.run is not None
        for split, metrics in result["metrics"].items():
            self.run.summary.update({f"best/{split}/{name}": value for name, value in metrics.items()})
        self.run.summary["best_epoch"] = result["best_epoch"]
        self.done = True

    def close(self) -> None:
        if self.run is not None:
            self.run.finish(exit_code=0 if self.done else 1)
            self.run = None

    def look(self) -> str:
        if self.mode == "online":
            return "wandb: see the run in your project"
        return f"wandb sync {shlex.quote(rundir.shown(self.folder))}/wandb/offline-run-*"

    def _write(self, numbers: dict[str, float]) -> None:
        assert self.run is not None
        self.run.log(numbers)
