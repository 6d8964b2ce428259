"""What the tests share: running the command, in a process of its own or in this one, and the real data sets."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nursery import Nursery

ROOT = Path(__file__).parent.parent
for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # of a shell's background job some are ignored, and
    if signal.getsignal(signum) is signal.SIG_IGN:  # would be in each command that a test starts and stops with them
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the processors: pools of threads would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if importlib.util.find_spec("trainkit") is None:  # a checkout that is not installed
    sys.path.insert(0, str(ROOT / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
elif "PYTHONPATH" in os.environ:  # `PYTHONPATH=src pytest`: the commands run in other folders
    places = os.environ["PYTHONPATH"].split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(place) for place in places if place)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go into a scratch folder, not into the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _logs_closed() -> Iterator[None]:
    """A command that ran in this process leaves the log of its run open, as it may: it is the last thing it does."""
    yield
    for handler in [found for found in logging.root.handlers if isinstance(found, logging.FileHandler)]:
        logging.root.removeHandler(handler)
        handler.close()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended in this process."""

    code: int
    out: str
    err: str


Command = Callable[..., "subprocess.CompletedProcess[str]"]
CommandHere = Callable[..., Outcome]


def clean_environment() -> dict[str, str]:
    """The environment without what would change how trainkit or Hydra behave."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TRAINKIT_", "HYDRA_"))}


@pytest.fixture
def trainkit(tmp_path: Path) -> Command:
    """`trainkit("train", "seed=1", cwd=…, env={…})` in a process of its own, by default in `tmp_path`."""

    def run(*words: str, cwd: Path = tmp_path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "trainkit", *words],
            cwd=cwd,
            env=clean_environment() | (env or {}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
        )

    return run


@contextlib.contextmanager
def process_restored() -> Iterator[None]:
    """Take away what a command leaves in a process that it does not expect to share with another one.

    The log handlers of the jobs, the options that `eval` puts into Hydra's store, plugins, and `sys.argv`.
    """
    from hydra.core.config_store import ConfigStore

    from trainkit import registry

    for group in registry.FAMILIES:
        registry.names(group)
    argv, path, components = sys.argv, list(sys.path), dict(registry._components)
    handlers, level = list(logging.root.handlers), logging.root.level
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path
        for key in registry._components.keys() - components.keys():
            if not registry._components[key].build.__module__.startswith("trainkit."):
                sys.modules.pop(registry._components.pop(key).build.__module__, None)
        for group in ("ckpt", *registry.FAMILIES):
            ConfigStore.instance().repo.pop(group, None)
        for handler in set(logging.root.handlers) - set(handlers):
            handler.close()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


@pytest.fixture
def trainkit_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[CommandHere]:
    """`trainkit_here("train", …)` in `tmp_path` and in this process: saves the seconds that importing torch takes.

    Whatever the command does, Hydra must be left as if it had never been used.
    """
    from hydra.core.global_hydra import GlobalHydra

    from trainkit.cli import main

    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Outcome:
        capfd.readouterr()
        code = main(words)
        assert not GlobalHydra.instance().is_initialized()
        return Outcome(code, *capfd.readouterr())

    with process_restored():
        yield run


@pytest.fixture(scope="session")
def datasets() -> Path:
    """The folder of real data sets: `$TRAINKIT_DATA`, else shared/datasets beside the project. Skips without one."""
    folder = Path(os.environ.get("TRAINKIT_DATA") or ROOT.parent / "shared" / "datasets")
    if not folder.is_dir():
        pytest.skip(f"no folder of real data sets: {folder} does not exist; set TRAINKIT_DATA")
    return folder


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Runs commands in forked processes, for the tests beside its module in tests/proofs."""
    from nursery import Nursery

    with Nursery(tmp_path_factory.mktemp("nursery")) as process:
        yield process


def trained(folder: Path, *words: str) -> Path:
    """Train in `folder`, in this process and on the CPU; returns the run folder."""
    from trainkit.cli import main

    with contextlib.chdir(folder), process_restored():
        assert main(["train", "device=cpu", "device.threads=1", *words]) == 0
    return max((folder / "outputs" / "train").iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MLP on the digits."""
    return trained(tmp_path_factory.mktemp("digits"), "model.hidden=[32]", "epochs=3")


@pytest.fixture(scope="session")
def iris_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MLP on a table whose columns have names."""
    return trained(tmp_path_factory.mktemp("iris"), "dataset=iris", "model.hidden=[16]", "epochs=20")


@pytest.fixture(scope="session")
def diabetes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear regression of standardized targets."""
    return trained(tmp_path_factory.mktemp("diabetes"), "dataset=diabetes", "model=linear", "optim.lr=0.01", "epochs=5")
