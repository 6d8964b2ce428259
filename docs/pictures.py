"""Makes the pictures of docs/report.md from real runs: `python docs/pictures.py`, with MNIST in $TRAINKIT_DATA.

Trains MNIST for a minute and sweeps the digits in a scratch folder, has `trainkit report` draw, takes pictures of its
pages with Chromium, and puts all of it into docs/img/ with few colours, so that the files stay small.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "img"


def trainkit(folder: Path, *words: str) -> None:
    """Run a command of trainkit in a folder."""
    subprocess.run([sys.executable, "-m", "trainkit", *words], cwd=folder, check=True)


def shrink(picture: Path, name: str, width: int, height: int | None = None) -> None:
    """Put a picture, or its upper part, into docs/img."""
    image = Image.open(picture).convert("RGB")
    image = image.crop((0, 0, image.width, min(height or image.height, image.height)))
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    image.quantize(128, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


def main() -> None:
    """Make all pictures."""
    sys.path.insert(0, str(ROOT / "tests"))
    from report.browser import browser

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = ("dataset=mnist", "model=mlp", "optim=adam", "optim.lr=0.002", "epochs=12", "augment=none")
        trainkit(folder, "train", *run, "hydra.run.dir=run")
        trainkit(folder, "report", "run")
        axes = ("model=linear,mlp", "optim=sgd,adam", "optim.lr=0.003,0.01,0.03,0.1", "epochs=5")
        trainkit(folder, "train", "-m", *axes, "hydra.sweep.dir=sweep")
        trainkit(folder, "report", "sweep")
        for name in ("curves", "confusion_normalized", "reliability", "errors"):
            shrink(folder / "run" / "plots" / f"{name}.png", f"{name}.png", 1200)
        shrink(folder / "sweep" / "plots" / "parameters.png", "parameters.png", 1200)
        with browser(folder / "profile") as opened:
            opened.open(folder / "run" / "report.html", 1100)
            opened.screenshot(folder / "page.png")
            opened.open(folder / "run" / "report.html", 400, dark=True)
            opened.screenshot(folder / "narrow.png")
        shrink(folder / "page.png", "report.png", 1000, 1330)
        shrink(folder / "narrow.png", "report_narrow.png", 400, 900)


if __name__ == "__main__":
    main()
