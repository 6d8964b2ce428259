"""`loggers=[tensorboard]`: event files in RUN/tensorboard."""

from __future__ import annotations

import os
import shlex
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import storage
from trainkit.loggers.facts import EpochFacts, Plan, StepFacts
from trainkit.run_folders import rundir

if TYPE_CHECKING:
    from tensorboard.summary.writer.record_writer import RecordWriter


class TensorBoard:
    """Numbers of logged steps as `step/…`, of epochs as `train/…` and `val/…`, of the best epoch as `test/…`, by step.

    Written with TensorBoard's record writer to a plain file, and not with the writers above it, whose thread would
    fail by itself on a full disk. A run that goes on writes another file, which has the reader forget what was logged
    after the step that it goes on from.
    """

    name = "tensorboard"

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder / "tensorboard"
        self.writer: RecordWriter | None = None

    def begin(self, plan: Plan) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        storage.make_folder(self.folder)
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{socket.gethostname()}.{os.getpid()}"
        self.writer = RecordWriter((self.folder / name).open("xb"))
        self._event(file_version="brain.Event:2")
        self._event(step=plan.step + 1, session_log=SessionLog(status=SessionLog.START))

    def step(self, facts: StepFacts) -> None:
        self._scalars({"step/loss": facts.loss, "step/lr": facts.lr}, facts.step)

    def epoch(self, facts: EpochFacts) -> None:
        numbers = facts.numbers | {"time/train_seconds": facts.train_seconds, "time/data_wait": facts.data_wait}
        self._scalars({"epoch": facts.epoch, **numbers}, facts.step)

    def end(self, result: dict[str, Any]) -> None:
        test = result["metrics"].get("test", {})
        self._scalars({f"test/{name}": value for name, value in test.items()}, result["steps"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def look(self) -> str:
        return f"tensorboard --logdir {shlex.quote(rundir.shown(self.folder))}"

    def _scalars(self, numbers: dict[str, float], step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._event(step=step, summary=Summary(value=values))

    def _event(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        assert self.writer is not None
        self.writer.write(Event(wall_time=time.time(), **content).SerializeToString())
        self.writer.flush()
