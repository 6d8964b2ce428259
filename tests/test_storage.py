"""Durable writes, on a real file system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainkit import storage
from trainkit.errors import ResourceError


def test_replace_leaves_only_the_new_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    storage.replace(path, b"old")
    storage.replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_replace_json_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    storage.replace_json(tmp_path / "a.json", {"name": "é", "value": 1.5})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "name": "é",\n  "value": 1.5\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        storage.replace_json(tmp_path / "a.json", {"value": float("nan")})


def test_append_adds_lines(tmp_path: Path) -> None:
    storage.append(tmp_path / "log", "one")
    storage.append(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"cannot write .*gone/file \(No such file or directory"):
        storage.replace(tmp_path / "gone" / "file", b"x")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from trainkit import storage
from trainkit.errors import ResourceError
path = Path(sys.argv[1])
storage.replace(path, b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    storage.replace(path, b"x" * 5000)
except ResourceError as error:
    print(error)
"""


def test_a_write_that_does_not_fit_keeps_the_old_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout
    assert "5,000 bytes to write" in done.stdout
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
