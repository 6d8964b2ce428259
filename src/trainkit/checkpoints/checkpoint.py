"""What a checkpoint is: one safetensors file, tensors plus JSON. No pickle is ever read or written.

    model/<parameter or buffer>        the weights
    ema/<parameter or buffer>          their moving average, where one was kept; it is what was evaluated
    optim/<parameter>/<state>          optimizer state that is a tensor, by parameter name, never by position
    meter/<sum>                        sums of the epoch that was under way
    __metadata__["trainkit"]           everything else, one JSON text: format, config, data facts, progress, metrics,
                                       optimizer numbers, and the file's own SHA-256

A tensor that has several names is there once, under the first of them; `shared` in the header maps the others to it.
The digest covers the whole file with the 64 characters of the digest itself read as zeros, so a file proves itself
wherever it is copied. `read_header` needs no torch.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import registry, storage
from trainkit.checkpoints import record, tensorfile
from trainkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

FORMAT = 2
UNSIGNED = "0" * 64
MAX_HEADER = 100_000_000  # bytes; safetensors' own limit
MAX_NODES = 50_000  # of a config: it is a page, and a list of classes at most
MAX_DEPTH = 32


def locate(path: Path) -> Path:
    """The checkpoint file of a path: a file as it is, or a run folder's best (else last) checkpoint by its record.

    Raises CheckpointError naming what was looked for.
    """
    path = path.expanduser().absolute()
    if path.is_dir():
        folder = path / "checkpoints"
        known = record.read(folder)
        links = [folder / "best.safetensors", folder / "last.safetensors"]
        named = [folder / entry.file for entry in (known.best, *known.kept) if entry] if known else links
        for candidate in filter(Path.is_file, named):
            # the name that a person knows, when it leads to the same file
            return next((link for link in links if link.is_file() and link.samefile(candidate)), candidate)
        raise CheckpointError(f"{path} holds no checkpoints/best.safetensors or checkpoints/last.safetensors")
    if not path.exists():
        raise CheckpointError(f"checkpoint '{path}' does not exist; name a run folder or a .safetensors file")
    return path


def read_header(path: Path) -> dict[str, Any]:
    """What a checkpoint says about itself, without its tensors. Raises CheckpointError for any other file."""
    try:
        with storage.open_regular(path) as file:
            (size,) = struct.unpack("<Q", file.read(8))
            text = file.read(size) if size <= MAX_HEADER else b""
        table = _parse(text)
        meta = _parse(table.pop("__metadata__")["trainkit"])
        version = meta["format"]
        if type(version) is not int:
            raise TypeError("format")
        if version == FORMAT:
            _check_shape(meta)
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read ({error.strerror})") from error
    except (struct.error, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is not a whole trainkit checkpoint") from error
    if version != FORMAT:
        writer = f"trainkit {meta.get('trainkit')} in format {version}"
        raise CheckpointError(f"'{path}' was written by {writer}; this trainkit reads format {FORMAT}")
    return dict(meta)


def _parse(text: str | bytes) -> Any:
    """JSON as it is written here: no key twice, no NaN. Raises ValueError."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, object_pairs_hook=mapping, parse_constant=refuse)


