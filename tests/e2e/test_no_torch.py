"""What trains nothing must not wait for torch: its import alone takes longer than all of this."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import clean_environment

pytestmark = pytest.mark.slow

PROBE = """
import sys
from trainkit.cli import main
code = main(sys.argv[1:])
heavy = {"torch", "torchvision", "sklearn", "matplotlib", "safetensors", "rich"} & set(sys.modules)
assert not heavy, f"imported: {sorted(heavy)}"
raise SystemExit(code)
"""

CASES = [
    ("--help", 0),
    ("--version", 0),
    ("", 2),
    ("ls", 0),
    ("ls model", 0),
    ("ls dataset --json", 0),
    ("explain optim.lr", 0),
    ("explain optim optim=adam --json", 0),
    ("explain optm.lr", 2),
    ("check", 0),
    ("check dataset=iris --json", 0),
    ("plan --help", 0),
    ("plan optim.lr=-1", 2),
    ("plan --memory 2GB", 2),
    ("runs --help", 0),
    ("runs nowhere", 2),
    ("runs .", 0),
    ("runs . --json", 0),
    ("compare --help", 0),
    ("compare a b", 2),
    ("completion zsh", 0),
    ("completion --help", 0),
    ("completion tcsh", 2),
    ("train -sc", 2),
    ("train -sc install=bash", 2),
    ("train --help", 0),
    ("eval --help", 0),
    ("predict --help", 0),
    ("export --help", 0),
    ("train --cfg job", 0),
    ("train -m model=mlp,cnn optim.lr=0.1,x", 2),
    ("train model=cnnn modle=1", 2),
    ("train optim.lr=fast", 2),
    ("train dataset=folder", 2),
    ("train device=gpu", 2),
    ("train --mulitrun", 2),
    ("trian", 2),
    ("eval", 2),
    ("eval ckpt=nope", 4),
    ("eval ckpt=text", 4),
    ("predict", 2),
    ("predict ckpt=text input=x", 4),
    ("predict -m ckpt=text input=x", 4),
    ("export ckpt=nope output=x.onnx", 4),
    ("report --help", 0),
    ("report", 2),
    ("report nope", 2),
    ("report text", 2),
]


@pytest.mark.parametrize(("words", "code"), CASES, ids=[words or "nothing" for words, _ in CASES])
def test_torch_stays_unimported(words: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no checkpoint")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words.split()],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_one_of_several_processes_is_refused_at_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "train"],
        cwd=tmp_path,
        env=clean_environment() | {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr.startswith("trainkit: error: this is process 1 of 4 ") and len(done.stderr.splitlines()) == 1


def test_the_probe_can_fail(tmp_path: Path) -> None:
    """The probe of the cases above sees what a module imports."""
    (tmp_path / "heavy.py").write_text("import rich\n")
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "train", "--cfg", "job", "plugins=[heavy]"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and "imported: ['rich']" in done.stderr
