"""`ckpt=…`: the config inside a checkpoint becomes the starting point that overrides apply to.

Hydra composes before any job runs, so each checkpoint named on the command line is read first (its header only, no
torch) and put into Hydra's store: `ckpt=RUN` turns into the group option `ckpt=c0`, and `dataset`, `model`, `loss` and
`device` get an option `ckpt_c0` that holds what the checkpoint says. Overrides, sweeps and `--cfg job` then work as
for every other group.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from trainkit import registry
from trainkit.checkpoints import checkpoint
from trainkit.config.folders import with_defaults
from trainkit.config.frame import Config, Predict, Train, default_node, groups
from trainkit.config.trust import refuse_interpolations, refuse_targets
from trainkit.errors import ConfigError, unknown
from trainkit.schema import schema_of

OPTION = "ckpt_"  # prefix of the group options that come from a checkpoint


def offer(frame: type[Config], overrides: list[str], problems: list[str]) -> list[str]:
    """Store what `frame` takes of the configs of the checkpoints in `ckpt=…`, as options.

    Returns the overrides with the paths replaced by their options.

    Raises ConfigError when `ckpt=` is missing, with the `problems` known before; CheckpointError when a checkpoint
    cannot be read.
    """
    _store(frame, "none", {})
    parsed = OverridesParser.create().parse_overrides(overrides)
    pairs = zip(overrides, parsed, strict=True)
    ckpts = [(text, override) for text, override in pairs if override.key_or_group == "ckpt"]
    if not ckpts:
        keys = schema_of(frame)
        words = [override.key_or_group for override in parsed if re.fullmatch(r"\w+", override.key_or_group)]
        strange = [unknown("key", word, keys) for word in words if word not in keys]
        raise ConfigError(*problems, *strange, "ckpt is required (a run folder or a checkpoint file): add ckpt=…")
    text, override = ckpts[-1]
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    names = []
    for index, value in enumerate(values):
        name = str(getattr(value, "text", value) or "")
        if not name:
            raise ConfigError(f"{text}: name a run folder or a checkpoint file")
        path = checkpoint.locate(Path(name))
        config = checkpoint.read_header(path)["config"]
        refuse_targets(config, path)
        refuse_interpolations(config, path)
        _refuse_unknown(frame, config, path, {override.key_or_group for override in parsed})
        names.append(f"c{index}")
        _store(frame, names[-1], config, path)
    return [f"ckpt={','.join(names)}" if item == text else item for item in overrides]


def _refuse_unknown(frame: type[Config], config: dict[str, Any], path: Path, overridden: set[str]) -> None:
    """Raise ConfigError when the checkpoint needs a component of plugins that were not named."""
    plugins = [name for name in config.get("plugins") or [] if re.fullmatch(r"[\w.]+", str(name))]
    for group in groups(frame):
        name = str((config.get(group) or {}).get("name"))
        if plugins and group not in overridden and registry.find(group, name) is None:
            add = f"plugins=[{','.join(plugins)}]"
            raise ConfigError(f"'{path}' has {group} '{name}', not known here: add {add}, whose code then runs")


def withdraw() -> None:
    """Take back what was offered, so that another command of this process finds only files' options."""
    repo = ConfigStore.instance().repo
    repo.pop("ckpt", None)
    for group in registry.FAMILIES:
        for option in [name for name in repo.get(group, {}) if name.startswith(OPTION)]:
            del repo[group][option]


def _store(frame: type[Config], option: str, config: dict[str, Any], path: Path | None = None) -> None:
    store = ConfigStore.instance()
    scalars = {key: config[key] for key in _kept(frame) if key in config}
    store.store(group="ckpt", name=option, package="_global_", node={**scalars, "ckpt": str(path or "???")})
    for group in groups(frame):
        node = with_defaults(group, config.get(group) or default_node(frame, group) or {"name": "???"})
        store.store(group=group, name=OPTION + option, package=group, node=node)


def _kept(frame: type[Config]) -> list[str]:
    """The keys that a checkpoint sets: what it was trained with, where the verb has the same key.

    Only the command line names plugins, which run code, and what is written where. The `topk` of `predict` says how
    many classes to show, that of training which metric to compute.
    """
    own = {"output_dir", "plots", "plugins", *groups(frame), *({"topk"} if frame is Predict else ())}
    return [key for key in schema_of(frame) if key in schema_of(Train) and key not in own]
