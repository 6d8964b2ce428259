"""`trainkit runs` on real run folders, whole and damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import clean_environment
from trainkit.console.columns import cut, lines_of, width_of

pytestmark = pytest.mark.slow

pytest_plugins = ["made_runs"]

if TYPE_CHECKING:
    from made_runs import ChangeStatus

    from conftest import CommandHere, Outcome


def listed(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.code == 0, outcome.err
    found: list[dict[str, Any]] = json.loads(outcome.out)["runs"]
    return found


def first_words(outcome: Outcome) -> list[str]:
    """The first column, without header and tree."""
    assert outcome.code == 0, outcome.err
    return [line.replace("└", " ").split()[0] for line in outcome.out.splitlines()[1:]]


def test_all_runs_are_listed_with_what_they_are(trainkit_here: CommandHere, sweep: Path, single: Path) -> None:
    found = listed(trainkit_here("runs", "--json"))
    assert len(found) == 6 + 2 + 3 + 1
    assert [run["started"] for run in found if run["origin"] is None] == sorted(
        run["started"] for run in found if run["origin"] is None
    )
    by_path = {run["path"]: run for run in found}
    job = by_path[str(sweep / "4")]
    status = json.loads((sweep / "4" / "status.json").read_text())
    assert job["run"] == f"{sweep.name[-6:]}/4" and job["label"] == "wine-mlp" and job["state"] == "completed"
    assert job["metrics"]["val/accuracy"] == status["result"]["metrics"]["val"]["accuracy"]
    assert job["config"]["model"] == "mlp" and job["config"]["seed"] == 1 and job["config"]["optim.lr"] == 0.1
    assert by_path[str(single)]["run"] == single.name[-6:]


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["verb=train", "dataset=wine"], 7),
        (["verb=train", "model=mlp", "dataset=wine"], 4),
        (["verb=train", "model!=mlp"], 4),
        (["verb=train", "seed>=1"], 4),
        (["optim.lr=1e-2"], 1),
        (["optim.lr<0.1", "state=completed"], 1),
        (["model.hidden=[256,128]", "verb=train"], 5),
        (["val/accuracy>=0", "val/accuracy<=1"], 7),
        (["val/accuracy>1"], 0),
        (["test/rmse>0"], 2),
        (["patience=null", "verb=train"], 9),
        (["started>2000-01-01", "started<9999"], 12),
        (["device.cudnn.benchmark=false", "verb=eval"], 3),
    ],
    ids=str,
)
@pytest.mark.usefixtures("outputs")
def test_filters(trainkit_here: CommandHere, filters: list[str], count: int) -> None:
    assert len(listed(trainkit_here("runs", *filters, "--json"))) == count


def test_sorting(trainkit_here: CommandHere, sweep: Path) -> None:
    found = listed(trainkit_here("runs", str(sweep), "--sort", "-val/accuracy,seed", "--json"))
    order = [(-run["metrics"]["val/accuracy"], run["config"]["seed"]) for run in found]
    assert len(order) == 6 and order == sorted(order)
    everything = listed(trainkit_here("runs", "--sort", "test/rmse", "--json"))
    values = [run["metrics"].get("test/rmse") for run in everything]
    assert None not in values[:2] and values[:2] == sorted(values[:2]) and set(values[2:]) == {None}


def test_columns(trainkit_here: CommandHere, sweep: Path) -> None:
    outcome = trainkit_here("runs", str(sweep), "--columns", "run,model,optim.lr,seed,patience")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["run", "model", "optim.lr", "seed", "patience"]
    assert [line.split()[1:] for line in lines[1:]] == [
        [model, "0.1", seed] for model in ("linear", "mlp") for seed in "012"
    ]


@pytest.mark.usefixtures("outputs")
def test_evaluations_hang_below_their_runs(trainkit_here: CommandHere, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name the folder by its place, which is another one here: the id still leads to it."""
    monkeypatch.setenv("COLUMNS", "1000")  # nothing is cut, however long the path of the scratch folder
    lines = trainkit_here("runs").out.splitlines()
    below = [i for i, line in enumerate(lines) if line.startswith("└ ")]
    assert len(below) == 3
    for index in below:
        parent = next(line for line in reversed(lines[:index]) if not line.startswith("└"))
        assert f"evaluates {parent.split()[0]}" in lines[index]


