"""The plan of a training run as lines for a person."""

from __future__ import annotations

import sys
from typing import Any

from trainkit.console.chart import curve
from trainkit.console.columns import UNLIMITED, fitted, lines_of, prose_width, total_width
from trainkit.text import say

LAYERS_SHOWN = 24  # of a deeper model the largest are shown
GROUPS_SHOWN = 16  # of more parameter groups the first and the last ones


def show(facts: dict[str, Any]) -> None:
    """Print a plan, as wide as the terminal."""
    width = prose_width()
    braille = (sys.stdout.encoding or "").lower().startswith("utf")
    lines = [*_head(facts), "", *_layers(facts["model"], width), "", *_groups(facts["model"]["groups"], width)]
    lines += [*_memory(facts["memory"]), ""]
    lines += [*_schedule(facts, width, braille), "", *_time(facts["time"], facts["steps"]["epochs"])]
    if "lr_range" in facts:
        lines += ["", *_lr_range(facts["lr_range"], facts["optim"]["name"], width, braille)]
    if "max_batch" in facts:
        lines += ["", *_max_batch(facts["max_batch"], facts["steps"]["batch"])]
    said = [f"note: {text}" for text in facts["notes"]] + [f"warning: {text}" for text in facts["warnings"]]
    lines += ["", *said] if said else []
    say(*(part for line in lines for part in fitted(line, width)))


def _head(facts: dict[str, Any]) -> list[str]:
    data, steps, flops = facts["data"], facts["steps"], facts["flops_per_sample"]
    sizes = ", ".join(f"{name} {data['splits'][name]:,}" for name in ("train", "val", "test") if name in data["splits"])
    both = flops["forward"] + flops["backward"]
    return [
        f"{data['name']} {'x'.join(map(str, data['shape']))}, {data['task']}: {sizes} samples",
        f"{facts['model']['name']} {_parameters(facts['model'])} on {facts['device']}",
        f"{in_units(both)}FLOP a sample: forward {in_units(flops['forward'])}, backward {in_units(flops['backward'])}",
        f"{steps['epochs']} epochs of {steps['per_epoch']:,} steps of {steps['batch']:,}: {steps['total']:,} steps, "
        f"{in_units(both * data['splits']['train'] * steps['epochs'])}FLOP",
        f"best epoch by {facts['monitor']['metric']} ({facts['monitor']['mode']}); untrained loss "
        f"{facts['first_loss']:.4g}",
    ]


def _layers(model: dict[str, Any], width: int) -> list[str]:
    """A table, the columns that matter least left out where the terminal is narrow."""
    layers, left_out = model["layers"], ""
    if len(layers) > LAYERS_SHOWN:
        weight = sorted(range(len(layers)), key=lambda i: (-layers[i]["flops"], -layers[i]["parameters"]))
        chosen = sorted(weight[:LAYERS_SHOWN])
        left_out = f"{len(layers) - LAYERS_SHOWN} smaller layers are left out; --json has them"
        layers = [layers[i] for i in chosen]
    rows = [["layer", "kind", "output", "parameters", "forward FLOP"]]
    for layer in layers:
        output = "x".join(map(str, layer["output"])) if layer["output"] else "-"
        rows.append(
            [layer["name"], layer["kind"], output, f"{layer['parameters']:,}", in_units(layer["flops"]).strip()]
        )
    columns = [0, 1, 2, 3, 4]
    while total_width([[row[c] for row in rows] for c in columns]) > width and len(columns) > 2:
        columns.remove(next(c for c in (2, 1, 4) if c in columns))
    lines = lines_of([[row[c] for c in columns] for row in rows], [c <= 2 for c in columns], UNLIMITED)
    return lines + ([left_out] if left_out else [])


def _parameters(model: dict[str, Any]) -> str:
    frozen = model["parameters"] - model["trained"]
    return f"{model['parameters']:,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")


