"""The frame of a report: an HTML page that needs nothing but itself, and the parts that every report has."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from typing import Any

from trainkit.plots.draw import Panel, svg
from trainkit.plots.markup import Markup, element, join, table
from trainkit.report.verdict import Verdict
from trainkit.version import __version__

GENERATOR = "trainkit report"  # in the page's head: what has it may be replaced by another report
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MOODS = {"good": "done", "warn": "look closer", "bad": "not finished"}


def document(title: str, parts: Sequence[Markup | None]) -> Markup:
    """The whole HTML document around the parts of its body."""
    style = importlib.resources.files("trainkit.report").joinpath("page.css").read_text(encoding="utf-8")
    head = join(
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        element("title", title),
        element("style", Markup(style)),
    )
    footer = element("footer", element("p", f"Written by trainkit {__version__} from the files of the run folder."))
    body = join(element("main", join(*parts)), footer)
    return Markup(f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n')


def section(title: str, content: Markup | None, note: str | None = None) -> Markup | None:
    """A heading above its content; nothing without content."""
    if content is None:
        return None
    return element("section", element("h2", title), element("p", note, class_="quiet") if note else Markup(), content)


def verdict_box(judged: Verdict) -> Markup:
    """The verdict: its mood in a word, the headline, the sentences."""
    sentences = element("ul", *(element("li", text) for text in judged.sentences)) if judged.sentences else Markup()
    mood = element("span", MOODS[judged.mood], class_="mood")
    return element("div", mood, element("strong", judged.headline), sentences, class_=f"verdict {judged.mood}")


def plots(drawn: Sequence[Panel], name: str) -> Markup | None:
    """Panels as figures; name: unique on the page."""
    figures = [
        element(
            "figure",
            element("figcaption", panel.title),
            svg(panel, f"{name}{index}"),
            class_="wide" if panel.wide else None,
            tabindex="0" if panel.wide else None,
        )
        for index, panel in enumerate(drawn)
    ]
    return element("div", *figures, class_="plots") if figures else None


def missing(lines: Sequence[str]) -> Markup | None:
    """What the page lacks, and why."""
    listed = element("ul", *(element("li", line) for line in lines)) if lines else None
    return section("What is missing here", listed)


def settings(heads: list[str], rows: list[list[Any]]) -> Markup:
    """A table of words, whose long ones are folded."""
    return Markup(table(heads, rows, numbers=False).replace("<table>", '<table class="settings">', 1))
