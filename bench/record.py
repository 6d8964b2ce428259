"""The record in the repository: every reading in bench/results.json, and the page and picture made from it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from bench.figure import draw
from bench.processes import run
from bench.sections import Section
from bench.tables import markdown

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
PACKAGES = ["torch", "torchvision", "lightning", "keras", "fastai"]
# asked of another process: this one stays without torch (see processes.py)
ENVIRONMENT = "import json; from trainkit.runtime import auto, environment; print(json.dumps(environment(auto())))"


def machine() -> tuple[str, dict[str, str]]:
    """The type of the device (`cpu`, `cuda`), and hardware and versions in words."""
    facts = json.loads(run([sys.executable, "-c", ENVIRONMENT]).out)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = [f"trainkit {facts['versions']['trainkit']}", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    device = f"{facts['device_name']} ({facts['device']}), {facts['threads']} threads, {facts['cpu_capability']}"
    return facts["device"], {
        "device": f"{device}, {os.cpu_count()} CPU cores seen, {memory:.0f} GiB of memory",
        "versions": ", ".join(versions),
        "system": f"{platform.system()} {platform.machine()}",
    }


@dataclasses.dataclass
class Record:
    """What was measured on one machine."""

    machine: dict[str, str]
    sections: list[Section]


def read(path: Path) -> dict[str, Record]:
    """What `write` has written, by the type of the device; empty before the first time."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        device: Record(part["machine"], [Section(**section) for section in part["sections"]])
        for device, part in found.items()
    }


def merge(old: Sequence[Section], new: Sequence[Section]) -> list[Section]:
    """The old sections with the new ones in their places, and those that were not there at the end."""
    fresh = {section.name: section for section in new}
    return [fresh.pop(section.name, section) for section in old] + list(fresh.values())


def write(root: Path, sections: Sequence[Section], device: str, where: dict[str, str]) -> list[Path]:
    """Put the sections into bench/results.json, docs/benchmarks.md and a picture in docs/img/ under `root`.

    Sections measured before on a device of this type stay if hardware and versions are the same, so that a part can be
    repeated; else they go, because figures of two machines do not stand in one table. Returns the files written. Raises
    ValueError when the page has no markers.
    """
    results, page = root / "bench" / "results.json", root / "docs" / "benchmarks.md"
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    records = read(results)
    old = records.get(device)
    records[device] = Record(where, merge(old.sections if old and old.machine == where else [], sections))
    kept = {kind: dataclasses.asdict(record) for kind, record in records.items()}
    results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    pictures = [root / "docs" / "img" / f"bench_{kind}.png" for kind in records]
    parts = []
    for (kind, record), picture in zip(records.items(), pictures, strict=True):
        draw(record.sections, picture)
        image = f"![Seconds of training and evaluation by contestant](img/{picture.name})\n\n"
        shown = image if picture.exists() else ""
        parts.append(f"## Figures: {kind.upper()}\n\n{shown}{markdown(record.sections, record.machine)}")
    page.write_text(f"{before}{BEGIN}\n{chr(10).join(parts)}{END}{after}", encoding="utf-8")
    return [results, page, *filter(Path.exists, pictures)]
