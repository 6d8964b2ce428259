"""The built wheel, from the sdist as an installer builds it: it trains from any folder, with its own conf/."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_conf_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"trainkit", f"{wheel.name.split('-py3')[0]}.dist-info"}
    shipped = {name.removeprefix("trainkit/") for name in names if name.startswith("trainkit/conf/")}
    assert shipped == {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}


def test_installed_wheel_trains_and_evaluates(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment that borrows only the dependencies of this one, so that no checkout is on its path."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    site = home / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run([*install, "--disable-pip-version-check"], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])  # its own .pth files are not followed
    work = tmp_path / "work"
    work.mkdir()

    def run(*words: str) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "TRAINKIT"))}
        command = [str(home / "bin" / "python"), "-m", "trainkit", *words]
        done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("train", "--info", "searchpath")
    assert str(site / "trainkit" / "conf") in where.replace("\n", "")
    assert "test, best epoch" in run("train", "epochs=1", "device.threads=1")
    (folder,) = (work / "outputs" / "train").iterdir()
    assert "test of digits" in run("eval", f"ckpt={folder}")
    assert "cnn" in run("ls", "model")
    assert sorted(path.name for path in work.iterdir()) == ["outputs"]
