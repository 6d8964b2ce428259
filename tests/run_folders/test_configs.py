"""Configs of run folders read in blocks are what YAML says of the whole text, whatever the text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainkit.config.changes import flat
from trainkit.config.compose import FRAMES, compose_values, composing
from trainkit.run_folders import configs

TEXTS = [
    "model:\n  name: mlp\n  hidden:\n  - 1\n  - 2\nseed: 0\nplugins: []\n",
    "a: 1\r\nb: 2\r\n",
    "a: 1\rb: 2\r",
    "a: 1\n\n# between\nb: {c: 1, d: [2]}\n",
    "# before\na: 1\nb: 2\n",
    "---\na: 1\nb: 2\n...\n",
    "%YAML 1.1\n---\na: 1\n",
    "a: 1\n---\nb: 2\n",
    "a: 1\na: 2\n",
    "a:\n  b: 1\n  c: 1\na:\n  b: 2\n",
    "1: x\ntrue: y\n",
    "a: 'one\nb: two'\nc: 3\n",
    'a: "one\nb: two"\nc: 3\n',
    "a: [1,\nb, 2]\nc: 3\n",
    "a: |\n  text\n  b: 1\n\nc: 3\n",
    "a: |+\n  text\n\n\nc: 3\n",
    "a: >-\n  folded\n  text\nc: 3\n",
    "a: one\n  two\nc: 3\n",
    "a: one\ntwo\nc: 3\n",
    "a:\n- 1\n- b: 2\nc: 3\n",
    "a:\nb:\n",
    "a: &x [1]\nb: *x\n",
    "a: *x\n",
    "a: 1\n<<: {b: 2}\n",
    "? a\n: 1\nb: 2\n",
    "a: 1\n b: 2\n",
    "a: 1e-3\nb: 0x10\nc: 2026-01-01\nd: ~\n",
    "a.b: 1\na:\n  b: 2\n",
    "a:\n  b: 2\na.b: 1\n",
    "\ufeffa: 1\nb: 2\n",
    "a: x\u2028b: 2\nc: 3\n",
    "über: 1\nb: 2\n",
    "a: 1\nb: !!python/name:os.system\n",
    "- a\n- b\n",
    "word\n",
    "",
    "a: [",
    "a: 1\nb\n",
    "a: \x00\nb: 2\n",
]


def whole(text: str) -> dict[str, object]:
    try:
        node = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return {}
    return flat(node) if isinstance(node, dict) else {}


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_blocks_say_what_the_whole_text_says(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode())
    for _ in range(2):  # and again, now that its blocks are known
        assert list(configs.read_config(file).items()) == list(whole(text).items())


def test_a_config_of_ours_is_read_in_blocks(tmp_path: Path) -> None:
    """Twenty that differ in one value: beside that value, nothing is parsed again."""
    with composing("train"):
        composed, _ = compose_values("train", FRAMES["train"], ["model=cnn", "optim=adam", "schedule=onecycle"])
    assert composed
    configs.block.cache_clear()
    for seed in range(20):
        text = yaml.safe_dump({**composed, "seed": seed}, sort_keys=False, allow_unicode=True)
        file = tmp_path / f"{seed}.yaml"
        file.write_text(text)
        assert configs.read_config(file) == whole(text)
    assert configs.block.cache_info().misses == len(composed) + 19


def test_a_file_that_is_too_large_is_no_config(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("a: 1\n#" + "x" * configs.MAX_CONFIG)
    assert configs.read_config(file) == {}
