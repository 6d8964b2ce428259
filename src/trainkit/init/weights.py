"""Weights out of a file, with what is known of them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import storage
from trainkit.checkpoints import checkpoint
from trainkit.data.spec import DataSpec
from trainkit.errors import ConfigError, DataError, first_line

if TYPE_CHECKING:
    from torch import Tensor

    from trainkit.models._published import Published

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "net")  # where others' files keep the weights
PREFIXES = ("module.", "_orig_mod.", "model.")  # that wrappers of a model have put before its names


@dataclasses.dataclass(frozen=True)
class Weights:
    """tensors: by name, on the CPU. source: the path. sha256, nbytes: of the file.

    spec: of the data of a trainkit run. mean, std: of the input, per channel; None: not known. head: the name of the
    module that gives the outputs, where a library knows it. extra: patterns of tensors that need no place in the model.
    allow: patterns of names that may stay new or unused.
    """

    tensors: dict[str, Tensor]
    source: str
    sha256: str
    nbytes: int
    spec: DataSpec | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    head: str | None = None
    extra: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def checked(
        self,
        published: Published | None,
        allow: list[str],
        mean: list[float] | None,
        std: list[float] | None,
        sha256: str | None,
    ) -> Weights:
        """With what the config and the model's library say.

        Raises DataError when the file is not the one of that digest, ConfigError for a mean without a std.
        """
        if sha256 is not None and sha256 != self.sha256:
            raise DataError(f"{self.source}: its SHA-256 is {self.sha256}, but {sha256} was asked for (init.sha256)")
        if (mean is None) != (std is None):
            raise ConfigError("init.mean and init.std belong together: give both, or none")
        found = dataclasses.replace(self, allow=tuple(allow))
        if published is not None:
            found = dataclasses.replace(found, head=published.head, extra=published.extra)
        if mean is not None:
            return dataclasses.replace(found, mean=mean, std=std)
        if published is not None and found.spec is None:
            return dataclasses.replace(found, mean=published.mean, std=published.std)
        return found


def read_run(folder: Path) -> Weights:
    """The weights of a run's best epoch, else of its last checkpoint. Raises CheckpointError."""
    return _of_checkpoint(checkpoint.locate(folder))


def read_file(path: Path) -> Weights:
    """The weights of a file. Raises DataError for one that is missing, damaged, or holds something else."""
    try:
        with storage.open_regular(path) as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"init: {path} cannot be read ({error.strerror})") from error
    if _is_safetensors(content):
        return _of_safetensors(path, content)
    return Weights(_plain_tensors(path, content), str(path), hashlib.sha256(content).hexdigest(), len(content))


def _is_safetensors(content: bytes) -> bool:
    if len(content) < 9:
        return False
    (size,) = struct.unpack("<Q", content[:8])
    return bool(content[8:9] == b"{" and size < checkpoint.MAX_HEADER)


def _of_safetensors(path: Path, content: bytes) -> Weights:
    import safetensors.torch

    if b'"trainkit"' in content[: 8 + struct.unpack("<Q", content[:8])[0]]:
        return _of_checkpoint(path)
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # the library has no class of its own for a damaged file
        raise DataError(f"init: {path} is not a whole safetensors file ({first_line(error)})") from error
    return Weights(tensors, str(path), hashlib.sha256(content).hexdigest(), len(content))


def _of_checkpoint(path: Path) -> Weights:
    tensors, header = checkpoint.load(path)
    prefix = "ema/" if any(name.startswith("ema/") for name in tensors) else "model/"
    named = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    spec = DataSpec.from_json(header.get("spec"), path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = Weights(named, str(path), digest, storage.size(path), spec)
    return dataclasses.replace(found, mean=spec.input.mean, std=spec.input.std) if spec.input.normalize else found


def _plain_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file that torch.save has written. Raises DataError where it holds anything but data."""
    import torch

    try:
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile's, pickle's, RuntimeError, EOFError …, each for another kind of damage
        reason = str(error).replace("\n", " ")
        if "Unsupported" in reason or "GLOBAL" in reason or "weights_only" in reason.lower():
            raise DataError(
                f"init: {path} holds more than tensors, which could run code when it is opened: it was not; "
                "save its state_dict() as .safetensors, or by torch.save"
            ) from error
        raise DataError(
            f"init: {path} is no file of weights, or not a whole one ({first_line(error)[:120]})"
        ) from error
    while isinstance(found, dict) and (
        inner := next((key for key in WRAPPERS if isinstance(found.get(key), dict)), "")
    ):
        found = found[inner]
    tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)} if isinstance(found, dict) else {}
    if not tensors:
        raise DataError(f"init: {path} holds no tensors by name")
    return tensors
