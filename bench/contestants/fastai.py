"""fastai's Learner on the tutorial's data, with Adam's usual constants instead of fastai's own. No bar, no printing."""

from __future__ import annotations

import time

import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.optimizer import Adam
from torch import nn

from bench.network import network
from bench.stopwatch import Stopwatch, arguments
from bench.tutorial_data import datasets, workers


class Clock(Callback):
    """Hands fastai's events to the stopwatch, and leaves out the validation after each epoch while it trains."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.begin = 0.0
        self.training_only = True

    def before_train(self) -> None:
        self.begin = time.perf_counter()

    def after_batch(self) -> None:
        self.watch.stepped()

    def after_train(self) -> None:
        self.watch.wait()
        self.watch.epoch_s.append(time.perf_counter() - self.begin)

    def before_validate(self) -> None:
        if self.training_only:
            raise CancelValidException


def accuracy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of right answers."""
    return (outputs.argmax(1) == labels).float().mean()


def adam(parameters: object, lr: float) -> object:
    """Adam as torch has it."""
    return Adam(parameters, lr, mom=0.9, sqr_mom=0.999, eps=1e-8, wd=0.0)


def main() -> None:
    watch = Stopwatch()
    work, seed, data_dir = arguments()
    watch.imported()
    torch.manual_seed(seed)
    if torch.cuda.is_available():
        watch.wait = torch.cuda.synchronize
    train, test = datasets(work, data_dir)
    dls = DataLoaders.from_dsets(train, test, bs=work.batch_size, num_workers=workers(work))
    clock = Clock(watch)
    learner = Learner(
        dls, network(work), loss_func=nn.CrossEntropyLoss(), opt_func=adam, lr=work.lr, metrics=[accuracy], cbs=[clock]
    )
    with learner.no_logging():  # there is no bar: nothing imports fastai.callback.progress
        learner.fit(work.epochs, lr=work.lr)
        clock.training_only = False
        with watch.evaluation():
            _, share = learner.validate()
    watch.finish(float(share))


if __name__ == "__main__":
    main()
