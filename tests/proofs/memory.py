"""What saving and loading take: how far the process grows while it does, over the size of the checkpoint file."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenes import only_run

from trainkit.checkpoints import checkpoint
from trainkit.checkpoints.state import Checkpoints

if TYPE_CHECKING:
    from nursery import Nursery

# A checkpoint of 203 MB, weights and momentum of one layer nearly all of it; one step.
LARGE = ["train", "model.hidden=[5000,5000]", "epochs=1", "batch_size=2000", "device=cpu", "plots=false"]


def watch(log: str) -> None:
    """A hook for the nursery: writes a line for each save and load of the command, what it was and what it took."""
    save, load = Checkpoints.save, checkpoint.load

    def grown(what: str, path: Callable[[], Path | None], act: Callable[[], Any]) -> Any:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that glibc keeps would be used again, and not be seen to grow
        Path("/proc/self/clear_refs").write_text("5")  # the process's high-water mark begins anew
        before = process_bytes("VmRSS")
        result = act()
        grown = process_bytes("VmHWM") - before
        file = path()
        assert file is not None
        with open(log, "a") as lines:
            lines.write(json.dumps({"what": what, "grown": grown, "size": file.stat().st_size}) + "\n")
        return result

    def watched_save(self: Checkpoints, *arguments: Any, **options: Any) -> None:
        grown("save", lambda: self.best, lambda: save(self, *arguments, **options))

    def watched_load(path: Path) -> Any:
        return grown("load", lambda: path, lambda: load(path))

    Checkpoints.save = watched_save  # type: ignore[method-assign]
    checkpoint.load = watched_load


def process_bytes(name: str) -> int:
    """A number of /proc/self/status in bytes."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.M)
    assert found is not None
    return int(found[1]) * 1024


def extra_memory(scratch: Path, nursery: Nursery) -> dict[str, float]:
    """Train, extend and evaluate a large model; returns what their saves and loads took, over the file's size."""
    found = {"save of train": measured("save", LARGE, scratch, nursery)}
    run = only_run(scratch)
    found["load of resume"] = measured("load", ["resume", str(run), "epochs=+1"], scratch, nursery)
    found["load of eval"] = measured("load", ["eval", f"ckpt={run}"], scratch, nursery)
    return found


def measured(what: str, words: list[str], scratch: Path, nursery: Nursery) -> float:
    """Run a command; returns what its saves or loads took at most."""
    log = scratch / f"{words[0]}.jsonl"
    code, output = nursery.run(*words, cwd=scratch, hook="memory:watch", arguments=[str(log)])
    assert code == 0, output
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert min(line["size"] for line in lines) > 200_000_000
    return max(float(line["grown"] / line["size"]) for line in lines if line["what"] == what)
