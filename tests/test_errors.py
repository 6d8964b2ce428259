"""Which known name a mistyped one stands for: slips of the finger get their hint, other words do not."""

from __future__ import annotations

import pytest

from trainkit import registry
from trainkit.config.frame import Train
from trainkit.errors import near, nearest, unknown
from trainkit.schema import schema_of

KEYS = list(schema_of(Train))
KNOWN = {"key": KEYS, **{group: registry.names(group) for group in registry.FAMILIES}}


@pytest.mark.parametrize(
    ("where", "word", "meant"),
    [
        ("key", "modl", "model"),
        ("key", "modle", "model"),
        ("key", "epcohs", "epochs"),
        ("key", "npochs", "epochs"),
        ("key", "epoch", "epochs"),
        ("key", "batchsize", "batch_size"),
        ("key", "batch-size", "batch_size"),
        ("key", "optimizer", "optim"),
        ("key", "scheduler", "schedule"),
        ("key", "worker", "workers"),
        ("key", "preciison", "precision"),
        ("key", "fraction", "val_fraction"),
        ("key", "Seed", "seed"),
        ("dataset", "MNIST", "mnist"),
        ("dataset", "minst", "mnist"),
        ("dataset", "cfiar10", "cifar10"),
        ("dataset", "cifar", "cifar10"),
        ("dataset", "fashion-mnist", "fashion_mnist"),
        ("dataset", "fasion_mnist", "fashion_mnist"),
        ("dataset", "svhm", "svhn"),
        ("dataset", "nzp", "npz"),
        ("dataset", "digit", "digits"),
        ("model", "cnnn", "cnn"),
        ("model", "cnm", "cnn"),
        ("model", "resnet", "resnet18"),
        ("model", "lineer", "linear"),
        ("optim", "adma", "adam"),
        ("optim", "asgd", "sgd"),
        ("optim", "rmspropp", "rmsprop"),
        ("loss", "crossentropy", "cross_entropy"),
        ("loss", "hubber", "huber"),
        ("schedule", "cosin", "cosine"),
        ("schedule", "one_cycle", "onecycle"),
        # another word, another number: no slip
        ("dataset", "csv", None),
        ("dataset", "imagenet", None),
        ("dataset", "coco", None),
        ("dataset", "parquet", None),
        ("dataset", "image", None),
        ("model", "rnn", None),
        ("model", "lstm", None),
        ("model", "unet", None),
        ("model", "vit", None),
        ("model", "resnet50", None),
        ("model", "transformer", None),
        ("loss", "l2", None),
        ("loss", "nll", None),
        ("optim", "lion", None),
        ("optim", "lamb", None),
        ("schedule", "warmup", None),
        ("key", "lr", None),
        ("key", "gpu", None),
        ("key", "name", None),
        ("key", "foo", None),
        ("key", "dropout", None),
        ("key", "", None),
    ],
)
def test_a_slip_and_another_word(where: str, word: str, meant: str | None) -> None:
    assert nearest(word, KNOWN[where]) == meant


def test_every_name_is_found_in_spite_of_one_slip() -> None:
    """Two letters exchanged, one left out, one doubled, behind the first: the name is among those that are offered."""
    for names in KNOWN.values():
        for name in (name for name in names if len(name) > 3):
            for at in range(1, len(name) - 1):
                exchanged = name[:at] + name[at + 1] + name[at] + name[at + 2 :]
                for slip in (exchanged, name[:at] + name[at + 1 :], name[:at] + name[at] + name[at:]):
                    assert name in near(slip, names) or slip in names, (slip, name)


def test_of_many_names_only_the_near_ones_are_told() -> None:
    assert (
        unknown("key", "modl", KEYS) == f"key 'modl' is not known (did you mean model?); --help lists all {len(KEYS)}"
    )
    assert unknown("model", "x", ["a", "b"]) == "model 'x' is not known; choose from: a, b"
    assert "(did you mean m.resnet18 or m.resnet9?)" in unknown("model", "resnet", KNOWN["model"], "m.")
