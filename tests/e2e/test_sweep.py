"""Sweeps, launchers, sweepers, plugins, and runs side by side: real ones, on the digits."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from conftest import clean_environment

if TYPE_CHECKING:
    from conftest import Command, CommandHere

pytestmark = pytest.mark.slow

SMALL = ("model.hidden=[8]", "epochs=1", "device=cpu", "device.threads=1")
FAST = ("epochs=1", "device=cpu", "device.threads=1")


def the_sweep(root: Path) -> Path:
    """The one sweep folder under `root`."""
    (folder,) = (root / "outputs" / "sweeps").iterdir()
    return folder


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_failed_jobs_are_rows_and_the_others_run(trainkit_here: CommandHere, tmp_path: Path) -> None:
    outcome = trainkit_here("train", "-m", "model=mlp,linear", "optim.lr=1e+38,0.1", "seed=0,1", *FAST)
    assert outcome.code == 1
    folder = the_sweep(tmp_path)
    statuses = {int(path.parent.name): read_json(path) for path in folder.glob("*/status.json")}
    assert sorted(statuses) == list(range(8))  # all ran, although the very first failed
    failed = sorted(job for job, status in statuses.items() if status["state"] == "failed")
    assert failed == [0, 1, 4, 5]
    assert {statuses[job]["exit_code"] for job in failed} == {5}
    assert all("optim.lr=1e+38" in statuses[job]["overrides"] for job in failed)

    lines = outcome.err.splitlines()
    assert len(lines) == len(failed)
    assert all(
        re.match(r"trainkit: error: job \d \(.*optim.lr=1e\+38.*\): .* is not finite .*; lower optim.lr", line)
        for line in lines
    )

    rows = read_csv(folder)
    done = [row for row in rows if row["state"] == "completed"]
    assert [row["state"] for row in rows] == ["completed"] * len(done) + ["failed"] * len(failed)
    values = [float(row["objective"]) for row in done]
    assert values == sorted(values, reverse=True)  # best accuracy first
    assert all(float(row["val/accuracy"]) == float(row["objective"]) for row in done)
    assert [int(row["job"]) for row in rows[len(done) :]] == sorted(failed)
    assert all(row["error"] and not row["objective"] for row in rows[len(done) :])
    assert {(row["model"], row["optim.lr"], row["seed"]) for row in rows} == {
        (model, lr, seed) for model in ("mlp", "linear") for lr in ("1e+38", "0.1") for seed in ("0", "1")
    }
    shown = outcome.out.splitlines()
    title = next(i for i, line in enumerate(shown) if line.startswith("8 jobs, 4 failed; best first by val/accuracy"))
    assert shown[title + 1].split()[:5] == ["job", "model", "optim.lr", "seed", "val/accuracy"]
    assert [line.split()[0] for line in shown[title + 2 : title + 10]] == [row["job"] for row in rows]
    assert any(line.startswith("sweep folder: ") and line.endswith(folder.name) for line in shown[title + 10 :])


def test_a_sweep_in_which_all_is_well(trainkit_here: CommandHere, tmp_path: Path) -> None:
    outcome = trainkit_here("train", "-m", "seed=0,1", "monitor=loss", "--json", *SMALL)
    assert outcome.code == 0
    rows = read_csv(the_sweep(tmp_path))
    values = [float(row["objective"]) for row in rows]
    assert len(values) == 2 and values == sorted(values)  # lowest loss first
    table = [json.loads(line) for line in outcome.out.splitlines()][-1]  # nothing but JSON on stdout
    assert [row["job"] for row in table] == [int(row["job"]) for row in rows]


@pytest.fixture
def flags_restored() -> Iterator[None]:
    """torch as in a new process that has one thread by default, and afterwards as it was."""
    import torch

    from trainkit import runtime

    threads = torch.get_num_threads()
    runtime._default_threads.cache_clear()
    torch.set_num_threads(1)
    yield
    runtime._default_threads.cache_clear()
    runtime.set_flags(threads, False, runtime.Cudnn())


@pytest.mark.usefixtures("flags_restored")
def test_flags_are_set_both_ways_for_every_job(trainkit_here: CommandHere, tmp_path: Path) -> None:
    """One process runs all jobs; the order has each flag go on and off again."""
    words = [
        "device.cudnn={enabled:true,benchmark:false,deterministic:false,allow_tf32:true},"
        "{enabled:false,benchmark:true,deterministic:true,allow_tf32:false},"
        "{enabled:true,benchmark:false,deterministic:false,allow_tf32:true}",
    ]
    assert (
        trainkit_here("train", "-m", *words, "device.threads=2,1", "device=cpu", "epochs=1", "dataset=wine").code == 0
    )
    folder = the_sweep(tmp_path)
    jobs = [read_json(folder / str(number) / "env.json") for number in range(6)]
    on = {"enabled": True, "benchmark": False, "deterministic": False, "allow_tf32": True}
    off = {name: not value for name, value in on.items()}
    seen = [{name: job["cudnn"][name] for name in on} for job in jobs]
    assert seen == [on, on, off, off, on, on]
    assert [job["threads"] for job in jobs] == [2, 1] * 3


@pytest.mark.usefixtures("flags_restored")
def test_deterministic_and_threads_return_to_their_defaults(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("device.deterministic=true,false", "device.threads=2,null", "device=cpu", "dataset=wine", "model=linear")
    assert trainkit_here("train", "-m", *words).code == 0
    jobs = [read_json(the_sweep(tmp_path) / str(number) / "env.json") for number in range(4)]
    assert [job["deterministic"] for job in jobs] == [True, True, False, False]
    assert [job["threads"] for job in jobs] == [2, 1, 2, 1]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sweep_folder_in_use_is_refused(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("train", "-m", "seed=0,1", "hydra.sweep.dir=both", *SMALL[:1], *FAST[1:], "epochs=1000000")
    command = [sys.executable, "-m", "trainkit", *words]
    first = subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "both" / "0" / "metrics.jsonl").exists():
            assert first.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        before = contents(tmp_path / "both")
        for again in (("train", "-m", "seed=2,3", "hydra.sweep.dir=both"), words, ("resume", "both")):
            outcome = trainkit_here(*again)
            assert outcome.code == 2
            said = f"trainkit: error: the folder {tmp_path / 'both'} is in use by process {first.pid}\n"
            assert outcome.err == said, again
        assert contents(tmp_path / "both") == before
    finally:
        first.kill()
        first.wait()


def test_a_folder_with_another_sweep_is_refused(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("train", "-m", "hydra.sweep.dir=one", *FAST, "model=linear")
    assert trainkit_here(*words, "seed=0,1").code == 0
    before = contents(tmp_path / "one")
    outcome = trainkit_here(*words, "seed=2,3")
    (line,) = outcome.err.splitlines()
    assert outcome.code == 2
    assert re.match(r"trainkit: error: one holds another sweep \(trainkit train -m .* seed=0,1\): name another", line)
    assert contents(tmp_path / "one") == before

    for again in ((*words, "seed=0,1"), (*words, "seed=0,1", "--json"), ("resume", "one")):
        outcome = trainkit_here(*again)
        assert (outcome.code, outcome.err.count("was done before") + outcome.out.count("was done before")) == (0, 2)
    after = contents(tmp_path / "one")
    assert {path.name for path in before if before[path] != after[path]} <= {"sweep.csv", "multirun.yaml"}
    assert not (tmp_path / "one" / ".lock").exists()


def test_a_finished_run_is_not_begun_anew_as_another(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("train", "hydra.run.dir=run", "model=linear", *FAST)
    assert trainkit_here(*words).code == 0
    before = contents(tmp_path / "run")
    outcome = trainkit_here(*words, "optim.lr=0.01")
    assert outcome.code == 2
    assert outcome.err == (
        "trainkit: error: run holds a finished run with optim.lr=0.1, and not 0.01: name another folder for this one\n"
    )
    del before[tmp_path / "run" / "train.log"]
    after = contents(tmp_path / "run")
    assert {path: after[path] for path in before} == before


def test_eval_of_several_checkpoints(trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert trainkit_here("train", "-m", "seed=0,1", "hydra.sweep.dir=runs", *SMALL).code == 0
    trained = {int(row["job"]): row for row in read_csv(tmp_path / "runs")}
    outcome = trainkit_here("eval", "-m", "ckpt=runs/0,runs/1", "split=test,val")
    assert (outcome.code, outcome.err) == (0, "")
    rows = read_csv(the_sweep(tmp_path))
    assert len(rows) == 4
    for row in rows:  # the very numbers that training printed
        seed = int(read_config(Path(row["run"]))["seed"])
        split = "test" if row["test/accuracy"] else "val"
        for metric in ("accuracy", "loss", "macro_f1"):
            assert row[f"{split}/{metric}"] == trained[seed][f"{split}/{metric}"]


def read_config(run: Path) -> dict[str, Any]:
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


def skip_without(package: str) -> None:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")


def test_optuna(trainkit: Command, tmp_path: Path) -> None:
    skip_without("hydra-optuna-sweeper")
    done = trainkit(
        *("train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"),
        *("hydra.sweeper.sampler.seed=0", "optim.lr=interval(0.001,0.5)", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    folder = the_sweep(tmp_path)
    rows = read_csv(folder)
    assert len(rows) == 3 and len({row["optim.lr"] for row in rows}) == 3
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text(encoding="utf-8"))
    assert found["best_value"] == float(rows[0]["objective"])  # the largest accuracy: nobody had to say so
    assert found["best_params"]["optim.lr"] == pytest.approx(float(rows[0]["optim.lr"]))


def test_optuna_follows_the_monitor(trainkit: Command, tmp_path: Path) -> None:
    skip_without("hydra-optuna-sweeper")
    search = ("train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1")
    lr = "optim.lr=interval(0.001,0.5)"
    refused = trainkit(*search, lr, "hydra.sweeper.direction=minimize", *SMALL)
    assert refused.returncode == 2, refused.stdout
    assert refused.stderr == (
        "trainkit: error: hydra.sweeper.direction=minimize: the better accuracy is the maximum; "
        "leave it out, or set it to maximize\n"
    )
    assert not (tmp_path / "outputs").exists()
    for words, direction, best in [(["monitor=loss"], "minimize", min), (["monitor=loss:max"], "maximize", max)]:
        done = trainkit(*search, lr, *words, f"output_dir={direction}", *SMALL)
        assert done.returncode == 0, done.stderr
        (folder,) = (tmp_path / direction / "sweeps").iterdir()
        found = yaml.safe_load((folder / "optimization_results.yaml").read_text(encoding="utf-8"))
        assert found["best_value"] == best(float(row["objective"]) for row in read_csv(folder))


PLUGIN = '''
from torch import nn

from trainkit.registry import register


@register("model")
def tiny(in_shape, num_outputs, *, width: int = 8):
    """One narrow hidden layer."""
    size = 1
    for length in in_shape:
        size *= length
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, num_outputs))
'''


def write_plugin(folder: Path) -> None:
    """A component of the user's own: a module beside the cwd, and its YAML in ./conf."""
    (folder / "my_models.py").write_text(PLUGIN)
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "tiny.yaml").write_text("# my own model\nname: tiny\nwidth: 6\n")


