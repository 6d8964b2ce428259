"""The YAML files of models, losses, optimizers and schedules say exactly what the signatures say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainkit import registry
from trainkit.schema import check_node, plain

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("model", "loss", "optim", "schedule")


@pytest.mark.parametrize("group", GROUPS)
def test_every_component_has_a_file_and_no_other_has(group: str) -> None:
    assert sorted(path.stem for path in (CONF / group).glob("*.yaml")) == registry.names(group)


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in registry.names(group)])
def test_file_equals_signature(group: str, name: str) -> None:
    text = (CONF / group / f"{name}.yaml").read_text()
    node = yaml.safe_load(text)
    assert node.pop("name") == name
    schema = registry.get(group, name).schema
    assert node == {key: plain(field.default) for key, field in schema.items()}
    assert list(node) == list(schema)
    problems: list[str] = []
    assert check_node(node, schema, group, problems) == node
    assert problems == []
    assert all(isinstance(node[key], type(plain(field.default))) for key, field in schema.items())
    head, *lines = text.splitlines()
    assert head.startswith("# ")
    assert len(head) <= 72
    assert all("  # " in line for line in lines if not line.startswith("name: "))
