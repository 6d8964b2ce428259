"""Optimizers: defaults are torch's, settings arrive, and a run saved and restored in the middle goes on bit for bit."""

from __future__ import annotations

import inspect
import io
from typing import Any

import pytest
import torch
from torch import nn

from trainkit import registry
from trainkit.errors import ConfigError
from trainkit.models.cnn import cnn
from trainkit.models.linear import linear

TORCH = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "lbfgs": torch.optim.LBFGS,
    "muon": torch.optim.Muon,
}
TORCH_NAMES = {"line_search": "line_search_fn", "adjust_lr": "adjust_lr_fn"}
HOUSE_DEFAULTS = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "bias_lr": 1.0},
    "muon": {"lr": 0.02, "weight_decay": 0.01},
}
# For every optimizer, settings away from the defaults, so that each state tensor takes part.
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "momentum": 0.8, "dampening": 0.1, "weight_decay": 0.01},
    "adam": {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.01, "amsgrad": True},
    "adamw": {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True},
    "adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-8, "weight_decay": 0.01, "lr": 0.02},
    "rmsprop": {"lr": 0.001, "alpha": 0.9, "eps": 1e-6, "momentum": 0.5, "centered": True, "weight_decay": 0.01},
    "adadelta": {"lr": 0.9, "rho": 0.8, "eps": 1e-5, "weight_decay": 0.01},
    "nadam": {
        "lr": 0.003,
        "betas": [0.8, 0.99],
        "eps": 1e-6,
        "momentum_decay": 0.01,
        "weight_decay": 0.1,
        "decoupled_weight_decay": True,
    },
    "radam": {
        "lr": 0.01,
        "betas": [0.8, 0.9],
        "eps": 1e-6,
        "weight_decay": 0.1,
        "decoupled_weight_decay": True,
    },
    "adamax": {"lr": 0.01, "betas": [0.8, 0.99], "eps": 1e-6, "weight_decay": 0.01},
    "lbfgs": {
        "lr": 0.5,
        "max_iter": 4,
        "max_eval": 9,
        "tolerance_grad": 1e-9,
        "tolerance_change": 1e-12,
        "history_size": 3,
        "line_search": "strong_wolfe",
    },
}
MUON = {"lr": 0.03, "momentum": 0.9, "nesterov": False, "weight_decay": 0.1, "ns_steps": 4}
ADAMW = {"lr": 1e-3, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 0.2}
SETTINGS["muon"] = {**MUON, "adjust_lr": "match_rms_adamw", **{f"adamw_{key}": value for key, value in ADAMW.items()}}


def new_model() -> nn.Sequential:
    torch.manual_seed(0)
    return cnn((1, 8, 8), 3, channels=[4, 6], norm="batch", hidden=10)


def build(name: str, model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    return registry.get("optim", name).build(list(model.named_parameters()), **settings)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 1, 8, 8, generator=generator)
        labels = torch.randint(3, (8,), generator=generator)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)  # noqa: B023
            loss.backward()
            return loss

        optimizer.step(closure)