def _groups(groups: list[dict[str, Any]], width: int) -> list[str]:
    """A line for each parameter group: its lr, weight decay, size, and which parameters it has."""
    if not groups:
        return []
    rows = [["lr", "weight decay", "parameters", "trained", "which"]]
    for group in groups:
        decay = "-" if group["weight_decay"] is None else f"{group['weight_decay']:g}"
        begin = "always" if group["begin"] == 0 else f"after epoch {group['begin']}"
        first, last = group["names"][0], group["names"][-1]
        which = first if first == last else f"{first} … {last}"
        rows.append([f"{group['lr']:.3g}", decay, f"{group['parameters']:,}", begin, which])
    lines = [f"  {line}" for line in lines_of(rows, [False, False, False, True, True], width - 2)]
    if len(groups) > GROUPS_SHOWN:
        lines[GROUPS_SHOWN // 2 + 1 : -GROUPS_SHOWN // 2] = [f"  {len(groups) - GROUPS_SHOWN} more; --json has them"]
    return ["parameter groups, each lr before its schedule", *lines, ""]


def _memory(memory: dict[str, Any]) -> list[str]:
    of = f"activations of {memory['activations_of']:,}"
    names = {"weights": "weights", "gradients": "gradients", "optimizer": "optimizer", "activations": of}
    names |= {"average": "moving average"} if memory["average"] else {}
    rows = [[label, in_bytes(memory[key])] for key, label in [*names.items(), ("peak", "peak of a step")]]
    *lines, peak = (f"  {line}" for line in lines_of(rows, [True, False], UNLIMITED))
    return ["memory", *lines, f"{peak}, measured"]


def _schedule(facts: dict[str, Any], width: int, braille: bool) -> list[str]:
    schedule, total = facts["schedule"], facts["steps"]["total"]
    title = f"lr ({facts['optim']['name']}, {schedule['name']}): first {schedule['first']:.3g}"
    title += f", largest {schedule['max']:.3g}, last {schedule['last']:.3g}"
    if schedule["name"] == "constant" and len(set(schedule["lrs"])) == 1:
        return [title]
    return [title, *curve(schedule["lrs"], width=width, height=6, left="step 1", right=f"{total:,}", braille=braille)]


def _time(time: dict[str, Any], epochs: int) -> list[str]:
    per_step = f"{in_seconds(time['step_seconds'])} a step"
    wait = f", {time['data_wait']:.0%} of it waiting for data" if time["data_wait"] > 0.1 else ""
    return [
        f"time, from {time['timed_steps']} timed steps and {time['timed_eval_batches']} evaluation batches",
        f"  {per_step}{wait}, {time['samples_per_second']:,.0f} samples a second",
        f"  epoch {in_seconds(time['train_epoch_seconds'])} + evaluation {in_seconds(time['eval_epoch_seconds'])}",
        f"  {epochs} epochs and the final evaluation: {in_seconds(time['total_seconds'])}, without start-up and saving",
    ]


def _lr_range(found: dict[str, Any], optim: str, width: int, braille: bool) -> list[str]:
    lrs = found["lrs"]
    if not lrs:
        return ["lr range: the very first step's loss is not finite; look at the data and the model"]
    lines = [f"lr range of {optim}: training loss over {len(lrs)} steps with a growing lr (log scale)"]
    top = max(found["smoothed"][: len(lrs) // 2 + 1])
    shown = [loss if loss <= 1.2 * top else float("nan") for loss in found["smoothed"]]
    left, right = f"lr {lrs[0]:.2g}", f"{lrs[-1]:.2g}"
    lines += curve(shown, width=width, height=8, left=left, right=right, braille=braille)
    if found["suggestion"] is None:
        return [*lines, "no lr made the loss fall: is there anything to learn, and does the model reach it?"]
    lines.append(f"falls from {found['falls']:.2g}, fastest at {found['fastest']:.2g}, lowest at {found['lowest']:.2g}")
    lines.append(f"suggestion: optim.lr={found['suggestion']:.2g} (configured: {found['configured']:g})")
    return lines + ([f"plot: {found['plot']}"] if found["plot"] else [])


def _max_batch(found: dict[str, Any], configured: int) -> list[str]:
    if found["largest"] is None:
        return [f"largest batch: not even the smallest step fits into {in_bytes(found['limit'])}"]
    tested = next(t for t in found["trials"] if t["batch_size"] == found["largest"])
    power = 2 ** (found["largest"].bit_length() - 1)
    return [
        f"largest batch: {found['largest']:,}, a tested step with a peak of {in_bytes(tested['peak'])} "
        f"within {in_bytes(found['limit'])}",
        f"  stopped by {found['bound']}; the next power of two below is {power:,} (configured: {configured:,})",
    ]


def in_bytes(count: float) -> str:
    return next(f"{count / size:.{places}f} {name}" for size, name, places in _SIZES if count >= size or size == 1)


_SIZES = [(10**9, "GB", 2), (10**6, "MB", 1), (10**3, "kB", 1), (1, "B", 0)]


def in_units(count: float) -> str:
    """A number in thousands, millions, …: `1.62 M`, with a space where a unit's letter follows."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.0f} "


def in_seconds(seconds: float) -> str:
    """Two digits or so of a duration, in the unit a person would choose."""
    if seconds < 1:
        return f"{seconds * 1000:.2g} ms" if seconds * 1000 < 99.5 else f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
