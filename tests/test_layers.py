"""Who may import whom, read from the syntax trees: dependencies point one way, and torch stays behind one line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src" / "trainkit"

# From the bottom up: a module may import from its own layer's package and from the layers before it.
LAYERS = [
    ["errors", "safety"],
    ["schema", "flags", "randomness", "storage", "signals"],
    ["record", "statistics"],
    ["registry", "rundir", "checkpoint"],
    ["config"],
    ["history"],
    ["stepping", "speed", "numerics", "averaging"],
    ["muon", "blocks"],
    ["data", "models", "losses", "optim", "schedules", "runtime"],
    ["formats", "metrics"],
    ["report"],
    ["loop"],
    ["state", "debug", "probe"],
    ["build"],
    ["conduct", "planning"],
    ["commands", "sweep"],
    ["app"],
    ["cli"],
    ["completion"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# Lines that type checkers read and the interpreter never runs may point up: they build no dependency.
TORCH_FREE = [
    "errors",
    "safety",
    "flags",
    "schema",
    "randomness",
    "storage",
    "registry",
    "rundir",
    "checkpoint",
    "config",
    "app",
    "cli",
    "signals",
    "record",
    "conduct",
    "report",
    "statistics",
    "history",
    "completion",
]

FILES = sorted(SRC.rglob("*.py"))


def part(file: Path) -> str:
    relative = file.relative_to(SRC)
    return relative.parts[0].removesuffix(".py")


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


def test_every_module_has_a_layer() -> None:
    assert {part(file) for file in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SRC)))
def test_imports_point_down(file: Path) -> None:
    here = part(file)
    for name in imports(file):
        words = name.split(".")
        if words[0] != "trainkit" or here == "__init__" or len(words) == 1:
            continue
        there = words[1]
        if there in ("__version__", "register"):
            continue
        assert there == here or LEVEL[there] < LEVEL[here], f"{file.relative_to(SRC)} imports {name}"


@pytest.mark.parametrize("file", [file for file in FILES if part(file) in TORCH_FREE], ids=lambda file: file.stem)
def test_torch_is_not_imported_on_the_way_to_a_config_error(file: Path) -> None:
    heavy = ("torch", "torchvision", "sklearn")
    assert not {name for name in imports(file, top_level=True) if name.split(".")[0] in heavy}
