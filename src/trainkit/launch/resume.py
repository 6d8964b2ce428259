"""`trainkit resume RUN|SWEEP`: a sweep is its own command given again, which passes over what is done."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from trainkit.commands import resume as single
from trainkit.commands.resume import HELP as HELP
from trainkit.config.compose import assignment
from trainkit.errors import ConfigError
from trainkit.launch.run import run
from trainkit.launch.sweep import COMMAND, command_of, jobs_of
from trainkit.launch.verbs import VERBS
from trainkit.run_folders import rundir


def resume(argv: Sequence[str]) -> int:
    """Resume the run or the sweep that `argv` names. Returns the exit code."""
    place, more, as_json = single.words_of("resume", argv)
    is_run = any((place / name).exists() for name in ("config.yaml", "status.json"))
    command = [] if is_run else command_of(place)
    known = len(command) > 1 and command[1] in VERBS and VERBS[command[1]].kind == "run"
    if not is_run and not known and (place / COMMAND).exists():
        raise ConfigError(f"{rundir.shown(place / COMMAND)} does not hold the command of a sweep")
    if not known:
        return single.resume(argv)
    _, verb, *words = command
    again = shlex.join(["trainkit", verb, *words, assignment("hydra.sweep.dir", str(place))])
    if more:
        raise ConfigError(f"a sweep goes on as it was begun, without {more[0]}; what it was: {again}")
    if any(word.startswith("plugins=") for word in words):
        raise ConfigError(f"the sweep names plugins, whose code would run; to let it, type: {again}")
    if any(word.startswith("hydra/sweeper=") for word in words):
        raise ConfigError("a sweeper that proposes its jobs begins anew; give it storage of its own, or start again")
    places = {"hydra.sweep.dir": str(place), "output_dir": single.home_of(place)}  # not those of whoever began it
    flags = ["--json"] if as_json or "--json" in words else []
    return run(verb, [*jobs_of(words), *(assignment(key, value) for key, value in places.items()), *flags])
