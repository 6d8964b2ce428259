"""`trainkit reproduce RUN`: run a stored config again in a new folder, and compare every number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit import registry, storage
from trainkit.checkpoints import checkpoint, record
from trainkit.commands.resume import names, newest_header, overridden, stored_config, typed, values, words_of
from trainkit.config.changes import changes_bits, changes_meaning, differences, flat
from trainkit.console.console import Console
from trainkit.errors import CheckpointError, ConfigError, TrainkitError
from trainkit.launch.job import Job, run_job
from trainkit.run_folders import rundir

HELP = """\
usage: trainkit reproduce RUN [key=value …] [--json]

Runs the config of RUN again in a new folder, and compares every number of its log and every saved bit.

examples:
  trainkit reproduce outputs/train/RUN
  trainkit reproduce outputs/train/RUN device.threads=2     what does not change the experiment may be set
  trainkit reproduce /elsewhere/RUN output_dir=mine         the new folder is made in mine/train, not in outputs/train

Exit code 0: bit-identical. 1: something differs, and it is said what and where first."""
# Of metrics.jsonl: what is never twice the same, and how a version of trainkit describes its metrics.
NOT_COMPARED = ("time", "train_seconds", "data_wait", "at", "measured")


def reproduce(argv: Sequence[str]) -> int:
    """Repeat the run that `argv` names. Returns 0 when every logged number and every saved bit is the same, else 1."""
    original, overrides, as_json = words_of("reproduce", argv)
    given = values(overrides)
    registry.import_plugins(names(given, "plugins"))
    if meaning := [key for key in given if changes_meaning(key)]:
        raise ConfigError(f"{meaning[0]} would make it another experiment: trainkit train repeats a run with changes")
    console = Console(as_json=as_json)
    stored = stored_config(original, console)
    log = events_to_compare(original, console)
    config = typed(overridden(stored, given | pinned(original)))
    folder = rundir.create(config.output_dir / "train", f"{config.dataset.name}-{config.model.name}")
    try:
        storage.replace_json(folder / "status.json", {"verb": "train", "state": "created", "reproduces": str(original)})
    except TrainkitError:
        rundir.remove(folder)
        raise
    console.say(f"reproduces {rundir.shown(original)} in {rundir.shown(folder)}")
    indented = Console(as_json=as_json, prefix="  ")
    command = ["trainkit", "reproduce", *argv]
    if code := run_job(Job("train", config, folder, command, overrides, is_new=True), indented).code:
        return code
    found = compare(original, folder, log)
    if as_json:
        console.say_json({"run": str(folder), "reproduces": str(original), **found})
    for line in in_words(found, folder):
        console.say(line)
    return 0 if found["identical"] else 1


def pinned(original: Path) -> dict[str, Any]:
    """The override that insists on the initial weights of the original, where they came from a file."""
    found = newest_header(original)
    origin = found[0].get("init") if found is not None else None
    return {"init.sha256": str(origin["sha256"])} if isinstance(origin, dict) and "sha256" in origin else {}


def events_to_compare(original: Path, console: Console) -> list[dict[str, Any]]:
    """The lines of the original's log; of a complete run whose log is lost those that are left, with a note."""
    completed = rundir.read_status(original).get("state") == "completed"
    log = events(original) if (original / "metrics.jsonl").exists() or not completed else []
    if completed and not any(event.get("event") == "end" for event in log):
        console.note("metrics.jsonl of the original is lost in part: what is left is compared, and the last checkpoint")
    return log


def events(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl as they are compared; a torn last line does not count. Raises CheckpointError."""
    try:
        lines = storage.read_lines(folder / "metrics.jsonl")
        parsed = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return [{key: value for key, value in line.items() if key not in NOT_COMPARED} for line in parsed]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"'{folder}' has no readable metrics.jsonl to compare with ({error})") from error


def compare(original: Path, folder: Path, log: list[dict[str, Any]]) -> dict[str, Any]:
    """What is the same and what is not: logged numbers, then the tensors of the last checkpoint, then the causes."""
    again = {_name(event): event for event in events(folder)}
    found: dict[str, Any] = {"identical": True, "steps": 0, "epochs": 0, "tensors": 0}
    for event in log:
        if event["event"] == "start":
            continue
        other = again.get(_name(event))
        if other is None or (event != other):
            keys = [key for key in event if other is None or event[key] != other.get(key)]
            key = next((key for key in keys if key in ("loss", "train/loss")), keys[0])
            first = {"event": event["event"], "step": event.get("step"), "epoch": event.get("epoch"), "key": key}
            found |= {"identical": False, "first": first | {"original": event[key], "again": (other or {}).get(key)}}
            break
        if event["event"] in ("step", "epoch"):
            found[event["event"] + "s"] += 1
    ended = any(event["event"] == "end" for event in log)
    found["complete"] = ended or rundir.read_status(original).get("state") == "completed"
    if found["identical"] and found["complete"]:
        found |= compare_tensors(original, folder)
    if not found["identical"]:
        found["differences"] = causes(original, folder)
    return found


def _name(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["event"], event.get("step")


def compare_tensors(original: Path, folder: Path) -> dict[str, Any]:
    """Whether the last checkpoints hold the same tensors, bit for bit."""
    import torch

    (ours, _), (theirs, _) = (checkpoint.load(record.candidates(run / "checkpoints")[0]) for run in (folder, original))
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name]):
            return {"identical": False, "tensors": len(ours), "tensor": name}
    return {"tensors": len(ours)}


def causes(original: Path, folder: Path) -> dict[str, list[Any]]:
    """What differs in config, samples, runtime and code: {name: [then, now]}."""
    found: dict[str, list[Any]] = {}
    headers = [newest[0] if (newest := newest_header(run)) else {} for run in (original, folder)]
    for part, prefix in (("config", "config."), ("fingerprint", "samples of "), ("runtime", "")):
        for key, pair in differences(*(flat(header.get(part, {})) for header in headers)).items():
            if part != "config" or changes_bits(key):
                found[prefix + key] = pair
    for key, pair in differences(*(flat(_environment(run)) for run in (original, folder))).items():
        if key in ("code", "versions.python", "platform"):
            found[key] = [str(value)[:60] for value in pair]
    return found


def _environment(run: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(storage.read_regular(run / "env.json")))
    except (OSError, ValueError):
        return {}


def in_words(found: dict[str, Any], folder: Path) -> list[str]:
    """The comparison as lines."""
    counts = f"{_count(found['steps'], 'logged step')} and {_count(found['epochs'], 'epoch')}"
    if found["identical"]:
        if not found["complete"]:
            return [f"bit-identical as far as the original went: {counts}; it did not end"]
        return [f"bit-identical: {counts}, {_count(found['tensors'], 'tensor')}"]
    if "tensor" in found:
        lines = [f"not identical: {counts} are the same, but not the last checkpoint: {found['tensor']}"]
    else:
        first = found["first"]
        where = (
            f"step {first['step']}" if first["event"] == "step" else f"{first['event']} {first['epoch'] or ''}".strip()
        )
        lines = [f"not identical: first at {where}: {first['key']} was {first['original']} and is {first['again']}"]
    reasons = [f"  {name}: {then} -> {now}" for name, (then, now) in found["differences"].items()]
    return [
        *lines,
        *(["differences:", *reasons] if reasons else ["no difference in environment, code or data is known"]),
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
