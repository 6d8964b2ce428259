"""The top-level keys of each verb that Hydra composes: types, ranges, and the config groups it reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from trainkit.schema import Count, Form, Fraction, NonNegativeInt, Positive, Probability, plain
from trainkit.text import without_secrets

Every = Annotated[str, Form(r"([1-9]\d*)(epochs?|steps?|min)", "1epoch, 500steps or 10min")]
Extension = Annotated[str, Form(r"(hold|stretch|rewarm)@([1-9]\d*)", "hold@10, stretch@10 or rewarm@10")]


@dataclasses.dataclass(frozen=True)
class Choice:
    """A component chosen from a group: its registered name and the keyword arguments it is built with."""

    name: str
    arguments: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
    """What every verb with a run folder needs. Field docs stand in conf/train.yaml, where users read them."""

    dataset: Choice
    model: Choice
    loss: Choice
    device: Choice
    holdout: Choice = Choice("random", {})
    seed: int = 0
    batch_size: Count = 128
    val_fraction: Fraction = 0.1
    split_seed: int = 0
    topk: Count = 5
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    loader: Literal["auto", "resident", "streaming"] = "auto"
    workers: Literal["auto"] | NonNegativeInt = "auto"
    tta: Literal["none", "flip"] = "none"
    data_dir: Path | None = None
    plots: Literal["auto"] | bool = "auto"
    output_dir: Path = Path("outputs")
    plugins: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train(Frame):
    """The config of `trainkit train`."""

    init: Choice = Choice("none", {})
    optim: Choice
    finetune: Choice = Choice("none", {})
    sampler: Choice
    schedule: Choice
    augment: Choice
    epochs: Count = 10
    monitor: str = "auto"
    patience: Count | None = None
    clip: Positive | None = None
    ema: Fraction | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    max_skipped: Count = 10
    extensions: list[Extension] = dataclasses.field(default_factory=list)
    accumulate: Count = 1
    cuda_graph: bool = False
    recompute: bool = False
    log_every: Count = 50
    loggers: list[Literal["tensorboard", "wandb", "mlflow"]] = dataclasses.field(default_factory=list)
    limit_batches: Count | None = None
    overfit: bool = False
    profile: Count | None = None
    anomaly: bool = False
    checkpoint_every: Every = "1epoch"
    keep_last: Count = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval(Frame):
    """The config of `trainkit eval`: what the checkpoint says, with the command line's overrides on top."""

    ckpt: Path
    split: Literal["train", "val", "test"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict:
    """The config of `trainkit predict`: the model of a checkpoint, on inputs that need no data set."""

    ckpt: Path
    model: Choice
    device: Choice
    input: str | list[str]
    output: Path | None = None
    format: Literal["csv", "jsonl", "parquet"] | None = None
    topk: Count = 1
    threshold: Literal["stored"] | Probability | None = "stored"
    by_position: bool = False
    overwrite: bool = False
    batch_size: Count = 128
    seed: int = 0
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    tta: Literal["none", "flip"] = "none"
    workers: Literal["auto"] | NonNegativeInt = "auto"
    plugins: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Export:
    """The config of `trainkit export`: the model of a checkpoint, and the data set whose samples check the export."""

    ckpt: Path
    dataset: Choice
    model: Choice
    output: Path
    format: Literal["onnx", "pt2", "state_dict"] | None = None
    normalize: bool = True
    probabilities: bool = False
    input: str | list[str] | None = None
    tolerance: Positive = 1e-4
    overwrite: bool = False
    holdout: Choice = Choice("random", {})
    val_fraction: Fraction = 0.1
    split_seed: int = 0
    loader: Literal["auto", "resident", "streaming"] = "auto"
    workers: Literal["auto"] | NonNegativeInt = "auto"
    data_dir: Path | None = None
    plugins: list[str] = dataclasses.field(default_factory=list)


Config = Frame | Predict | Export


def groups(frame: type[Any]) -> list[str]:
    """The config groups of a verb, in the order of its fields."""
    return [f.name for f in dataclasses.fields(frame) if f.type == "Choice"]


def default_node(frame: type[Any], group: str) -> dict[str, Any] | None:
    """What a group is where a config of an earlier version does not say; None where it must be said."""
    (default,) = (f.default for f in dataclasses.fields(frame) if f.name == group)
    return {"name": default.name, **default.arguments} if isinstance(default, Choice) else None


def to_plain(config: Config) -> dict[str, Any]:
    """The config as YAML and JSON can hold it; composing it again gives the same config.

    But for secrets, which no file of a run may hold: they are missing (`???`), and are asked for again.
    """
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    nodes = {
        name: {"name": value.name, **{k: plain(v) for k, v in value.arguments.items()}}
        if isinstance(value, Choice)
        else plain(value)
        for name, value in values.items()
    }
    return {name: without_secrets(node) for name, node in nodes.items()}
