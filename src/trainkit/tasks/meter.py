"""The sums of one pass over a split: the mean loss, and what the task measures.

Sums are kept on the device, so adding a batch never waits for it; only reading does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainkit.tasks.base import LOSS, Metric, Numbers, Sum

Metrics = dict[str, float]
Terms = Tensor | dict[str, Tensor]  # a mean loss, 0-dim; or its named terms, whose sum is minimized
MOST_KEPT = 20_000_000  # numbers of one name that are kept of a pass
TERM = "term/"  # before the name of the sum of a term


class Meter:
    """The sums of a pass; those of two passes over parts of a split add up to those of one over both.

    measured: what is measured beside the loss, and read in this order.
    """

    def __init__(self, measured: Sequence[Sum], device: torch.device | str) -> None:
        self.measured = list(measured)
        self.device = torch.device(device)
        self.real = torch.float32 if self.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.num_samples = 0
        self.weight = 0.0  # of the batches whose weight the host knows; of the others it is a sum on the device
        self._sums: dict[str, Tensor] = {}
        self._kept: dict[str, list[Tensor] | None] = {}  # of every batch; None: it was too much
        for one in self.measured:
            self._sums |= one.zeros(self.device, self.real)
            self._kept |= {name: [] for name in one.kept}
        self._sizes = dict.fromkeys(self._kept, 0)
        self._sum("loss")

    def _sum(self, name: str) -> Tensor:
        """A sum of real numbers, made when it is first needed."""
        if name not in self._sums:
            self._sums[name] = torch.zeros((), dtype=self.real, device=self.device)
        return self._sums[name]

    @torch.no_grad()
    def add(
        self,
        loss: Terms,
        outputs: Tensor,
        targets: Any,
        *,
        weight: float | Tensor,
        count: int,
        counted: Tensor | None = None,
    ) -> None:
        """Count a batch; leave it out where `counted`, a 0-dim bool on the device, says so without being waited for.

        loss: its mean. outputs, targets: as the sums take them. weight: how much the mean counts, as the loss says.
        count: samples.
        """
        self.num_samples += count
        before = None if counted is None else {name: total.clone() for name, total in self._sums.items()}
        if isinstance(loss, dict):
            for name, value in loss.items():
                self._add_mean(self._sum(TERM + name), value, weight)
            loss = sum_terms(loss)
        self._add_mean(self._sums["loss"], loss, weight)
        if isinstance(weight, Tensor) or counted is not None:  # it may have to be taken back
            self._sum("weight").add_(weight)
        else:
            self.weight += weight
        for one in self.measured:
            one.add(self._sums, outputs, targets)
            for name, values in one.keep(outputs, targets).items():
                self._keep(name, values if counted is None else torch.where(counted, values, -1))
        if counted is not None and before is not None:
            for name, total in self._sums.items():
                total.copy_(torch.where(counted, total, before.get(name, 0)))
            self._sum("left_out").add_(~counted, alpha=count)

    def _keep(self, name: str, values: Tensor) -> None:
        parts = self._kept[name]
        if parts is not None and (size := self._sizes[name] + values.numel()) <= MOST_KEPT:
            self._sizes[name] = size
            parts.append(values.clone())  # what a compiled model returns is overwritten by its next call
        else:
            self._kept[name] = None

    def _add_mean(self, total: Tensor, mean: Tensor, weight: float | Tensor) -> None:
        if isinstance(weight, Tensor):
            # the mean over samples that all weigh nothing is 0 / 0, and counts nothing
            total.add_(torch.where(weight > 0, mean * weight, 0))
        elif weight:
            total.add_(mean, alpha=weight)

    @property
    def metrics(self) -> list[Metric]:
        """What `read` gives, in its order."""
        terms = [Metric(name.removeprefix(TERM), "min") for name in self._sums if name.startswith(TERM)]
        return [LOSS, *terms, *(metric for one in self.measured for metric in one.metrics)]

    def state(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """All that `restore` needs: the sums, by name, on the device, and what the host has counted."""
        return self._sums | self._joined(), {"samples": self.num_samples, "weight": self.weight}

    def restore(self, sums: dict[str, Tensor], counts: dict[str, float]) -> None:
        """Go on from the state of another meter of the same kind."""
        for name, total in sums.items():
            if name in self._kept:
                self._kept[name] = []
                self._keep(name, total.to(self.device))
            elif name in self._sums:
                self._sums[name].copy_(total)
            else:
                self._sums[name] = total.to(self.device)
        self.num_samples, self.weight = int(counts["samples"]), float(counts["weight"])

    def _joined(self) -> dict[str, Tensor]:
        """What was kept of all samples, in the order of the batches."""
        return {name: torch.cat(parts) if parts else torch.empty(0) for name, parts in self._kept.items()}

    def totals(self) -> Numbers:
        """The sums, and what was kept, on the host; waits for the device."""
        return {name: total.cpu().numpy() for name, total in (self._sums | self._joined()).items()}

    def read(self) -> Metrics:
        """The metrics of all samples so far; waits for the device. Raises ValueError before the first sample.

        Not-a-number where nothing counted: all steps of an epoch were left out, or no sample weighs anything.
        """
        if self.num_samples == 0:
            raise ValueError("a meter was read before any sample was added")
        totals = self.totals()
        counted = self.num_samples - int(totals.get("left_out", 0))
        if counted == 0:
            return dict.fromkeys((metric.name for metric in self.metrics), float("nan"))
        weight = self.weight + float(totals.get("weight", 0.0))
        means = {name.removeprefix(TERM): float(total) for name, total in totals.items() if name.startswith(TERM)}
        means = {
            name: total / weight if weight else float("nan")
            for name, total in [("loss", float(totals["loss"])), *means.items()]
        }
        for one in self.measured:
            means |= one.read(totals, counted)
        return means


def sum_terms(loss: Terms) -> Tensor:
    """The number that is minimized."""
    return loss if isinstance(loss, Tensor) else torch.stack(list(loss.values())).sum()
