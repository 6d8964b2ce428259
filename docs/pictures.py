"""Makes the pictures of the README, docs/live.md and docs/report.md from real runs: `python docs/pictures.py [live]`.

`live`: trains the digits on a pseudo terminal and draws what stood on its screen. Without it, also: trains MNIST, which
is in $TRAINKIT_DATA, for a minute and sweeps the digits in a scratch folder, has `trainkit report` draw, and takes
pictures of its pages with Chromium. All of it goes into docs/img/ with few colors, so that the files stay small.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "img"
# The colors of a terminal, by the names that pyte has for them.
COLORS = {
    "background": "#16181d",
    "default": "#d8dbe2",
    "green": "#6cc26c",
    "brown": "#e5c158",
    "cyan": "#5cc3d6",
    "brightblack": "#5b616e",
}


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


def draw_screen(screen: Any, first: str, last: int, name: str) -> None:
    """Draw a screen of pyte down to a line, under the command that was typed, into docs/img."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")  # DejaVu Sans Mono, which has blocks and boxes
    fonts = [ImageFont.truetype(folder / f"DejaVuSansMono{kind}.ttf", 15) for kind in ("", "-Bold")]
    wide, high, edge = round(fonts[0].getlength("x")), 19, 12
    image = Image.new("RGB", (wide * screen.columns + 2 * edge, high * (last + 2) + 2 * edge), COLORS["background"])
    draw = ImageDraw.Draw(image)
    draw.text((edge, edge), f"$ {first}", COLORS["default"], font=fonts[1])
    for y in range(last + 1):
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            place = (edge + wide * x, edge + high * (y + 1))
            draw.text(place, cell.data, COLORS[cell.fg], font=fonts[cell.bold])
    image.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


def draw_live() -> None:
    """The live view in the middle of a run, and the frame at its end."""
    from e2e.terminal import record, row

    words = ["train", "model=cnn", "model.channels=[16,32]", "optim=adam", "batch_size=32", "epochs=12"]
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "CI")} | {"TERM": "xterm"}
    with tempfile.TemporaryDirectory() as scratch:
        code, recording = record([sys.executable, "-m", "trainkit", *words], 104, 50, Path(scratch), env)
        assert code == 0
        typed = " ".join(["trainkit", *words])
        later = (screen for screen in recording.screens() if re.match(r"epoch +([89]|1\d)/12 [^l]", row(screen)))
        screen = next(later)
        draw_screen(screen, typed, screen.cursor.y, "live.png")
        screen = recording.last()
        draw_screen(screen, typed, screen.cursor.y - 1, "live_end.png")


def main() -> None:
    """Make all pictures."""
    sys.path.insert(0, str(ROOT / "tests"))
    draw_live()
    if sys.argv[1:] != ["live"]:
        draw_reports()


def draw_reports() -> None:
    """The plots and the pages of `trainkit report`."""
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
        shrink(folder / "page.png", "report.png", 1000, 1128)
        shrink(folder / "narrow.png", "report_narrow.png", 400, 900)


if __name__ == "__main__":
    main()
