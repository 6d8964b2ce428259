"""`trainkit export`: a checkpoint's model as a file for other programs, written only if it computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainkit import __version__, build, formats, losses, rundir, storage
from trainkit.config.frame import Export
from trainkit.data import facts as data_facts
from trainkit.data import inputs
from trainkit.data.decode import preparation
from trainkit.data.files import Files
from trainkit.data.loaders import Normalize
from trainkit.data.splits import Array, Data
from trainkit.errors import ConfigError, DataError, TrainkitError
from trainkit.report.console import Console

SUFFIXES = {".onnx": "onnx", ".pt2": "pt2", ".safetensors": "state_dict"}
_SAMPLES = 64  # real inputs that the file is checked with
_CPU = torch.device("cpu")


def export(config: Export, *, as_json: bool) -> None:
    """Write the model's file, if it computes what the model computes.

    Raises TrainkitError when it does not, or when torch cannot export the model; nothing is written then.
    """
    kind = storage.format_of(config.output, config.format, SUFFIXES)
    storage.check_output(config.output, config.overwrite)
    if kind == "onnx":
        formats.require_onnx()
    model, data, meta = build.restore_model(config.model, config.ckpt)
    if config.probabilities and (kind == "state_dict" or data.task == "regression"):
        raise ConfigError(f"probabilities=true: a {data.task if kind != 'state_dict' else kind} has none; leave it out")
    takes_raw = config.normalize and kind != "state_dict"
    task = data.task if config.probabilities else None
    raw, source = samples(config, data, meta)
    normalize = Normalize(data, _CPU)
    given = raw if takes_raw else normalize.inputs(raw)
    facts = describe(config, kind, takes_raw, data, meta)
    content, run = written(kind, formats.Deployed(model, normalize if takes_raw else None, task), given[:1], facts)
    with torch.inference_mode():
        wanted = expected(model, normalize, raw, task, takes_raw)
        found = torch.cat([run(given[:1]), run(given)])
    difference = float((found - wanted).abs().max())
    largest = float(wanted.abs().max())
    limit = config.tolerance * max(1.0, largest)
    if not difference <= limit:  # also when it is not a number
        raise TrainkitError(
            f"the {kind} file differs from the model by {difference:.1e} (at most {limit:.1e} is allowed) on {source}; "
            "nothing was written; tolerance= sets what is allowed"
        )
    storage.replace(config.output, content)
    checked = {"source": source, "difference": difference, "largest_output": largest, "allowed": limit}
    show(config, facts, len(content), checked, Console(live=False, as_json=as_json))


def samples(config: Export, data: Data, meta: dict[str, Any]) -> tuple[Tensor, str]:
    """Real raw inputs (N, …) and where they are from: `input`, else the test split (or val, or train) of the data set.

    Raises DataError when there are none.
    """
    if config.input is not None:
        arguments = [config.input] if isinstance(config.input, str) else config.input
        inputs.check(arguments, data)
        batch = next(inputs.read(arguments, data, _SAMPLES, 0))
        if not len(batch.values):
            raise DataError(f"{batch.names[0]}: {batch.errors[0]}")
        return torch.from_numpy(batch.values.copy()), f"{len(batch.values)} samples of input={','.join(arguments)}"
    try:
        found = build.build_data(config, _CPU)
    except DataError as error:
        raise DataError(f"{error}; to check the export with other real inputs, add input=FILE|FOLDER") from error
    data_facts.adopt(found, meta["data"], config.ckpt)
    split = next(name for name in ("test", "val", "train") if name in found.splits)
    chosen = np.unique(np.linspace(0, len(found.splits[split]) - 1, _SAMPLES).astype(np.int64))
    picked = found.splits[split].inputs[chosen]
    values: Array = next(picked.batches([np.arange(len(picked))])) if isinstance(picked, Files) else picked
    wanted = data.splits["train"].inputs.dtype
    if values.dtype != wanted:
        raise DataError(f"dataset {found.name} has {values.dtype} samples, the model was trained on {wanted}")
    return torch.from_numpy(values), f"{len(values)} {split} samples of {found.name}"


def expected(model: nn.Module, normalize: Normalize, raw: Tensor, task: str | None, takes_raw: bool) -> Tensor:
    """What a file must give for raw inputs, in batches of one and of all, by the parts that evaluation uses."""
    outputs = torch.cat([model(normalize.inputs(part)) for part in (raw[:1], raw)])
    if task is not None:
        return losses.probabilities(outputs, task)
    return normalize.predictions(outputs) if takes_raw else outputs


def written(kind: str, module: formats.Deployed, sample: Tensor, facts: dict[str, Any]) -> tuple[bytes, formats.Run]:
    """The file's content, and what it computes when read back."""
    if kind == "state_dict":
        content = formats.to_state_dict(module.model, facts)
        return content, formats.from_state_dict(content, module.model)
    example = torch.cat([sample, sample])  # torch would take a batch of one for a constant
    if kind == "onnx":
        content = formats.to_onnx(module.eval(), example, facts["output"]["name"], facts)
        return content, formats.from_onnx(content)
    content = formats.to_pt2(module.eval(), example, facts)
    return content, formats.from_pt2(content)


def describe(config: Export, kind: str, takes_raw: bool, data: Data, meta: dict[str, Any]) -> dict[str, Any]:
    """What stands in the file about itself."""
    known = data_facts.to_json(data)
    name = "probabilities" if config.probabilities else "predictions" if data.task == "regression" else "logits"
    return {
        "trainkit": __version__,
        "format": kind,
        **({"opset": formats.OPSET} if kind == "onnx" else {}),
        "input": {
            "name": "input",
            "shape": ["batch", *data.in_shape],
            "dtype": known["dtype"] if takes_raw else "float32",
            "normalized": not takes_raw,
        },
        "output": {"name": name, "shape": ["batch", data.num_outputs], "dtype": "float32"},
        **({"image_files": preparation(data.in_shape)} if inputs.takes_image_files(data) else {}),
        **{key: value for key, value in known.items() if key not in ("in_shape", "num_outputs", "dtype")},
        "model": {"name": config.model.name, **config.model.arguments},
        "checkpoint": {"sha256": meta.get("sha256"), "progress": meta.get("progress")},
    }


def show(config: Export, facts: dict[str, Any], size: int, checked: dict[str, Any], console: Console) -> None:
    """Say what was written and how well it fits."""
    if console.as_json:
        console.say_json({"file": str(config.output), "bytes": size, "check": checked, **facts})
    ends = [(facts[end], ", ".join(map(str, facts[end]["shape"]))) for end in ("input", "output")]
    inner, outer = (f"{end['name']} {end['dtype']} ({shape})" for end, shape in ends)
    kind = f"{facts['format']}, opset {facts['opset']}" if "opset" in facts else facts["format"]
    console.say(f"{rundir.shown(config.output)}: {kind}, {size:,} bytes")
    console.say(f"  {inner}{', normalized' if facts['input']['normalized'] else ''} -> {outer}")
    largest, outputs = (
        f"largest difference {checked['difference']:.1e}",
        f"outputs up to {checked['largest_output']:.3f}",
    )
    console.say(f"  checked with {checked['source']}: {largest}, {outputs}")
