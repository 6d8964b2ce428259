"""The run folder: made for one run alone, locked while it runs, and what stands in it.

outputs/<verb>/<date>_<time>_<dataset>-<model>_<uid>/
    config.yaml    the resolved config          command.txt   what to type to run it again
    env.json       versions, device, flags      status.json   running, completed or failed, and the result
    metrics.jsonl  every measurement            results.csv   one row an epoch
    train.log      what was shown, and the traceback of a bug
    checkpoints/   the last ones and the best, and record.json, which says which is which
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit import storage
from trainkit.errors import ConfigError, ResourceError
from trainkit.text import without_secrets


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
            storage.flush(parent)
        except FileExistsError:
            if path.exists():
                continue
            raise ResourceError(f"cannot make the run folder {path}: a file stands where a folder is needed") from None
        except OSError as error:
            raise ResourceError(f"cannot make the run folder {path} ({error.strerror})") from error
        return path


def remove(folder: Path) -> None:
    """Remove a folder that `create` has made, and what is in it; what cannot be removed stays."""
    shutil.rmtree(folder, ignore_errors=True)


def write_command(folder: Path, command: Sequence[str]) -> None:
    """Write what to type to run it again, without secrets."""
    storage.replace(folder / "command.txt", (shlex.join(without_secrets(list(command))) + "\n").encode())


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write the config by which the run is resumed."""
    import yaml

    storage.replace(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode())


class LogFile(logging.Handler):
    """A run's log, for Python's logging: a line that cannot be written ends the run, as with its other files."""

    def __init__(self, filename: str) -> None:
        super().__init__()
        self.path = Path(filename)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a line, or the lines of a traceback. Raises ResourceError."""
        storage.append(self.path, self.format(record))


class RunDir:
    """The folder of one run while it runs. is_new: this process has made it, for this run."""

    def __init__(self, path: Path, verb: str, *, is_new: bool = False) -> None:
        self.path = path
        self.verb = verb
        self._is_new = is_new
        self._status: dict[str, Any] = {}
        self._lock = -1
        self._config: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        return self._lock >= 0

    def open(self, config: dict[str, Any], command: Sequence[str], overrides: Sequence[str]) -> None:
        """Lock the folder and write what is known at the start; of a folder that has a status, the run goes on.

        Raises ConfigError when another process holds it, ResourceError when it cannot be written, or when a file in
        it is a link.
        """
        self._lock = hold(self.path)
        storage.remove_temporaries(self.path)
        before = read_status(self.path)
        if (self.path / "checkpoints").exists():
            self._config = config  # which is not the run's before it fits what was saved
        else:
            write_config(self.path, config)
        if "overrides" not in before:  # else it is known what made the run
            write_command(self.path, command)
        now = {"state": "running", "pid": os.getpid()}
        if "started" in before:
            kept = {key: value for key, value in before.items() if key not in ("exit_code", "error", "result", "ended")}
            again = {"at": _now(), "command": without_secrets(list(command))}
            self._status = {**kept, **now, "resumed": [*kept.get("resumed", []), again]}
        else:
            asked = {"overrides": without_secrets(list(overrides))}
            self._status = {**asked, **before, "verb": self.verb, **now, "started": _now()}
        storage.replace_json(self.path / "status.json", self._status)

    def begin(self, step: int) -> None:
        """Record that the run begins, or goes on, after this step, with this config, now that it fits what was saved.

        From here on config.yaml says what the run is, also if it is killed before it saves anything.
        """
        self._is_new = False
        if self._config is not None:
            write_config(self.path, self._config)
        if resumed := self._status.get("resumed"):
            resumed[-1]["step"] = step
            storage.replace_json(self.path / "status.json", self._status)

    def close(self, state: str, **facts: Any) -> None:
        """Record how the run ended and free the folder."""
        self._status.update(state=state, ended=_now(), **facts)
        self._status.pop("pid", None)
        try:
            storage.replace_json(self.path / "status.json", self._status)
        finally:
            descriptor, self._lock = self._lock, -1
            let_go(self.path, descriptor)

    def discard(self) -> bool:
        """Remove the folder if it was made for a run that has not begun; returns whether it was."""
        if not self._is_new:
            return False
        remove(self.path)
        if self.is_open:
            descriptor, self._lock = self._lock, -1
            let_go(self.path, descriptor)
        return True

    def write_json(self, name: str, value: Any) -> None:
        storage.replace_json(self.path / name, value)


def hold(folder: Path) -> int:
    """Make a folder this process's own, as a run or a sweep needs it; returns the descriptor for `let_go`.

    Raises ConfigError when another process holds it, ResourceError when it cannot be written, or when a file in it is
    a link.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage.refuse_strange(folder)
        return _lock(folder / ".lock")
    except OSError as error:
        raise storage.cannot_write(folder, error) from error


def let_go(folder: Path, descriptor: int) -> None:
    """Free a folder that `hold` has made this process's own."""
    with contextlib.suppress(OSError):
        (folder / ".lock").unlink()
    with contextlib.suppress(OSError):  # the descriptor is gone even if this fails, and the lock with it
        os.close(descriptor)


def _lock(path: Path) -> int:
    """The descriptor of a lock file that this process holds. Raises ConfigError when another one does, and OSError."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it when the process dies
        except OSError:
            owner = os.read(descriptor, 20).decode(errors="replace").strip()
            os.close(descriptor)
            raise ConfigError(f"the folder {path.parent} is in use by process {owner or '?'}") from None
        if _is_at(path, descriptor):
            break
        os.close(descriptor)  # its owner ended, and deleted the file, between our opening and locking it
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError:
        storage.remove(path)
        os.close(descriptor)
        raise
    return descriptor


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_killed(folder: Path, status: dict[str, Any]) -> bool:
    """Whether the status says running and no process holds the folder. A lock that may not be looked at is held."""
    if status.get("state") != "running":
        return False
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # it may be a pipe
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go again by the close, at once
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def shown(path: Path) -> str:
    """A folder as a person would type it: relative where it lies below the current one."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def read_status(path: Path) -> dict[str, Any]:
    """The status of a run folder, or an empty mapping when there is none."""
    try:
        status = json.loads(storage.read_regular(path / "status.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}
