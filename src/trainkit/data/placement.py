"""Where the samples of a run live: on the device (resident), or apart from it, brought a batch at a time (streaming).

`loader=auto` keeps samples where they take at most half of what is free: decoded in the host's memory, and then on
the device. The other half is for the model, its activations, and the copy that a split into train and val makes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from trainkit.data.dataset import Data, Loading, Source
from trainkit.data.mapped import Mapped
from trainkit.data.spec import INPUT, named
from trainkit.errors import ConfigError, ResourceError
from trainkit.machine import free_host_memory, num_cpus

if TYPE_CHECKING:
    import torch

SHARE = 0.5  # of the free memory that the samples may take
_GB = 1e9


@dataclasses.dataclass(frozen=True)
class _Fit:
    """Whether so many bytes are to be kept in a memory, and in which words."""

    keep: bool
    why: str


def place(
    found: Data | Source, loader: Literal["auto", "resident", "streaming"], workers: int | None, device: torch.device
) -> Data:
    """The data set, read as `loader` says, with `data.loading` and a note that says so.

    workers: processes that decode; None chooses. Raises ResourceError when resident samples cannot fit.
    """
    fit = _Fit(True, "")
    if isinstance(found, Data) and any(isinstance(split, Mapped) for split in found.splits.values()):
        return _mapped(found, loader, default_workers(device) if workers is None else workers)
    if not isinstance(found, Data):
        fit = _fit(found.nbytes, free_host_memory(), "memory", loader)
        if not fit.keep:
            count = default_workers(device) if workers is None else workers
            return _done(found.streamed(count), Loading("streaming", f"{fit.why}; {_by(count)}", count))
        data = found.decoded(workers)
    else:
        data = found
    nbytes = sum(column.nbytes for split in data.splits.values() for column in named(split.inputs, INPUT).values())
    free = free_device_memory(device)
    if free is None and isinstance(found, Data) and loader == "auto":  # in memory already: there was nothing to decide
        data.loading = Loading("resident", f"{_gb(nbytes)} of samples in memory")
        return data
    fit = _fit(nbytes, free, f"memory on {device}", loader) if free is not None else _on_host(nbytes, loader)
    if fit.keep:
        return _done(data, Loading("resident", fit.why))
    return _done(data, Loading("streaming", f"{fit.why}; batches are copied from the host's memory"))


def _mapped(data: Data, loader: str, workers: int) -> Data:
    if loader == "resident":
        raise ConfigError("loader=resident: the data set is read while training; leave loader=auto")
    for split in data.splits.values():
        if isinstance(split, Mapped):
            split.workers = workers
    by = f"{workers} worker{'s' if workers > 1 else ''}" if workers else "no worker of its own (workers=0)"
    return _done(data, Loading("streaming", f"a torch Dataset, read by {by}", workers))


def _done(data: Data, loading: Loading) -> Data:
    data.loading = loading
    data.notes.append(f"loader {loading.kind}: {loading.why}")
    return data


def _by(workers: int) -> str:
    return (
        f"{workers} worker{'s' if workers > 1 else ''} decode" if workers else "decoded between the steps (workers=0)"
    )


def _fit(nbytes: int, free: int, where: str, loader: str) -> _Fit:
    facts = f"{_gb(nbytes)} of samples, {_gb(free)} of {where} free"
    if loader == "resident" and nbytes > free:
        raise ResourceError(f"loader=resident: {facts}; use loader=streaming or smaller samples")
    if loader != "auto":
        return _Fit(loader == "resident", f"as asked; {facts}")
    return _Fit(nbytes <= SHARE * free, facts)


def _on_host(nbytes: int, loader: str) -> _Fit:
    # Without a device of its own memory there is nowhere else for samples that are in memory already.
    facts = f"{_gb(nbytes)} of samples in memory"
    return _Fit(loader != "streaming", facts if loader == "auto" else f"as asked; {facts}")


def _gb(nbytes: float) -> str:
    return f"{nbytes / _GB:.1f} GB" if nbytes >= _GB / 10 else f"{nbytes / 1e6:.1f} MB"


def default_workers(device: torch.device) -> int:
    """Processes that decode while the model trains: on the CPU half of the processors, which the model needs too."""
    return max(1, num_cpus() // 2) if device.type == "cpu" else min(16, num_cpus())


def free_device_memory(device: torch.device) -> int | None:
    """Free bytes of the device's own memory; None where it has none."""
    if device.type != "cuda":
        return None
    import torch

    return int(torch.cuda.mem_get_info(device)[0])
