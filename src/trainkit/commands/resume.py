"""`trainkit resume RUN`: go on with a stopped run, bit by bit as if it had never stopped; or extend a finished one."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from trainkit import registry, storage
from trainkit.checkpoints import checkpoint, record
from trainkit.config.changes import refuse_other_meaning
from trainkit.config.check import check
from trainkit.config.compose import parse
from trainkit.config.flags import FlagParser
from trainkit.config.folders import read_text
from trainkit.config.frame import Train, to_plain
from trainkit.config.trust import refuse_interpolations, refuse_targets
from trainkit.console.console import Console
from trainkit.errors import CheckpointError, ConfigError, TrainkitError
from trainkit.launch.job import Job, run_job
from trainkit.run_folders import rundir
from trainkit.run_folders.configs import parse_config
from trainkit.text import without_secrets

RULES = ("hold", "stretch", "rewarm")
HELP = """\
usage: trainkit resume RUN [key=value …] [epochs=+N] [extend=RULE] [allow=[key,…]] [--json]

Goes on with a stopped run, bit by bit as if it had never stopped; with epochs=+N makes a finished one longer.

examples:
  trainkit resume outputs/train/RUN                     go on where it stopped, in the same folder
  trainkit resume outputs/train/RUN epochs=+10          ten epochs more, in a new folder
  trainkit resume outputs/train/RUN epochs=+10 extend=rewarm
  trainkit resume outputs/train/RUN optim.lr=0.01 allow=[optim.lr]
  trainkit resume outputs/sweeps/SWEEP                  the jobs of a sweep that are not done
  trainkit resume /elsewhere/RUN epochs=+10 output_dir=mine   the new folder is made in mine/train, not in outputs/train

