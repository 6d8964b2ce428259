"""Section 2c: numerics and device."""

from __future__ import annotations

from fault_table import FAST, NPZ, Fault, arrays

LOOP = "tests/test_loop.py"
LINEAR = f"train {FAST} model=linear"

# Torch has no deterministic implementation of unpooling, on any device.
UNPOOL = """
from math import prod
from torch import nn
from trainkit.registry import register

class Unpool(nn.Module):
    def __init__(self, features, num_outputs):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.out = nn.Linear(features, num_outputs)

    def forward(self, x):
        return self.out(self.unpool(*self.pool(x)).flatten(1))

@register("model")
def unpool(in_shape, num_outputs):
    return Unpool(prod(in_shape), num_outputs)
"""

ROWS = [
    Fault(
        38,
        "a loss that is not finite",
        f"{LINEAR} optim.lr=1e38",
        5,
        "not finite|loss is (nan|inf)",
        proof=(f"{LOOP}::test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved",),
    ),
    Fault(39, "exploding gradients", proof=(f"{LOOP}::test_clip_bounds_the_first_update",)),
    Fault(  # no label is ignored: negative ones are refused when the data is read
        40,
        "all labels ignored",
        NPZ,
        3,
        "row 0 is -100; classes count from 0",
        arrays(y=[-100] * 20),
    ),
    Fault(
        41,
        "a loss scale that has fallen to 0",
        f"{LINEAR} precision=fp16",
        2,
        "precision=fp16",
        skip="that a scale which falls too far ends the run needs a GPU",
    ),
    Fault(
        42,
        "not a number as first monitored value",
        proof=(f"{LOOP}::test_monitor_breaks_ties_by_loss_and_never_takes_nan",),
    ),
    Fault(43, "no CUDA device", proof=("tests/e2e/test_bad_input.py::test_cuda_without_one",)),
    Fault(
        44,
        "a device that there is not",
        "train device=cpu:1 epochs=0",
        2,
        ("device=cpu:1: the CPU has no index; use device=cpu", "epochs: expected an integer >= 1"),
        proof=("tests/e2e/test_bad_input.py::test_refused_before_anything_starts[x-gpu]",),
    ),
    Fault(
        45,
        "cuDNN flags on the CPU",
        f"{LINEAR} device.cudnn.benchmark=true",
        0,
        "note: the flags of device.cudnn have no effect on the CPU",
    ),
    Fault(46, "out of memory on the GPU", skip="needs a GPU; its message is that of row 47"),
    Fault(
        47,
        "out of memory on the host",
        proof=(
            "tests/e2e/test_bad_input.py::test_refused_when_data_and_model_are_known[r47-memory]",
            "tests/faults/test_processes.py::test_too_little_memory_to_import_torch",
        ),
    ),
    Fault(
        48,
        "an operation that has no deterministic form",
        f"train {FAST} plugins=[unpooling] model=unpool device.deterministic=true",
        2,
        "device.deterministic=true: max_unpooling2d_\\w+ has no deterministic implementation here",
        {"unpooling.py": UNPOOL, "conf/model/unpool.yaml": "name: unpool\n"},
    ),
    Fault(
        49,
        "not a number in JSON",
        proof=(
            "tests/test_storage.py::test_replace_json_refuses_what_json_cannot_hold",
            "tests/faults/test_faults.py::test_row_49_json_has_null_for_what_is_not_finite",
        ),
    ),
]
