"""`trainkit report`: of real runs in every state, as valid HTML that no name can break out of."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import html5lib
import numpy as np
import pytest

from conftest import clean_environment
from trainkit.report.facts import read_facts
from trainkit.report.verdict import verdict
from writers import alias_bomb

if TYPE_CHECKING:
    from conftest import Command, CommandHere

pytestmark = pytest.mark.slow

FAST = ("device=cpu", "device.threads=1", "hydra.run.dir=run")
XHTML = "{http://www.w3.org/1999/xhtml}"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\u2028b\u202ec\ufffe",
    "$\\frac{1}{0}$ & \u732b",
]


def parsed(page: Path) -> ElementTree.Element:
    """The page, which must be valid, harmless and small."""
    content = page.read_bytes()
    assert len(content) < 2_000_000
    parser = html5lib.HTMLParser(strict=True)  # any parse error raises
    root = parser.parse(content.decode("utf-8"))
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    for node in root.iter():
        if not isinstance(node.tag, str):
            continue
        tag = node.tag.rpartition("}")[2]
        assert tag not in ("script", "iframe", "object", "embed", "link", "form", "base", "a"), tag
        for name, value in node.attrib.items():
            assert not name.startswith("on"), name
            if name.rpartition("}")[2] in ("href", "src"):
                assert re.match(r"#[\w-]+$|data:image/png;base64,", value), value[:80]
                assert not value.startswith("#") or value[1:] in ids
            assert all(target in ids for target in re.findall(r"url\(#([^)]+)\)", value))
    (policy,) = [node for node in root.iter(f"{XHTML}meta") if node.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy.get("content", "")
    return root


def words(root: ElementTree.Element) -> str:
    """All text of a page, without its style."""
    parts = [text for node in root.iter() if node.tag != f"{XHTML}style" for text in (node.text, node.tail) if text]
    return " ".join(" ".join(parts).split())


def heads(root: ElementTree.Element) -> list[str]:
    return [str(node.text) for node in root.iter(f"{XHTML}h2")]


def report(run: CommandHere, *arguments: str) -> tuple[str, ElementTree.Element]:
    """The words and the tree of a report; its file is where the command says."""
    outcome = run("report", *arguments)
    assert (outcome.code, outcome.err) == (0, ""), outcome.err
    place = re.match(r"report: (.+) \([\d,]+ kB\)", outcome.out)
    assert place is not None
    root = parsed(Path(place[1]))
    return words(root), root


def test_a_run(trainkit_here: CommandHere, tmp_path: Path) -> None:
    done = trainkit_here("train", "epochs=5", "optim=adam", *FAST, "--json")
    metrics = json.loads(done.out)["metrics"]
    text, root = report(trainkit_here, "run")
    assert heads(root) == [
        *("Metrics", "Learning curves", "Confusion", "Errors", "Known best", "Reliability", "Classes"),
        "Training samples",
        *("Config", "Command", "Lineage", "Environment"),
    ]
    accuracy = metrics["test"]["accuracy"]
    assert f"accuracy {accuracy:.2%} on test" in text
    assert f"{359 - round(accuracy * 359)} of 359 samples are wrong" in text
    assert "would get 10.3%: the model is better than that" in text
    assert f"{metrics['val']['loss']:.4g}" in text
    marked = [node.text for node in root.iter(f"{XHTML}mark")]
    assert sorted(set(marked)) == ["device", "device.threads", "epochs", "optim"]
    assert "trainkit train epochs=5 optim=adam" in text
    images = list(root.iter(f"{XHTML}img"))
    assert len(images) > 24 and all(image.get("alt") for image in images)
    plots = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    assert plots == {
        f"{n}.png" for n in ("curves", "confusion", "confusion_normalized", "reliability", "samples", "errors")
    }


def test_regression_and_evaluation(trainkit_here: CommandHere) -> None:
    assert trainkit_here("train", "dataset=diabetes", "optim=adam", "epochs=6", *FAST).code == 0
    text, root = report(trainkit_here, "run")
    assert "Predicted against true" in heads(root) and "Confusion" not in heads(root)
    assert "of the targets' variance" in text
    assert trainkit_here("eval", "ckpt=run", "split=val", "hydra.run.dir=again").code == 0
    text, root = report(trainkit_here, "again")
    assert "Learning curves" not in heads(root) and "on val" in text
    assert str(Path("run").absolute()) in text  # which checkpoint it was


def test_names_cannot_break_out(trainkit_here: CommandHere, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    place = tmp_path / "<b>&\u00fc \u4e2d"
    place.mkdir()
    images = rng.integers(0, 255, (200, 8, 8, 3)).astype(np.uint8)
    np.savez(place / "data.npz", x=images, y=np.array(HOSTILE)[rng.integers(0, len(HOSTILE), 200)])
    file = f'dataset.file="{place}/data.npz"'
    assert trainkit_here("train", "dataset=npz", file, "epochs=2", *FAST).code == 0
    text, _ = report(trainkit_here, "run")
    assert HOSTILE[0] in text and HOSTILE[1] in text and "\u732b" in text  # as text
    assert "\u2028" not in text and "\u202e" not in text and "a\\u2028b\\u202ec" in text
    (tmp_path / "run").rename(place / "run")
    outcome = trainkit_here("report", str(place / "run"), "--json")
    assert json.loads(outcome.out)["report"] == str(place / "run" / "report.html")
    assert "<b>&\u00fc \u4e2d" in words(parsed(place / "run" / "report.html"))


def test_a_sweep_and_its_failures(trainkit_here: CommandHere, tmp_path: Path) -> None:
    sweep = ("model=linear,mlp", "optim.lr=0.1,0.01,1e38", "epochs=2", "hydra.sweep.dir=s", "device=cpu")
    assert trainkit_here("train", "-m", *sweep).code == 1
    text, root = report(trainkit_here, "s")
    assert {"Results", "Learning curves", "Effect of each parameter", "Differences", "Not completed"} <= set(
        heads(root)
    )
    assert "6 runs, 2 of them not completed" in text
    statuses = [json.loads(path.read_text()) for path in (tmp_path / "s").glob("*/status.json")]
    best = max(status["result"]["objective"] for status in statuses if status["state"] == "completed")
    assert f"is best: accuracy {best:.2%} on val" in text
    assert {path.name for path in (tmp_path / "s" / "plots").iterdir()} == {"curves.png", "parameters.png"}
    text, _ = report(trainkit_here, "s/0", "s/4", "--output", "two.html")
    assert "2 runs" in text and (tmp_path / "two.html").is_file()
    text, _ = report(trainkit_here, "s/0")
    assert f"job 0 of {tmp_path / 's'}" in text
    text, root = report(trainkit_here, "s/2")
    assert "failed before its first epoch was done" in text and "Learning curves" not in heads(root)


def test_a_killed_and_resumed_run(trainkit: Command, trainkit_here: CommandHere, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainkit", "train", "epochs=100000", *FAST]
    with subprocess.Popen(command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.DEVNULL) as process:
        results = tmp_path / "run" / "results.csv"
        while not results.exists() or len(results.read_text().splitlines()) < 6:
            assert process.poll() is None
            time.sleep(0.1)
        text, _ = report(trainkit_here, "run", "--output", "early.html")
        assert "still running, after" in text
        process.send_signal(signal.SIGKILL)
    text, root = report(trainkit_here, "run")
    assert re.search(r"killed after \d+ epochs: its status still says running", text)
    assert "Metrics" in heads(root)  # the checkpoint knows those of val
    assert "What is missing here" in heads(root) and "the final evaluation" in text
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    status |= {"resumed": [{"at": "2026-01-01", "command": ["trainkit", "resume", "run"], "step": 7}], "parent": "/p"}
    (tmp_path / "run" / "status.json").write_text(json.dumps(status))
    text, _ = report(trainkit_here, "run")
    assert "2026-01-01, after step 7: trainkit resume run" in text and "parent /p" in text


BOMBS = {
    "of lists": alias_bomb(),
    "of mappings": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n" for i in range(1, 40)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_config_that_would_fill_the_memory_is_left_out(
    bomb: str, whole: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "config.yaml").write_text(BOMBS[bomb])
    text, root = report(trainkit_here, "run", "--output", "r.html")
    assert "config.yaml cannot be read" in text and "Config" not in heads(root)


def test_an_environment_of_many_entries_is_shown_in_part(
    whole: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "env.json").write_text(json.dumps({f"entry{i}": i for i in range(20_000)}))
    text, _ = report(trainkit_here, "run", "--output", "r.html")
    assert "entry999 " in text and "entry1000 " not in text


FILES = ["status.json", "config.yaml", "env.json", "command.txt", "metrics.jsonl", "predictions.npz", "pictures.npz"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "trainkit", "train", "epochs=2", *FAST]
    subprocess.run(command, cwd=folder, env=clean_environment(), check=True, capture_output=True)
    return folder / "run"


@pytest.mark.parametrize("damage", ["gone", "torn", "noise", "other"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_runs_are_shown_as_far_as_they_go(
    name: str, damage: str, whole: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, symlinks=True)
    content = (run / name).read_bytes()
    (run / name).unlink()
    damaged = {
        "torn": content[: len(content) * 2 // 3],
        "noise": bytes(range(256)) * 20,
        "other": b'[1, {"event": "epoch", "epoch": null}, [[["x"]]]]\n',  # whole, and not what it should be
    }
    if damage != "gone":
        (run / name).write_bytes(damaged[damage])
    text, _ = report(trainkit_here, "run", "--output", "r.html")
    assert len(text) > 500
    if damage in ("gone", "noise") and name != "pictures.npz":
        assert name in text  # it is said what is missing


def test_an_empty_run_folder(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text('{"verb": "train", "state": "running"}')
    text, _ = report(trainkit_here, "run")
    assert "killed before its first epoch was done" in text


def test_the_verdict_on_overfitting(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("optim=adam", "optim.lr=0.003", "dataset.test_fraction=0.8", "val_fraction=0.5", "epochs=40")
    assert trainkit_here("train", *words, *FAST).code == 0
    facts = read_facts(tmp_path / "run")
    losses = [row["val/loss"] for row in facts.epochs]
    assert losses[-1] > 1.1 * min(losses)
    judged = verdict(facts)
    lowest = losses.index(min(losses)) + 1
    assert judged.mood == "warn"
    assert any(sentence.startswith(f"Overfitting after epoch {lowest}:") for sentence in judged.sentences)


def test_plots_at_the_end_of_a_run(trainkit_here: CommandHere, tmp_path: Path) -> None:
    quick = trainkit_here("train", "dataset=iris", "epochs=1", *FAST)
    assert "plots:" not in quick.out and not (tmp_path / "run" / "plots").exists()  # auto: not after a second
    done = trainkit_here("eval", "ckpt=run", "plots=true", "hydra.run.dir=again")
    assert done.code == 0 and "plots: again/plots (confusion, confusion_normalized, reliability)" in done.out
    wrong = trainkit_here("train", "plots=yes")
    assert wrong.code == 2 and "plots: expected auto or true or false" in wrong.err


def test_plots_that_fail_do_not_fail_the_run(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "plots").write_text("a file where the folder should be")
    done = trainkit_here("train", "dataset=iris", "epochs=1", "plots=true", *FAST)
    assert done.code == 0 and "no plots were drawn" in done.out
    failed = trainkit_here("report", "run")
    assert failed.code == 6 and failed.err.startswith("trainkit: error: cannot write")


def test_it_needs_no_torch(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run", symlinks=True)
    probe = "import sys; from trainkit.cli import main; code = main(['report', 'run']); "
    probe += "assert not {'torch', 'sklearn', 'torchvision', 'matplotlib.pyplot'} & set(sys.modules); sys.exit(code)"
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # nothing is left beside it


def errors(run: CommandHere, *arguments: str) -> str:
    outcome = run("report", *arguments)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and not outcome.out
    assert outcome.err.startswith("trainkit: error: ")
    return outcome.err


def test_what_is_no_run(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    (tmp_path / "note.txt").write_text("mine")
    assert "needs a run folder" in errors(trainkit_here)
    assert "did you mean runs/first?" in errors(trainkit_here, "runs/frist")
    assert "holds no run" in errors(trainkit_here, "runs")
    assert "is a file" in errors(trainkit_here, "note.txt")
    assert "unknown flag '--jsn' (did you mean --json?)" in errors(trainkit_here, "runs", "--jsn")
    assert "--output" in errors(trainkit_here, "runs", "--output")


def test_no_file_of_the_user_is_replaced(whole: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    run: Any = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    (tmp_path / "notes.html").write_text("<p>mine")
    before = (run / "config.yaml").read_bytes()
    for output, reason in (
        ("notes.html", "is no report"),
        ("run/config.yaml", "is no report"),
        (os.devnull, "is no report"),
        ("run", "is no file name"),
        ("", "is no file name"),
        ("nowhere/r.html", "does not exist"),
    ):
        assert reason in errors(trainkit_here, "run", "--output", output)
    assert (tmp_path / "notes.html").read_text() == "<p>mine" and (run / "config.yaml").read_bytes() == before
    assert Path(os.devnull).is_char_device()
    assert trainkit_here("report", "run", "-o", "r.html").code == 0
    assert trainkit_here("report", "run", "-o", "r.html").code == 0  # its own is
    assert not (run / "report.html").exists() and not (run / "plots").exists()
