"""`python -m bench`: everything, by everybody. `python -m bench loop`: the loops alone, in a minute, without peers.

`python -m bench gpu`: what only a GPU has to show: the loops, options of the config, a speed record. Without peers.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bench.data_only import data_section
from bench.options import OPTIONS, options_section
from bench.photos import photos_section
from bench.processes import ROOT
from bench.record import machine, write
from bench.sections import Section, startup_section, work_section, wrong
from bench.speedrun import speedrun_section
from bench.tables import caption, rich_table
from bench.works import BY_NAME, CONTESTANTS, LOOPS, OTHERS, WORKS, missing

# part -> what it measures when --work does not say
PARTS = {
    "all": [*BY_NAME, *OTHERS],
    "loop": LOOPS,
    "gpu": [*LOOPS, *(options.name for options in OPTIONS), "speedrun"],
}
progress = Console(stderr=True, highlight=False)


class Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"bench: error: {message}", file=sys.stderr)
        raise SystemExit(2)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("part", nargs="?", default="all", help="all (default), loop or gpu")
    parser.add_argument("--repeats", type=int, help="rounds; default 3, of loop 15, of the speed record 5")
    parser.add_argument("--only", metavar="A,B", help=f"contestants: {','.join(CONTESTANTS)}")
    parser.add_argument("--work", metavar="A,B", help="what to measure; default: all of the part")
    parser.add_argument("--data-dir", type=Path, help="holds MNIST/raw and cifar10/{train,test}; $TRAINKIT_DATA")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md, its picture and results.json")
    args = parser.parse_args(argv)
    if args.part not in PARTS:
        parser.error(f"part '{args.part}' is not known; choose from: {', '.join(PARTS)}")
    if args.part != "all" and args.only:
        parser.error(f"--only does not go with {args.part}, where no peers take part")
    args.only = _names(parser, "--only", args.only, CONTESTANTS)
    args.work = _names(parser, "--work", args.work, PARTS[args.part])
    if args.repeats is not None and args.repeats < 1:
        parser.error(f"--repeats: expected a number >= 1, got {args.repeats}")
    folder = args.data_dir or os.environ.get("TRAINKIT_DATA")
    args.data_dir = Path(folder).absolute() if folder else None
    return args


def _names(parser: Parser, flag: str, text: str | None, known: Sequence[str]) -> list[str]:
    from trainkit.errors import unknown

    names = text.split(",") if text else list(known)
    for name in names:
        if name not in known:
            parser.error(unknown(f"{flag}:", name, known))
    return names


def say(text: str) -> None:
    """A line of progress, on stderr."""
    progress.print(text, markup=False, soft_wrap=True)


def without(name: str, data: str, data_dir: Path | None) -> bool:
    """Whether the data of the work of that name are not there; then says so."""
    reason = missing(data, data_dir)
    if reason:
        say(f"{name}: left out: {reason}")
    return reason is not None


def measure(args: argparse.Namespace) -> Iterator[Section]:
    """The sections asked for. The loops come last: they bring torch into this process."""
    chosen = [work for work in WORKS if work.name in args.work]
    usable = [work for work in chosen if not without(work.name, work.data, args.data_dir)]
    place = args.data_dir or ROOT  # of works without files the folder is not read
    repeats = args.repeats or 3
    if args.part == "all":
        for work in usable:
            names = [name for name in work.contestants if name in args.only]
            yield work_section(work, names, place, repeats, say)
        if "startup" in args.work:
            mnist = BY_NAME["mnist_mlp"]
            reason = missing(mnist.data, args.data_dir)
            yield startup_section(mnist, args.data_dir, reason, max(repeats, 5), say)
        if "data" in args.work and not without("data", "cifar10", args.data_dir):
            yield data_section(place, repeats, say)
        if "photos" in args.work and not without("photos", "hymenoptera", args.data_dir):
            yield photos_section(place, repeats, say)
        if not {"trainkit", "bare"} <= set(args.only):
            return
    for options in OPTIONS:
        if options.name in args.work and not without(options.name, options.data, args.data_dir):
            yield options_section(options, place, repeats, say)
    if "speedrun" in args.work and not without("speedrun", "cifar10", args.data_dir):
        yield speedrun_section(place, args.repeats or 5, say)
    from bench.steady import loop_section

    for work in usable:
        if work.name in LOOPS:
            yield loop_section(work, place, 5 if args.part == "all" else args.repeats or 15, say)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, perhaps write. Returns 0; 1 when accuracies differ or nothing could be measured; 2 for no GPU."""
    args = parse(sys.argv[1:] if argv is None else argv)
    device, where = machine()
    if args.part == "gpu" and device == "cpu":
        print("bench: error: torch sees no GPU here, and `gpu` measures nothing else", file=sys.stderr)
        return 2
    sections, written = [], set()
    for section in filter(lambda section: section.readings, measure(args)):
        sections.append(section)
        if args.write:  # at once: what is measured is kept when the next part is interrupted
            written |= set(write(ROOT, [section], device, where))
    screen = Console()
    for name, value in where.items():
        screen.print(f"{name}: {value}", markup=False, highlight=False, soft_wrap=True)
    failed = not sections
    for section in sections:
        screen.print(f"\n{caption(section)}", style="bold", markup=False, highlight=False, soft_wrap=True)
        screen.print(rich_table(section, screen.width))
        for row, reason in section.skipped.items():
            screen.print(f"left out: {row}: {reason}", markup=False, highlight=False, soft_wrap=True)
        for row in wrong(section):
            failed = True
            screen.print(f"{section.name}: the accuracy of {row} is not that of bare", markup=False)
    for path in sorted(written):
        screen.print(f"wrote {path.relative_to(ROOT)}", markup=False)
    if not sections:
        print("bench: error: nothing was measured; what was left out is said above", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
