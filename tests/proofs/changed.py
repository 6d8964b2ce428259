"""A run that is resumed with a change (more epochs, another learning rate) and killed at its n-th call.

What was asked of it must not be forgotten: it goes on as asked, or it has not begun to and says so.
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from digest import Facts, facts
from nursery import Nursery
from scenes import BUSY, copy_as_it_is, only_run, states_kept
from striking import Fault, intercepted

from trainkit.checkpoints import record
from trainkit.cli import main

# Five steps an epoch, and few saves, so that most calls come before the first save that knows of the change.
RUN = [word for word in BUSY if not word.startswith(("schedule", "patience"))]
WORDS = ["train", *RUN, "schedule=cosine", "batch_size=300", "epochs=2", "checkpoint_every=4steps"]
LONGER = ["epochs=+1", "extend=rewarm"]
OTHER = ["optim.lr=0.002", "allow=[optim.lr]"]


@dataclasses.dataclass(frozen=True)
class Change:
    """`resume RUN words`, what it comes to when nobody kills it, and the names of the calls by which it writes."""

    run: Path
    words: list[str]
    expected: Facts
    calls: list[str]


def changes(folder: Path) -> tuple[Change, Change]:
    """Train in `folder`, in this process; returns the finished run made longer, and the stopped one with another lr."""
    with pytest.MonkeyPatch.context() as patch, states_kept(folder / "states"):
        patch.chdir(folder)
        assert main(WORDS) == 0
    whole = only_run(folder)
    stopped = next(state for state in (folder / "states").iterdir() if saved_step(state) == 4)
    return change(whole, LONGER, folder / "longer"), change(stopped, OTHER, folder / "other")


def saved_step(run: Path) -> int:
    known = record.read(run / "checkpoints")
    return known.last.step if known else 0


def change(run: Path, words: list[str], scratch: Path) -> Change:
    """Resume a copy of the run with these words, in this process."""
    copy = copy_as_it_is(run, scratch / "run")
    counting = Fault(scratch, -1, "short")
    with contextlib.chdir(scratch), intercepted(counting):
        assert main(["resume", str(copy), *words]) == 0
    return Change(run, words, facts(place_of(copy)), counting.calls)


def place_of(run: Path) -> Path:
    """Where the changed run is: the new folder of one that was made longer, else its own."""
    return next(run.parent.glob("outputs/train/*"), run)


def kill(change: Change, number: int, kind: str, scratch: Path, nursery: Nursery) -> tuple[Path, str]:
    """Resume a copy of the run with the change, and kill it at the call. Returns the copy, and what is said of it."""
    run = copy_as_it_is(change.run, scratch / "run")
    words = ["resume", str(run), *change.words]
    code, output = nursery.run(*words, cwd=scratch, hook="striking:strike", arguments=[str(scratch), number, kind])
    where = f"call {number} ({change.calls[number]}), {kind}: exit code {code}\n{output}"
    assert code == -9, where
    return run, where


def lengthen_and_kill(longer: Change, number: int, kind: str, scratch: Path, nursery: Nursery) -> str:
    """Kill the longer run, resume it. Returns `none` (no folder), `refused` (one that was half made) or `resumed`."""
    run, where = kill(longer, number, kind, scratch, nursery)
    assert facts(run) == facts(longer.run), where
    place = place_of(run)
    if place == run:
        return "none"
    code, output = nursery.run("resume", str(place), cwd=scratch)
    if code:
        assert code == 4 and len(output.splitlines()) == 1 and output.startswith("trainkit: error: "), where + output
        assert not (place / "config.yaml").exists(), where + output
        return "refused"
    assert facts(place) == longer.expected, where + output
    return "resumed"


def override_and_kill(other: Change, without: Facts, number: int, kind: str, scratch: Path, nursery: Nursery) -> str:
    """Kill the run with another lr, resume it. Returns `begun` when it goes on with it, else `not begun`."""
    run, where = kill(other, number, kind, scratch, nursery)
    begun = "lr: 0.002" in (run / "config.yaml").read_text()
    assert begun or '"step": 5' not in (run / "metrics.jsonl").read_text(), where
    code, output = nursery.run("resume", str(run), cwd=scratch)
    assert code == 0, where + output
    if begun and saved_step(run) == 4:
        assert "not bit-exact: optim.lr 0.01 -> 0.002" in output, where + output
    assert facts(run) == (other.expected if begun else without), where + output
    return "begun" if begun else "not begun"
