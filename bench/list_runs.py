"""How long `trainkit runs` takes for many run folders: python -m bench.list_runs [FOLDERS]

Trains one small run, copies its folder (without the checkpoints) under other names into a scratch folder, half of them
as the jobs of a sweep, and times the command, start of Python included: the fastest and the slowest of five.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def copies(run: Path, root: Path, count: int) -> None:
    """Make `count` copies of a run folder, under the names that runs and jobs of a sweep have."""
    for number in range(count):
        name = f"2026-01-01_{number // 3600:02}-{number // 60 % 60:02}-{number % 60:02}_digits-mlp_{number:06x}"
        folder = root / "train" / name if number % 2 else root / "sweeps" / "2026-01-01_00-00-00_ffffff" / str(number)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))


def main() -> None:
    """Print the times."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    trainkit = [sys.executable, "-m", "trainkit"]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([*trainkit, "train", "epochs=1"], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        (run,) = Path(scratch, "outputs", "train").iterdir()
        copies(run, Path(scratch, "many"), count)
        for words in (["runs", "many"], ["runs", "many", "optim.lr=0.1", "--sort", "-val/accuracy"]):
            seconds = []
            for _ in range(5):
                started = time.perf_counter()
                done = subprocess.run([*trainkit, *words], cwd=scratch, check=True, capture_output=True, text=True)
                seconds.append(time.perf_counter() - started)
            assert len(done.stdout.splitlines()) == count + 1
            print(f"trainkit {' '.join(words)}: {count} folders, {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    main()
