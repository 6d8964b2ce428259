"""Overrides to typed configs: compose with Hydra, check, and report every fault at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from trainkit import registry
from trainkit.config import folders, guess, trust
from trainkit.config.check import check
from trainkit.config.folders import packaged_conf
from trainkit.config.frame import Config, Eval, Export, Predict, Train, groups
from trainkit.config.origin import defaults_of, in_files, origins
from trainkit.config.stored import OPTION
from trainkit.errors import ConfigError, unknown
from trainkit.schema import schema_of

SPECIAL = r"[\[\]{}()'\",\\=$]"  # what means something in a value that stands without quotes
FRAMES: dict[str, type[Config]] = {"train": Train, "eval": Eval, "predict": Predict, "export": Export}


def parse(overrides: Sequence[str], problems: list[str]) -> dict[str, Override]:
    """The overrides that Hydra's grammar accepts, by their text; a line in `problems` for each other one.

    A value that only needs quotes (accented letters, say) is quoted instead of refused.
    """
    parser = OverridesParser.create()
    parsed: dict[str, Override] = {}
    for text in overrides:
        for candidate in (text, quoted(text)):
            try:
                override = parser.parse_override(candidate)
                if override.key_or_group in registry.FAMILIES and override.value() is None and not override.is_delete():
                    problems.append(f"{text}: choose an option by name; see trainkit ls {override.key_or_group}")
                elif faults := trust.word_faults(override):
                    problems += faults
                else:
                    parsed[candidate] = override
                break
            except (OverrideParseException, HydraException) as error:
                reason = re.split(r"\n| expecting ", str(error))[0]
            except RecursionError:
                reason = "nested too deep"
        else:
            hint = "write key=value, and quote a value with special characters: 'key=\"value\"'"
            shown = text if len(text) <= 200 else f"{text[:200]}…"
            problems.append(f"cannot read the override '{shown}': {reason}{_unclosed(text)}; {hint}")
    return parsed


def _unclosed(text: str) -> str:
    """Which quote or bracket of a word has no partner, with the place marked; "" when all have one."""
    opened: list[int] = []
    quote = -1
    position = 0
    while position < len(text):
        char = text[position]
        if char == "\\":
            position += 1
        elif quote >= 0:
            quote = -1 if char == text[quote] else quote
        elif char in "'\"":
            quote = position
        elif char in "([{":
            opened.append(position)
        elif char in ")]}" and (not opened or text[opened.pop()] + char not in ("()", "[]", "{}")):
            return _marked(text, position, "closes nothing")
        position += 1
    at = quote if quote >= 0 else opened[-1] if opened else None
    return "" if at is None else _marked(text, at, "is never closed")


def _marked(text: str, at: int, what: str) -> str:
    return f" ({text[at]} at character {at + 1} {what}: {text[max(at - 20, 0) : at]}^{text[at : at + 20]})"


def quoted(text: str) -> str:
    """`key=value` with the value in quotes when that is all it lacks, else the text as it is."""
    key, _, value = text.partition("=")
    return text if not value or re.search(SPECIAL, value) else f"{key}='{value}'"


def assignment(key: str, value: str) -> str:
    """`key=value` as Hydra reads it back, with the value in quotes where it needs them."""
    if re.fullmatch(r"[\w./-]+", value, re.ASCII):
        return f"{key}={value}"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


@contextmanager
def composing(verb: str) -> Iterator[None]:
    """Hydra made ready to compose the config of a verb, and put away again."""
    with initialize_config_dir(config_dir=str(packaged_conf()), job_name=verb, version_base="1.3"):
        yield


def check_jobs(
    verb: str, overrides: Sequence[str], multirun: bool, problems: list[str], config_name: str | None = None
) -> list[Config]:
    """The typed config of every job that these overrides start; `config_name` other than the verb's own is a variant.

    Raises ConfigError with all problems of all jobs, after those already in `problems`.
    """
    parsed = parse(overrides, problems)
    configs = []
    with composing(verb):
        if multirun and folders.TrainkitSearchPath.folders:
            parsed = _swept_in_files(config_name or verb, parsed, problems) | parsed
        jobs = expand(parsed) if multirun else [list(parsed)]
        for job in jobs:
            config, faults = compose_checked(config_name or verb, FRAMES[verb], job)
            problems += [fault for fault in faults if fault not in problems]
            if config is not None:
                configs.append(config)
    if not jobs:
        problems.append("the sweep has no job: one of its ranges or choices is empty")
    if problems:
        raise ConfigError(*problems)
    return configs


def _swept_in_files(config_name: str, parsed: dict[str, Override], problems: list[str]) -> dict[str, Override]:
    """What `hydra.sweeper.params` of the config files sweeps beside the words, which go before it."""
    try:
        composed = compose(config_name, expand(parsed)[0], return_hydra_config=True)
        params = OmegaConf.select(composed, "hydra.sweeper.params")
        swept = [f"{key!s}={value}" for key, value in params.items()] if isinstance(params, DictConfig) else []
    except (HydraException, OmegaConfBaseException, ValueError, IndexError, RecursionError):
        return {}  # which is told of each job
    given = {override.get_key_element() for override in parsed.values()}
    found = parse(swept, problems)
    return {text: override for text, override in found.items() if override.get_key_element() not in given}


def expand(parsed: dict[str, Override]) -> list[list[str]]:
    """The overrides of each job of a sweep: the product of what is swept; an interval counts as its start."""
    axes: list[list[str]] = []
    for text, override in parsed.items():
        override.config_loader = GlobalHydra.instance().config_loader()
        value = override.value()
        if not override.is_sweep_override():
            axes.append([text])
        elif isinstance(value, IntervalSweep):
            axes.append([f"{override.get_key_element()}={value.start}"])
        else:
            axes.append([f"{override.get_key_element()}={item}" for item in override.sweep_string_iterator()])
    return [list(job) for job in itertools.product(*axes)]


def compose_checked(config_name: str, frame: type[Config], overrides: list[str]) -> tuple[Config | None, list[str]]:
    """Compose and check one job's config: (config, problems)."""
    values, problems, kept = _composed(config_name, frame, overrides)
    if values is None:
        return None, problems
    faults: list[str] = []
    config = check(values, frame, faults)
    return config, problems + [_located(fault, kept, config_name, values) for fault in faults]


