"""MobileNetV2 on photos by others, the same work as `bench/finetuning.py` gives trainkit.

`python -m bench.photos_by_others WHO WORK SEED FOLDER WEIGHTS` prints one JSON line {accuracy, images_per_s}. WHO:

    tutorial  the loop of PyTorch's transfer-learning tutorial: ImageFolder, transforms, a DataLoader with two workers
    fastai    a fastai Learner on the same data
    bare      photos decoded once into a tensor, and nothing but forward, backward and step
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import mobilenet_v2

from bench.finetuning import BY_NAME, MEAN, STD, Work


def model_of(work: Work, weights: Path) -> nn.Module:
    """MobileNetV2 with others' weights and a new head; for a probe all but the head frozen."""
    model = mobilenet_v2(num_classes=2)
    state = {name: one for name, one in safetensors.torch.load_file(weights).items() if "classifier" not in name}
    model.load_state_dict(state, strict=False)
    if work.frozen:
        model.features.requires_grad_(False)
    return model


def train_mode(model: Any, work: Work) -> None:
    model.train()
    if work.frozen:
        model.features.eval()


def splits(folder: Path) -> list[ImageFolder]:
    """train and val, resized, cropped and normalized as is usual for ImageNet's weights."""
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return [ImageFolder(str(folder / split), transforms.Compose(steps)) for split in ("train", "val")]


def in_memory(photos: ImageFolder) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = zip(*photos, strict=True)
    return torch.stack(inputs), torch.tensor(labels)


def by_hand(who: str, work: Work, folder: Path, weights: Path) -> dict[str, float]:
    """The tutorial's loop, or the bare one, which differs in where its batches come from."""
    train, val = splits(folder)
    options: dict[str, Any] = {"batch_size": work.batch_size, "num_workers": 2}
    if who == "bare":
        kept = in_memory(train), in_memory(val)

    def batches(split: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        if who == "tutorial":
            yield from DataLoader([train, val][split], shuffle=split == 0, **options)
            return
        inputs, labels = kept[split]
        order = torch.randperm(len(inputs)) if split == 0 else torch.arange(len(inputs))
        for part in order.split(work.batch_size):
            yield inputs[part], labels[part]

    model = model_of(work, weights)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, work.lr, fused=who == "bare")
    total, step, seconds = work.epochs * math.ceil(len(train) / work.batch_size), 0, []
    for _ in range(work.epochs):
        train_mode(model, work)
        begin = time.perf_counter()
        for inputs, labels in batches(0):
            for group in optimizer.param_groups:
                group["lr"] = work.lr * (1 + math.cos(math.pi * step / total)) / 2
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            step += 1
        seconds.append(time.perf_counter() - begin)
        model.eval()
        with torch.no_grad():
            hits = sum(int((model(inputs).argmax(1) == labels).sum()) for inputs, labels in batches(1))
    return {"accuracy": hits / len(val), "images_per_s": len(train) / min(seconds)}


def by_fastai(work: Work, folder: Path, weights: Path) -> dict[str, float]:
    from fastai.callback.core import Callback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import Adam

    def adam(parameters: object, lr: float) -> object:
        return Adam(parameters, lr, mom=0.9, sqr_mom=0.999, eps=1e-8, wd=0.0)

    class Clock(Callback):
        seconds: list[float]

        def before_train(self) -> None:
            if work.frozen:
                self.learn.model.features.eval()
            self.begin = time.perf_counter()

        def after_train(self) -> None:
            self.seconds.append(time.perf_counter() - self.begin)

    clock = Clock()
    clock.seconds = []
    train, val = splits(folder)
    dls = DataLoaders.from_dsets(train, val, bs=work.batch_size, num_workers=2)
    learner = Learner(
        dls, model_of(work, weights), loss_func=nn.CrossEntropyLoss(), opt_func=adam, metrics=[share], cbs=[clock]
    )
    with learner.no_logging():  # there is no bar: nothing imports fastai.callback.progress
        learner.fit(work.epochs, lr=work.lr)
        _, accuracy = learner.validate()
    return {"accuracy": float(accuracy), "images_per_s": len(train) / min(clock.seconds)}


def share(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Share of right answers."""
    return (outputs.argmax(1) == labels).float().mean()


def main() -> None:
    who, name, seed, folder, weights = sys.argv[1:]
    torch.manual_seed(int(seed))
    work = BY_NAME[name]
    if who == "fastai":
        found = by_fastai(work, Path(folder), Path(weights))
    else:
        found = by_hand(who, work, Path(folder), Path(weights))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
