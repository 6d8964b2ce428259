"""What the files of the package may know: tasks and images have their rooms, and no file leads back to itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from trainkit import registry

SRC = Path(__file__).resolve().parents[1] / "src" / "trainkit"
FILES = {str(file.relative_to(SRC)): ast.parse(file.read_text(encoding="utf-8")) for file in sorted(SRC.rglob("*.py"))}
TASKS = set(registry.names("task"))
# `x.ndim == 4`, `len(shape) != 3`, `tensor.dim() == 4`: whether something is an image, by counting its axes.
COUNTS_AXES = re.compile(r"(?:\.ndim|\.dim\(\)|len\([\w.\[\]]*shape\)) (?:==|!=) [34]\b")


def constants(tree: ast.Module) -> Iterator[str]:
    """The strings of a file that are no docstrings."""
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def imported(tree: ast.Module) -> set[str]:
    """The files of the package that a file imports, in functions and for type checking too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    places = ["/".join(name.split(".")[1:]) for name in names if name.startswith("trainkit.")]
    return {file for place in places for file in (f"{place}.py", f"{place}/__init__.py") if file in FILES}


@pytest.mark.parametrize("file", [name for name in FILES if not name.startswith(("tasks/", "data/datasets/"))])
def test_no_other_file_names_a_task(file: str) -> None:
    assert len(TASKS) >= 4
    assert not TASKS & set(constants(FILES[file]))


@pytest.mark.parametrize("file", [name for name in FILES if not name.startswith(("tasks/", "data/", "models/"))])
def test_no_other_file_counts_axes_to_know_an_image(file: str) -> None:
    found = [ast.unparse(node) for node in ast.walk(FILES[file]) if isinstance(node, ast.Compare)]
    assert not [text for text in found if COUNTS_AXES.search(text)]


def test_the_pattern_finds_what_it_is_for() -> None:
    texts = ("x.ndim == 4", "len(in_shape) != 3", "len(spec.shape) == 3", "tensor.dim() == 4")
    assert all(COUNTS_AXES.search(text) for text in texts)
    assert not COUNTS_AXES.search("targets.ndim == 1")


def test_no_file_leads_back_to_itself() -> None:
    try:
        TopologicalSorter({name: imported(tree) - {name} for name, tree in FILES.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
