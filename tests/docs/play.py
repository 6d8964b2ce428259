"""Runs the commands of one document, one after the other, in the current folder; test_docs.py reads what it prints.

Standard input: a JSON list of [kind, command]. Kinds: `run` runs it (`trainkit …` in this process, so that torch is
imported once a document; anything else in a shell), `check` only composes and checks the config of a `trainkit train`.
Standard output: for each, all that it prints, then a line with BREAK and the exit code.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from trainkit.cli import main
from trainkit.config import folders
from trainkit.config.app import defer_to_jobs, flag_parser
from trainkit.config.compose import check_jobs
from trainkit.errors import TrainkitError

BREAK = "\x1f"


def latest(parent: str) -> str:
    """The newest folder in `parent`: what RUN and SWEEP stand for."""
    return str(max(Path(parent).iterdir(), key=lambda path: path.stat().st_mtime_ns))


def run(command: str) -> int:
    """Run one command line; returns its exit code."""
    command = re.sub(r"(outputs/(?:train|sweeps))/(?:RUN|SWEEP)\b", lambda match: latest(match[1]), command)
    words = shlex.split(command, comments=True)
    if words[0] == "trainkit":
        return main(words[1:])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # `python` is this one
    return subprocess.run(command, shell=True, check=False, env={**os.environ, "PATH": path}).returncode


def check(command: str) -> int:
    """Check the config that a `trainkit train` line asks for; returns 0, or 2 after printing what is wrong with it."""
    flags = flag_parser().parse_intermixed_args(shlex.split(command, comments=True)[2:])
    try:
        folders.install(folders.user_confs(flags.config_dir))
        overrides = defer_to_jobs(flags.overrides) if flags.multirun else flags.overrides
        check_jobs("train", overrides, flags.multirun, [])
    except TrainkitError as error:
        print(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    for kind, command in json.load(sys.stdin):
        code = run(command) if kind == "run" else check(command)
        sys.stderr.flush()
        print(f"\n{BREAK}{code}", flush=True)