def assert_equal_weights(model: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
        assert a.isfinite().all()


FUSED = ("sgd", "adam", "adamw", "adagrad")


def test_every_optimizer_is_tested() -> None:
    assert registry.names("optim") == sorted(TORCH) == sorted(SETTINGS)


@pytest.mark.parametrize("name", TORCH)
def test_defaults_are_torchs(name: str) -> None:
    parameters = inspect.signature(TORCH[name]).parameters
    for key, field in registry.get("optim", name).schema.items():
        if key.startswith("adamw_"):
            continue
        house = HOUSE_DEFAULTS.get(name, {})
        expected = house[key] if key in house else parameters[TORCH_NAMES.get(key, key)].default
        if isinstance(expected, tuple):
            expected = list(expected)
        if expected is None and key in TORCH_NAMES:
            expected = {"line_search": "none", "adjust_lr": "original"}[key]
        assert field.default == expected, key


@pytest.mark.parametrize("name", [name for name in TORCH if name != "muon"])
def test_steps_are_torchs_with_all_settings(name: str) -> None:
    assert set(SETTINGS[name]) >= set(registry.get("optim", name).schema) - {"nesterov", "bias_lr"}
    ours, theirs = new_model(), new_model()
    settings = {TORCH_NAMES.get(key, key): value for key, value in SETTINGS[name].items()}
    if name in FUSED:
        settings["fused"] = True
    train(ours, build(name, ours, **SETTINGS[name]), range(3))
    train(theirs, TORCH[name](theirs.parameters(), **settings), range(3))
    assert_equal_weights(ours, theirs)


def test_sgd_trains_biases_at_their_own_lr_with_the_decay_of_the_rest() -> None:
    ours, theirs = new_model(), new_model()
    train(ours, build("sgd", ours, lr=0.1, weight_decay=0.01, bias_lr=4.0), range(3))
    biases = [p for name, p in theirs.named_parameters() if name.endswith(".bias")]
    rest = [p for name, p in theirs.named_parameters() if not name.endswith(".bias")]
    assert len(biases) == 6
    groups = [{"params": rest}, {"params": biases, "lr": 0.4, "weight_decay": 0.0025}]
    train(theirs, torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01, fused=True), range(3))
    assert_equal_weights(ours, theirs)


def test_sgd_nesterov_and_lbfgs_without_line_search() -> None:
    for name, ours_only, theirs_only in [
        ("sgd", {"lr": 0.1, "nesterov": True}, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "fused": True}),
        ("lbfgs", {"lr": 0.1, "line_search": "none"}, {"lr": 0.1, "line_search_fn": None}),
    ]:
        ours, theirs = new_model(), new_model()
        train(ours, build(name, ours, **ours_only), range(2))
        train(theirs, TORCH[name](theirs.parameters(), **theirs_only), range(2))
        assert_equal_weights(ours, theirs)


@pytest.mark.parametrize("name", TORCH)
def test_names_reach_the_groups(name: str) -> None:
    model = new_model()
    names = {
        param: param_name
        for group in build(name, model).param_groups
        for param_name, param in zip(group["param_names"], group["params"], strict=True)
    }
    assert {param_name: param for param, param_name in names.items()} == dict(model.named_parameters())


@pytest.mark.parametrize("name", TORCH)
def test_restored_state_goes_on_bit_for_bit(name: str) -> None:
    straight = new_model()
    train(straight, build(name, straight, **SETTINGS[name]), range(6))

    first = new_model()
    optimizer = build(name, first, **SETTINGS[name])
    train(first, optimizer, range(3))
    saved = io.BytesIO()
    state = {key: dict(optimizer.state[p]) for key, p in first.named_parameters() if p in optimizer.state}
    torch.save({"model": first.state_dict(), "optim": state}, saved)

    saved.seek(0)
    loaded = torch.load(saved, weights_only=True)
    second = new_model()
    second.load_state_dict(loaded["model"])
    optimizer = build(name, second, **SETTINGS[name])
    for key, param in second.named_parameters():
        if key in loaded["optim"]:
            optimizer.state[param] = loaded["optim"][key]
    train(second, optimizer, range(3, 6))
    assert_equal_weights(second, straight)


@pytest.mark.parametrize("name", [name for name in TORCH if name != "lbfgs"])
def test_state_is_tensors_and_numbers_of_every_parameter(name: str) -> None:
    model = new_model()
    optimizer = build(name, model)
    train(model, optimizer, range(1))
    assert set(optimizer.state) == set(model.parameters())
    for state in optimizer.state.values():
        assert state
        assert all(isinstance(value, (torch.Tensor, int, float)) for value in state.values())


