"""Runs the commands of one document, one after the other, in the current folder; test_docs.py reads what it prints.

Standard input: a JSON list of [kind, command]. Kinds: `run` runs it (`trainkit …` and `python FILE` in this process,
so that torch is imported once a document; anything else in a shell), `check` only composes and checks the config of
a `trainkit train`.
Standard output: for each, all that it prints, then a line with BREAK and the exit code.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

from trainkit import registry
from trainkit.cli import main
from trainkit.config import folders
from trainkit.config.compose import check_jobs
from trainkit.errors import TrainkitError

BREAK = "\x1f"


def latest(parent: str) -> str:
    """The newest folder in `parent`: what RUN and SWEEP stand for."""
    return str(max(Path(parent).iterdir(), key=lambda path: path.stat().st_mtime_ns))


def forget_plugins() -> None:
    """Undo what `plugins=` has imported, so that the next command starts as in a process of its own."""
    for key, component in list(registry._components.items()):
        if not component.build.__module__.startswith("trainkit."):
            del registry._components[key]
            sys.modules.pop(component.build.__module__, None)


def run(command: str) -> int:
    """Run one command line; returns its exit code."""
    command = re.sub(r"(outputs/(?:train|sweeps))/(?:RUN|SWEEP)\b", lambda match: latest(match[1]), command)
    words = shlex.split(command, comments=True)
    if words[0] == "trainkit":
        forget_plugins()
        return main(words[1:])
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
        return 0
    sys.stdout.flush()
    return subprocess.run(command, shell=True, check=False).returncode


def check(command: str) -> int:
    """Check the config that a `trainkit train` line asks for; returns 0, or 2 after printing what is wrong with it."""
    words = shlex.split(command, comments=True)[2:]
    try:
        folders.install(folders.user_confs([]))
        check_jobs("train", [word for word in words if word != "-m"], "-m" in words, [])
    except TrainkitError as error:
        print(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    for kind, command in json.load(sys.stdin):
        code = run(command) if kind == "run" else check(command)
        sys.stderr.flush()
        print(f"\n{BREAK}{code}", flush=True)
