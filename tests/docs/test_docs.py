"""The documents do what they show.

Every ```console block is run: its `$ ` lines in order, all blocks of a document in one scratch folder. A command must
exit with 0, or with what a following `$ echo $?` shows, and every line shown below it must be a line that it really
prints, where

- of `train`, `eval`, `predict`, `export`, `plan`, `runs`, `compare` and of Python scripts, numbers with a decimal
  point (losses, metrics, seconds, probabilities) may differ: they depend on the machine; so may the epoch or run that
  was best, and the date and id of a run folder;
- `…` stands for anything left out, and runs of spaces count as one.

`outputs/train/RUN` and `outputs/sweeps/SWEEP` in a command stand for the newest folder there. Every `trainkit train`
line of a ```bash block has its config checked, without running it. A block after `<!-- file: NAME -->` is written to
that file first; one after `<!-- needs: mnist -->` is run only where the MNIST files are.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import trainkit
from trainkit import registry
from trainkit.data.augment.base import Augment, Draw
from trainkit.data.dataset import Data
from trainkit.data.spec import InputSpec, TargetSpec
from trainkit.data.splits import Split

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PLAY = Path(__file__).with_name("play.py")
DATA = Path(os.environ.get("TRAINKIT_DATA", ROOT.parent / "shared" / "datasets"))
MNIST = DATA / "MNIST" / "raw"
BREAK = "\x1f"
DOCUMENTS = ["README.md", "CHANGELOG.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<key>file|needs): (?P<value>\S+) -->\n)?```(?P<language>\w+)\n(?P<body>.*?)\n```", re.S)


@dataclasses.dataclass
class Command:
    """A command of a document with the lines shown below it and the exit code it should have."""

    kind: str  # "run" or "check"
    text: str
    shown: list[str] = dataclasses.field(default_factory=list)
    code: int = 0


Played = dict[tuple[str, str | None], "Future[list[tuple[Command, str, int]]]"]


def files(document: str) -> dict[str, str]:
    """The files that a document says to write."""
    return {block["value"]: block["body"] + "\n" for block in blocks(document) if block["key"] == "file"}


def commands(document: str, needs: str | None) -> list[Command]:
    """The commands of a document: those of the blocks with this need, or of all without one."""
    found: list[Command] = []
    for block in blocks(document):
        if block["language"] == "console" and (block["value"] if block["key"] == "needs" else None) == needs:
            found += transcript(block["body"])
        elif block["language"] == "bash" and needs is None:
            lines = block["body"].splitlines()
            found += [Command("check", line) for line in lines if line.startswith("trainkit train")]
    return found


def blocks(document: str) -> list[re.Match[str]]:
    return list(BLOCK.finditer((ROOT / document).read_text(encoding="utf-8")))


def transcript(body: str) -> list[Command]:
    """The commands of a ```console block."""
    found: list[Command] = []
    for line in body.replace(" \\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append(Command("run", line[2:]))
        else:
            found[-1].shown.append(line)
    for command, after in itertools.pairwise(found):
        if after.text == "echo $?":
            command.code = int(after.shown[0])
    return [command for command in found if command.text != "echo $?"]


def play(document: str, needs: str | None, folder: Path) -> list[tuple[Command, str, int]]:
    """Run a document's commands in `folder`; returns each with its output and exit code."""
    for name, text in files(document).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    todo = commands(document, needs)
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRAINKIT_")}
    env |= {"TRAINKIT_DATA": str(DATA), "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    env["PYTHONPATH"] = str(Path(trainkit.__file__).resolve().parents[1])  # the one under test, also when not installed
    done = subprocess.run(
        [sys.executable, str(PLAY)],
        cwd=folder,
        env=env,
        input=json.dumps([(command.kind, command.text) for command in todo]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    pieces = re.split(rf"{BREAK}(\d+)\n", done.stdout)
    assert len(pieces) == 2 * len(todo) + 1, done.stdout[-3000:]
    return [(command, pieces[2 * i], int(pieces[2 * i + 1])) for i, command in enumerate(todo)]


def normal(line: str, measured: bool) -> str:
    """A line without what may differ from one run or machine to the next."""
    line = re.sub(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d((?:_[\w-]+)?)_[0-9a-f]{6}", r"<time>\1_<id>", line)
    if measured:
        line = re.sub(r"-?\d+\.\d+(?:e[-+]?\d+)?", "<number>", line)
        line = re.sub(r"\bepoch +\d+", "epoch <n>", line.removesuffix(" *"))
        line = re.sub(r"(?<=<number>) \*", "", re.sub(r"\b[0-9a-f]{6}\b", "<id>", line))
    return " ".join(line.split())


def missing(command: Command, output: str) -> list[str]:
    """The shown lines that the output does not have."""
    measured = (
        re.match(r"(python|trainkit (train|eval|predict|export|plan|runs|compare))\b", command.text) is not None
        and "--cfg" not in command.text
    )
    real = {normal(line, measured) for line in output.splitlines()}
    patterns = {line: re.escape(normal(line, measured)).replace("…", ".*") for line in command.shown}
    return [line for line, pattern in patterns.items() if not any(re.fullmatch(pattern, text) for text in real)]


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """The outcomes of all chosen documents, two of them running at a time."""
    items = [item for item in request.session.items if "played" in getattr(item, "fixturenames", ())]
    chosen = [(item.callspec.params["document"], item.callspec.params["needs"]) for item in items]
    chosen = [(document, needs) for document, needs in chosen if needs is None or MNIST.is_dir()]
    with ThreadPoolExecutor(2) as pool:
        yield {key: pool.submit(play, *key, tmp_path_factory.mktemp("scratch")) for key in chosen}


@pytest.mark.parametrize(
    ("document", "needs"), [(name, needs) for name in DOCUMENTS for needs in (None, "mnist") if commands(name, needs)]
)
def test_every_command_prints_what_is_shown(document: str, needs: str | None, played: Played) -> None:
    if (document, needs) not in played:
        pytest.skip(f"no MNIST under {DATA}; set TRAINKIT_DATA")
    for command, output, code in played[document, needs].result():
        assert code == command.code, f"$ {command.text}\n{output}"
        assert missing(command, output) == [], f"$ {command.text}\n{output}"
        assert "Warning" not in output, f"$ {command.text}\n{output}"


def test_a_line_that_is_not_printed_is_found() -> None:
    command = Command("run", "trainkit train", ["mlp 50,826 parameters, sgd lr 0.1, …", "test accuracy 0.9"])
    assert missing(command, "mlp 50,826 parameters, sgd lr 0.2, 3 steps\ntest  accuracy 0.8") == []
    assert missing(command, "mlp 50,827 parameters, sgd lr 0.2, 3 steps\ntest loss 0.8") == command.shown
    exact = Command("run", "trainkit ls model", ["dropout=0.5"])
    assert missing(exact, "dropout=0.0") == exact.shown


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\((?!https?:)([^)\s]*)\)", text):
        path, _, anchor = link.partition("#")
        target = ROOT / document if not path else (ROOT / document).parent / path
        assert target.exists(), f"{document}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, link


def tracked(folder: Path) -> set[str]:
    """What a folder of the repository holds: the tracked names, or those on the disk where git cannot say."""
    try:
        done = subprocess.run(["git", "ls-files", "."], cwd=folder, capture_output=True, text=True, check=False)
        names = {path.split("/")[0] for path in done.stdout.splitlines()}
    except FileNotFoundError:
        names = set()
    names = names or {path.name for path in folder.iterdir() if path.name not in ("build", "dist", "venv")}
    return {name for name in names if not name.startswith((".", "__"))}


def tree(document: str) -> dict[str, str]:
    """The captioned tree of a document: path -> caption. A folder's path ends with a slash."""
    (body,) = re.findall(r"<!-- tree -->\n```text\n(.*?)\n```", (ROOT / document).read_text(encoding="utf-8"), re.S)
    found: dict[str, str] = {}
    parent = ""
    for line in body.splitlines():
        name, _, caption = line.strip().partition(" ")
        if not caption:
            parent = name
            continue
        found[parent + name] = caption.strip()
    return found


@pytest.mark.parametrize(
    ("document", "folder"), [("README.md", ""), ("docs/architecture.md", "src/trainkit/")], ids=["README", "package"]
)
def test_a_captioned_tree_is_the_tree(document: str, folder: str) -> None:
    paths = tree(document)
    for path in paths:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), path
    shown = {path.removeprefix(folder).split("/")[0] for path in paths}
    there = tracked(ROOT / folder)
    assert shown == ({name for name in there if (ROOT / name).is_dir()} if not folder else there)


def test_groups_of_the_readme_are_those_of_conf() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)=` \| (.+?) \|", text, re.M)
    shown = {group: sorted(re.findall(r"`(\w+)`", options)) for group, options in rows}
    assert shown == {
        group: sorted(p.stem for p in (ROOT / "conf" / group).glob("*.yaml")) for group in registry.FAMILIES
    }
    defaults = {group: re.findall(r"\*\*`(\w+)`\*\*", options) for group, options in rows}
    for group in registry.FAMILIES:
        assert f"  - {group}: {defaults[group][0]}\n" in (ROOT / "conf" / "train.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("document", "groups"),
    [("docs/data.md", ["dataset", "augment"]), ("docs/models.md", ["model", "loss", "optim", "schedule"])],
)
def test_every_option_is_described(document: str, groups: list[str]) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for group in groups:
        for name in registry.names(group):
            assert f"`{name}`" in text, f"{group}={name}"


