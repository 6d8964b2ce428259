"""A picture in docs/img/: seconds of training and evaluation by contestant, a panel for each work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.sections import Section
from bench.tables import seconds, times, work_seconds

# Okabe and Ito's colors, which differ for the color-blind too, and in brightness for a printer.
COLORS = {"trainkit": "#0072B2", "bare": "#999999"}
PEER = "#E69F00"


def draw(sections: Sequence[Section], path: Path) -> None:
    """Write the figure for the sections that are works with readings. Raises ImportError without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    works = [section for section in sections if section.kind == "work" and section.readings]
    if not works:
        return
    heights = [len(section.readings) + 1.2 for section in works]
    figure, panels = pyplot.subplots(
        len(works), figsize=(8, 0.34 * sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for panel, section in zip(panels[:, 0], works, strict=True):
        _draw_panel(panel, section)
    panels[-1, 0].set_xlabel("seconds of training and evaluation, median (shorter is better)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw_panel(panel: object, section: Section) -> None:
    rows = list(section.readings)
    values = [section.median(row, work_seconds) for row in rows]
    bars = panel.barh(rows, values, color=[COLORS.get(row, PEER) for row in rows])  # type: ignore[attr-defined]
    own = values[rows.index("trainkit")] if "trainkit" in rows else None
    labels = [f" {seconds(value)} s" + (f"  ({times(value / own)})" if own else "") for value in values]
    panel.bar_label(bars, labels)  # type: ignore[attr-defined]
    panel.set_xlim(0, max(values) * 1.2)  # type: ignore[attr-defined]
    panel.invert_yaxis()  # type: ignore[attr-defined]
    panel.set_title(section.title, loc="left", fontsize=10, fontweight="bold")  # type: ignore[attr-defined]
    panel.spines[["top", "right"]].set_visible(False)  # type: ignore[attr-defined]
