"""The report of one run. Sections whose data is missing are left out, and the last one says which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit import __version__
from trainkit.plots.draw import Panel
from trainkit.plots.markup import Markup, element, join, picture, table
from trainkit.report.analysis import confused, label_probability, per_class, true_probability, worst
from trainkit.report.answers import Predictions
from trainkit.report.facts import Facts, Row, number
from trainkit.report.page import document, missing, plots, section, settings, verdict_box
from trainkit.report.panels import panels
from trainkit.report.pictures import COUNT
from trainkit.report.settings import UNKNOWN, config_rows, rows_of, word
from trainkit.report.verdict import label, shown, verdict
from trainkit.run_folders.records import mapping

MANY = 40  # classes in the table of classes, the worst ones, before the rest is folded away


def run_page(facts: Facts) -> Markup:
    """The page of one run."""
    drawn = panels(facts)
    judged = verdict(facts)
    parts = [
        element("h1", facts.label),
        element("p", f"{facts.verb} run {facts.name}", class_="quiet"),
        verdict_box(judged),
        _numbers(facts),
        section("Learning curves", plots(drawn.get("curves", []), "curves")),
        _confusion(facts, drawn),
        _errors(facts),
        section("Reliability", plots(drawn.get("reliability", []), "reliability"), RELIABILITY),
        section("Predicted against true", plots(drawn.get("regression", []), "regression")),
        _classes(facts),
        _training_samples(facts),
        _config(facts),
        section("Command", element("pre", facts.command) if facts.command else None),
        lineage(facts),
        _environment(facts),
        missing(facts.missing),
    ]
    return document(f"{facts.label}: {judged.headline}", parts)


RELIABILITY = (
    "Of the samples that the model is 80% sure of, 80% should be right: dots on the dashed line. Below it the model is "
    "too sure, above it too careful. The expected calibration error (ECE) is the mean gap, weighted by samples "
    "(Guo et al. 2017, 15 bins)."
)


def _numbers(facts: Facts) -> Markup | None:
    """Metric by split, of the best epoch."""
    splits = {split: {k: v for k in m if (v := number(m[k])) is not None} for split, m in facts.measured.items()}
    names = dict.fromkeys(name for metrics in splits.values() for name in metrics)
    rows = [[label(name), *(shown(name, metrics.get(name)) for metrics in splits.values())] for name in names]
    return section("Metrics", table(["metric", *splits], rows) if rows else None)


def _confusion(facts: Facts, drawn: dict[str, list[Panel]]) -> Markup | None:
    """The matrix, and its largest wrong cells in words."""
    if facts.confusion is None:
        return None
    both = [*drawn["confusion"], *drawn["confusion_normalized"]]
    pairs = confused(facts.confusion, 10)
    names, totals = facts.classes, facts.confusion.sum(axis=1)
    rows = [[names[t], names[p], n, f"{n / totals[t]:.1%}"] for t, p, n in pairs]
    heads = ["true class", "predicted", "times", "of the class"]
    most = join(element("h3", "Most frequent confusions"), table(heads, rows)) if rows else None
    note = f"On {facts.split}. Colours are stretched so that single errors can be seen beside the diagonal."
    return section("Confusion", join(plots(both, "confusion"), most), note)


def _classes(facts: Facts) -> Markup | None:
    """Precision, recall and F1 of every class, the worst first."""
    if facts.confusion is None:
        return None
    rows = [
        [
            row.name,
            row.count,
            *(f"{x:.1%}" for x in (row.precision, row.recall, row.f1)),
            _taken(row.taken_for, row.times),
        ]
        for row in per_class(facts.confusion, facts.classes)
    ]
    heads = ["class", "samples", "precision", "recall", "F1", "most often taken for"]
    content = table(heads, rows[:MANY])
    if len(rows) > MANY:
        rest = element("details", element("summary", f"{len(rows) - MANY} more"), table(heads, rows[MANY:]))
        content = join(content, rest)
    return section("Classes", content, f"On {facts.split}, the lowest F1 first.")


def _taken(name: str | None, times: int) -> str:
    return "–" if name is None else f"{name} ({times})"


def _errors(facts: Facts) -> Markup | None:
    """The worst answers: images where there are some, else a table."""
    if facts.predictions is None:
        return None
    images = error_images(facts)
    parts = []
    for kind, places in worst(facts.predictions, COUNT // 2).items():
        lines = answers(facts, [int(place) for place in places])
        if not lines:
            continue
        parts.append(element("h3", kind.capitalize()))
        if all(int(place) in images for place in places):
            figures = [_figure(images[int(place)], line) for place, line in zip(places, lines, strict=True)]
            parts.append(element("div", *figures, class_="gallery"))
        else:
            heads = list(lines[0])
            parts.append(table(heads, [[line[key] for key in heads] for line in lines]))
    split = facts.predictions.split
    if not parts:
        return section("Errors", element("p", f"No sample of {split} is wrong."))
    return section(
        "Errors", join(*parts), f"On {split}; its samples are counted from 0. The percentages are the model's."
    )


def _figure(image: NDArray[np.uint8], line: dict[str, str]) -> Markup:
    words = [part for key, value in line.items() for part in (element("br"), f"{key} ", element("b", value))][1:]
    alt = ", ".join(f"{key} {value}" for key, value in line.items())
    return element("figure", picture(image, alt), element("figcaption", *words))


def error_images(facts: Facts) -> dict[int, NDArray[np.uint8]]:
    """The kept images of errors, uint8 (1 or 3, h, w), by their place in the split."""
    kept = facts.pictures or {}
    pairs = zip(kept.get("error_index", ()), kept.get("error_images", ()), strict=True)
    return {int(place): image for place, image in pairs}


def answers(facts: Facts, places: list[int]) -> list[dict[str, str]]:
    """What each of these samples is and what the model said of it, in words."""
    predictions = facts.predictions
    assert predictions is not None
    kept = facts.pictures or {}
    files = dict(zip(map(int, kept.get("error_index", ())), map(str, kept.get("error_files", ())), strict=False))
    true = true_probability(predictions)
    lines = []
    for place in places:
        line = {"sample": Path(files[place]).name if place in files else str(place)} | _answer(predictions, place)
        if true is not None:
            line["true"] += f" {true[place]:.1%}"
        lines.append(line)
    return lines


def _answer(predictions: Predictions, place: int) -> dict[str, str]:
    names = predictions.classes or []

    def name(index: int) -> str:
        return names[index] if index < len(names) else str(index)

    if predictions.predicted is not None and predictions.confidence is not None:
        predicted = name(int(predictions.predicted[place]))
        true = name(int(predictions.targets[place]))
        return {"true": true, "predicted": f"{predicted} {predictions.confidence[place]:.1%}"}
    assert predictions.outputs is not None
    if predictions.task == "multilabel":
        probability, target = label_probability(predictions)[place], predictions.targets[place] > 0.5
        wrong = int(np.where((probability > 0.5) != target, np.abs(probability - 0.5), -1).argmax())
        said = {"true": target, "predicted": probability > 0.5}
        words = {key: ", ".join(name(int(i)) for i in np.flatnonzero(labels)) or "none" for key, labels in said.items()}
        return words | {"surest wrong": f"{name(wrong)} {probability[wrong]:.1%}"}
    values = {"true": predictions.targets[place], "predicted": predictions.outputs[place]}
    return {key: ", ".join(f"{x:.4g}" for x in numbers) for key, numbers in values.items()}


def _training_samples(facts: Facts) -> Markup | None:
    kept = facts.pictures or {}
    if not len(kept.get("train_images", ())):
        return None
    captions = [target_words(target, facts.classes) for target in kept["train_targets"]]
    figures = [
        element("figure", picture(image, f"training sample, {caption}"), element("figcaption", caption))
        for image, caption in zip(kept["train_images"], captions, strict=True)
    ]
    gallery = element("div", *figures, class_="gallery")
    note = "The first of the first epoch, as the model saw them: augmented, and shown without the normalisation."
    return section("Training samples", gallery, note)


def target_words(target: Any, names: Sequence[str]) -> str:
    """A training target in words: a class, the classes of a mixed sample, or numbers."""
    values = np.atleast_1d(target)
    if values.dtype.kind == "i" and values.size == 1:
        index = int(values[0])
        return names[index] if 0 <= index < len(names) else str(index)
    if len(names) == values.size and values.size > 1:
        order = [int(i) for i in np.argsort(-values)[:3] if values[i] > 0.005]
        return ", ".join(names[i] if values[i] > 0.995 else f"{names[i]} {values[i]:.2f}" for i in order) or "none"
    return ", ".join(f"{float(x):.4g}" for x in values[:4])


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