def _located(fault: str, overrides: list[str], config_name: str, values: dict[str, Any]) -> str:
    """The fault of a value with the file and line that set it, where a file of the user's did."""
    if not folders.TrainkitSearchPath.folders:  # there is no such file: looking takes as long as composing
        return fault
    match = re.match(r"(?:\S+: )?key '([\w.]+)' is not known|([\w.]+?)(?:\.name)?(?:\[\d+\])*:", fault)
    key = (match[1] or match[2]) if match else ""
    found = defaults_of(config_name, overrides)
    while key and not (places := [place for place in origins(key, overrides, found, values) if not place.hidden]):
        key = key.rpartition(".")[0]  # a mapping as a whole
    last = places[-1] if key else None
    return f"{last.where}: {fault}" if last is not None and last.is_own else fault


def compose_values(
    config_name: str, frame: type[Config], overrides: list[str]
) -> tuple[dict[str, Any] | None, list[str]]:
    """Compose one job's config, its values not checked yet: (values, problems)."""
    values, problems, _ = _composed(config_name, frame, overrides)
    return values, problems


def _composed(
    config_name: str, frame: type[Config], overrides: list[str]
) -> tuple[dict[str, Any] | None, list[str], list[str]]:
    """`compose_values`, and the overrides that composed.

    Hydra stops at the first fault; so the override at fault is taken out and the rest composed again until all
    faults are known.
    """
    problems: list[str] = []
    remaining = _known(overrides, frame, problems)
    while True:
        try:
            composed = compose(config_name, remaining, return_hydra_config=True)
            with open_dict(composed):
                composed.pop("hydra")
            values = OmegaConf.to_container(composed, resolve=True)
            break
        except RecursionError:
            return None, [*problems, "the config refers to itself: an interpolation ${…} runs in a circle"], []
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            line, key = explain(error)
            chosen_in = _bundle_that_chooses(key, remaining) if isinstance(error, MissingConfigException) else ""
            problems.append(chosen_in + line)
            # what belongs to a wrong option is left out with it: its keys would be judged by another schema
            kept = [text for text in remaining if not _sets(text, key)]
            if _runs_in_circle(error):  # every link of the circle would be reported as a fault of its own
                kept = [text for text in kept if "${" not in text]
            if len(kept) == len(remaining):
                return None, problems, []
            remaining = kept
    assert isinstance(values, dict)
    if folders.TrainkitSearchPath.reach_hydra:
        problems += trust.file_faults(config_name, remaining)
    if _container(values).get("plugins") and not any(_sets(text, "plugins") for text in overrides):
        problems.append("plugins in a config file are refused: they run code; give them as a word, plugins=[…]")
    return _container(values), problems, remaining


