"""What the tests share: running the command, in a process of its own or in this one, and the real data sets."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

ROOT = Path(__file__).parent.parent
if importlib.util.find_spec("trainkit") is None:  # a checkout that is not installed
    sys.path.insert(0, str(ROOT / "src"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images go into a scratch folder, not into the cache of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended in this process."""

    code: int
    out: str
    err: str


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
            timeout=120,
        )

    return run


@pytest.fixture
def trainkit_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """`trainkit_here("train", …)` in this process and `tmp_path`: saves the seconds that importing torch takes.

    Whatever the command does, Hydra must be left as if it had never been used.
    """
    from trainkit.cli import main

    for name in os.environ:
        if name.startswith(("TRAINKIT_", "HYDRA_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)

    def run(*words: str) -> Outcome:
        capfd.readouterr()
        code = main(words)
        assert not GlobalHydra.instance().is_initialized()
        return Outcome(code, *capfd.readouterr())

    with fresh_logging():
        yield run


@dataclasses.dataclass
class fresh_logging:  # noqa: N801  used as a function
    """Take away the log handlers that a job adds, and close their files."""

    before: list[logging.Handler] = dataclasses.field(default_factory=list)

    def __enter__(self) -> None:
        self.before = list(logging.root.handlers)
