"""How plots are drawn: one look, to PNG files and to SVG that takes its colors from the page around it.

matplotlib without pyplot, so nothing is kept between figures; imported only when something is drawn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from trainkit import storage
from trainkit.plots.markup import Markup, clean
from trainkit.text import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colors, which differ for the color-blind too, by the CSS variable that stands for them on a page.
COLORS = {
    "ink": "#1b1f24",
    "muted": "#646b73",
    "line": "#d9dce0",
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "pink": "#cc79a7",
    "sky": "#56b4e9",
    "yellow": "#e69f00",
}
SERIES = [COLORS[name] for name in ("blue", "orange", "green", "pink", "sky", "yellow")]
INK, MUTED, LINE, BLUE, ORANGE = (COLORS[name] for name in ("ink", "muted", "line", "blue", "orange"))
DPI = 144

STYLE: Any = {  # any, for matplotlib lists its own keys as a type
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a class may be called $x$
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "trainkit",
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes. alt: what it shows, for who cannot see it. size: width and height in inches.

    wide: it needs its full size to be read, so that a narrow page has to scroll it.
    """

    title: str
    alt: str
    draw: Callable[[Axes], None]
    size: tuple[float, float] = (4.2, 3.0)
    wide: bool = False


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in our look. Letters that the font does not have become boxes, without a word on the console."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # not what a user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        warnings.filterwarnings("ignore", message=r"(?s).*[Gg]lyph")
        warnings.filterwarnings("ignore", message=".*constrained_layout not applied.*")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        yield


def write_panels(path: Path, panels: Sequence[Panel]) -> None:
    """One PNG with the panels side by side. Raises ResourceError when it cannot be written."""
    from matplotlib.figure import Figure

    widths = [panel.size[0] for panel in panels]
    with styled():
        figure = Figure(figsize=(sum(widths), max(panel.size[1] for panel in panels)))
        grid = figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)
        for axes, panel in zip(grid[0], panels, strict=True):
            axes.set_title(panel.title)
            panel.draw(axes)
            write_ticks(axes)
        _save(figure, path)


def write_grid(path: Path, images: NDArray[np.uint8], captions: Sequence[str], title: str, columns: int = 8) -> None:
    """One PNG with images uint8 (n, 1 or 3, h, w) in rows, each above its caption."""
    from matplotlib.figure import Figure

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    words = [_folded(clean(caption)) for caption in captions]
    # in inches: an image with its gap, the captions below a row, the title
    side, line, top = 1.4, 0.14, 0.35
    tall = min(1.28 * images.shape[2] / images.shape[3], 2.5)
    below = line * max(text.count("\n") + 1 for text in words) + 0.12
    width, height = side * max(columns, 3), rows * (tall + below) + top
    with styled():
        figure = Figure(figsize=(width, height))
        figure.set_layout_engine("none")
        figure.text(0.06 / width, 1 - 0.08 / height, clean(title), va="top", fontsize=10, fontweight="bold")
        for place, (image, text) in enumerate(zip(images, words, strict=True)):
            left = side * (place % columns) + 0.06
            bottom = height - top - (place // columns) * (tall + below) - tall
            axes = figure.add_axes((left / width, bottom / height, 1.28 / width, tall / height))
            axes.axis("off")
            show_image(axes, image)
            axes.text(0, -0.04, text, transform=axes.transAxes, va="top", fontsize=7.5, linespacing=1.15)
        _save(figure, path)


def _folded(caption: str) -> str:
    """Up to six lines that fit below an image."""
    lines = [part for line in caption.split("\n") for part in textwrap.wrap(line, 21)]
    return "\n".join(lines if len(lines) <= 6 else [*lines[:5], "…"])


def show_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    """A sample (1 or 3, h, w), every pixel as it is."""
    if image.shape[0] == 1:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")


def _save(figure: Figure, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    storage.replace(path, content.getvalue())


def svg(panel: Panel, name: str) -> Markup:
    """The panel as an <svg> element for an HTML page: its words as text, its colors as CSS variables.

    name: unique on the page; it begins the ids inside.
    """
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with styled():
        figure = Figure(figsize=panel.size)
        axes = figure.subplots()
        panel.draw(axes)
        write_ticks(axes)
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    inch = 96 if panel.wide else 137  # in pixels of the page: letters as large as those of the text around
    width = f"{'min' if panel.wide else 'max'}-width: {panel.size[0] * inch:.0f}px"
    return _as_html(content.getvalue(), name, panel.alt, width)


def write_ticks(axes: Axes) -> None:
    """Let the numbers at the axes be written as people write them, where they are large or very small."""
    from matplotlib.ticker import AutoLocator, FuncFormatter, ScalarFormatter

    figure = axes.get_figure(root=True)
    assert figure is not None
    for axis in (axes.xaxis, axes.yaxis):
        ends = axis.get_view_interval()
        if isinstance(axis.get_major_formatter(), ScalarFormatter) and not 1e-3 <= float(np.abs(ends).max()) < 1000:
            axis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
            locator = axis.get_major_locator()
            if axis is axes.xaxis and isinstance(locator, AutoLocator):  # long numbers side by side need room
                inches = axes.get_window_extent().width / figure.dpi
                longest = max(len(written(float(end))) for end in ends)
                locator.set_params(nbins=max(2, int(inches / (0.08 * longest + 0.15))))


_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"


def _as_html(content: bytes, name: str, alt: str, style: str) -> Markup:
    """An SVG file as an element of HTML: no namespaces, no metadata, ids that are used only, and those unique."""
    root = ElementTree.fromstring(content)
    text = content.decode()
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    variables = {color: f"var(--{word})" for word, color in COLORS.items()}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{_SVG}style" or child.tag.endswith("}metadata"):
                parent.remove(child)
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        for key in list(node.attrib):
            value = node.attrib.pop(key)
            value = re.sub("#[0-9a-f]{6}", lambda match: variables.get(match[0], match[0]), value)
            value = re.sub(r"url\(#", f"url(#{name}-", value)
            if key == "id":
                if value not in used:
                    continue
                value = f"{name}-{value}"
            if key.startswith(_XLINK):
                key = key.removeprefix(_XLINK)
                value = f"#{name}-{value[1:]}" if value.startswith("#") else value
            if not key.startswith("{"):  # xml:space
                node.attrib[key] = value
    for key in ("version", "width", "height"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": clean(alt), "style": style}
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))
