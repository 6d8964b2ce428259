"""What a disk may hold after the power failed: a model of a file system that keeps only what was flushed.

`Disk` follows the calls of a process. After any of them, `after_power_loss` gives what may be found: of a file whose
content was not flushed, nothing of the new, half, all, or zeros in its place; of the changes to a folder that were not
flushed (a name made, renamed, deleted), any subset, in their order. This is what POSIX allows, and more than journaling
file systems do.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from striking import Call

MOST = 6  # changes to a folder of which all subsets are tried; of more, some
SAMPLE = 64
State = dict[str, "bytes | str"]  # path -> content of a file, or target of a link


@dataclasses.dataclass
class File:
    """flushed: what is on the disk for certain."""

    content: bytes = b""
    flushed: bytes = b""

    def contents(self) -> list[bytes]:
        """What it may hold after a power loss."""
        if self.content == self.flushed:
            return [self.content]
        if not self.content.startswith(self.flushed):
            return [self.content, self.flushed]
        added = len(self.content) - len(self.flushed)
        half = self.content[: len(self.flushed) + added // 2]
        return list(dict.fromkeys([self.content, self.flushed, half, self.flushed + bytes(added)]))


@dataclasses.dataclass
class Folder:
    """changes: those since the last flush, each what becomes of some names (None: gone)."""

    names: dict[str, Node] = dataclasses.field(default_factory=dict)
    changes: list[dict[str, Node | None]] = dataclasses.field(default_factory=list)

    def now(self) -> dict[str, Node]:
        return apply(self.names, self.changes)

    def listings(self) -> Iterator[dict[str, Node]]:
        """What names it may have after a power loss."""
        count = len(self.changes)
        if count <= MOST:
            chosen = itertools.product((False, True), repeat=count)
        else:
            draw = random.Random(count)
            every = [[i < end for i in range(count)] for end in range(count + 1)]
            single = [[i != left_out for i in range(count)] for left_out in range(count)]
            some = [[draw.random() < 0.5 for _ in range(count)] for _ in range(SAMPLE)]
            chosen = iter([tuple(flags) for flags in (*every, *single, *some)])
        for flags in chosen:
            yield apply(self.names, [change for change, kept in zip(self.changes, flags, strict=True) if kept])


Node = File | Folder | str  # a string is the target of a symbolic link


def apply(names: dict[str, Node], changes: list[dict[str, Node | None]]) -> dict[str, Node]:
    found: dict[str, Node | None] = dict(names)
    for change in changes:
        found |= change
    return {name: node for name, node in found.items() if node is not None}


class Disk:
    """The file system below `root`, an empty folder, as `striking.intercepted` tells it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._top = Folder()
        self._open: dict[int, File | Folder] = {}

    def __call__(self, name: str, call: Call, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        result = call(*arguments, **options)
        if name == "open":
            self._opened(result, Path(arguments[0]), arguments[1])
        elif name in ("write", "ftruncate", "fsync", "close"):
            self._on_descriptor(name, arguments, result)
        else:
            path = Path(arguments[1 if name in ("symlink", "replace", "rename") else 0])
            if path.is_relative_to(self._root):
                self._on_path(name, path, arguments)
        return result

    def _opened(self, descriptor: int, path: Path, flags: int) -> None:
        if not path.is_relative_to(self._root):
            return
        node = self._find(path)
        if node is None:
            assert flags & os.O_CREAT, path
            node = File()
            self._change(path, node)
        assert not isinstance(node, str)
        self._open[descriptor] = node

    def _on_descriptor(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        node = self._open.get(arguments[0])
        if node is None:
            return
        if name == "close":
            del self._open[arguments[0]]
        elif isinstance(node, Folder):
            assert name == "fsync"
            node.names, node.changes = node.now(), []
        elif name == "write":
            node.content += bytes(arguments[1][:result])
        elif name == "ftruncate":
            node.content = node.content[: arguments[1]]
        else:
            node.flushed = node.content

    def _on_path(self, name: str, path: Path, arguments: tuple[Any, ...]) -> None:
        if name in ("replace", "rename"):
            source = Path(arguments[0])
            assert source.parent == path.parent  # within a folder, or it would not be one change
            self._folder(path).changes.append({source.name: None, path.name: self._find(source)})
        else:
            made = {"symlink": str(arguments[0]), "mkdir": Folder(), "unlink": None}
            self._change(path, made[name])

    def _change(self, path: Path, node: Node | None) -> None:
        self._folder(path).changes.append({path.name: node})

    def _folder(self, path: Path) -> Folder:
        found = self._find(path.parent)
        assert isinstance(found, Folder), path
        return found

    def _find(self, path: Path) -> Node | None:
        node: Node | None = self._top
        for name in path.relative_to(self._root).parts:
            assert isinstance(node, Folder)
            node = node.now().get(name)
        return node

    def after_power_loss(self) -> Iterator[State]:
        """The states in which the disk may be found."""
        yield from self._states(self._top, "")

    def _states(self, folder: Folder, prefix: str) -> Iterator[State]:
        for listing in folder.listings():
            choices: list[list[State]] = []
            for name, node in listing.items():
                if isinstance(node, File):
                    choices.append([{prefix + name: content} for content in node.contents()])
                elif isinstance(node, str):
                    choices.append([{prefix + name: node}])
                else:
                    choices.append(list(self._states(node, f"{prefix}{name}/")))
            for combination in itertools.product(*choices):
                yield {path: content for part in combination for path, content in part.items()}


def lay_out(state: State, root: Path) -> None:
    """Put a state onto a real disk."""
    for name, content in state.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)


Found = dict[frozenset[tuple[str, bytes | str]], tuple[State, set[int]]]


class Watch:
    """Collects what the disk may hold if the power fails, each with the numbers of saves that were done by then."""

    def __init__(self, root: Path) -> None:
        self.found: Found = {}
        self.saves = 0
        self._disk = Disk(root)

    def __call__(self, name: str, call: Call, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        result = self._disk(name, call, arguments, options)
        for state in self._disk.after_power_loss():
            self.found.setdefault(frozenset(state.items()), (state, set()))[1].add(self.saves)
        return result

    def check(self, scratch: Path, number: Callable[[Path], int]) -> None:
        """Each state is at the save that was the last when the power failed, or at the next."""
        for state, saves in self.found.values():
            lay_out(state, scratch)
            at = number(scratch)
            assert all(at in (done, done + 1) for done in saves), (at, saves, list(state))
            shutil.rmtree(scratch, ignore_errors=True)