def test_extended_and_resumed_runs_form_a_tree(
    trainkit_here: CommandHere, outputs: Path, single: Path, change_status: ChangeStatus
) -> None:
    first = single.with_name("2031-01-01_00-00-00_wine-mlp_aaaaa1")
    second = single.with_name("2031-01-02_00-00-00_wine-mlp_aaaaa2")
    again = single.with_name("2031-01-03_00-00-00_wine-mlp_aaaaa3")
    for copy in (first, second, again):
        shutil.copytree(single, copy)
    change_status(first, parent=str(single), started="2031-01-01T00:00:00+0000")
    change_status(second, parent=str(first), resumed=[{"at": "x", "step": 1}, {"at": "y", "step": 2}])
    change_status(again, reproduces=str(single))
    lines = trainkit_here("runs", str(outputs / "train"), "--columns", "run,resumed").out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "run         resumed",
        f"{single.name[-6:]}            0",
        "└ aaaaa3          0",
        "└ aaaaa1          0",
        "  └ aaaaa2        2",
    ]
    found = {run["run"]: run for run in listed(trainkit_here("runs", "--json"))}
    assert (found["aaaaa1"]["relation"], found["aaaaa3"]["relation"]) == ("extends", "reproduces")
    assert len(found["aaaaa2"]["resumed"]) == 2
    assert first_words(trainkit_here("runs", "resumed>0")) == ["aaaaa2"]  # whose parents are filtered out


