"""`trainkit report RUN|SWEEP…`: one HTML file about a run, a sweep or several runs. Reads files only; no torch."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from trainkit import storage
from trainkit.config.flags import FlagParser
from trainkit.console.columns import emit
from trainkit.errors import ConfigError, nearest
from trainkit.report.facts import Facts, is_run, read_facts
from trainkit.report.page import GENERATOR
from trainkit.run_folders import rundir
from trainkit.text import visible

HELP = """\
usage: trainkit report RUN [RUN …] [--output FILE] [--title TEXT] [--json]
       trainkit report SWEEP [--output FILE] [--title TEXT] [--json]

Writes one HTML file that needs nothing but itself: the verdict, curves, confusion, errors, config,
environment and command of a run; of several runs or a sweep their curves, metrics and differences.
It goes to report.html in the run's or the sweep's folder, with the plots as PNG files in plots/ there;
of several runs to report.html in the current folder. --output FILE writes that file and no PNG.
Its title is the name of the data (of your own folder or file, that name) and of the model, or the --title.

examples:
  trainkit report outputs/train/RUN
  trainkit report outputs/sweeps/SWEEP
  trainkit report outputs/train/RUN outputs/train/OTHER --output both.html"""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a report is about. home: the folder of the one run or sweep; None for several. sweep: home, if it is one."""

    runs: list[Path]
    home: Path | None
    sweep: Path | None


def report(argv: Sequence[str]) -> int:
    """Write a report. Raises ConfigError for what is no run, ResourceError when the file cannot be written."""
    parser = FlagParser("report")
    parser.add_argument("runs", nargs="*")
    parser.add_argument("-o", "--output")
    parser.add_argument("--title")
    parser.add_argument("--json", action="store_true")
    flags = parser.read(argv)
    if not flags.runs:
        raise ConfigError("report needs a run folder: trainkit report outputs/train/RUN")
    subject = find(flags.runs)
    output = where(flags.output, subject)
    write(subject, output, title=flags.title, as_json=flags.json, plots=flags.output is None)
    return 0


def find(words: Sequence[str]) -> Subject:
    """The run folders that the words name, those of sweeps job by job. Raises ConfigError for anything else."""
    runs: dict[Path, None] = {}
    sweeps: list[Path] = []
    for word in words:
        path = Path(os.path.abspath(os.path.expanduser(word)))
        if not path.is_dir():
            raise ConfigError(_not_there(word, path))
        if is_run(path):
            runs[path] = None
            continue
        jobs = [job for job in _children(path) if job.name.isdigit() and is_run(job)]
        if not jobs:
            raise ConfigError(f"'{word}' holds no run: name a folder of outputs/train, outputs/eval or outputs/sweeps")
        sweeps.append(path)
        runs |= dict.fromkeys(sorted(jobs, key=lambda job: int(job.name)))
    only_sweep = sweeps[0] if len(words) == 1 and sweeps else None
    home = only_sweep or (next(iter(runs)) if len(runs) == 1 else None)
    return Subject(list(runs), home, only_sweep)


def _children(path: Path) -> list[Path]:
    try:
        return [child for child in path.iterdir() if child.is_dir()]
    except OSError as error:
        raise ConfigError(f"folder '{path}' cannot be read ({error.strerror})") from error


def _not_there(word: str, path: Path) -> str:
    if path.exists():
        return f"'{word}' is a file; name the run folder that it lies in"
    siblings = [child.name for child in _children(path.parent)] if path.parent.is_dir() else []
    close = nearest(path.name, siblings)
    hint = f" (did you mean {rundir.shown(path.parent / close)}?)" if close else ""
    return f"run folder '{word}' does not exist{hint}"


def where(given: str | None, subject: Subject) -> Path:
    """The file to write. Raises ConfigError for one that is there and is no report, so that none is lost."""
    path = Path(os.path.expanduser(given)) if given is not None else (subject.home or Path.cwd()) / "report.html"
    if given == "" or path.is_dir():
        raise ConfigError(f"--output '{given}' is no file name; write --output report.html")
    path = Path(os.path.realpath(path) if given is not None else os.path.abspath(path))  # else a link gives way
    if not path.parent.is_dir():
        raise ConfigError(f"folder '{path.parent}' for the report does not exist; make it, or name another file")
    if path.exists() and not _is_report(path):
        raise ConfigError(f"'{path}' exists and is no report of trainkit; name another file with --output")
    return path


def _is_report(path: Path) -> bool:
    if not path.is_file():  # a device
        return False
    try:
        with path.open("rb") as file:
            return f'content="{GENERATOR} '.encode() in file.read(2000)
    except OSError as error:
        raise ConfigError(f"'{path}' exists and cannot be read ({error.strerror}); name another file") from error


def write(subject: Subject, output: Path, *, title: str | None, as_json: bool, plots: bool) -> None:
    """Read the runs, write the page and, if asked, the PNG files; say where they are and what is missing."""
    from trainkit.report.run_page import run_page
    from trainkit.report.runs_page import runs_page

    runs = [read_facts(path) for path in subject.runs]
    single = subject.home is not None and subject.sweep is None
    page = run_page(runs[0], title) if single else runs_page(runs, subject.sweep, title)
    content = page.encode()
    storage.replace(output, content)
    drawn = write_plots(runs, subject) if plots else []
    lacking = [f"{run.path.name}: {line}" for run in runs for line in run.missing]
    if as_json:
        facts = {"report": str(output), "bytes": len(content), "runs": [str(run.path) for run in runs]}
        emit([json.dumps(facts | {"plots": [str(path) for path in drawn], "missing": lacking})])
        return
    lines = [f"report: {rundir.shown(output)} ({len(content) / 1000:,.0f} kB)"]
    if drawn:
        lines.append(f"plots: {rundir.shown(drawn[0].parent)} ({', '.join(path.stem for path in drawn)})")
    lines += [f"missing: {line}" for line in lacking[:10]]
    if len(lacking) > 10:
        lines.append(f"missing: {len(lacking) - 10} more, which the report lists")
    emit(map(visible, lines))


def write_plots(runs: list[Facts], subject: Subject) -> list[Path]:
    """The PNG files of a run or a sweep in its own folder; none for several runs, which have none."""
    from trainkit.report.files import write_run_plots, write_sweep_plots

    if subject.sweep is not None:
        return write_sweep_plots(runs, subject.sweep)
    return write_run_plots(runs[0]) if subject.home is not None else []
