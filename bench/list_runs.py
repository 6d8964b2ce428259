"""How long `trainkit runs` takes for many run folders: python -m bench.list_runs [FOLDERS]

Trains one small run, copies its folder (without the checkpoints) under other names into a scratch folder, half of them
as the jobs of a sweep, each with values, a measurement and an end of its own, and times the command, start of Python
included: the median of five, the fastest and the slowest, the seconds that its process computed, and its peak memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILLED, FAILED = 50, 51  # one in so many has no end, or ended badly


def copies(run: Path, root: Path, count: int) -> None:
    """Make `count` copies of a run folder, under the names that runs and jobs of a sweep have."""
    for number in range(count):
        name = f"2026-01-01_{number // 3600:02}-{number // 60 % 60:02}-{number % 60:02}_digits-mlp_{number:06x}"
        folder = root / "train" / name if number % 2 else root / "sweeps" / "2026-01-01_00-00-00_ffffff" / str(number)
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
        vary(folder, number)


def vary(folder: Path, number: int) -> None:
    """Give a copy a learning rate of its own, as a random search does, and another seed, start, measurement and end."""
    config = (folder / "config.yaml").read_text()
    config = re.sub(r"(?m)^seed: .*$", f"seed: {number % 10}", config)
    (folder / "config.yaml").write_text(re.sub(r"(?m)^  lr: .*$", f"  lr: {0.1 - number * 4e-6:.6f}", config))
    status = json.loads((folder / "status.json").read_text())
    status["started"] = f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}+0000"
    status["result"]["metrics"]["val"]["accuracy"] = number % 977 / 977
    if number % KILLED == 0:
        status = {key: status[key] for key in ("verb", "started", "overrides")} | {"state": "running"}
    elif number % FAILED == 0:
        del status["result"]
        status |= {"state": "failed", "exit_code": 5, "error": "the loss is not finite"}
    (folder / "status.json").write_text(json.dumps(status, indent=2))


def measure(command: list[str], cwd: Path) -> tuple[float, float, float, int]:
    """Seconds from start to end, seconds computed and peak MiB of a command, and the lines that it wrote."""
    started = time.perf_counter()
    with open(cwd / "out", "w+") as out, subprocess.Popen(command, cwd=cwd, stdout=out) as process:
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = sum(1 for _ in out)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, lines


def main() -> None:
    """Print the times."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    trainkit = [sys.executable, "-m", "trainkit"]
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([*trainkit, "train", "epochs=1"], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        (run,) = Path(scratch, "outputs", "train").iterdir()
        copies(run, Path(scratch, "many"), count)
        for words in (
            ["runs", "many"],
            ["runs", "many", "optim.lr<=0.1", "--sort", "-val/accuracy"],
            ["runs", "many", "--json"],
        ):
            readings = [measure([*trainkit, *words], Path(scratch)) for _ in range(5)]
            seconds, computed, peaks, lines = zip(*readings, strict=True)
            assert len(set(lines)) == 1 and lines[0] > count
            span = f"{statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
            used = f"{statistics.median(computed):.2f} s computed, peak {max(peaks):.0f} MiB"
            print(f"trainkit {' '.join(words)}: {count} folders, {span}, {used}")


if __name__ == "__main__":
    main()
