"""Reports in a real browser: nothing overflows, nothing is complained of, nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from report.browser import Browser, browser, executable

pytestmark = pytest.mark.slow

WIDTHS = [400, 1400]
# What reaches beyond the page sideways and does not lie in a box that scrolls by itself.
OVERFLOWING = """
[...document.querySelectorAll("body *")].filter(node =>
    !node.closest(".scroll, .wide") && node.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(node => node.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if executable() is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of a run with 30 classes of long names, and one of a sweep."""
    import numpy as np

    from conftest import process_restored
    from trainkit.cli import main

    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    names = [f"a_class_with_a_name_that_does_not_end_{number}" for number in range(30)]
    labels = np.array(names)[rng.integers(0, 30, 900)]
    np.savez(folder / "data.npz", x=rng.integers(0, 255, (900, 12, 12, 3)).astype(np.uint8), y=labels)
    fast = ("device=cpu", "device.threads=1")
    with process_restored():
        run = f"hydra.run.dir={folder / 'run'}"
        assert main(["train", "dataset=npz", f"dataset.file={folder / 'data.npz'}", "epochs=5", run, *fast]) == 0
        assert main(["report", str(folder / "run")]) == 0
        sweep = f"hydra.sweep.dir={folder / 'sweep'}"
        assert main(["train", "-m", "model=linear,mlp", "optim=sgd,adam", "seed=0,1", "epochs=2", sweep, *fast]) == 0
        assert main(["report", str(folder / "sweep")]) == 0
    return {name: folder / name / "report.html" for name in ("run", "sweep")}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "sweep"])
def test_it_fits_and_is_quiet(name: str, width: int, dark: bool, pages: dict[str, Path], chromium: Browser) -> None:
    chromium.open(pages[name], width, dark=dark)
    assert chromium.complaints() == []
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate(OVERFLOWING) == []
    assert chromium.evaluate("document.querySelectorAll('svg').length") >= 4
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert chromium.evaluate(broken) == 0
    ink = chromium.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    page = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(page) < 0.1) is dark
    assert contrast(luminance(ink), luminance(page)) > 4.5  # what WCAG 2.1 asks of text


def luminance(color: str) -> float:
    """The relative luminance of `rgb(r, g, b)`, as WCAG 2.1 defines it."""
    parts = [int(part) / 255 for part in color.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_the_policy_lets_no_script_run(chromium: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """The page's own policy, with a script put in as if a name had broken out: the browser refuses it, and says so."""
    page = pages["run"].read_text(encoding="utf-8")
    (tmp_path / "broken.html").write_text(page.replace("<main>", "<main><script>window.ran = 1</script>", 1))
    chromium.open(tmp_path / "broken.html", 1400)
    assert chromium.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in text for text in chromium.complaints())
