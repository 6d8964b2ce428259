"""`trainkit resume RUN|SWEEP`: a sweep is its own command given again, which passes over what is done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from trainkit import storage
from trainkit.commands import resume as single
from trainkit.commands.resume import HELP as HELP
from trainkit.config.compose import assignment
from trainkit.errors import ConfigError
from trainkit.launch.run import COMMAND, run


def resume(argv: Sequence[str]) -> int:
    """Resume the run or the sweep that `argv` names. Returns the exit code."""
    place, more, as_json = single.words_of("resume", argv)
    is_run = any((place / name).exists() for name in ("config.yaml", "status.json"))
    if is_run or not (place / COMMAND).is_file():
        return single.resume(argv)
    verb, words = command_of(place)
    again = shlex.join(["trainkit", verb, *words, assignment("hydra.sweep.dir", str(place))])
    if more:
        raise ConfigError(f"a sweep goes on as it was begun, without {more[0]}; what it was: {again}")
    if any(word.startswith("plugins=") for word in words):
        raise ConfigError(f"the sweep names plugins, whose code would run; to let it, type: {again}")
    if any(word.startswith("hydra/sweeper=") for word in words):
        raise ConfigError("a sweeper that proposes its jobs begins anew; give it storage of its own, or start again")
    words = [word for word in words if not word.startswith("hydra.sweep.dir=")]
    flags = ["--json"] if as_json and "--json" not in words else []
    return run(
        verb, f"trainkit.commands.{verb}:{TASKS[verb]}", [*words, assignment("hydra.sweep.dir", str(place)), *flags]
    )


def command_of(sweep: Path) -> tuple[str, list[str]]:
    """Verb and words of the command that began a sweep. Raises ConfigError for what is no such command."""
    try:
        _, verb, *words = shlex.split(storage.read_text(sweep / COMMAND))
        TASKS[verb]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{sweep / COMMAND} does not hold the command of a sweep") from error
    return verb, words


TASKS = {"train": "train", "eval": "evaluate"}