What changes neither data nor model nor training may be set freely (workers, log_every, device, …); resume says what
is then no longer bit-exact. Anything else must be allowed by name. extend= says how the learning rate goes on after
the end: hold (as it ended), stretch (the schedule of the longer run), rewarm (the schedule anew)."""


def resume(argv: Sequence[str]) -> int:
    """Resume the run that `argv` names. Returns the exit code; raises TrainkitError before anything is changed."""
    folder, overrides, as_json = words_of("resume", argv)
    given = values(overrides)
    allow = names(given, "allow")
    registry.import_plugins(names(given, "plugins"))
    status = rundir.read_status(folder)
    console = Console(as_json=as_json)
    stored = stored_config(folder, console)
    command = ["trainkit", "resume", *argv]
    more = [text for text in overrides if re.fullmatch(r"epochs=\+0*[1-9]\d*", text)]
    if more:
        given.pop("epochs")
        rule = given.pop("extend", None)
        allow += ["epochs", "extensions"]
        config = longer(folder, stored, given, int(more[-1].partition("+")[2]), rule, status)
        refuse_other_meaning(stored, to_plain(config), allow)
        folder = copy_of(folder, config, console, command, overrides)
    elif status.get("state") == "completed":
        if set(given) - {"plugins"}:
            raise ConfigError(f"{rundir.shown(folder)} is complete; to train longer: trainkit resume RUN epochs=+N")
        console.say(f"{rundir.shown(folder)} is complete; to train longer:")
        console.say(f"  trainkit resume {shlex.quote(rundir.shown(folder))} epochs=+N")
        return 0
    else:
        config = typed(overridden(stored, {"output_dir": home_of(folder), **given}))
        refuse_other_meaning(stored, to_plain(config), allow)
    allow += accepted(status)  # of what it goes on from; what these words change had to be allowed by them
    job = Job("train", config, folder, command, overrides, options={"allow": allow}, is_new=bool(more))
    return run_job(job, console).code


def words_of(verb: str, argv: Sequence[str]) -> tuple[Path, list[str], bool]:
    """The run folder, the overrides, and whether JSON is asked for. Raises ConfigError when no folder is named."""
    parser = FlagParser(verb)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--json", action="store_true")
    flags = parser.read(argv)
    folders = [word for word in flags.words if "=" not in word or Path(word).expanduser().is_dir()]
    if len(folders) != 1:
        found = f"one run folder at a time, not also '{folders[1]}'" if folders else "a run folder is needed"
        raise ConfigError(f"{verb}: {found}: trainkit {verb} outputs/train/RUN")
    overrides = [word for word in flags.words if word != folders[0]]
    return Path(folders[0]).expanduser().absolute(), overrides, flags.json


def values(overrides: Sequence[str]) -> dict[str, Any]:
    """`key=value` overrides as {key: value}. Raises ConfigError for anything else that the grammar knows."""
    problems: list[str] = []
    found: dict[str, Any] = {}
    for text, override in parse(overrides, problems).items():
        key = override.key_or_group
        if override.is_add() or override.is_delete() or override.is_sweep_override():
            problems.append(f"{text}: resume takes key=value only")
        elif key in registry.FAMILIES:
            problems.append(f"{text}: a resumed run keeps its {key}; only its keys may be set, as in {key}.KEY=VALUE")
        else:
            found[key] = override.value()
    if problems:
        raise ConfigError(*problems)
    return found


def names(given: dict[str, Any], key: str) -> list[str]:
    """Take a list of names out of the overrides."""
    value = given.get(key, []) if key == "plugins" else given.pop(key, [])
    items = [str(item) for item in (value if isinstance(value, list) else [value])]
    if any(not re.fullmatch(r"[\w.]+", item) for item in items):
        raise ConfigError(f"{key}: expected a list of names: {key}=[a,b]")
    return items


def stored_config(folder: Path, console: Console) -> dict[str, Any]:
    """The config in the folder's config.yaml; where that is lost, what the newest checkpoint says, and a note of it.

    Raises CheckpointError when the folder is not that of a training run, or of one that was killed while it was made.
    """
    file = folder / "config.yaml"
    try:
        config = parse_config(read_text(file), file)
    except (ConfigError, ValueError) as error:
        if rundir.read_status(folder).get("state") == "created":  # a copy without it may be half a copy
            again = "remove it, and give the command again that made it"
            raise CheckpointError(f"'{folder}' was killed while it was made, before its first step: {again}") from error
        found = newest_header(folder)
        if found is None:
            none = "no config.yaml in it that can be read"
            raise CheckpointError(f"'{folder}' is not the folder of a training run: {none}") from error
        config = found[0]["config"]
        console.note(f"config.yaml is lost or damaged; the config is that of {found[1].name}")
    if "ckpt" in config:
        raise CheckpointError(f"'{folder}' is not the folder of a training run")
    refuse_targets(config, folder)
    refuse_interpolations(config, folder)
    return {str(key): value for key, value in config.items()}


def newest_header(folder: Path) -> tuple[dict[str, Any], Path] | None:
    """What the newest checkpoint of a run that can be read says, and its path; None when there is none."""
    for path in record.candidates(folder / "checkpoints"):
        with contextlib.suppress(CheckpointError):
            return checkpoint.read_header(path), path
    return None


def accepted(status: dict[str, Any]) -> list[str]:
    """The keys that the commands which made and resumed a run have allowed to change, by its status.

    In these a checkpoint may be of another experiment than config.yaml: the run went on (or was made longer) with that
    config, and was killed before the save that would have said so.
    """
    resumed = status.get("resumed")
    again = [entry.get("command") for entry in resumed if isinstance(entry, dict)] if isinstance(resumed, list) else []
    commands = [command for command in (status.get("overrides"), *again) if isinstance(command, list)]
    words = [str(word) for command in commands for word in command if str(word).startswith("allow=")]
    keys = [key for word in words for key in re.findall(r"[\w.]+", word.removeprefix("allow=")) if key != "data"]
    return [*keys, *(["epochs", "extensions"] if "parent" in status else [])]


def overridden(stored: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The stored config with the values of dotted keys put in.

    Only the command line names plugins, which run code, and says where new files go.
    """
    config = yaml.safe_load(yaml.safe_dump({**stored, "plugins": [], "output_dir": str(Train.output_dir)}))
    for key, value in given.items():
        *parents, last = key.split(".")
        node = config
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                raise ConfigError(f"key '{key}' is not known: {name} has no keys")
        node[last] = value
    return dict(config)