@pytest.mark.parametrize("name", TORCH)
def test_the_lr_of_a_group_takes_effect(name: str) -> None:
    model, still = new_model(), new_model()
    # A line search divides by the step it tries, so it cannot be shown standing still.
    settings = SETTINGS[name] | ({"line_search": "none"} if name == "lbfgs" else {})
    optimizer = build(name, model, **settings)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(model, optimizer, range(2))
    for (key, a), b in zip(model.named_parameters(), still.parameters(), strict=True):
        assert torch.equal(a, b), key
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    train(model, optimizer, range(1))
    for (key, a), b in zip(model.named_parameters(), still.parameters(), strict=True):
        assert a.ndim == 1 or not torch.equal(a, b), key  # a bias before batch norm has no gradient but rounding


def test_muon_is_torchs_muon_on_hidden_matrices_and_adamw_on_the_rest() -> None:
    ours, theirs = new_model(), new_model()
    optimizer = build("muon", ours, **SETTINGS["muon"])
    params = dict(theirs.named_parameters())
    hidden = ["0.weight", "4.weight", "9.weight"]
    assert optimizer.param_groups[0]["param_names"] == hidden
    # Views of the kernels as matrices, made and stepped by hand.
    matrices = {name: params[name].detach().view(len(params[name]), -1) for name in hidden}
    muon = torch.optim.Muon(matrices.values(), **MUON, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([p for name, p in params.items() if name not in hidden], **ADAMW)

    class Both:
        def zero_grad(self) -> None:
            theirs.zero_grad()

        def step(self, closure) -> None:
            closure()
            for name, matrix in matrices.items():
                matrix.grad = params[name].grad.view_as(matrix)
            muon.step()
            adamw.step()

    train(ours, optimizer, range(4))
    train(theirs, Both(), range(4))
    assert_equal_weights(ours, theirs)


def test_muon_steps_channels_last_kernels() -> None:
    plain, permuted = new_model(), new_model().to(memory_format=torch.channels_last)
    assert not permuted[4].weight.is_contiguous()
    for model in (plain, permuted):
        optimizer = build("muon", model)
        for param in model.parameters():
            generator = torch.Generator().manual_seed(3)
            param.grad = torch.randn(param.shape, generator=generator)
        optimizer.step()
    assert_equal_weights(plain, permuted)
    assert not torch.equal(plain[4].weight, new_model()[4].weight)


def test_muon_torch_state_dict_restores_too() -> None:
    straight, resumed = new_model(), new_model()
    train(straight, build("muon", straight), range(4))
    optimizer = build("muon", resumed)
    train(resumed, optimizer, range(2))
    fresh = build("muon", resumed)
    fresh.load_state_dict(optimizer.state_dict())
    train(resumed, fresh, range(2, 4))
    assert_equal_weights(straight, resumed)


def test_muon_without_hidden_weights_is_adamw() -> None:
    model, other = linear((4,), 2), linear((4,), 2)
    other.load_state_dict(model.state_dict())
    optimizer = build("muon", model)
    theirs = torch.optim.AdamW(other.parameters(), lr=3e-4, betas=(0.9, 0.95))
    assert len(optimizer.param_groups) == 1
    for net, opt in ((model, optimizer), (other, theirs)):
        net(torch.ones(1, 4)).sum().backward()
        opt.step()
    assert_equal_weights(model, other)


def test_muon_skips_parameters_without_gradient() -> None:
    model = new_model()
    model[4].weight.requires_grad_(False)
    before = model[4].weight.clone()
    train(model, build("muon", model), range(2))
    assert torch.equal(model[4].weight, before)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("adam", {"betas": [0.9]}, "optim.betas: expected 2 numbers, as in [0.9, 0.999], got 1"),
        ("muon", {"adamw_betas": [0.9] * 3}, "optim.adamw_betas: expected 2 numbers, as in [0.9, 0.999], got 3"),
        (
            "sgd",
            {"nesterov": True, "momentum": 0.0},
            "optim.nesterov=true needs optim.momentum > 0 and optim.dampening=0",
        ),
        (
            "sgd",
            {"nesterov": True, "dampening": 0.5},
            "optim.nesterov=true needs optim.momentum > 0 and optim.dampening=0",
        ),
    ],
)
def test_errors(name: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(name, new_model(), **settings)
    assert str(error.value) == text
