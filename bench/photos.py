"""Photos decoded while training, the model taken out: images per second of an epoch of 500x375 JPEGs, cropped to 224.

`python -m bench.photos ROW FOLDER` prints one JSON line {prepare_s, images_per_s}: what is done once (reading every
photo for its statistics; for a DataLoader listing the files), and the fastest of three epochs after that. Each row has
a process of its own, and two workers. Nothing is normalized; pixels are uint8 but for `ToTensor`, which scales them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.data_only import Epoch, fastest
from bench.processes import Reading, last_line, succeed
from bench.sections import Say, Section, interleave

ROWS = ["trainkit, streaming", "DataLoader + v2, uint8", "DataLoader + ToTensor"]
COPIES, SIZE, BATCH, WORKERS = 4, (500, 375), 64, 2


def photos_section(data_dir: Path, repeats: int, say: Say) -> Section:
    """Images per second of trainkit's streaming path and of a DataLoader, over the same files."""
    with tempfile.TemporaryDirectory(prefix="bench-photos-") as name:
        write_photos(data_dir / "hymenoptera" / "train", Path(name))

        def measure(row: str) -> Reading:
            done = succeed([sys.executable, "-m", "bench.photos", row, name])
            return {**last_line(done), "peak_rss_mb": done.peak_rss_mb}

        section = Section("photos", "data", "JPEGs of 500x375 to 224x224, 2 workers, the model taken out")
        interleave(section, {row: (lambda _, row=row: measure(row)) for row in ROWS}, repeats, say)
    return section


def write_photos(source: Path, target: Path) -> None:
    """Every photo as some JPEGs of one size, in its class folder."""
    from PIL import Image, ImageOps

    for path in sorted(source.glob("*/*.jpg")):
        folder = target / path.parent.name
        folder.mkdir(exist_ok=True)
        with Image.open(path) as image:
            photo = ImageOps.fit(image.convert("RGB"), SIZE, Image.Resampling.BICUBIC)
        for copy in range(COPIES):
            photo.save(folder / f"{path.stem}-{copy}.jpg", quality=95)


def streaming(folder: Path) -> tuple[float, Epoch]:
    """trainkit's workers, as its loader asks them: (seconds, epoch number -> inputs)."""
    import numpy as np
    import torch

    from trainkit.data.datasets import folder as image_folder

    begin = time.perf_counter()
    rule: dict[str, Any] = {"image_size": 224, "resize": "crop", "crop_share": 0.875, "test_fraction": 0.0}
    split = image_folder.folder(folder, 0, root=folder, **rule).streamed(WORKERS).splits["train"]

    def epoch(number: int) -> Iterable[torch.Tensor]:
        order = np.random.default_rng(number).permutation(len(split))
        batches = split.batches([order[first : first + BATCH] for first in range(0, len(split), BATCH)])
        return (torch.from_numpy(inputs).clone() for inputs, _ in batches)

    return time.perf_counter() - begin, epoch


def dataloader(folder: Path, row: str) -> tuple[float, Epoch]:
    """A DataLoader over torchvision's ImageFolder, decoded by Pillow: (seconds, epoch number -> inputs)."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    begin = time.perf_counter()
    if row == ROWS[1]:
        steps: Any = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    else:
        steps = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])
    loader: Iterable[Any] = DataLoader(
        ImageFolder(str(folder), steps), batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
    )
    return time.perf_counter() - begin, lambda epoch: (inputs for inputs, _ in loader)


def main() -> None:
    row, folder = sys.argv[1], Path(sys.argv[2])
    prepare_s, epoch = streaming(folder) if row == ROWS[0] else dataloader(folder, row)
    print(json.dumps({"prepare_s": prepare_s, "images_per_s": fastest(epoch, 3)}))


if __name__ == "__main__":
    main()