def test_a_run_that_was_extended_and_reproduced(trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert trainkit_here("train", "dataset=wine", "epochs=1", "device=cpu", "device.threads=1").code == 0
    (single,) = (tmp_path / "outputs" / "train").iterdir()
    assert trainkit_here("resume", str(single), "epochs=+1").code == 0
    assert trainkit_here("reproduce", str(single)).code == 0
    found = {run["relation"]: run for run in listed(trainkit_here("runs", "outputs/train", "--json"))}
    assert found["extends"]["origin"] == found["reproduces"]["origin"] == str(single)
    assert found["extends"]["epoch"] == 2
    lines = trainkit_here("runs", "outputs/train").out.splitlines()[1:]
    assert lines[0].startswith(single.name[-6:]) and all(line.startswith("└ ") for line in lines[1:])


def test_a_circle_of_parents_ends(trainkit_here: CommandHere, sweep: Path, change_status: ChangeStatus) -> None:
    change_status(sweep / "0", parent=str(sweep / "1"))
    change_status(sweep / "1", parent=str(sweep / "0"))
    change_status(sweep / "2", parent=str(sweep / "2"))
    assert len(first_words(trainkit_here("runs", str(sweep)))) == 6


def test_a_killed_run_is_told_from_a_running_one(trainkit_here: CommandHere, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainkit", "train", "dataset=wine", "epochs=1000000", "device.threads=1"]
    with subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("outputs/train/*/results.csv")):
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
            (run,) = listed(trainkit_here("runs", "--json"))
            assert run["state"] == "running"
        finally:
            process.send_signal(signal.SIGKILL)
    (run,) = listed(trainkit_here("runs", "state=killed", "--json"))
    assert run["epoch"] >= 1 and run["step"] >= 1
    assert 0 <= run["metrics"]["val/accuracy"] <= 1  # of the best epoch so far
    (Path(run["path"]) / ".lock").unlink()
    assert listed(trainkit_here("runs", "--json"))[0]["state"] == "killed"


def test_damaged_and_foreign_folders_are_counted(trainkit_here: CommandHere, outputs: Path, sweep: Path) -> None:
    before = len(listed(trainkit_here("runs", "--json")))
    bad = {
        "torn": '{"verb": "train", "sta',
        "list": "[]",
        "number": '{"verb": "train", "state": 3}',
        "deep": "[" * 99999,
    }
    for name, text in bad.items():
        (outputs / "train" / name).mkdir()
        (outputs / "train" / name / "status.json").write_text(text)
    (outputs / "train" / "binary").mkdir()
    (outputs / "train" / "binary" / "status.json").write_bytes(b"\xff\xfe\x00")
    (outputs / "train" / "foreign" / "below").mkdir(parents=True)
    (outputs / "train" / "foreign" / "below" / "file.txt").write_text("x")
    (outputs / "empty").mkdir()
    (outputs / "latest").symlink_to(sweep)  # a run that is there twice counts once
    (outputs / "loop").symlink_to(outputs)
    outcome = trainkit_here("runs", "--json")
    skipped = [os.path.basename(path) for path in json.loads(outcome.out)["skipped"]]
    assert sorted(skipped) == sorted([*bad, "binary", "foreign", "empty"])
    assert len(listed(outcome)) == before
    assert "note: 7 folders skipped" in trainkit_here("runs").err


@pytest.mark.parametrize(
    "status",
    [
        {"result": [], "overrides": 3, "resumed": "no", "started": 5, "seconds": "x"},
        {"result": {"metrics": {"val": [1, 2], "test": {"accuracy": "high", "loss": None, "f1": True}}, "epochs": "x"}},
        {"parent": 3, "reproduces": [], "error": {"a": 1}, "exit_code": "2"},
        {"result": None, "overrides": None, "started": None, "seconds": None},
    ],
)
@pytest.mark.parametrize("sort", ["started", "-val/accuracy", "seconds"])
def test_a_status_of_wrong_types_is_a_row(
    trainkit_here: CommandHere, sweep: Path, status: dict[str, Any], sort: str, change_status: ChangeStatus
) -> None:
    change_status(sweep / "0", **status)
    assert len(first_words(trainkit_here("runs", str(sweep)))) == 6
    assert len(first_words(trainkit_here("runs", str(sweep), "--sort", sort))) == 6


@pytest.mark.parametrize("config", ["", "- a", "a: [", "x: &a [*a]", "\x00", "b: &b {c: *b}"])
def test_a_lost_config_leaves_the_rest(trainkit_here: CommandHere, sweep: Path, config: str) -> None:
    (sweep / "0" / "config.yaml").write_text(config)
    found = listed(trainkit_here("runs", str(sweep), "--json"))
    assert len(found) == 6 and found[0]["label"] == "?-?" and "val/accuracy" in found[0]["metrics"]


def test_names_cannot_speak_to_the_terminal(
    trainkit_here: CommandHere, outputs: Path, single: Path, change_status: ChangeStatus
) -> None:
    evil = outputs / "train" / "evil\x1b[31m\r\n\x07name"
    shutil.copytree(single, evil)
    change_status(evil, overrides=["a=\x1b]0;title\x07", "b=\u202e"], state="done\x1b[2J")
    outcome = trainkit_here("runs")
    assert outcome.code == 0
    assert not set(outcome.out) & set("\x1b\x07\r\u202e")
    assert "evil\\x1b[31m\\r\\n\\x07name" in outcome.out


@pytest.mark.parametrize("width", [10, 40, 60, 80, 120, 200])
def test_every_line_fits(
    trainkit_here: CommandHere, outputs: Path, single: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(single, outputs / "train" / ("名前" * 10 + "e\u0301"))
    monkeypatch.setenv("COLUMNS", str(width))
    for words in ([], ["--columns", "run,path,overrides,error"]):
        outcome = trainkit_here("runs", *words)
        assert max(map(width_of, outcome.out.splitlines())) <= width
    header = trainkit_here("runs").out.splitlines()[0].split()
    if width >= 40:
        assert header[:2] == ["run", "state"] or header[:3] == ["run", "started", "state"]
        assert "val/accuracy" in trainkit_here("runs", str(single)).out


@pytest.mark.usefixtures("outputs")
def test_without_a_terminal_nothing_is_cut(trainkit_here: CommandHere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    out = trainkit_here("runs").out
    assert "…" not in out and "dataset=wine model=linear seed=0 epochs=1 device=cpu device.threads=1" in out


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nowhere"], "folder 'nowhere' does not exist"),
        (["outputs", "outputs/train"], "one folder at a time"),
        (["modle=mlp"], "no run here has 'modle' (did you mean model?)"),
        (["--sort", "val/acuracy"], "did you mean val/accuracy?"),
        (["--columns", "run,,state"], "a key is missing"),
        (["--sort"], "expected one argument"),
        (["--colums", "run"], "unknown flag '--colums'"),
        (["val/accuracy>good"], "'good' is not a number"),
    ],
)
@pytest.mark.usefixtures("outputs")
def test_wrong_words_are_one_line(trainkit_here: CommandHere, words: list[str], error: str) -> None:
    outcome = trainkit_here("runs", *words)
    assert outcome.code == 2 and outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("trainkit: error: ") and error in line


def test_no_runs(trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert trainkit_here("runs").code == 2
    (tmp_path / "outputs" / "train").mkdir(parents=True)
    outcome = trainkit_here("runs", "model=mlp")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "no run in outputs\n")
    assert json.loads(trainkit_here("runs", "--json").out) == {"runs": [], "skipped": []}


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
@pytest.mark.usefixtures("outputs")
def test_a_full_disk_and_a_closed_pipe(tmp_path: Path, encoding: str) -> None:
    env = clean_environment() | {"PYTHONIOENCODING": encoding, "NO_COLOR": "1"}
    command = f"{sys.executable} -m trainkit runs"

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    full = shell(f"{command} >/dev/full")
    assert (full.returncode, full.stderr) == (
        6,
        "trainkit: error: cannot write the output (No space left on device)\n",
    )
    closed = shell(f"set -o pipefail; {command} | head -1")
    assert (closed.returncode, closed.stderr) == (0, "") and closed.stdout.startswith("run ")


def test_text_in_columns() -> None:
    assert lines_of([["a", "名前", "x" * 30], ["bbb", "c", "y"]], [True, False, True], 14) == [
        "a    名前  xx…",
        "bbb     c  y",
    ]
    assert (cut("abc", 3), cut("abcd", 3), cut("abc", 0)) == ("abc", "ab…", "")