def test_joblib_with_a_plugin(trainkit: Command, tmp_path: Path) -> None:
    """Every job in a process of its own, which must find the user's component and do the same as one process."""
    skip_without("hydra-joblib-launcher")
    write_plugin(tmp_path)
    words = ("train", "-m", "plugins=[my_models]", "model=tiny", "seed=0,1", *FAST)
    done = trainkit(*words, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    folder = the_sweep(tmp_path)
    rows = read_csv(folder)
    assert sorted(row["seed"] for row in rows) == ["0", "1"]
    assert all(row["state"] == "completed" for row in rows)
    assert {read_config(Path(row["run"]))["model"]["width"] for row in rows} == {6}
    assert {read_json(Path(row["run"]) / "env.json")["threads"] for row in rows} == {1}


def test_plugin_in_train_and_eval(trainkit_here: CommandHere, trainkit: Command, tmp_path: Path) -> None:
    write_plugin(tmp_path)
    words = ("train", "plugins=[my_models]", "model=tiny", *FAST)
    done = trainkit_here(*words, "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    run = Path(result["run"])
    assert read_config(run)["model"] == {"name": "tiny", "width": 6}

    again = trainkit_here("eval", f"ckpt={run}", "plugins=[my_models]", "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["metrics"]["test"] == result["metrics"]["test"]

    without = trainkit("eval", f"ckpt={run}")  # a process that has never heard of the module
    assert without.returncode == 2
    (line,) = without.stderr.splitlines()
    assert re.match(r"trainkit: error: .*model 'tiny'.*add plugins=\[my_models\]", line)

    bad = trainkit_here(*words, "model.width=x")
    assert bad.code == 2 and "model.width: expected an integer, got 'x'" in bad.err


def test_two_runs_of_one_moment_have_two_folders(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainkit", "train", *SMALL]
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    folders = sorted((tmp_path / "outputs" / "train").iterdir())
    assert len(folders) == 2
    assert {read_json(folder / "status.json")["state"] for folder in folders} == {"completed"}
    weights = {(folder / "checkpoints" / "best.safetensors").read_bytes() for folder in folders}
    assert len(weights) == 1  # and both are the same run, to the bit
