"""`python -m bench.finetuning FOLDER WEIGHTS`: MobileNetV2 on a few hundred photos, by trainkit and by others.

FOLDER holds {train,val}/<class>/*.jpg, as `hymenoptera_data` of PyTorch's transfer-learning tutorial; WEIGHTS is a
safetensors file of torchvision's mobilenet_v2. Each reading is a process of its own, timed from outside from start to
end; the rows of a work take turns. Nothing is augmented, so that all do the same.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.contestants import trainkit
from bench.processes import Reading, last_line, succeed
from bench.sections import Section, interleave

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


@dataclasses.dataclass(frozen=True)
class Work:
    """Epochs of Adam with a cosine schedule, and an evaluation after each. frozen: all but the head."""

    name: str
    frozen: bool
    epochs: int
    batch_size: int
    lr: float
    others: tuple[str, ...]


WORKS = [
    Work("probe", True, 20, 32, 1e-3, ("tutorial", "fastai")),
    Work("finetune", False, 2, 32, 1e-4, ("bare", "tutorial", "fastai")),
]
BY_NAME = {work.name: work for work in WORKS}


def by_trainkit(work: Work, seed: int, folder: Path, weights: Path) -> Reading:
    """The same by the command."""
    words = [
        *("dataset=folder", f"dataset.root={folder}", "dataset.image_size=224", "dataset.resize=crop"),
        *("dataset.crop_share=0.875", "dataset.test_fraction=0", "model=torchvision", f"init={weights}"),
        *("optim=adam", f"optim.lr={work.lr}", "schedule=cosine", f"epochs={work.epochs}", "monitor=last"),
        *(f"batch_size={work.batch_size}", f"seed={seed}", "checkpoint_every=100epochs", "plots=false"),
        *(["finetune=linear"] if work.frozen else []),
    ]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        environment_cache = Path(name) / "cache"  # every reading decodes the photos anew, as the others do
        done = succeed(["env", f"TRAINKIT_CACHE={environment_cache}", *trainkit.program(), "train", *words], Path(name))
        (run,) = Path(name).glob("outputs/train/*")
        with (run / "results.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = min(event["train_seconds"] for event in events if event["event"] == "epoch")
    samples = sum(1 for _ in (folder / "train").glob("*/*.jpg"))
    reading = {"accuracy": float(last["val/accuracy"]), "images_per_s": samples / seconds}
    return {**reading, "total_s": done.total_s, "peak_rss_mb": done.peak_rss_mb}


def by_others(who: str, work: Work, seed: int, folder: Path, weights: Path) -> Reading:
    module = "bench.photos_by_others"
    done = succeed([sys.executable, "-m", module, who, work.name, str(seed), str(folder), str(weights)])
    return {**last_line(done), "total_s": done.total_s, "peak_rss_mb": done.peak_rss_mb}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.finetuning", description=__doc__)
    parser.add_argument("folder", type=lambda text: Path(text).absolute())
    parser.add_argument("weights", type=lambda text: Path(text).absolute())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", choices=list(BY_NAME), action="append")
    args = parser.parse_args()
    places: dict[str, Any] = {"folder": args.folder, "weights": args.weights}
    for work in WORKS if not args.work else [BY_NAME[name] for name in args.work]:
        measures = {"trainkit": lambda repeat, work=work: by_trainkit(work, repeat, **places)}
        for who in work.others:
            measures[who] = lambda repeat, who=who, work=work: by_others(who, work, repeat, **places)
        section = Section(work.name, "work", work.name)
        interleave(section, measures, args.repeats, lambda text: print(text, file=sys.stderr, flush=True))
        show(section)
    return 0


def show(section: Section) -> None:
    """The medians of a work, and each accuracy."""
    print(f"{section.title}: seconds in all, against trainkit; images a second while training; MiB; accuracies")
    ours = section.median("trainkit", lambda reading: reading["total_s"])
    for row, readings in section.readings.items():
        total, rate, peak = (
            statistics.median(reading[name] for reading in readings)
            for name in ("total_s", "images_per_s", "peak_rss_mb")
        )
        accuracies = " ".join(f"{reading['accuracy']:.3f}" for reading in readings)
        print(f"  {row:9} {total:7.1f} s {total / ours:6.2f}x {rate:9.1f}/s {peak:7.0f}  {accuracies}", flush=True)
    for row, reason in section.skipped.items():
        print(f"  {row}: left out: {reason}")


if __name__ == "__main__":
    raise SystemExit(main())