def _check_shape(meta: dict[str, Any]) -> None:
    """Raise ValueError unless a header has the parts and types that its readers take for granted.

    Whether the values make sense is for those to say: the schema for the config, `data.spec` for the data.
    """
    config, progress = meta["config"], meta["progress"]
    parts = [config, progress, meta["spec"]]
    parts += [meta[name] for name in ("monitor", "optim", "fingerprint", "runtime", "skipped") if name in meta]
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError("a part is no mapping")
    groups = [config[name] for name in registry.FAMILIES if name in config]
    if not all(isinstance(group, dict) and isinstance(group.get("name"), str) for group in groups):
        raise ValueError("a component has no name")
    plugins = config.get("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(name, str) for name in plugins):
        raise ValueError("plugins")
    if not all(type(progress[name]) is int and 0 <= progress[name] < 2**53 for name in ("epoch", "step")):
        raise ValueError("progress")
    _refuse_large(config)


def _refuse_large(config: dict[str, Any]) -> None:
    """Raise ValueError for a config that is nested deeper, or has more nodes, than any that trains."""
    level: list[Any] = [config]
    nodes = 0
    for _ in range(MAX_DEPTH):
        containers = [
            node.values() if isinstance(node, dict) else node for node in level if isinstance(node, (dict, list))
        ]
        level = [node for container in containers for node in container]
        nodes += len(level)
        if not level or nodes > MAX_NODES:
            break
    if level:
        raise ValueError("config is too large")


def pack(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> tensorfile.Content:
    """The bytes of a checkpoint file, in pieces; the same state gives the same bytes.

    tensors: by name, as in the module docstring; they must not change until it is written. meta: JSON data; format,
    version, digest and the names of shared tensors are added here. Raises CheckpointError for what cannot be saved.
    """
    from trainkit.version import __version__

    again = repeated(tensors)
    header = {"format": FORMAT, "trainkit": __version__, "sha256": UNSIGNED, **meta}
    header |= {"shared": again} if again else {}
    once = {name: tensor for name, tensor in tensors.items() if name not in again}
    content = tensorfile.pack(once, {"trainkit": json.dumps(header, allow_nan=False)})
    if len(content.header) > MAX_HEADER:
        parts = ", ".join(f"{name} {len(json.dumps(value)):,}" for name, value in header.items())
        raise CheckpointError(
            f"the header of a checkpoint has at most {MAX_HEADER:,} bytes, this one {len(content.header):,}: "
            f"{len(once):,} tensors and, in bytes, {parts}"
        )
    signed = content.header.replace(UNSIGNED.encode(), content.digest().encode(), 1)
    return dataclasses.replace(content, header=signed)


def repeated(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The names whose tensor is, in memory, that of a name before it: {name: the first name}."""
    first: dict[Any, str] = {}
    found = {}
    for name, tensor in sorted(tensors.items()):
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(place, name) != name:
            found[name] = first[place]
    return found


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors (on the CPU) and the header of a checkpoint; a shared tensor is one object under all its names.

    Raises CheckpointError when a byte is not as written.
    """
    meta = read_header(path)
    claimed = str(meta.get("sha256"))
    try:
        tensors, digest = tensorfile.read(path, lambda text: text.replace(claimed.encode(), UNSIGNED.encode(), 1))
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: {error}") from error
    if digest != claimed:
        raise CheckpointError(f"checkpoint '{path}' is damaged: its digest does not match its content")
    try:
        return tensors | {name: tensors[first] for name, first in meta.get("shared", {}).items()}, meta
    except (AttributeError, LookupError, TypeError) as error:
        raise CheckpointError(f"checkpoint '{path}' is damaged: it does not say which tensors are shared") from error


def optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The optimizer's state by parameter name: (tensors for the file, JSON for the header).

    The JSON has the shape of the state, with `{"tensor": name}` where a tensor stands, also inside lists (L-BFGS).
    """
    import torch

    tensors: dict[str, torch.Tensor] = {}

    def encode(value: Any, name: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, list):
            return [encode(item, f"{name}/{i}") for i, item in enumerate(value)]
        return value

    state = {
        name: {field: encode(value, f"optim/{name}/{field}") for field, value in optimizer.state[parameter].items()}
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }
    return tensors, state


def load_optimizer(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, torch.Tensor],
    state: dict[str, Any],
    path: Path,
) -> None:
    """Put `optimizer_state` back into a fresh optimizer over the same parameters.

    Raises CheckpointError when the state is that of another model.
    """
    import torch

    parameters = dict(model.named_parameters())
    unknown = [name for name in state if name not in parameters]
    if unknown:
        raise CheckpointError(f"'{path}' has optimizer state of '{unknown[0]}', which this model does not have")
    made: dict[int, torch.Tensor] = {}  # of a tensor that has two names there is one copy here too
    on_device = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)

    def decode(value: Any, field: str, parameter: torch.nn.Parameter) -> Any:
        if isinstance(value, list):
            return [decode(item, field, parameter) for item in value]
        if not isinstance(value, dict):
            return value
        found = tensors[value["tensor"]]
        if id(found) not in made:
            made[id(found)] = place(found, field, parameter)
        return made[id(found)]

    def place(found: torch.Tensor, field: str, parameter: torch.nn.Parameter) -> torch.Tensor:
        if found.shape == parameter.shape and found.ndim > 0:
            # in the parameter's own memory order, by which fused optimizers pair the numbers
            return torch.empty_like(parameter, dtype=found.dtype, requires_grad=False).copy_(found)
        return found if field == "step" and not on_device else found.to(parameter.device)

    for name, fields in state.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {field: decode(value, field, parameter) for field, value in fields.items()}


def load_model(model: torch.nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Put the weights that were evaluated into a model: the moving average where the checkpoint has one.

    Raises CheckpointError listing the first differences of names, shapes and types.
    """
    averaged = any(name.startswith("ema/") for name in tensors)
    load_weights(model, tensors, "ema/" if averaged else "model/", path)


def load_weights(model: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
    """Put the tensors under `prefix` into a model of the same names, shapes and types.

    Raises CheckpointError listing the first differences.
    """
    import torch

    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    expected = model.state_dict()
    differences = [f"{name} is missing" for name in expected if name not in weights]
    differences += [f"{name} is not in the model" for name in weights if name not in expected]
    for name in expected.keys() & weights.keys():
        ours, theirs = expected[name], weights[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            differences.append(
                f"{name} is {tuple(theirs.shape)} {theirs.dtype} there and {tuple(ours.shape)} {ours.dtype} here"
            )
    for name, first in repeated(expected).items():
        if {name, first} <= weights.keys() and not torch.equal(weights[name], weights[first]):
            differences.append(f"{name} is another tensor than {first} there and the same here")
    if differences:
        more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
        raise CheckpointError(f"'{path}' does not fit this model: {'; '.join(sorted(differences)[:3])}{more}")
    model.load_state_dict(weights)
