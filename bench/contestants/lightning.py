"""Lightning's Trainer on the tutorial's data. Logger, checkpoints, bar and summary are off: the loop alone."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch
from torch.nn import functional

from bench.network import network
from bench.stopwatch import Stopwatch, arguments
from bench.tutorial_data import loaders
from bench.works import Work


class Classifier(lightning.LightningModule):
    """The work's model, as Lightning's own first example has it, with the accuracy on test."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        self.model = network(work)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        inputs, labels = batch
        return functional.cross_entropy(self.model(inputs), labels)

    def test_step(self, batch: Any, index: int) -> None:
        inputs, labels = batch
        share = (self.model(inputs).argmax(1) == labels).float().mean()
        self.log("accuracy", share, batch_size=len(labels))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.work.lr)


class Clock(lightning.Callback):
    """Hands Lightning's events to the stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.begin = 0.0

    def on_train_epoch_start(self, *facts: Any) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, *facts: Any) -> None:
        self.watch.stepped()

    def on_train_epoch_end(self, *facts: Any) -> None:
        self.watch.wait()
        self.watch.epoch_s.append(time.perf_counter() - self.begin)


def main() -> None:
    watch = Stopwatch()
    work, seed, data_dir = arguments()
    watch.imported()
    lightning.seed_everything(seed, verbose=False)
    if torch.cuda.is_available():
        watch.wait = torch.cuda.synchronize
    train_loader, test_loader = loaders(work, data_dir)
    trainer = lightning.Trainer(
        max_epochs=work.epochs,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Clock(watch)],
    )
    model = Classifier(work)
    trainer.fit(model, train_loader)
    with watch.evaluation():
        (result,) = trainer.test(model, test_loader, verbose=False)
    watch.finish(result["accuracy"])


if __name__ == "__main__":
    main()
