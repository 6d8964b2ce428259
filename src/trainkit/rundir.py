"""The run folder: made for one run alone, locked while it runs, and what stands in it.

outputs/<verb>/<date>_<time>_<dataset>-<model>_<uid>/
    config.yaml    the resolved config          command.txt   what to type to run it again
    env.json       versions, device, flags      status.json   running, completed or failed, and the result
    metrics.jsonl  every measurement            results.csv   one row an epoch
    train.log      what was shown, and the traceback of a bug
    checkpoints/   last.safetensors, best.safetensors
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit import storage
from trainkit.errors import ConfigError, ResourceError


def create(parent: Path, label: str = "") -> Path:
    """Make a new folder `<date>_<time>[_label]_<uid>` under `parent`, this process's own.

    Raises ResourceError when the place cannot be written.
    """
    while True:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        path = parent / "_".join(part for part in (stamp, label, secrets.token_hex(3)) if part)
        try:
            parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()  # exclusive: of two runs in the same second, with the same uid, one tries again
        except FileExistsError:
            if path.exists():
                continue
            raise ResourceError(f"cannot make the run folder {path}: a file stands where a folder is needed") from None
        except OSError as error:
            raise ResourceError(f"cannot make the run folder {path} ({error.strerror})") from error
        return path


class RunDir:
    """The folder of one run while it runs."""

    def __init__(self, path: Path, verb: str) -> None:
        self.path = path
        self.verb = verb
        self.checkpoints = path / "checkpoints"
        self._status: dict[str, Any] = {}
        self._lock = -1

    @property
    def is_open(self) -> bool:
        return self._lock >= 0

    def open(self, config: dict[str, Any], command: Sequence[str], overrides: Sequence[str]) -> None:
        """Lock the folder and write what is known at the start. Raises ConfigError when another process holds it."""
        import yaml

        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it when the process dies
        except OSError:
            os.close(self._lock)
            self._lock = -1
            raise ConfigError(f"the run folder {self.path} is in use by another process") from None
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        storage.replace(self.path / "config.yaml", text.encode())
        storage.replace(self.path / "command.txt", (shlex.join(command) + "\n").encode())
        self._status = {
            "verb": self.verb,
            "state": "running",
            "pid": os.getpid(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "overrides": list(overrides),
        }
        storage.replace_json(self.path / "status.json", self._status)

    def close(self, state: str, **facts: Any) -> None:
        """Record how the run ended and free the folder."""
        self._status.update(state=state, ended=time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts)
        self._status.pop("pid", None)
        storage.replace_json(self.path / "status.json", self._status)
        with contextlib.suppress(OSError):
            (self.path / ".lock").unlink()
        os.close(self._lock)
        self._lock = -1

    def write_json(self, name: str, value: Any) -> None:
        storage.replace_json(self.path / name, value)


def shown(path: Path) -> str:
    """A folder as a person would type it: relative where it lies below the current one."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def read_status(path: Path) -> dict[str, Any]:
    """The status of a run folder, or an empty mapping when there is none."""
    try:
        status = json.loads((path / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
