"""What stands at the end of a run on a terminal: the numbers side by side and what the run folder holds, in a frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from trainkit.console.columns import UNLIMITED, lines_of, width_of
from trainkit.text import visible

if TYPE_CHECKING:
    from trainkit.tasks.meter import Metrics

Row = tuple[str, str]  # a line and its style
PLACES = {
    "checkpoints/best.safetensors": "the best epoch",
    "checkpoints/last.safetensors": "the last epoch, to go on from",
    "metrics.jsonl": "every measurement",
    "results.csv": "a row an epoch",
    "metrics.json": "these numbers",
    "predictions.npz": "answers, for compare",
    "config.yaml": "all settings",
    "train.log": "what was said",
    "eval.log": "what was said",
}


def summary(columns: Mapping[str, Metrics], monitored: str, folder: Path) -> list[Row]:
    """Rows for a frame: a metric's values in the columns' order, the monitored one marked; then the folder's files."""
    names = list(dict.fromkeys(name for metrics in columns.values() for name in metrics))
    rows = [[name, *(_number(metrics, name) for metrics in columns.values())] for name in names]
    head, *numbers = lines_of([["", *columns], *rows], [True] + [False] * len(columns), width=UNLIMITED)
    files = [[name, what] for name, what in PLACES.items() if (folder / name).exists()]
    return [
        (head, "dim"),
        *((line, "bold" if name == monitored else "") for name, line in zip(names, numbers, strict=True)),
        ("", ""),
        *((line, "dim") for line in lines_of(files, [True, True], width=UNLIMITED)),
    ]


def _number(metrics: Metrics, name: str) -> str:
    value = metrics.get(name)
    return "" if value is None else "–" if math.isnan(value) else f"{value:.4f}"


def print_frame(stream: TextIO, width: int, title: str, rows: Sequence[Row]) -> bool:
    """Print the rows in a frame if they go into so many columns; whether they do."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    title = visible(title)
    if max(width_of(text) for text in (title, *(line for line, _ in rows))) + 4 > width:
        return False
    body = Text("\n").join(Text(line, style) for line, style in rows)
    panel = Panel(body, title=Text(title, "bold"), title_align="left", expand=False, border_style="green")
    Console(file=stream, width=width, highlight=False).print(panel)
    return True
