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
    found: set[str | None] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # where a name is no module, the file of the package gives it
            found |= {file_of(f"{node.module}.{alias.name}") or file_of(str(node.module)) for alias in node.names}
    return {file for file in found if file is not None}


def file_of(module: str) -> str | None:
    """The file of a module, None for one that is not of the package."""
    package, *parts = module.split(".")
    path = "/".join(parts)
    places = (f"{path}.py", f"{path}/__init__.py".lstrip("/")) if package == "trainkit" else ()
    return next((place for place in places if place in FILES), None)


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
