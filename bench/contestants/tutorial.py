"""The loop of PyTorch's tutorials: a torchvision dataset, transforms, a DataLoader, and a running loss."""

from __future__ import annotations

import torch
from torch import nn

from bench.network import best_device, network
from bench.stopwatch import Stopwatch, arguments
from bench.tutorial_data import loaders


def main() -> None:
    watch = Stopwatch()
    work, seed, data_dir = arguments()
    watch.imported()
    torch.manual_seed(seed)
    device = best_device()
    train_loader, test_loader = loaders(work, data_dir)
    model = network(work).to(device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=work.lr)
    for _ in range(work.epochs):
        with watch.epoch():
            model.train()
            running_loss = 0.0
            for inputs, labels in train_loader:
                inputs, labels = inputs.to(device), labels.to(device)
                optimizer.zero_grad()
                loss = loss_fn(model(inputs), labels)
                loss.backward()
                optimizer.step()
                running_loss += loss.item()
                watch.stepped()
    with watch.evaluation():
        model.eval()
        correct = total = 0
        with torch.no_grad():
            for inputs, labels in test_loader:
                inputs, labels = inputs.to(device), labels.to(device)
                correct += (model(inputs).argmax(1) == labels).sum().item()
                total += len(labels)
    watch.finish(correct / total)


if __name__ == "__main__":
    main()