def home_of(folder: Path) -> str:
    """The `output_dir` that a run or sweep lies in: `outputs` of outputs/train/RUN and of outputs/sweeps/SWEEP/JOB."""
    for depth, name in ((1, "train"), (1, "sweeps"), (2, "sweeps")):
        if folder.parts[-depth - 1 : -depth] == (name,):
            return str(folder.parents[depth])
    return str(Train.output_dir)


def typed(config: dict[str, Any]) -> Train:
    """The checked config. Raises ConfigError with all faults."""
    problems: list[str] = []
    checked = check(config, Train, problems)
    if checked is None:
        raise ConfigError(*problems)
    return checked


def longer(
    parent: Path, stored: dict[str, Any], given: dict[str, Any], epochs: int, rule: str | None, status: dict[str, Any]
) -> Train:
    """The config of the run made longer by so many epochs.

    Raises ConfigError when the run is not finished, or when it is not said how its learning rate goes on.
    """
    shown = shlex.quote(rundir.shown(parent))
    if status.get("state") != "completed":
        raise ConfigError(f"{shown} is not finished: trainkit resume {shown} first, then extend it")
    old = typed(overridden(stored, {}))
    if rule is None and old.schedule.name == "constant":
        rule = "hold"
    if rule not in RULES:
        ended = f"schedule {old.schedule.name} ended with epoch {old.epochs}"
        raise ConfigError(f"{ended}: say how lr goes on: extend=hold, extend=stretch or extend=rewarm")
    more = {"epochs": old.epochs + epochs, "extensions": [*old.extensions, f"{rule}@{old.epochs}"]}
    config = typed(overridden(stored, {**given, **more}))
    if status["result"]["epochs"] < old.epochs and config.patience == old.patience:
        raise ConfigError(f"it stopped early, by patience={old.patience}: add patience=null allow=[patience]")
    return config


def copy_of(parent: Path, config: Train, console: Console, command: Sequence[str], overrides: Sequence[str]) -> Path:
    """A new run folder that holds what the finished run had at its end, and the config that goes on from there.

    config.yaml is the last file: a folder that has it can be resumed, whenever the process is killed.
    """
    folder = rundir.create(config.output_dir / "train", f"{config.dataset.name}-{config.model.name}")
    rule = config.extensions[-1].partition("@")[0]
    console.say(f"extends {rundir.shown(parent)} to {config.epochs} epochs, lr by {rule}, in {rundir.shown(folder)}")
    facts = {"verb": "train", "state": "created", "parent": str(parent)}
    try:
        storage.replace_json(folder / "status.json", {**facts, "overrides": without_secrets(list(overrides))})
        copy_state(parent, folder)
        rundir.write_command(folder, command)
        rundir.write_config(folder, to_plain(config))
    except TrainkitError:
        rundir.remove(folder)
        raise
    return folder


def copy_state(parent: Path, folder: Path) -> None:
    """Copy a run's last and best checkpoints and its logs up to the last. Raises CheckpointError without a record."""
    known = record.read(parent / "checkpoints")
    if known is None:
        raise CheckpointError(f"'{parent}' has no record of its checkpoints: checkpoints/{record.NAME}")
    (folder / "checkpoints").mkdir()
    try:
        for entry in {known.last.file: known.last, **({known.best.file: known.best} if known.best else {})}.values():
            storage.copy(parent / "checkpoints" / entry.file, folder / "checkpoints" / entry.file, entry.size)
        for name, length in known.last.logs.items():
            if (parent / name).exists():  # what is lost is said when the new run begins
                storage.copy(parent / name, folder / name, min(length, storage.size(parent / name)))
    except OSError as error:
        raise CheckpointError(f"'{error.filename}' cannot be read ({error.strerror})") from error
    record.write(folder / "checkpoints", record.Record(known.last, (), known.best))
