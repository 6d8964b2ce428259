"""The long part of the proofs: `python tests/proofs/soak.py`, hundreds of kills, and every call of a run struck.

With `--write` each part's figures go into docs/reliability.md, between its markers; with `--parts` only some are made.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import changed
import kills
import saving
import struck
from cost import checkpoint_cost, randomness_cost
from digest import facts
from memory import extra_memory
from nursery import Nursery
from scenes import only_run, write_images
from striking import DEATHS, ERRORS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
EPOCHS = 8
Figures = Iterator[tuple[str, str]]  # what was counted or measured, and the figure


def kill_part(scratch: Path, nursery: Nursery, args: argparse.Namespace) -> Figures:
    """kill -9 at random moments, of forked processes and (a twentieth) of the command in an interpreter of its own."""
    write_images(scratch / "images", each=30)
    (scratch / "whole").mkdir()
    code, output = nursery.run(*kills.words(scratch / "images", "1epoch", EPOCHS), "workers=0", cwd=scratch / "whole")
    assert code == 0, output
    expected = facts(only_run(scratch / "whole"))
    draw = random.Random(args.seed)
    found: dict[str, list[kills.Kill]] = {"forked": [], "command": []}
    runs = 0
    wanted = {"forked": args.kills - args.kills // 20, "command": args.kills // 20}
    starts: dict[str, kills.Start] = {"forked": nursery.start, "command": kills.Command(scratch)}
    for kind, start in starts.items():
        while len(found[kind]) < wanted[kind]:
            words = kills.words(scratch / "images", kills.EVERY[runs % len(kills.EVERY)], EPOCHS)
            many = min(12, wanted[kind] - len(found[kind]))
            found[kind] += kills.survive(start, words, scratch / str(runs), many, draw)
            assert facts(only_run(scratch / str(runs))) == expected, scratch / str(runs)
            runs += 1
            say(f"{kind}: {len(found[kind])} of {wanted[kind]} kills, {runs} runs")
    every = [*found["forked"], *found["command"]]
    workers = collections.Counter(kill.workers for kill in every)
    yield "SIGKILLs of forked processes", f"{len(found['forked'])}"
    yield "SIGKILLs of the command itself", f"{len(found['command'])}"
    yield "lives with 0, 1, 2 decoding workers", ", ".join(str(workers[count]) for count in kills.WORKERS)
    yield "different steps at which a life ended", f"{len({kill.step for kill in every})}"
    yield "of them while a file was being saved", f"{sum(kill.moment == 'saving' for kill in every)}"
    yield "runs, all with the digests of the run that was not killed", f"{runs}"


def save_part(scratch: Path, nursery: Nursery, args: argparse.Namespace) -> Figures:
    """Every call of four kinds of saves killed and failed, and the power lost after each."""
    killed = failed = 0
    for case in saving.CASES:
        (scratch / str(case)).mkdir()
        killed += saving.kill_at_every_call(case, scratch / str(case), nursery)
        for error in ERRORS:
            (scratch / f"{case}-{error}").mkdir()
            failed += saving.fail_at_every_call(case, error, scratch / f"{case}-{error}")[0]
        say(f"save {case}: {killed} killed, {failed} failed")
    (scratch / "power").mkdir()
    states = saving.lose_power_at_every_call(scratch / "power")
    yield "saves killed before, within or after a call", f"{killed}"
    yield f"saves with a call that failed ({', '.join(ERRORS)})", f"{failed}"
    yield "states of the disk after a power loss, in the model", f"{states}"
    yield "of all these: neither the old state nor the new one", "0"


def run_part(scratch: Path, nursery: Nursery, args: argparse.Namespace) -> Figures:
    """A whole training run struck at each call by which it writes, and resumed."""
    (scratch / "whole").mkdir()
    with contextlib.chdir(scratch / "whole"):
        expected, calls = struck.calls(scratch / "whole")
    codes: collections.Counter[int] = collections.Counter()
    for kind in args.kinds:
        for number, name in enumerate(calls):
            if kind in ("within", "short") and name != "write":
                continue
            codes[struck.strike_and_go_on(number, kind, scratch / f"{kind}{number}", nursery, expected)] += 1
        say(f"run struck by {kind}: {dict(codes)}")
    yield "calls by which the run writes", f"{len(calls)}"
    yield f"runs struck at one of them ({', '.join(args.kinds)})", f"{codes.total()}"
    yield "of them killed; ended with exit code 6; not harmed", f"{codes[-9]}; {codes[6]}; {codes[0]}"
    yield "resumed, all with the digests of the run that was not struck", f"{codes.total()}"


def change_part(scratch: Path, nursery: Nursery, args: argparse.Namespace) -> Figures:
    """A run that is made longer, and one that goes on with another lr, killed at each call by which they write."""
    (scratch / "runs").mkdir()
    longer, other = changed.changes(scratch / "runs")
    without = facts(longer.run)
    found: collections.Counter[str] = collections.Counter()
    for kind in ("before", "after"):
        for number in range(len(longer.calls)):
            place = scratch / f"longer-{kind}{number}"
            found[changed.lengthen_and_kill(longer, number, kind, place, nursery)] += 1
        for number in range(len(other.calls)):
            place = scratch / f"other-{kind}{number}"
            found[changed.override_and_kill(other, without, number, kind, place, nursery)] += 1
        say(f"changes killed {kind} a call: {dict(found)}")
    yield (
        "calls by which the longer run writes, and the one with another lr",
        f"{len(longer.calls)}, {len(other.calls)}",
    )
    outcomes = "; ".join(str(found[name]) for name in ("none", "refused", "resumed"))
    yield "longer runs killed: no folder yet; half made and refused; resumed", outcomes
    yield "runs with another lr killed: before they began with it; after", f"{found['not begun']}; {found['begun']}"
    resumed = found["resumed"] + found["not begun"] + found["begun"]
    yield "resumed, all with the digests of the run that was asked for", f"{resumed}"


def cost_part(scratch: Path, nursery: Nursery, args: argparse.Namespace) -> Figures:
    """What it costs, on MNIST; medians."""
    data = args.data_dir or os.environ.get("TRAINKIT_DATA")
    if data is None:
        raise SystemExit("soak: error: the costs are measured on MNIST: name its folder with --data-dir")
    for name, measure, model in (
        ("a checkpoint every epoch: share of the training time, mnist cnn", checkpoint_cost, "cnn"),
        ("keyed randomness: share of the training time, mnist mlp", randomness_cost, "mlp"),
    ):
        shares = []
        for repeat in range(args.repeats):
            folder = scratch / f"{model}{repeat}"
            folder.mkdir()
            shares.append(measure(folder, Path(data).absolute()))
            say(f"{name}: {shares[-1]:.3%}")
        yield name, f"{statistics.median(shares):.2%} (median of {args.repeats})"


def memory_part(scratch: Path, nursery: Nursery, args: argparse.Namespace) -> Figures:
    """What saving and loading a large model take."""
    for what, ratio in extra_memory(scratch, nursery).items():
        yield f"memory of the {what}, in sizes of the checkpoint", f"{ratio:.2f}"


PARTS: dict[str, Callable[[Path, Nursery, argparse.Namespace], Figures]] = {
    "kills": kill_part,
    "saves": save_part,
    "run": run_part,
    "changes": change_part,
    "cost": cost_part,
    "memory": memory_part,
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def command(part: str, args: argparse.Namespace) -> str:
    """What repeats the part."""
    options = {
        "kills": f" --kills {args.kills} --seed {args.seed}",
        "run": f" --kinds {' '.join(args.kinds)}",
        "cost": f" --repeats {args.repeats} --data-dir DATA",
    }
    return f"python tests/proofs/soak.py --parts {part}{options.get(part, '')}"


def write(part: str, figures: Sequence[tuple[str, str]], seconds: float, args: argparse.Namespace) -> None:
    """Put a part's figures between its markers in the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"<!-- soak:{part} -->\n")
    _, end, after = rest.partition("<!-- soak:end -->")
    assert begin and end, part
    rows = "".join(f"| {name} | {figure} |\n" for name, figure in figures)
    made = f"`{command(part, args)}`, {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} min:\n\n"
    made += f"| what | figure |\n|---|---:|\n{rows}"
    PAGE.write_text(f"{before}{begin}{made}{end}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--kills", type=int, default=300, help="default 300")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    kinds = [*DEATHS, *ERRORS]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="what strikes the run; default: all")
    parser.add_argument("--repeats", type=int, default=5, help="of the costs; default 5")
    parser.add_argument("--data-dir", help="holds MNIST/raw; default: $TRAINKIT_DATA")
    parser.add_argument("--write", action="store_true", help="into docs/reliability.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as name, Nursery(Path(name)) as nursery:
        for part in args.parts:
            started = time.monotonic()
            scratch = Path(name) / part
            scratch.mkdir()
            figures = list(PARTS[part](scratch, nursery, args))
            print(f"{part}:", *(f"  {what}: {figure}" for what, figure in figures), sep="\n", flush=True)
            if args.write:
                write(part, figures, time.monotonic() - started, args)


if __name__ == "__main__":
    main()
