"""`trainkit explain`: the chain of places that set a value, in the order in which they count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainkit import registry
from trainkit.config.folders import packaged_conf

if TYPE_CHECKING:
    from conftest import CommandHere

pytestmark = pytest.mark.slow

EXPERIMENT = "# @package _global_\ndefaults:\n  - override /optim: adam\n\noptim:\n  lr: 0.25  # steep\n"


def explained(trainkit_here: CommandHere, *words: str) -> Any:
    done = trainkit_here("explain", *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_chain_names_every_place_in_order(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(EXPERIMENT)
    fact = explained(trainkit_here, "optim.lr", "experiment=mine", "optim.lr=0.5")
    assert [(origin["where"], origin["value"]) for origin in fact["chain"]] == [
        ("default of optim adam", 0.001),
        ("conf/optim/adam.yaml:3 (packaged)", 0.001),
        ("conf/experiment/mine.yaml:6", 0.25),
        ("command line: optim.lr=0.5", 0.5),
    ]
    assert (fact["value"], fact["type"], fact["default"], fact["doc"]) == (0.5, "a number > 0", 0.001, "learning rate")


def test_a_line_in_the_chain_is_where_the_value_stands(trainkit_here: CommandHere) -> None:
    (_, origin) = explained(trainkit_here, "patience")["chain"]
    assert Path(origin["file"]) == packaged_conf() / "train.yaml"
    assert Path(origin["file"]).read_text().splitlines()[origin["line"] - 1].startswith("patience: null")


def test_a_file_of_the_user_hides_the_packaged_one(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "conf" / "optim").mkdir(parents=True)
    (tmp_path / "conf" / "optim" / "sgd.yaml").write_text("name: sgd\nlr: 0.02\n")
    chain = explained(trainkit_here, "optim.lr")["chain"]
    assert [(origin["value"], origin["hidden"]) for origin in chain] == [(0.1, False), (0.1, True), (0.02, False)]
    text = trainkit_here("explain", "optim.lr").out
    assert "* 0.02  conf/optim/sgd.yaml:2" in text and "not read: your file of this name is" in text


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["optim"], ["sgd"]),
        (["optim", "optim=adam"], ["sgd", "adam"]),
        (["optim", "experiment=mnist_cnn", "optim=rmsprop"], ["sgd", "adam", "rmsprop"]),
    ],
)
def test_a_group_says_what_chose_its_option(trainkit_here: CommandHere, words: list[str], places: list[str]) -> None:
    fact = explained(trainkit_here, *words)
    assert [origin["value"] for origin in fact["chain"]] == places
    assert fact["value"]["name"] == places[-1]
    assert fact["arguments"]["optim.lr"]["value"] == fact["value"]["lr"]


def test_nested_and_missing_values(trainkit_here: CommandHere) -> None:
    nested = explained(trainkit_here, "device.cudnn.benchmark", "device.cudnn.benchmark=true")
    assert (nested["type"], nested["default"], nested["value"]) == ("true or false", False, True)
    needed = explained(trainkit_here, "dataset.root", "dataset=folder")
    assert (needed["given"], needed["required"], needed["value"]) == (False, True, None)
    assert "dataset.root is not given yet" in trainkit_here("explain", "dataset.root", "dataset=folder").out


@pytest.mark.parametrize("group", registry.FAMILIES)
def test_every_packaged_argument_is_explained(trainkit_here: CommandHere, group: str) -> None:
    for file in sorted((packaged_conf() / group).glob("*.yaml")):
        for name, fact in explained(trainkit_here, group, f"{group}={file.stem}")["arguments"].items():
            assert fact["doc"] and fact["type"] and fact["chain"], f"{file.stem}: {name}"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", "explain: name a key"),
        ("optm.lr", "key 'optm.lr' is not known (did you mean optim.lr?)"),
        ("optim.betas", "these have: adam, adamax, adamw"),
        ("experiment", "see trainkit ls experiment"),
        ("optim.lr optim.lr=-3", "optim.lr: expected a number > 0, got -3"),
        ("optim.lr modl=cnn", "key 'modl' is not known (did you mean model?)"),
        ("optim.lr optim=adm", "did you mean adam?"),
        ("optim.lr --jsn", "unknown flag '--jsn' (did you mean --json?)"),
    ],
)
def test_mistakes_are_one_line(trainkit_here: CommandHere, words: str, line: str) -> None:
    done = trainkit_here("explain", *words.split())
    assert done.code == 2 and done.out == ""
    assert len(done.err.splitlines()) == 1 and line in done.err
