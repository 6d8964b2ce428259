"""Models: shapes, equality with hand-written networks, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from trainkit.errors import ConfigError
from trainkit.models.cnn import cnn
from trainkit.models.linear import linear
from trainkit.models.mlp import mlp


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(p.shape) for p in model.parameters() if p.ndim > 1]


def assert_same(ours: nn.Module, by_hand: nn.Module, in_shape: tuple[int, ...]) -> None:
    state, expected = ours.state_dict(), by_hand.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    x = torch.randn(5, *in_shape)
    torch.manual_seed(9)  # dropout
    out = ours(x)
    torch.manual_seed(9)
    assert torch.equal(out, by_hand(x))


def test_linear_is_a_hand_written_sequential() -> None:
    torch.manual_seed(0)
    ours = linear((3, 4, 5), 7)
    torch.manual_seed(0)
    assert_same(ours, nn.Sequential(nn.Flatten(), nn.Linear(60, 7)), (3, 4, 5))


def test_mlp_is_a_hand_written_sequential() -> None:
    torch.manual_seed(1)
    ours = mlp((1, 4, 4), 3, hidden=[8, 6])
    torch.manual_seed(1)
    by_hand = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    assert_same(ours, by_hand, (1, 4, 4))


@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm1d), ("layer", nn.LayerNorm)])
def test_mlp_with_norm_and_dropout(norm: str, layer: type[nn.Module]) -> None:
    torch.manual_seed(1)
    ours = mlp((10,), 3, hidden=[8], activation="gelu", norm=norm, dropout=0.3)
    torch.manual_seed(1)
    by_hand = nn.Sequential(nn.Flatten(), nn.Linear(10, 8), layer(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 3))
    assert_same(ours, by_hand, (10,))


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", nn.functional.leaky_relu),
        ("elu", nn.functional.elu),
        ("gelu", nn.functional.gelu),
        ("silu", nn.functional.silu),
        ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid),
    ],
)
def test_activations(name: str, function) -> None:
    model = mlp((4,), 2, hidden=[5], activation=name)
    x = torch.randn(3, 4)
    assert torch.equal(model(x), model[-1](function(model[1](x))))


def test_mlp_without_hidden_layers_is_linear() -> None:
    assert shapes(mlp((4,), 2, hidden=[])) == [(2, 4)]


def test_cnn_has_the_tutorial_shapes() -> None:
    assert shapes(cnn((3, 32, 32), 10)) == [(32, 3, 3, 3), (64, 32, 3, 3), (128, 4096), (10, 128)]
    assert shapes(cnn((1, 28, 28), 10, channels=[64, 128], hidden=1000))[2:] == [(1000, 6272), (10, 1000)]


def test_cnn_is_a_hand_written_sequential() -> None:
    torch.manual_seed(2)
    ours = cnn((2, 9, 8), 3, channels=[4, 5], kernel=5, norm="batch", pooling="avg", hidden=6, dropout=0.5)
    torch.manual_seed(2)
    stages: list[nn.Module] = []
    for depth, next_depth in [(2, 4), (4, 5)]:
        conv = nn.Conv2d(depth, next_depth, 5, padding="same")
        stages += [conv, nn.BatchNorm2d(next_depth), nn.ReLU(), nn.AvgPool2d(2)]
    head = [nn.Flatten(), nn.Linear(5 * 2 * 2, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)]
    assert_same(ours, nn.Sequential(*stages, *head), (2, 9, 8))


@pytest.mark.parametrize(
    ("in_shape", "channels", "text"),
    [
        ((64,), [32], "model cnn needs images, but the data set is a table of 64 features: use model=mlp"),
        (
            (1, 8, 7),
            [4, 4, 4],
            (
                "model.channels: 3 stages need images of at least 8x8, got 8x7: "
                "give model.channels at most 2 entries, or use model=mlp"
            ),
        ),
        ((3, 1, 32), [4], "model.channels: 1 stages need images of at least 2x2, got 1x32: use model=mlp"),
        (
            (3, 8, 8),
            [],
            "model.channels is empty: name at least one stage, as in model.channels=[32], or use model=mlp",
        ),
    ],
)
def test_cnn_refuses(in_shape: tuple[int, ...], channels: list[int], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        cnn(in_shape, 10, channels=channels)
    assert str(error.value) == text


def test_smallest_image_of_the_message_works() -> None:
    assert cnn((1, 8, 8), 2, channels=[2, 2, 2], hidden=3)(torch.zeros(1, 1, 8, 8)).shape == (1, 2)


def test_signatures_are_read_without_torch() -> None:
    code = (
        "import sys; from trainkit import registry\n"
        "for group in ('model', 'loss', 'optim', 'schedule'):\n"
        "    for name in registry.names(group): registry.get(group, name).schema\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
