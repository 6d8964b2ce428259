"""`trainkit export`: a checkpoint's model as a file for other programs, written only if it computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainkit import storage
from trainkit.building import components
from trainkit.config.frame import Export
from trainkit.console.console import Console
from trainkit.data.adopt import adopt
from trainkit.data.images.fit import preparation
from trainkit.data.loaders import Normalize
from trainkit.data.spec import INPUT, TARGET, DataSpec, named
from trainkit.errors import ConfigError, DataError, TrainkitError
from trainkit.export import formats
from trainkit.predict import inputs
from trainkit.predict.model import restore_model
from trainkit.run_folders import rundir
from trainkit.tasks.base import num_outputs, task_of
from trainkit.version import __version__

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
    model, spec, meta = restore_model(config.model, config.ckpt)
    if len(spec.inputs) > 1 and kind != "state_dict":
        raise ConfigError(f"format={kind} is for models of one input, this one takes {', '.join(spec.inputs)}")
    head = task_of(spec.target).head(spec.target) if config.probabilities else None
    if config.probabilities and (kind == "state_dict" or head is None):
        what = kind if kind == "state_dict" else spec.target.task
        raise ConfigError(f"probabilities=true: a {what} has none; leave it out")
    takes_raw = config.normalize and kind != "state_dict"
    raw, source = samples(config, spec)
    normalize = Normalize(spec, _CPU)
    given = raw if takes_raw else scaled(normalize, raw)
    facts = describe(config, kind, takes_raw, spec, meta)
    deployed = formats.Deployed(model, normalize if takes_raw else None, head)
    content, run = write_content(kind, deployed, given[:1], facts)
    with torch.inference_mode():
        wanted = reference_outputs(model, normalize, raw, head, takes_raw)
        found = torch.cat([run(given[:1]), run(given)])
    difference = float((found - wanted).abs().max())
    largest = float(wanted.abs().max())
    # what float32 rounds grows with the size of the outputs; in double only their distance from the mean is of float32
    standard = normalize.standards.get(TARGET) if takes_raw and found.dtype == torch.float64 else None
    size = largest if standard is None else float((wanted - standard.mean).abs().max())
    limit = config.tolerance * max(1.0, size)
    if not difference <= limit:  # also when it is not a number
        raise TrainkitError(
            f"the {kind} file differs from the model by {difference:.1e} (at most {limit:.1e} is allowed) on {source}; "
            "nothing was written; tolerance= sets what is allowed"
        )
    storage.replace(config.output, content)
    checked = {"source": source, "difference": difference, "largest_output": largest, "allowed": limit}
    show(config, facts, len(content), checked, Console(live=False, as_json=as_json))


def samples(config: Export, spec: DataSpec) -> tuple[Tensor, str]:
    """Real raw inputs (N, …) and where they are from: `input`, else the test split (or val, or train) of the data set.

    Raises DataError when there are none.
    """
    if config.input is not None:
        arguments = [config.input] if isinstance(config.input, str) else config.input
        inputs.check(arguments, spec.input)
        # what the columns mean does not matter here: the file and the model are asked the same
        batch = next(inputs.read(arguments, spec.input, _SAMPLES, 0, by_position=spec.input.names is None))
        if not len(batch.values):
            raise DataError(f"{batch.names[0]}: {batch.errors[0]}")
        return torch.from_numpy(batch.values.copy()), f"{len(batch.values)} samples of input={','.join(arguments)}"
    try:
        found = components.build_data(config, _CPU)
    except DataError as error:
        raise DataError(f"{error}; to check the export with other real inputs, add input=FILE|FOLDER") from error
    adopt(found, spec, config.ckpt)
    split = next(name for name in ("test", "val", "train") if name in found.splits)
    chosen = np.unique(np.linspace(0, len(found.splits[split]) - 1, _SAMPLES).astype(np.int64))
    inputs_of, _ = next(found.splits[split].batches([chosen]))
    values = next(iter(named(inputs_of, INPUT).values()))
    if str(values.dtype) != spec.input.dtype:
        raise DataError(f"dataset {found.name} has {values.dtype} samples, the model was trained on {spec.input.dtype}")
    return torch.from_numpy(values), f"{len(values)} {split} samples of {found.name}"


def scaled(normalize: Normalize, raw: Tensor) -> Tensor:
    """Raw inputs as the model takes them."""
    found = normalize.inputs(raw)
    assert isinstance(found, Tensor)
    return found


def reference_outputs(
    model: nn.Module, normalize: Normalize, raw: Tensor, head: nn.Module | None, takes_raw: bool
) -> Tensor:
    """What a file must give for raw inputs, in batches of one and of all, by the parts that evaluation uses."""
    outputs = torch.cat([model(scaled(normalize, part)) for part in (raw[:1], raw)])
    if head is not None:
        outputs = head(outputs)
    return normalize.original(outputs) if takes_raw else outputs


def write_content(
    kind: str, module: formats.Deployed, sample: Tensor, facts: dict[str, Any]
) -> tuple[bytes, formats.Run]:
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


def describe(config: Export, kind: str, takes_raw: bool, spec: DataSpec, meta: dict[str, Any]) -> dict[str, Any]:
    """What stands in the file about itself."""
    image, target = spec.input, spec.target
    double = takes_raw and target.standardize and target.dtype == "float64"
    name = "probabilities" if config.probabilities else task_of(target).output
    return {
        "trainkit": __version__,
        "format": kind,
        **({"opset": formats.OPSET} if kind == "onnx" else {}),
        "input": {
            "name": "input",
            "shape": ["batch", *image.shape],
            "dtype": image.dtype if takes_raw else "float32",
            "normalized": not takes_raw,
        },
        "output": {"name": name, "shape": ["batch", num_outputs(spec)], "dtype": "float64" if double else "float32"},
        **({"image_files": preparation(image)} if inputs.takes_image_files(image) else {}),
        "task": target.task,
        "classes": target.classes,
        "features": image.names,
        "mean": image.mean,
        "std": image.std,
        "target_mean": target.mean if target.standardize else None,
        "target_std": target.std if target.standardize else None,
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