def _bundle_that_chooses(group: str | None, overrides: list[str]) -> str:
    """`FILE:LINE: ` of the user's bundle whose `defaults:` choose an option of the group; "" where none does."""
    if group is None or any(_sets(text, group) for text in overrides):
        return ""
    bundles = [text.replace("=", "/", 1) for text in overrides if text.partition("=")[0] in folders.BUNDLES]
    places = [place for path in bundles for place in in_files(path, group, True) if place.is_own and not place.hidden]
    return f"{places[-1].where}: " if places else ""


def _known(overrides: list[str], frame: type[Config], problems: list[str]) -> list[str]:
    """The overrides without unknown top-level keys, unknown options of groups, and what belongs to those.

    Composition would find them too, one at a time and at the price of a composition each.
    """
    kept = list(overrides)
    keys = schema_of(frame)
    for text in overrides:
        name, _, value = text.partition("=")
        if not re.fullmatch(r"\w+", name):
            continue
        options = folders.options(name, folders.TrainkitSearchPath.folders)
        if name not in keys and (name in registry.FAMILIES or not options):
            problems.append(guess.unknown_key(name, keys))
            kept = [other for other in kept if other != text]
        elif name == "dataset" and value not in options and (meant := guess.data_set(value.strip("'\""))):
            problems.append(f"{text}: {meant}")
            kept = [other for other in kept if not _sets(other, name)]
        elif name in registry.FAMILIES and re.fullmatch(r"\w+", value) and value not in options:
            problems.append(unknown(f"{name}=…: option", value, options))
            kept = [other for other in kept if not _sets(other, name)]
    return kept


def _container(values: Any) -> dict[str, Any]:
    return {str(k): v for k, v in values.items()}


def _sets(override: str, key: str | None) -> bool:
    name = override.partition("=")[0].lstrip("+~")
    return key is not None and (name == key or name.startswith(f"{key}.") or override == key)


def _runs_in_circle(error: Exception) -> bool:
    return str(error).startswith("Recursive interpolation")  # OmegaConf has no class of its own for it


def explain(error: Exception) -> tuple[str, str | None]:
    """One line for a composition error, and the config key (or override) at fault where it is known."""
    if isinstance(error, MissingConfigException):
        return _explain_missing(error)
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)):
        return _explain_key(cause)
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(cause, OmegaConfBaseException):
        key = cause.full_key or None
        reason = "its interpolation ${…} runs in a circle" if _runs_in_circle(cause) else str(cause).splitlines()[0]
        return (f"{key}: {reason}" if key else reason), key
    if match := re.fullmatch(r"Could not delete from config. '([\w.]+)' does not exist.", first):
        key = match.group(1)
        return f"~{key}: there is no such key to remove; see --cfg job", key
    if match := re.fullmatch(r"Ambiguous value for argument '((.+)=(.*))'", first):
        text, key, value = match.groups()
        return f"{text}: several values need a sweep (-m, without --cfg); for a list write {key}=[{value}]", key
    if isinstance(error, ConfigCompositionException) and (match := re.search(r"'\+?([\w./@]+)", first)):
        return first, match.group(1)
    return first, None


def _explain_missing(error: MissingConfigException) -> tuple[str, str | None]:
    name = error.missing_cfg_file or ""
    group, _, option = name.partition("/") if name.partition("/")[0] in registry.FAMILIES else name.rpartition("/")
    if not group:
        return f"there is no config named '{option}'", None
    # Hydra lists no options when it is a file's own `defaults:` that names the missing one
    options = error.options or list(folders.options(group, folders.TrainkitSearchPath.folders))
    known = [name for name in options if not name.startswith(OPTION)]
    line = unknown(f"{group}=…: option", option, known)
    if group == "device" and re.fullmatch(r"cpu:\d+", option):
        line = f"device={option}: the CPU has no index; use device=cpu, with device.threads=N for its threads"
    return line, group


def _explain_key(cause: ConfigKeyError | ConfigAttributeError) -> tuple[str, str]:
    full_key = str(cause.full_key or cause.key)
    parent = cause.parent_node
    prefix, _, word = full_key.rpartition(".")
    keys: list[str] = []
    if isinstance(parent, DictConfig) and not parent._is_missing() and not parent._is_none():
        keys = [str(key) for key in parent if key not in ("hydra", "name")]
    chosen = parent.get("name") if prefix and isinstance(parent, DictConfig) else None
    what = f"{prefix}={chosen}: key" if chosen else "key"
    return unknown(what, word, keys, f"{prefix}." if prefix else ""), full_key


def group_names(verb: str) -> list[str]:
    """The config groups of a verb."""
    return groups(FRAMES[verb]) + (folders.BUNDLES if verb == "train" else [])
