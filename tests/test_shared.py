"""Models whose parameters share memory: saved once, restored shared, averaged and counted once, fit for all verbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from torch import nn

import shared_models
from trainkit.checkpoints import checkpoint
from trainkit.errors import CheckpointError
from trainkit.training.ema import Ema
from writers import image, packed

if TYPE_CHECKING:
    from conftest import CommandHere

HEADER = {"config": {}, "progress": {"epoch": 1, "step": 1}, "spec": {}}


def stored(model: nn.Module, file: Path) -> dict[str, torch.Tensor]:
    """The model's tensors through a checkpoint file."""
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    file.write_bytes(packed(tensors, HEADER))
    return checkpoint.load(file)[0]


@pytest.mark.parametrize("name", shared_models.NAMES)
def test_it_is_saved_once_and_restored_shared(name: str, tmp_path: Path) -> None:
    model = shared_models.build(name)
    found = stored(model, tmp_path / "file")
    assert found["model/5.weight"] is found["model/3.weight"]
    assert checkpoint.read_header(tmp_path / "file")["shared"] == {"model/5.weight": "model/3.weight"}
    with safe_open(tmp_path / "file", "pt") as file:
        names = set(file.keys())
    assert names == {f"model/{name}" for name in model.state_dict()} - {"model/5.weight"}
    other = shared_models.build(name)
    checkpoint.load_model(other, found, tmp_path)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in other.state_dict().items())
    assert other[5].weight.data_ptr() == other[3].weight.data_ptr()


def test_what_shares_nothing_says_nothing_of_it(tmp_path: Path) -> None:
    stored(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), tmp_path / "file")
    assert "shared" not in checkpoint.read_header(tmp_path / "file")


def test_two_matrices_do_not_fit_where_there_is_one(tmp_path: Path) -> None:
    free = shared_models.build("tied")
    free[5].weight = nn.Parameter(free[5].weight.detach() + 1)
    found = stored(free, tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"5\.weight is another tensor than 3\.weight there and the same here"):
        checkpoint.load_model(shared_models.build("tied"), found, tmp_path)


def test_a_header_that_shares_what_is_not_there_is_damaged(tmp_path: Path) -> None:
    for shared in ({"model/b": "model/c"}, ["model/a"], {"model/b": []}):
        (tmp_path / "file").write_bytes(packed({"model/a": torch.zeros(2)}, {**HEADER, "shared": shared}))
        with pytest.raises(CheckpointError, match="is damaged: it does not say which tensors are shared"):
            checkpoint.load(tmp_path / "file")


def test_optimizer_state_that_is_shared_is_restored_shared(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    ours, other = model[0].weight, model[1].weight
    optimizer.state[other]["exp_avg"] = optimizer.state[ours]["exp_avg"]
    tensors, state = checkpoint.optimizer_state(model, optimizer)
    (tmp_path / "file").write_bytes(packed(tensors, HEADER))
    restored = torch.optim.Adam(model.parameters())
    checkpoint.load_optimizer(model, restored, checkpoint.load(tmp_path / "file")[0], state, tmp_path)
    assert restored.state[other]["exp_avg"] is restored.state[ours]["exp_avg"]
    assert torch.equal(restored.state[ours]["exp_avg"], optimizer.state[ours]["exp_avg"])


@pytest.mark.parametrize("name", shared_models.NAMES)
def test_the_average_of_a_shared_matrix_moves_once_in_a_step(name: str) -> None:
    model = shared_models.build(name)
    model.register_buffer("kept", torch.zeros(3))
    model.register_buffer("again", model.kept)
    ema = Ema(model, 0.5)
    started = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        for value in (*model.parameters(), model.kept):
            value.add_(torch.ones_like(value))
    ema.update(1000)
    for key, value in ema.model.state_dict().items():
        expected = (started[key].double() + model.state_dict()[key].double()) / 2
        assert torch.allclose(value.double(), expected, rtol=0, atol=1e-6), key


WORDS = ["plugins=[shared_plugin]", "device=cpu", "device.threads=1"]


@pytest.mark.slow
@pytest.mark.parametrize("name", shared_models.NAMES)
def test_every_verb_works_with_it(name: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    shared_models.lay_out(tmp_path)
    train = ["train", f"model={name}", "epochs=2", "optim=adam", "ema=0.9", *WORDS]
    done = trainkit_here(*train)
    assert done.code == 0, done.err
    (run,) = tmp_path.glob("outputs/train/*")
    tensors, header = checkpoint.load(checkpoint.locate(run))
    once = {"tied": ["model/", "ema/"], "viewed": ["model/"]}[name]  # the average has a copy of each parameter
    assert header["shared"] == {f"{prefix}5.weight": f"{prefix}3.weight" for prefix in once}
    assert ("5.weight" in header["optim"]) == (name == "viewed")
    assert torch.equal(tensors["ema/5.weight"], tensors["ema/3.weight"])
    expected = json.loads((run / "status.json").read_text())["result"]["metrics"]["test"]
    done = trainkit_here("eval", f"ckpt={run}", "--json", *WORDS)
    assert {key: json.loads(done.out)["metrics"]["test"][key] for key in expected} == expected, done.err
    (tmp_path / "a.png").write_bytes(image(mode="L"))
    assert trainkit_here("predict", f"ckpt={run}", "input=a.png", *WORDS).out.count("\n") == 2
    for file in ("m.onnx", "m.pt2", "m.safetensors"):
        done = trainkit_here("export", f"ckpt={run}", f"output={file}", WORDS[0])
        assert done.code == 0 and "checked with 64 test samples" in done.out, done.err
    done = trainkit_here("resume", str(run), "epochs=+1", WORDS[0])
    assert done.code == 0 and ": bit-exact" in done.out, done.err
    assert trainkit_here("reproduce", str(run), WORDS[0]).code == 0


def test_plan_counts_it_once(trainkit_here: CommandHere, tmp_path: Path) -> None:
    shared_models.lay_out(tmp_path)
    done = trainkit_here("plan", "model=tied", "optim=adam", "ema=0.9", "--json", *WORDS)
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    parameters = 64 * 16 + 16 + 2 * 16 + 16 * 16 + 16 * 10 + 10
    assert facts["model"]["parameters"] == parameters
    assert sum(layer["parameters"] for layer in facts["model"]["layers"]) == parameters
    weights = 4 * (parameters + 2 * 16) + 8  # the running statistics, and how many batches they are of
    assert facts["memory"]["weights"] == facts["memory"]["average"] == weights
    assert facts["memory"]["gradients"] == 4 * parameters
    assert facts["memory"]["optimizer"] == 2 * 4 * parameters + 4 * 7


def test_views_of_other_types_and_turned_ones_are_no_repetition() -> None:
    base = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    views = {"a": base, "b": base.view(torch.int32), "c": base.t(), "d": base[:1], "e": base.reshape(3, 2), "f": base}
    assert checkpoint.repeated(views) == {"f": "a"}
    assert checkpoint.repeated({"a": torch.zeros(0), "b": torch.zeros(0)}) == {}


def test_an_error_that_begins_with_an_empty_line_is_not_empty(trainkit_here: CommandHere, tmp_path: Path) -> None:
    shared_models.lay_out(tmp_path)
    wrong = "    raise RuntimeError('\\n\\n  what is wrong\\nand more')\n    model = Shared"
    plugin = tmp_path / "shared_plugin.py"
    plugin.write_text(plugin.read_text().replace("    model = Shared", wrong))
    done = trainkit_here("train", "model=tied", *WORDS)
    assert done.code == 1 and done.err.startswith("trainkit: error: internal error: RuntimeError: what is wrong (trace")
