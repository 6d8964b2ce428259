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


def machine() -> dict[str, str]:
    """Hardware and versions, in words."""
    facts = json.loads(run([sys.executable, "-c", ENVIRONMENT]).out)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    versions = [f"trainkit {facts['versions']['trainkit']}", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    device = f"{facts['device_name']} ({facts['device']}), {facts['threads']} threads, {facts['cpu_capability']}"
    return {
        "device": f"{device}, {os.cpu_count()} CPU cores seen, {memory:.0f} GiB of memory",
        "versions": ", ".join(versions),
        "system": f"{platform.system()} {platform.machine()}",
    }


def read(path: Path) -> tuple[dict[str, str], list[Section]]:
    """A record written by `write`: the machine and the sections."""
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["machine"], [Section(**section) for section in record["sections"]]


def merge(old: Sequence[Section], new: Sequence[Section]) -> list[Section]:
    """The old sections with the new ones in their places, and those that were not there at the end."""
    fresh = {section.name: section for section in new}
    return [fresh.pop(section.name, section) for section in old] + list(fresh.values())


def write(root: Path, sections: Sequence[Section], where: dict[str, str]) -> list[Path]:
    """Put the sections into bench/results.json, docs/benchmarks.md and docs/img/bench.png under `root`.

    Sections measured before stay if hardware and versions are the same, so that a part can be repeated; else
    they go, because figures of two machines do not stand in one table. Returns the files written. Raises ValueError
    when the page has no markers.
    """
    results, page, picture = (
        root / "bench" / "results.json",
        root / "docs" / "benchmarks.md",
        root / "docs/img/bench.png",
    )
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    if results.exists():
        known, old = read(results)
        if known == where:
            sections = merge(old, sections)
    draw(sections, picture)
    record = {"machine": where, "sections": [dataclasses.asdict(section) for section in sections]}
    results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    image = "![Seconds of training and evaluation by contestant](img/bench.png)\n\n" if picture.exists() else ""
    page.write_text(f"{before}{BEGIN}\n{image}{markdown(sections, where)}{END}{after}", encoding="utf-8")
    return [results, page, *([picture] if picture.exists() else [])]
