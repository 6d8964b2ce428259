"""Parameter groups by pattern, what is frozen and when, and that training goes by it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from trainkit.checkpoints import checkpoint
from trainkit.errors import ConfigError
from trainkit.models.torchvision_models import torchvision
from trainkit.optim.builders import adamw, muon, sgd
from trainkit.optim.finetune import Finetune, Frozen, blocks_of, groups, regroup, rules_of

if TYPE_CHECKING:
    from conftest import CommandHere

FAST = ["device=cpu", "device.threads=1", "batch_size=256", "plots=false"]
NET = ["model=cnn", "model.channels=[4,8]", "model.hidden=16", "model.norm=batch", "model.dropout=0.3"]


def resnet() -> nn.Module:
    with torch.device("meta"):
        return torchvision((3, 64, 64), 5, arch="resnet18")


def tuning(**options: object) -> Finetune:
    return groups(**options)  # type: ignore[arg-type]


def test_blocks_are_those_a_person_would_name() -> None:
    stages = [f"layer{stage}{block}" for stage in range(1, 5) for block in ("", ".0", ".1")]
    assert [name for name in blocks_of(resnet()) if name.count(".") <= 1 and "layer4.1." not in name] == [
        "",
        "conv1",
        "bn1",
        *stages,
        "fc",
    ]
    with torch.device("meta"):
        vit = torchvision((3, 224, 224), 5, arch="vit_b_16")
    found = blocks_of(vit)
    assert found.index("conv_proj") < found.index("encoder.layers.encoder_layer_0") < found.index("heads.head")


def test_lr_falls_from_the_head_to_the_input() -> None:
    rules = rules_of(resnet(), tuning(layer_decay=0.5), "fc")
    shown = [rules[name].lr for name in ("fc.weight", "layer4.1.conv1.weight", "layer4.0.conv1.weight", "conv1.weight")]
    assert shown[0] == 1 and shown[1] == 0.5 and shown == sorted(shown, reverse=True) and shown[3] > 0
    assert rules["layer1.0.conv1.weight"].lr == rules["layer1.0.conv2.weight"].lr  # of one block
    assert rules["fc.bias"].weight_decay == rules["bn1.weight"].weight_decay == 0
    assert rules["fc.weight"].weight_decay is None


def test_the_last_pattern_counts_and_the_words_mean_parts() -> None:
    rules = rules_of(
        resnet(),
        tuning(
            freeze=["backbone"],
            unfreeze={"layer4.*": 3},
            lr_factors={"layer4.*": 0.1, "layer4.1.*": 0.5, "head": 10.0},
            weight_decays={"fc.bias": 0.1},
            decay_norms=True,
        ),
        "fc",
    )
    assert rules["conv1.weight"].begin is None and rules["layer4.0.bn1.weight"].begin == 3
    assert rules["layer4.1.conv1.weight"].lr == pytest.approx(0.05) and rules["fc.weight"].lr == 10
    assert rules["fc.bias"].weight_decay == 0.1 and rules["bn1.weight"].weight_decay is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"freeze": ["layr4.*"]}, r"finetune.freeze: 'layr4.\*' matches no parameter \(did you mean layer4.\*"),
        (
            {"lr_factors": {"classifier": 2.0}},
            r"finetune.lr_factors: 'classifier' matches no parameter.*conv1.weight, bn1",
        ),
        ({"unfreeze": {"layer4.*": 1}}, r"finetune.unfreeze: 'layer4.\*' matches no parameter that finetune.freeze"),
        ({"freeze": ["*"]}, r"leaves no parameter to train"),
        ({"freeze": ["*"], "unfreeze": {"*": 2}}, r"nothing is trained in the first epoch"),
        ({"layer_decay": 0.0}, r"finetune.layer_decay=0"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rules_of(resnet(), tuning(**options), "fc")


@pytest.mark.parametrize("build", [sgd, adamw, muon])
def test_regrouping_keeps_each_optimizers_own_settings(build: object) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))

    def steps(model: nn.Module, factor: float | None) -> list[torch.Tensor]:
        optimizer = build(list(model.named_parameters()))  # type: ignore[operator]
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        if factor is not None:
            rules = rules_of(model, tuning(lr_factors={"2.*": factor}, decay_norms=True), "2")
            regroup(optimizer, rules, dict(model.named_parameters()))
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(3, 4)).square().sum().backward()
            optimizer.step()
        return [parameter.detach() for parameter in model.parameters()]

    plain, same, other = steps(net(), None), steps(net(), 1.0), steps(net(), 2.0)
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert not torch.equal(plain[-2], other[-2])


def test_a_frozen_module_stays_in_evaluation_mode() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()), nn.Dropout(), nn.Linear(4, 2)
    )
    frozen = Frozen(model, rules_of(model, tuning(freeze=["backbone"], unfreeze={"0.1.*": 2}), "2"))
    for epoch, norm in ((0, False), (1, False), (2, True), (0, False)):
        model.train()
        frozen.enter(epoch)
        assert model[0][1].training is norm and model[0][1].weight.requires_grad is norm  # type: ignore[index]
        assert not model[0][0].weight.requires_grad  # type: ignore[index]
        assert model[0][2].training is norm  # type: ignore[index]  # dropout goes with the part that it is in
        assert model[1].training and model[2].training  # type: ignore[index]
    assert not frozen.for_good


def weights(run: Path) -> dict[str, torch.Tensor]:
    tensors, _ = checkpoint.load(run / "checkpoints" / "last.safetensors")
    return {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}


def test_gradual_trains_the_head_first_and_then_all(trainkit_here: CommandHere, tmp_path: Path) -> None:
    runs = []
    for epochs in (1, 2):
        words = [*NET, "finetune=gradual", "optim=adamw", f"epochs={epochs}", f"hydra.run.dir=run{epochs}", *FAST]
        assert trainkit_here("train", *words).code == 0
        runs.append(weights(tmp_path / f"run{epochs}"))
    assert trainkit_here("train", *NET, "epochs=1", "hydra.run.dir=whole", *FAST).code == 0
    fresh = [name for name in runs[0] if not torch.equal(runs[0][name], runs[1][name])]
    assert any(name.startswith("0.") for name in fresh)  # trained in the second epoch, batch norm too
    assert any("running_mean" in name for name in fresh)
    zero = {name: value for name, value in runs[0].items() if name.endswith("running_mean")}
    assert zero and not any(value.any() for value in zero.values())  # never moved in the first


def test_plan_shows_what_is_trained_how(trainkit_here: CommandHere) -> None:
    said = trainkit_here("plan", *NET, "finetune=gradual", "optim=adamw", "epochs=3", *FAST).out
    assert "parameter groups, each lr before its schedule" in said
    lines = [line.split() for line in said.splitlines() if "epoch 1" in line or "always" in line]
    assert [line[0] for line in lines] == ["0.0001", "0.0001", "0.001", "0.001"]
    frozen = trainkit_here("plan", *NET, "finetune=linear", *FAST).out
    assert "of them frozen on cpu" in frozen
