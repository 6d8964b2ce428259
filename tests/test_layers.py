"""Who may import whom, read from the syntax trees: dependencies point one way, and torch stays behind one line."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "trainkit"

# From the bottom up: a module may import from its own room and from those in the rows before it. A room is a folder or
# a module of the package; a part of a room that others build on, while the rest builds on them, has a row of its own.
LAYERS = [
    ["errors", "version"],
    ["text"],
    ["schema", "storage", "randomness", "machine", "config.flags", "training.signals"],
    ["statistics", "registry", "checkpoints.record"],
    ["checkpoints.tensorfile", "checkpoints.checkpoint"],
    ["config", "run_folders.rundir"],
    ["data.spec", "data.batch", "data.values", "data.arrays"],
    ["plots"],
    ["tasks"],
    ["run_folders"],
    ["losses"],
    ["data"],
    ["models", "optim", "runtime"],
    ["init"],
    ["training"],
    ["loggers"],
    ["console"],
    ["report"],
    ["loop"],
    ["checkpoints", "training.debug"],
    ["building"],
    ["predict", "export", "planning", "launch.verbs", "launch.outcome"],
    ["launch.job"],
    ["commands", "sweep"],
    ["launch"],
    ["api"],
    ["cli"],
    ["completion"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Read on the way to a config error, or by verbs that only look at files.
TORCH_FREE = [
    *("errors", "text", "schema", "storage", "randomness", "statistics", "machine", "registry", "config", "cli"),
    *("checkpoints.record", "checkpoints.checkpoint", "run_folders", "report", "loggers", "console", "plots", "launch"),
    *("completion", "training.signals"),
]

FILES = sorted(SRC.rglob("*.py"))


def room(module: str) -> str:
    """The row that a module is in, as in `LAYERS`: by its own name where it has one, else by its folder's."""
    return module if module in LEVEL else module.partition(".")[0]


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


def imports(file: Path, *, top_level: bool = False) -> set[str]:
    """Dotted names that a file imports, without its `if TYPE_CHECKING:` blocks; only at import time if `top_level`."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                names.update(alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}: relative import"
                assert child.module is not None
                names.update(f"{child.module}.{alias.name}" for alias in child.names)
            elif not (top_level and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
                visit(child)

    visit(ast.parse(file.read_text(encoding="utf-8")))
    return names


def test_text_reaches_a_terminal_through_text_alone() -> None:
    """No other module prints, or writes to a standard stream: `text.say` escapes whatever came out of a file."""
    found = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            prints = isinstance(called, ast.Name) and called.id == "print"
            writes = isinstance(called, ast.Attribute) and called.attr in ("write", "writelines", "print_exception")
            if prints or (writes and re.search(r"sys\.std(out|err)|traceback", ast.unparse(node.func))):
                found.add(file.name)
    assert found == {"text.py"}


def test_every_module_has_a_layer() -> None:
    assert {name_of(file).partition(".")[0] for file in FILES} - {"__init__"} == {
        name.partition(".")[0] for name in LEVEL
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SRC)))
def test_imports_point_down(file: Path) -> None:
    here = room(name_of(file))
    for name in imports(file):
        words = name.split(".")
        if words[0] != "trainkit" or here == "__init__":
            continue
        there = room(".".join(words[1:3]))
        same = there.partition(".")[0] == here.partition(".")[0]
        assert same or LEVEL[there] < LEVEL[here], f"{file.relative_to(SRC)} imports {name}"


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if {room(name_of(file)), name_of(file).partition(".")[0]} & set(TORCH_FREE)],
    ids=lambda file: str(file.relative_to(SRC)),
)
def test_torch_is_not_imported_on_the_way_to_a_config_error(file: Path) -> None:
    heavy = ("torch", "torchvision", "sklearn")
    assert not {name for name in imports(file, top_level=True) if name.split(".")[0] in heavy}
