"""A whole training run that is struck at its n-th call: killed, or told that the disk has failed. Then it goes on."""

from __future__ import annotations

from pathlib import Path

from digest import Facts, facts
from nursery import Nursery
from scenes import BUSY, only_run
from striking import DEATHS, Fault, intercepted

from trainkit.cli import main

# Few steps, and a save after each of them.
WORDS = ["train", *BUSY, "batch_size=1000", "epochs=2", "checkpoint_every=1steps", "keep_last=1"]
ENDS = (0, 6)  # a failure that does no harm, or exit code 6: the disk


def calls(scratch: Path) -> tuple[Facts, list[str]]:
    """Train in this process, in the current folder; returns what it came to, and the calls under its folder."""
    counting = Fault(scratch, -1, "short")
    with intercepted(counting):
        assert main(WORDS) == 0
    return facts(only_run(scratch)), counting.calls


def strike_and_go_on(number: int, kind: str, scratch: Path, nursery: Nursery, expected: Facts) -> int:
    """Strike at a call, resume what is there; it must come to what was expected. Returns the first exit code."""
    scratch.mkdir()
    code, output = nursery.run(*WORDS, cwd=scratch, hook="striking:strike", arguments=[str(scratch), number, kind])
    where = f"call {number}, {kind}: exit code {code}\n{output}"
    assert code == -9 if kind in DEATHS else code in ENDS, where
    assert "Traceback" not in output and "internal" not in output, where
    run = next(scratch.glob("outputs/train/*/config.yaml"), scratch).parent
    if run != scratch.parent:  # else it was struck before there was a run to resume
        again, output = nursery.run("resume", str(run), cwd=scratch)
        assert again == 0, f"{where}\nresumed: {again}\n{output}"
        assert facts(run) == expected, where
        assert not list(run.rglob(".*.tmp")), where
    return code
