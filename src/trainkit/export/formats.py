"""A model as a file for other programs: ONNX, torch.export, or its weights alone; each can be read back to be checked.

All three carry one JSON text, `trainkit.json`, that says what goes in, what comes out, and what the classes are: in
ONNX's metadata_props, among the extra files of a .pt2, in the metadata of a safetensors file.
"""

from __future__ import annotations

import copy
import importlib
import io
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.data.loaders import Normalize
from trainkit.data.spec import INPUT, TARGET
from trainkit.errors import ConfigError, ResourceError, TrainkitError

FACTS = "trainkit.json"
OPSET = 18  # of ONNX: the one that torch's exporter writes without conversion
_ONNX_LIMIT = 2**31  # bytes of a protobuf message

Run = Callable[[Tensor], Tensor]


class Deployed(nn.Module):
    """What a file computes: normalization, the model, and what its outputs mean, each if asked for.

    Maps inputs (N, …) to outputs (N, …). normalize: the inputs are as they are stored, and what comes out is in the
    target's own unit; None for what the model itself takes and gives. head: from the model's outputs to what they mean;
    None to have them as they are.
    """

    scale: Tensor | None
    shift: Tensor | None
    target_std: Tensor | None
    target_mean: Tensor | None

    def __init__(self, model: nn.Module, normalize: Normalize | None, head: nn.Module | None) -> None:
        super().__init__()
        self.model = model
        self.head = head
        scaling = normalize.scalings.get(INPUT) if normalize is not None else None
        standard = normalize.standards.get(TARGET) if normalize is not None else None
        self.register_buffer("scale", None if scaling is None else scaling.scale)
        self.register_buffer("shift", None if scaling is None else scaling.shift)
        self.register_buffer("target_std", None if standard is None else standard.std)
        self.register_buffer("target_mean", None if standard is None else standard.mean)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.scale is not None and self.shift is not None:
            inputs = inputs.to(torch.float32) * self.scale + self.shift
        outputs: Tensor = self.model(inputs)
        if self.head is not None:
            outputs = self.head(outputs)
        if self.target_std is not None and self.target_mean is not None:
            outputs = outputs * self.target_std + self.target_mean
        return outputs


def to_onnx(module: Deployed, example: Tensor, output: str, facts: dict[str, Any]) -> bytes:
    """An ONNX file with a batch dimension of any size. example: (2 or more, …). output: the name of what comes out.

    Raises ConfigError when the onnx extra is not installed, ResourceError above ONNX's 2 GB, and TrainkitError when
    the exporter cannot express the module.
    """
    require_onnx()
    size = sum(value.nbytes for value in itertools.chain(module.parameters(), module.buffers()))
    if size >= _ONNX_LIMIT:
        raise ResourceError(f"an ONNX file holds at most 2 GB, the weights are {size / 1e9:.1f} GB; use format=pt2")
    with _quiet("onnx"):
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["input"],
            output_names=[output],
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
    proto.metadata_props.add(key=FACTS, value=json.dumps(facts, allow_nan=False))
    return bytes(proto.SerializeToString())


def require_onnx() -> None:
    """Raise ConfigError when what ONNX needs is not installed."""
    try:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"format=onnx needs {error.name}: pip install 'trainkit[onnx]'") from None


def from_onnx(content: bytes) -> Run:
    """The function of an ONNX file, by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: Tensor) -> Tensor:
        (outputs,) = session.run(None, {"input": inputs.numpy()})
        return torch.from_numpy(outputs)

    return run


def to_pt2(module: Deployed, example: Tensor, facts: dict[str, Any]) -> bytes:
    """A torch.export archive with a batch dimension of any size; else as `to_onnx`."""
    with _quiet("pt2"):
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        program.example_inputs = None  # which it would store as a pickle
        content = io.BytesIO()
        torch.export.save(program, content, extra_files={FACTS: json.dumps(facts, allow_nan=False)})
    return content.getvalue()


def from_pt2(content: bytes) -> Run:
    """The function of a torch.export archive."""
    with _quiet("pt2"):
        run: Run = torch.export.load(io.BytesIO(content)).module()
    return run


def to_state_dict(model: nn.Module, facts: dict[str, Any]) -> bytes:
    """The weights and buffers as a safetensors file, by the names they have in the model."""
    from safetensors.torch import save

    tensors = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    return save(tensors, metadata={FACTS: json.dumps(facts, allow_nan=False)})


def from_state_dict(content: bytes, model: nn.Module) -> Run:
    """A copy of the model with the weights of a safetensors file."""
    from safetensors.torch import load

    other = copy.deepcopy(model)
    for value in other.state_dict().values():
        value.zero_()  # nothing may be left of the original
    other.load_state_dict(load(content))
    return other


@contextmanager
def _quiet(kind: str) -> Iterator[None]:
    """Keep back what torch's exporters say on the way; what stops them becomes a TrainkitError of one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TrainkitError(f"torch cannot export this model as {kind} ({reason})") from error
    finally:
        logging.disable(before)
