"""trainkit's own command. All figures are read from the run folder that it leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bench.works import Work


def program() -> list[str]:
    """The installed command beside this Python, or the module where only a checkout is there."""
    installed = Path(sys.executable).with_name("trainkit")
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "trainkit"]


def overrides(work: Work, seed: int, data_dir: Path) -> list[str]:
    """The work as trainkit's config. Nothing is held out, so all of train is trained on, as the others do."""
    data = {
        "mnist": ["dataset=mnist", f"data_dir={data_dir}"],
        "cifar10": ["dataset=folder", f"dataset.root={data_dir / 'cifar10'}"],
        "digits": ["dataset=digits"],
    }[work.data]
    hidden = ",".join(map(str, work.hidden))
    model = ["model=mlp", f"model.hidden=[{hidden}]"]
    if work.channels:
        model = ["model=cnn", f"model.channels=[{','.join(map(str, work.channels))}]", f"model.hidden={hidden}"]
    options = ["augment=flip_crop"] if work.flip_crop else []
    options += ["precision=bf16", "channels_last=true"] if work.bf16 else []
    numbers = [f"optim.lr={work.lr}", f"epochs={work.epochs}", f"batch_size={work.batch_size}", f"seed={seed}"]
    return [*data, "val_fraction=0", *model, "optim=adam", *numbers, *options]


def read(scratch: Path, started: float) -> dict[str, Any]:
    """The readings of the one run in `scratch`, whose process was started at `started` (seconds since 1970).

    Evaluation is what lies between the end of the last epoch and the end of the run: it includes loading the best
    checkpoint.
    """
    (run,) = (scratch / "outputs" / "train").iterdir()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    events = {kind: [r for r in records if r["event"] == kind] for kind in ("start", "step", "epoch", "end")}
    import_s = events["start"][0]["at"] - started
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    return {
        "import_s": import_s,
        "first_step_s": import_s + events["step"][0]["time"],
        "epoch_s": [record["train_seconds"] for record in events["epoch"]],
        "eval_s": events["end"][0]["time"] - events["epoch"][-1]["time"],
        "accuracy": status["result"]["metrics"]["test"]["accuracy"],
    }
