"""`eval ckpt=…`: the config inside a checkpoint becomes the starting point that overrides apply to.

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

from trainkit import checkpoint, registry
from trainkit.config.folders import with_defaults
from trainkit.config.frame import Eval, groups
from trainkit.config.trust import refuse_interpolations, refuse_targets
from trainkit.errors import ConfigError, unknown
from trainkit.schema import schema_of

OPTION = "ckpt_"  # prefix of the group options that come from a checkpoint


def offer(overrides: list[str], problems: list[str]) -> list[str]:
    """Store the configs of the checkpoints in `ckpt=…`; return the overrides with the paths replaced by their options.

    Raises ConfigError when `ckpt=` is missing, with the `problems` known before; CheckpointError when a checkpoint
    cannot be read.
    """
    _store("none", {})
    parsed = OverridesParser.create().parse_overrides(overrides)
    pairs = zip(overrides, parsed, strict=True)
    ckpts = [(text, override) for text, override in pairs if override.key_or_group == "ckpt"]
    if not ckpts:
        keys = schema_of(Eval)
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
        _refuse_unknown(config, path, {override.key_or_group for override in parsed})
        names.append(f"c{index}")
        _store(names[-1], {**config, "ckpt": str(path)})
    return [f"ckpt={','.join(names)}" if item == text else item for item in overrides]


def _refuse_unknown(config: dict[str, Any], path: Path, overridden: set[str]) -> None:
    """Raise ConfigError when the checkpoint needs a component of plugins that were not named."""
    plugins = [name for name in config.get("plugins") or [] if re.fullmatch(r"[\w.]+", str(name))]
    for group in groups(Eval):
        name = str((config.get(group) or {}).get("name"))
        if plugins and group not in overridden and registry.find(group, name) is None:
            add = f"plugins=[{','.join(plugins)}]"
            raise ConfigError(f"'{path}' has {group} '{name}', not known here: add {add}, whose code then runs")


def withdraw() -> None:
    """Take back what was offered, so that another command of this process finds only files' options."""
    repo = ConfigStore.instance().repo
    repo.pop("ckpt", None)
    for group in groups(Eval):
        for option in [name for name in repo.get(group, {}) if name.startswith(OPTION)]:
            del repo[group][option]


def _store(option: str, config: dict[str, Any]) -> None:
    store = ConfigStore.instance()
    chosen = groups(Eval)
    # plugins run code: only the command line may name them, never a checkpoint
    kept = [key for key in schema_of(Eval) if key not in (*chosen, "plots", "output_dir", "plugins")]
    scalars = {key: config[key] for key in kept if key in config}
    store.store(group="ckpt", name=option, package="_global_", node={"ckpt": "???", **scalars})
    for group in chosen:
        node = with_defaults(group, config.get(group) or {"name": "???"})
        store.store(group=group, name=OPTION + option, package=group, node=node)
