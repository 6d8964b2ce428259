"""Sections as tables: plain strings first, then rich for a terminal or Markdown for a page. No measuring here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench.options import PRODUCT
from bench.processes import Reading
from bench.sections import Section, accuracy, wrong

Row = list[str]


def work_seconds(reading: Reading) -> float:
    """Training and evaluation, without start-up and without reading the data."""
    return float(sum(reading["epoch_s"]) + reading["eval_s"])


def mean_epoch(reading: Reading) -> float:
    return float(sum(reading["epoch_s"]) / len(reading["epoch_s"]))


def key(name: str) -> Callable[[Reading], float]:
    """A reading's value of that name."""
    return lambda reading: float(reading[name])


def seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def times(value: float) -> str:
    return f"{value:.2f}x" if value < 10 else f"{value:.1f}x"


def table(section: Section) -> tuple[Row, list[Row]]:
    """Header and rows of a section; every figure is a median, every ratio one of medians."""
    header, line = KINDS[section.kind]
    return header, [line(section, row) for row in section.readings]


def _work_line(section: Section, row: str) -> Row:
    def ratio(value: Callable[[Reading], float]) -> str:
        if "trainkit" not in section.readings:
            return "–"
        return times(section.median(row, value) / section.median("trainkit", value))

    values = [key("import_s"), key("first_step_s"), mean_epoch, key("eval_s"), work_seconds]
    return [
        row,
        *(seconds(section.median(row, value)) for value in values),
        ratio(work_seconds),
        seconds(section.median(row, key("total_s"))),
        ratio(key("total_s")),
        f"{section.median(row, key('peak_rss_mb')):.0f}",
        f"{section.median(row, accuracy):.4f}" + (" (differs)" if row in wrong(section) else ""),
    ]


def _startup_line(section: Section, row: str) -> Row:
    value, first = section.median(row, key("seconds")), next(iter(section.readings))
    over = value - section.median(first, key("seconds"))
    return [row, seconds(value), f"{over:+.2f}", f"{section.median(row, key('peak_rss_mb')):.0f}"]


def _data_line(section: Section, row: str) -> Row:
    rate, first = section.median(row, key("images_per_s")), next(iter(section.readings))
    share = section.median(first, key("images_per_s")) / rate
    return [row, seconds(section.median(row, key("prepare_s"))), f"{rate:,.0f}", times(share)]


def _loop_line(section: Section, row: str) -> Row:
    value = section.median(row, key("step_ms"))
    share = section.median("bare", key("step_ms")) / value if "bare" in section.readings else float("nan")
    return [row, f"{value:.3f}", f"{share:.3f}"]


def _options_line(section: Section, row: str) -> Row:
    tflops = section.median(row, key("tflops"))
    line, first, share = ["–", "–", "–"], next(iter(section.readings)), "–"
    if row != PRODUCT:
        rate = section.median(row, key("samples_per_s"))
        gain = rate / section.median(first, key("samples_per_s"))
        line = [f"{section.median(row, key('step_ms')):.3f}", f"{rate:,.0f}", times(gain)]
    if PRODUCT in section.readings:
        share = f"{tflops / section.median(PRODUCT, key('tflops')):.2f}"
    return [row, *line, f"{tflops:.3g}", share]


def _recipe_line(section: Section, row: str) -> Row:
    shares = [accuracy(reading) for reading in section.readings[row]]
    spread = f" ± {statistics.stdev(shares):.4f}" if len(shares) > 1 else ""
    training, evaluated, total = (
        section.median(row, value) for value in (lambda reading: sum(reading["epoch_s"]), work_seconds, key("total_s"))
    )
    times = [seconds(value) for value in (training, evaluated, total)]
    return [row, str(len(shares)), *times, f"{statistics.fmean(shares):.4f}{spread}"]


Kind = tuple[Row, Callable[[Section, str], Row]]
WORK: Kind = (
    [
        "contestant",
        "import s",
        "first step s",
        "epoch s",
        "eval s",
        "both s",
        "ratio",
        "total s",
        "ratio",
        "peak MiB",
        "test accuracy",
    ],
    _work_line,
)
STARTUP: Kind = (["command", "s", "more than import torch", "peak MiB"], _startup_line)
DATA: Kind = (["path", "once, s", "images/s", "the first is faster by"], _data_line)
LOOP: Kind = (["loop", "ms per step", "throughput of bare's"], _loop_line)


OPTIONS: Kind = (["options", "ms per step", "samples/s", "faster by", "TFLOP/s", "of the product's"], _options_line)
RECIPE: Kind = (["options", "seeds", "training s", "and evaluation s", "total s", "test accuracy"], _recipe_line)
KINDS = {"work": WORK, "startup": STARTUP, "data": DATA, "loop": LOOP, "options": OPTIONS, "recipe": RECIPE}


def caption(section: Section) -> str:
    """Title, number of repeats, date and commit."""
    most = max((len(readings) for readings in section.readings.values()), default=0)
    return f"{section.title} ({most} repeat{'' if most == 1 else 's'}, {section.date}, commit {section.commit})"


def rich_table(section: Section, width: int) -> Any:
    """The section as a rich table of at most `width` characters, as far as no word need be cut."""
    from rich.table import Table

    header, rows = table(section)
    cells = [max(len(row[column]) for row in rows) for column in range(len(header))]
    widths = [max(len(name), size) for name, size in zip(header, cells, strict=True)]
    if sum(widths) + len(widths) > width:
        widths = [max(size, *map(len, name.split())) for name, size in zip(header, cells, strict=True)]
    shown = Table(box=None, header_style="bold underline", padding=(0, 1, 0, 0))
    for column, (name, size) in enumerate(zip(header, widths, strict=True)):
        shown.add_column(name, justify="right" if column else "left", width=size)
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown(sections: Sequence[Section], machine: dict[str, str]) -> str:
    """All sections as Markdown: the machine, then a heading and a table each, with what was left out."""
    lines = [*(f"- {name}: {value}" for name, value in machine.items()), ""]
    for section in sections:
        header, rows = table(section)
        lines += [
            f"### {section.title}",
            "",
            f"{caption(section).removeprefix(section.title).strip(' ()').capitalize()}.",
        ]
        if section.tolerance is not None:
            verdict = f"differ: {', '.join(wrong(section))}" if wrong(section) else "agree"
            lines.append(f"Accuracies {verdict} (within {section.tolerance:g} of the bare loop's).")
        lines += ["", "| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        lines += [""] + [f"Left out: {row} ({reason})." for row, reason in section.skipped.items()]
        lines += [""] if section.skipped else []
    return "\n".join(lines).rstrip() + "\n"
