"""The YAML files of the components say exactly what the signatures say, and those of the verbs what the frames say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from trainkit import registry
from trainkit.config.frame import Eval, Export, Frame, Predict, Train, groups
from trainkit.schema import REQUIRED, check_node, plain, schema_of

CONF = Path(__file__).parents[2] / "conf"
# The files of the data sets are compared in tests/data, because some of them have keys without a default.
COMPARED = [(group, name) for group in registry.FAMILIES if group != "dataset" for name in registry.names(group)]


@pytest.mark.parametrize("group", registry.FAMILIES)
def test_every_component_has_a_file_and_every_file_a_component(group: str) -> None:
    files = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (CONF / group).glob("*.yaml")}
    assert set(registry.names(group)) <= set(files)
    for stem, node in files.items():  # a file of another name is a preset: a component with arguments of its own
        assert node["name"] == stem or (stem not in registry.names(group) and len(node) > 1)
        problems: list[str] = []
        arguments = {key: value for key, value in node.items() if key != "name"}
        check_node(arguments, registry.get(group, node["name"]).schema, group, problems)
        assert [line for line in problems if " is required " not in line] == []


@pytest.mark.parametrize(("group", "name"), COMPARED)
def test_file_equals_signature(group: str, name: str) -> None:
    text = (CONF / group / f"{name}.yaml").read_text(encoding="utf-8")
    node = yaml.safe_load(text)
    assert node.pop("name") == name
    schema = registry.get(group, name).schema
    defaults = {key: field.default for key, field in schema.items()}
    assert node == {key: "???" if value is REQUIRED else plain(value) for key, value in defaults.items()}
    assert list(node) == list(schema)
    problems: list[str] = []
    given = {key: value for key, value in node.items() if value != "???"}
    checked = check_node(node, schema, group, problems)
    assert {key: plain(value) for key, value in checked.items()} == given
    assert all(" is required " in problem for problem in problems) and len(problems) == len(node) - len(given)
    assert all(isinstance(value, type(plain(schema[key].default))) for key, value in given.items())
    head, *lines = text.splitlines()
    assert head.startswith("# ")
    assert len(head) <= 72
    assert all("  # " in line or line.endswith(":") for line in lines if not line.startswith("name: "))


@pytest.mark.parametrize(
    ("verb", "frame"), [("train", Train), ("eval", Eval), ("predict", Predict), ("export", Export)]
)
def test_file_equals_frame(verb: str, frame: type[Any]) -> None:
    text = (CONF / f"{verb}.yaml").read_text(encoding="utf-8")
    node: Any = OmegaConf.to_container(OmegaConf.create(text))  # which reads 1e-4 as a number, as Hydra does
    chosen = [key for entry in node["defaults"] if isinstance(entry, dict) for key in entry]
    assert [key for key in chosen if key in registry.FAMILIES] == sorted(
        groups(frame), key=list(registry.FAMILIES).index
    )
    values = {key: value for key, value in node.items() if key not in ("defaults", "hydra")}
    schema = {name: field for name, field in schema_of(frame).items() if name not in groups(frame)}
    expected = {name: "???" if field.default is REQUIRED else plain(field.default) for name, field in schema.items()}
    assert values == expected
    start, end = text.index("# keys"), text.index("hydra:\n")
    lines = [line for line in text[start:end].splitlines() if line and not line.startswith("#")]
    assert all("  # " in line for line in lines)  # `--help` shows them with their comments


def test_groups_of_a_frame_are_its_choices() -> None:
    assert groups(Train) == [
        *("dataset", "model", "loss", "device", "holdout"),
        *("init", "optim", "finetune", "sampler", "schedule", "augment"),
    ]
    assert groups(Eval) == ["dataset", "model", "loss", "device", "holdout"]
    assert {field.name for field in dataclasses.fields(Eval)} - {field.name for field in dataclasses.fields(Frame)} == {
        "ckpt",
        "split",
    }