def test_the_two_commands_are_one_line_each() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for marker in ("install-and-train", "install-and-test"):
        (body,) = re.findall(rf"<!-- {marker} -->\n```bash\n(.*?)\n```", text, re.S)
        assert body.startswith("python3 -m venv ") and "\n" not in body


def test_the_table_of_groups_says_what_builders_take() -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) ?\| ", text[text.index("## The other groups") :], re.MULTILINE)
    told = {group: re.findall(r"`(\w+)`", parameters) for group, parameters in rows if group in registry.FAMILIES}
    for group in registry.FAMILIES:
        for name in registry.names(group):
            parameters = inspect.signature(registry.get(group, name).build).parameters.values()
            given = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
            assert set(given) <= set(told[group]), (group, name)


@pytest.mark.parametrize("kind", [Data, InputSpec, TargetSpec, Split, Augment, Draw])
def test_every_field_that_a_builder_fills_is_told(kind: Any) -> None:
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    part = re.split(r"^## ", text, flags=re.MULTILINE)[2 if kind in (Augment, Draw) else 3]
    assert part.startswith("The other groups" if kind in (Augment, Draw) else "`Data`")
    assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in part] == []


def test_every_example_of_extending_is_run() -> None:
    named = " ".join(command.text for command in commands("docs/extending.md", None) if command.kind == "run")
    for block in blocks("docs/extending.md"):
        if block["language"] == "python":
            assert block["key"] == "file" and block["value"].removesuffix(".py") in named
            for name in re.findall(r"^@register\(\"(\w+)\".*\ndef (\w+)", block["body"], re.MULTILINE):
                assert name[0] in registry.UNCHOSEN or "=".join(name) in named
