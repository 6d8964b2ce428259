"""A process that has imported everything once and forks a child for each run of the command.

Importing torch takes seconds; a child that is forked after it begins to train in a fraction of one. It is a process of
its own like any other: it leads a group of its own, with the decoding workers that it starts, and dies of SIGKILL.

Run as a program, this file is that process. Standard input: a JSON object a line, each answered with a line.

    {"words": […], "cwd": …, "out": …, "hook": null | "module:function", "arguments": […]}  -> {"pid": …}
    {"wait": pid}                                                                           -> {"code": …}

The hook is called in the child before the command: it injects what is to be tested (a fault, a signal, a mutation).
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SRC = HERE.parents[1] / "src"


class Life:
    """One run of the command. `pid` is its process group too. The code of one that died of a signal is negative."""

    def __init__(self, pid: int, output: Path, nursery: Nursery) -> None:
        self.pid = pid
        self._output = output
        self._nursery = nursery

    @property
    def output(self) -> str:
        """What it has said so far, on both streams."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return int(self._nursery.ask({"wait": self.pid})["code"])


class Nursery:
    """The process that forks, from the side of who asks it. A context manager."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRAINKIT_", "HYDRA_"))}
        paths = os.pathsep.join(filter(None, [str(SRC), os.environ.get("PYTHONPATH")]))
        # one thread: a child that is forked from a process with more would lack them
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=kept | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(self, *words: str, cwd: Path, hook: str | None = None, arguments: Sequence[Any] = ()) -> Life:
        """Run `trainkit *words` in a child, in `cwd`."""
        self._count += 1
        out = self._scratch / f"life{self._count}.txt"
        order = {"words": words, "cwd": str(cwd), "out": str(out), "hook": hook, "arguments": list(arguments)}
        return Life(int(self.ask(order)["pid"]), out, self)

    def run(self, *words: str, cwd: Path, hook: str | None = None, arguments: Sequence[Any] = ()) -> tuple[int, str]:
        """The same to its end; returns exit code and output."""
        life = self.start(*words, cwd=cwd, hook=hook, arguments=arguments)
        return life.wait(), life.output

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer


def serve() -> None:
    """Answer until standard input ends."""
    import hydra.main  # noqa: F401
    import numpy  # noqa: F401
    import PIL.Image  # noqa: F401

    import trainkit.commands.resume
    import trainkit.commands.train  # noqa: F401
    from trainkit import registry

    for group in registry.FAMILIES:
        registry.names(group)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                live(order)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def live(order: dict[str, Any]) -> None:
    """Be a child: run the command as a process of its own would, and end."""
    from trainkit.cli import main

    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for descriptor, number in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(descriptor, number)
    os.chdir(order["cwd"])
    code = 1
    try:
        if order["hook"]:
            module, _, function = order["hook"].partition(":")
            getattr(importlib.import_module(module), function)(*order["arguments"])
        sys.argv = ["trainkit", *order["words"]]
        code = main(order["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
