"""Loggers: what they wrote is read back with their own readers, and one that fails costs the run nothing."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import clean_environment

if TYPE_CHECKING:
    from conftest import Command, CommandHere

pytestmark = pytest.mark.slow

QUICK = (
    "dataset=wine",
    "model.hidden=[8]",
    "device=cpu",
    "device.threads=1",
    "hydra.run.dir=run",
    "log_every=1",
    "batch_size=32",
)
CLOCK = ("time", "train_seconds", "data_wait", "at")


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"{package} is not installed")


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def numbers(run: Path) -> list[dict[str, Any]]:
    """What a run has measured, without the clock."""
    lines = [line for kind in ("step", "epoch", "end") for line in events(run, kind)]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def tensorboard_series(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    return [(event.step, event.value) for event in read.Scalars(tag)]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The command in a process of its own, with what it says in `folder`/said."""
    with (folder / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "trainkit", *words],
            cwd=folder,
            env=clean_environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
        )


def wait_for_steps(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() or len(events_so_far(run)) < count:
        assert process.poll() is None, (run.parent / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def events_so_far(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


@needs("tensorboard")
def test_tensorboard_is_read_back(trainkit_here: CommandHere, tmp_path: Path) -> None:
    done = trainkit_here("train", *QUICK, "epochs=3", "loggers=[tensorboard]")
    assert (done.code, done.err) == (0, "")
    assert "  tensorboard --logdir run/tensorboard\n" in done.out
    folder = tmp_path / "run" / "tensorboard"
    steps, epochs = events(tmp_path / "run", "step"), events(tmp_path / "run", "epoch")
    assert len(steps) > len(epochs) == 3
    assert tensorboard_series(folder, "step/loss") == [(e["step"], pytest.approx(e["loss"])) for e in steps]
    for name in ("train/loss", "val/accuracy", "epoch"):
        assert tensorboard_series(folder, name) == [(e["step"], pytest.approx(e[name])) for e in epochs]
    (end,) = events(tmp_path / "run", "end")
    assert tensorboard_series(folder, "test/loss") == [(end["steps"], pytest.approx(end["metrics"]["test"]["loss"]))]


@needs("tensorboard")
def test_tensorboard_forgets_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    """A killed run has logged steps that no checkpoint holds; they are trained, and logged, again."""
    run = tmp_path / "run"
    first = start(tmp_path, "train", *QUICK, "epochs=100000", "loggers=[tensorboard]", "checkpoint_every=7steps")
    wait_for_steps(run, 60, first)
    first.kill()
    first.wait()
    before = len(tensorboard_series(run / "tensorboard", "step/loss"))
    assert before >= 39  # 60 lines are at least so many steps
    second = start(tmp_path, "resume", "run")
    while "goes on after" not in (tmp_path / "said").read_text():
        assert second.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.05)
    wait_for_steps(run, 120, second)
    second.send_signal(signal.SIGINT)
    assert second.wait() == 130
    logged = tensorboard_series(run / "tensorboard", "step/loss")
    assert logged == [(e["step"], pytest.approx(e["loss"])) for e in events(run, "step")]
    assert len(list((run / "tensorboard").iterdir())) == 2


@needs("wandb")
def test_wandb_stays_on_this_machine(trainkit: Command, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = trainkit("train", *QUICK, "epochs=2", "loggers=[wandb]", env={"HOME": str(home)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "  wandb sync run/wandb/offline-run-*\n" in done.stdout
    ((file,),) = [list(folder.glob("*.wandb")) for folder in (tmp_path / "run" / "wandb").glob("offline-run-*")]
    run_id = json.loads((tmp_path / "run" / "wandb.json").read_text())["id"]
    assert file.name == f"run-{run_id}.wandb"
    rows = wandb_history(file)
    losses = [(row["step"], row["step/loss"]) for row in rows if "step/loss" in row]
    assert losses == [(e["step"], e["loss"]) for e in events(tmp_path / "run", "step")]
    accuracy = [(row["epoch"], row["val/accuracy"]) for row in rows if "val/accuracy" in row]
    assert accuracy == [(e["epoch"], e["val/accuracy"]) for e in events(tmp_path / "run", "epoch")]
    assert {path.name for path in tmp_path.iterdir()} == {"run", "home"}
    assert {path.name for path in home.iterdir()} <= {".cache"}


def wandb_history(file: Path) -> list[dict[str, Any]]:
    """The rows of a .wandb file, which is a LevelDB log of protocol buffers; W&B's package has no reader of it."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, rows, part, position = file.read_bytes(), [], b"", 7  # a header of 7 bytes, then blocks of 32 KiB
    while position + 7 <= len(content):
        room = 32768 - position % 32768
        if room < 7:
            position += room
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        part += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record.FromString(part)
            part = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


@needs("mlflow")
@needs("sqlalchemy")
def test_mlflow_keeps_a_run_and_a_broken_data_base_does_not_stop_the_next(trainkit: Command, tmp_path: Path) -> None:
    done = trainkit("train", *QUICK, "epochs=2", "loggers=[mlflow]")
    assert (done.returncode, done.stderr) == (0, "")
    base = tmp_path / "outputs" / "mlflow.db"
    assert f"  mlflow ui --backend-store-uri sqlite:///{base}\n" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"run", "outputs"}
    found = mlflow_run(base, json.loads((tmp_path / "run" / "mlflow.json").read_text())["run_id"])
    assert found["status"] == "FINISHED" and found["params"]["model.hidden"] == "[8]"
    assert found["step/loss"] == [(e["step"], e["loss"]) for e in events(tmp_path / "run", "step")]
    assert found["val/loss"] == [(e["step"], e["val/loss"]) for e in events(tmp_path / "run", "epoch")]

    good = numbers(tmp_path / "run")
    base.write_bytes(b"not a data base" * 1000)
    again = trainkit("train", *QUICK, "epochs=2", "loggers=[mlflow]", "hydra.run.dir=again")
    assert again.returncode == 0
    assert again.stdout.count("note: loggers=mlflow failed and is off for the rest of this run: ") == 1
    assert numbers(tmp_path / "again") == good


def mlflow_run(base: Path, run_id: str) -> dict[str, Any]:
    """A run as MLflow's own client reads it, in a process of its own: MLflow warns of its own parts."""
    script = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
run = client.get_run(sys.argv[2])
found = {"status": run.info.status, "params": run.data.params}
for name in run.data.metrics:
    found[name] = [(m.step, m.value) for m in client.get_metric_history(sys.argv[2], name)]
print(json.dumps(found))
"""
    command = [sys.executable, "-c", script, f"sqlite:///{base}", run_id]
    env = clean_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found = json.loads(done.stdout)
    return {k: [tuple(pair) for pair in v] if isinstance(v, list) else v for k, v in found.items()}


@needs("mlflow")
def test_a_server_that_is_not_there(trainkit: Command, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = trainkit("train", *QUICK, "epochs=2", "loggers=[mlflow]", env=env)
    assert done.returncode == 0
    assert done.stdout.count("loggers=mlflow failed and is off for the rest of this run: ") == 1
    assert not (tmp_path / "outputs" / "mlflow.db").exists()


@needs("tensorboard")
def test_a_logger_that_fails_changes_no_number(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file where its folder should be")
    done = trainkit_here("train", *QUICK, "epochs=2", "loggers=[tensorboard]")
    assert done.code == 0
    assert done.out.count("note: loggers=tensorboard failed and is off for the rest of this run: ") == 1
    assert "tensorboard --logdir" not in done.out
    assert trainkit_here("train", *QUICK, "epochs=2", "hydra.run.dir=plain").code == 0
    assert numbers(tmp_path / "run") == numbers(tmp_path / "plain")


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_package_is_said_before_anything_is_made(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()  # a folder of that name is not the package
    script = f"import sys; sys.modules[{name!r}] = None; from trainkit.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "train", f"loggers=[{name}]"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 2
    expected = f"trainkit: error: loggers={name} needs the package {name}: pip install 'trainkit[{name}]'\n"
    assert done.stderr == expected
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_logger_is_refused(trainkit_here: CommandHere) -> None:
    done = trainkit_here("train", "loggers=[tensorbord]")
    assert done.code == 2
    assert done.err.startswith(
        "trainkit: error: loggers[0]: value 'tensorbord' is not known (did you mean tensorboard?)"
    )
