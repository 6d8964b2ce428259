"""The report of one run. Sections whose data is missing are left out, and the last one says which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainkit.data.spec import TargetSpec
from trainkit.plots.markup import Markup, element, join, picture, table
from trainkit.report.facts import Facts, Row, number
from trainkit.report.page import document, missing, plots, section, settings, verdict_box
from trainkit.report.panels import curves, sections
from trainkit.report.pictures import COUNT, overlaid
from trainkit.report.settings import UNKNOWN, config_rows, rows_of, word
from trainkit.report.verdict import label, shown, verdict
from trainkit.run_folders.records import mapping
from trainkit.tasks.base import Section, Table
from trainkit.version import __version__

HEAT = " Beside each image: where the model looked for its answer (Grad-CAM), brightest where most."
MANY = 40  # rows of a table, before the rest is folded away


def run_page(facts: Facts, title: str | None = None) -> Markup:
    """The page of one run; title: instead of the names of its data and its model."""
    title = title or facts.label
    first, *more = [_section(facts, one) for one in sections(facts)] or [None]
    judged = verdict(facts)
    parts = [
        element("h1", title),
        element("p", f"{facts.verb} run {facts.name}", class_="quiet"),
        verdict_box(judged),
        _numbers(facts),
        section("Learning curves", plots(curves(facts), "curves")),
        first,
        _errors(facts),
        _best(facts),
        *more,
        _training_samples(facts),
        _config(facts),
        section("Command", element("pre", facts.command) if facts.command else None),
        lineage(facts),
        _environment(facts),
        missing(facts.missing),
    ]
    return document(f"{title}: {judged.headline}", parts)


def _numbers(facts: Facts) -> Markup | None:
    """Metric by split, of the best epoch."""
    splits = {split: {k: v for k in m if (v := number(m[k])) is not None} for split, m in facts.measured.items()}
    names = dict.fromkeys(name for metrics in splits.values() for name in metrics)
    rows = [
        [label(metric), *(shown(metric, metrics.get(metric.name)) for metrics in splits.values())]
        for metric in map(facts.described, names)
    ]
    return section("Metrics", table(["metric", *splits], rows) if rows else None)


def _section(facts: Facts, shown: Section) -> Markup | None:
    """What the task shows of the answers."""
    assert facts.predictions is not None
    drawn = [panel for group in shown.panels.values() for panel in group]
    parts = [plots(drawn, next(iter(shown.panels), "")), *map(_table, shown.tables)]
    content = join(*parts) if any(part is not None for part in parts) else None
    return section(shown.title, content, f"On {facts.predictions.split}. {shown.note or ''}".strip())


def _table(shown: Table) -> Markup:
    """Of a long table the first rows, before the rest is folded away."""
    parts = [element("h3", shown.title) if shown.title else None, table(shown.heads, shown.rows[:MANY])]
    if len(shown.rows) > MANY:
        rest = table(shown.heads, shown.rows[MANY:])
        parts.append(element("details", element("summary", f"{len(shown.rows) - MANY} more"), rest))
    return join(*parts, element("p", shown.note, class_="quiet") if shown.note else None)


def _errors(facts: Facts) -> Markup | None:
    """The worst answers: images where there are some, else a table."""
    if facts.predictions is None:
        return None
    images = error_images(facts)
    parts, kinds = [], facts.task.worst(facts.predictions.kept, COUNT // 2)
    if not kinds:
        return None
    for kind, places in kinds.items():
        lines = answers(facts, [int(place) for place in places])
        if not lines:
            continue
        parts.append(element("h3", kind.capitalize()))
        if all(int(place) in images for place in places):
            heat = kept_images(facts, "error", "heat")
            figures = [
                _figure(images[int(place)], line, heat.get(int(place)))
                for place, line in zip(places, lines, strict=True)
            ]
            parts.append(element("div", *figures, class_="gallery"))
        else:
            heads = list(lines[0])
            parts.append(table(heads, [[line[key] for key in heads] for line in lines]))
    split = facts.predictions.split
    if not parts:
        return section("Errors", element("p", f"No sample of {split} is wrong."))
    return section(
        "Errors",
        join(*parts),
        f"On {split}; its samples are counted from 0. The percentages are the model's."
        f"{HEAT if kept_images(facts, 'error', 'heat') else ''}",
    )


def _best(facts: Facts) -> Markup | None:
    """The right answers of highest confidence, where there are images."""
    images, heat = kept_images(facts, "best", "images"), kept_images(facts, "best", "heat")
    if facts.predictions is None or not images:
        return None
    lines = answers(facts, list(images), "best")
    figures = [
        _figure(image, line, heat.get(place)) for (place, image), line in zip(images.items(), lines, strict=True)
    ]
    note = f"Right answers of highest confidence on {facts.predictions.split}."
    return section("Known best", element("div", *figures, class_="gallery"), f"{note}{HEAT if heat else ''}")


def _figure(image: NDArray[np.uint8], line: dict[str, str], heat: NDArray[np.uint8] | None = None) -> Markup:
    words = [part for key, value in line.items() for part in (element("br"), f"{key} ", element("b", value))][1:]
    alt = ", ".join(f"{key} {value}" for key, value in line.items())
    shown = [picture(image, alt)]
    if heat is not None:
        shown.append(picture(overlaid(image, heat), f"where the model looked, {alt}"))
    return element("figure", *shown, element("figcaption", *words))


def error_images(facts: Facts) -> dict[int, NDArray[np.uint8]]:
    """The kept images of errors, uint8 (1 or 3, h, w), by their place in the split."""
    return kept_images(facts, "error", "images")


def kept_images(facts: Facts, kind: str, what: str) -> dict[int, NDArray[np.uint8]]:
    """The kept images, or heat maps, of the errors or of the best, by their place in the split."""
    kept = facts.pictures or {}
    pairs = zip(kept.get(f"{kind}_index", ()), kept.get(f"{kind}_{what}", ()), strict=False)
    return {int(place): image for place, image in pairs}


def answers(facts: Facts, places: list[int], kind: str = "error") -> list[dict[str, str]]:
    """What each of these samples is and what the model said of it, in words."""
    predictions = facts.predictions
    assert predictions is not None
    kept = facts.pictures or {}
    files = dict(zip(map(int, kept.get(f"{kind}_index", ())), map(str, kept.get(f"{kind}_files", ())), strict=False))
    return [
        {"sample": Path(files[place]).name if place in files else str(place)} | predictions.answer(place)
        for place in places
    ]


def _training_samples(facts: Facts) -> Markup | None:
    kept = facts.pictures or {}
    if not len(kept.get("train_images", ())):
        return None
    captions = target_words(facts)
    figures = [
        element("figure", picture(image, f"training sample, {caption}"), element("figcaption", caption))
        for image, caption in zip(kept["train_images"], captions, strict=True)
    ]
    gallery = element("div", *figures, class_="gallery")
    note = "The first of the first epoch, as the model saw them: augmented, and shown without the normalization."
    return section("Training samples", gallery, note)


def target_words(facts: Facts) -> list[str]:
    """The targets of the kept training samples in words."""
    target = facts.target or TargetSpec("")
    return [facts.task.words(np.asarray(value), target) for value in (facts.pictures or {}).get("train_targets", ())]


def _config(facts: Facts) -> Markup | None:
    """What differs from the defaults, then everything."""
    rows = config_rows(facts)
    if not rows:
        return None
    head = ["key", "value", "default"]
    body = [
        [element("mark", key) if differs else key, word(value), word(default)] for key, value, default, differs in rows
    ]
    changed = [line for line, row in zip(body, rows, strict=True) if row[3]]
    parts = [settings(head, changed) if changed else element("p", "Every key has its default.")]
    whole = element("details", element("summary", f"all {len(rows)} keys"), settings(head, body))
    note = f"What differs from the defaults of trainkit {__version__} is marked with ●."
    return section("Config", join(*parts, whole), note)


def _environment(facts: Facts) -> Markup | None:
    rows = [[key, word(value)] for key, value in rows_of(facts.environment).items()]
    if not rows:
        return None
    device, versions = facts.environment.get("device_name"), mapping(facts.environment.get("versions"))
    summary = f"{facts.environment.get('device')}, {device}, torch {versions.get('torch')}"
    folded = element("details", element("summary", summary), settings(["what", "value"], rows))
    return section("Environment", folded)


def lineage(facts: Facts) -> Markup | None:
    """Where the run comes from: the run it resumed, extends, reproduces or evaluates, its sweep; and when it ran."""
    status = facts.status
    rows = [["folder", str(facts.path)]]
    rows += [[name, word(status[name])] for name in ("parent", "reproduces") if status.get(name)]
    resumed = status.get("resumed")
    rows += [["resumed", _resumption(mapping(again))] for again in (resumed if isinstance(resumed, list) else [])]
    if facts.verb == "eval":
        rows.append(["checkpoint", word(facts.config.get("ckpt", UNKNOWN))])
    if facts.name.isdigit() and (facts.path.parent / "sweep.csv").is_file():
        rows.append(["sweep", f"job {facts.name} of {facts.path.parent}"])
    rows += [[name, word(status[name])] for name in ("started", "ended", "seconds", "state", "error") if name in status]
    return section("Lineage", settings(["what", "value"], rows))


def _resumption(again: Row) -> str:
    command = again.get("command")
    typed = " ".join(map(str, command)) if isinstance(command, list) else "–"
    return f"{again.get('at', '–')}, after step {again.get('step', '–')}: {typed}"
