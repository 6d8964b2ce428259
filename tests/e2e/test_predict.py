"""`trainkit predict`: the same answers as in evaluation, from files alone, and nothing lost on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from conftest import clean_environment, trained
from trainkit.data.dataset import Data
from trainkit.data.datasets import tables
from trainkit.data.splits import Array
from writers import image, lay_out, packed

if TYPE_CHECKING:
    from conftest import Command, CommandHere


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def metrics(run: CommandHere, *words: str) -> dict[str, float]:
    """What `eval` says of the test split."""
    done = run("eval", "--json", *words)
    assert done.code == 0, done.err
    found: dict[str, float] = json.loads(done.out)["metrics"]["test"]
    return found


def held_out(data: Data) -> tuple[Array, Array]:
    part = data.splits["test"]
    assert isinstance(part.inputs, np.ndarray)
    return part.inputs, part.targets


def save_images(folder: Path, images: Array) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(images):
        Image.fromarray(pixels[0]).save(folder / f"{number:04}.png")


@pytest.mark.parametrize("more", [(), ("tta=flip",), ("workers=2", "batch_size=50")])
def test_image_files_get_the_classes_of_the_evaluation(
    more: tuple[str, ...], digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    images, labels = held_out(tables.digits(Path(), 0))
    save_images(tmp_path / "new photos", images)
    done = trainkit_here("predict", f"ckpt={digits_run}", "input='new photos'", *more)
    assert done.code == 0, done.err
    found = rows_of(done.out)
    assert [row["input"] for row in found] == [f"new photos/{number:04}.png" for number in range(len(images))]
    accuracy = np.mean([int(row["class"]) == label for row, label in zip(found, labels, strict=True)])
    tta = [word for word in more if word.startswith("tta")]
    assert accuracy == pytest.approx(metrics(trainkit_here, f"ckpt={digits_run}", *tta)["accuracy"], abs=1e-6)
    assert done.err == "" and not (tmp_path / "outputs" / "predict").exists()


def test_a_regression_is_in_the_targets_own_unit(
    diabetes_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    features, targets = held_out(tables.diabetes(Path(), 0))
    np.savez(tmp_path / "patients.npz", x=features)
    done = trainkit_here("predict", f"ckpt={diabetes_run}", "input=patients.npz", "output=out.jsonl")
    assert done.code == 0 and done.out == f"out.jsonl: {len(features)} inputs, 0 failed\n"
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["row"] for row in found] == list(range(len(features)))
    error = np.abs(np.array([row["prediction"] for row in found]) - targets[:, 0]).mean()
    assert error == pytest.approx(metrics(trainkit_here, f"ckpt={diabetes_run}")["mae"], rel=1e-4)


def test_columns_of_a_csv_are_found_by_their_names(iris_run: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    data = tables.iris(Path(), 0)
    features, labels = held_out(data)
    np.savez(tmp_path / "flowers.npz", x=features)
    with open(tmp_path / "flowers.csv", "w", newline="") as file:
        names = ["note", *reversed(data.spec.input.names or [])]
        csv.writer(file).writerows([names, *(["fine", *reversed(row.tolist())] for row in features)])
    done = trainkit_here("predict", f"ckpt={iris_run}", "input=[flowers.csv,flowers.npz]", "topk=9")
    assert done.code == 0, done.err
    found = rows_of(done.out)
    fields = ["class", "probability", "class_2", "probability_2", "class_3", "probability_3"]
    assert list(found[0]) == ["input", "row", *fields, "error"]
    half = len(features)
    for by_name, by_place in zip(found[:half], found[half:], strict=True):
        assert [by_name[field] for field in fields] == [by_place[field] for field in fields]
        assert sum(float(by_name[field]) for field in fields[1::2]) == pytest.approx(1, abs=1e-5)
    accuracy = np.mean(
        [row["class"] == (data.spec.target.classes or [])[label] for row, label in zip(found, labels, strict=False)]
    )
    assert accuracy == pytest.approx(metrics(trainkit_here, f"ckpt={iris_run}")["accuracy"], abs=1e-6)


def test_columns_of_an_npz_have_names_that_the_checkpoint_keeps(trainkit_here: CommandHere, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    np.savez(tmp_path / "data.npz", x=x, y=y, features=["width", "height"])
    words = ["dataset=npz", "dataset.file=data.npz", "model=linear", "epochs=20"]
    run = trained(tmp_path, *words)
    lay_out(tmp_path, {"a.csv": "height,other,width\n9,x,-3\n-9,y,3\n", "b.csv": "left,top\n-3,9\n3,-9\n"})
    done = trainkit_here("predict", f"ckpt={run}", "input=a.csv")
    assert (done.code, [row["class"] for row in rows_of(done.out)]) == (0, ["0", "1"])
    done = trainkit_here("predict", f"ckpt={run}", "input=b.csv")
    assert done.code == 3 and "it has no column 'width'" in done.err
    done = trainkit_here("predict", f"ckpt={run}", "input=b.csv", "by_position=true")
    assert (done.code, [row["class"] for row in rows_of(done.out)]) == (0, ["0", "1"])
    np.savez(tmp_path / "data.npz", x=x[:, ::-1], y=y, features=["height", "width"])
    done = trainkit_here("eval", f"ckpt={run}")
    assert done.code == 4 and "dataset npz has 'height' in column 0, but '" in done.err
    assert "was trained on 'width' there" in done.err


def test_a_table_with_a_header_is_not_taken_for_another(
    trainkit_here: CommandHere, datasets: Path, tmp_path: Path
) -> None:
    x = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 2)
    run = trained(tmp_path, "dataset=npz", "dataset.file=data.npz", "model=linear")
    titanic = datasets / "tables" / "titanic" / "titanic.csv"
    done = trainkit_here("predict", f"ckpt={run}", f"input='{titanic}'")
    assert done.code == 3
    assert "its columns have names (PassengerId, Survived, Pclass, …), and the model knows none" in done.err
    assert [row["class"] for row in rows_of(done.out)] == [""]
    lay_out(
        tmp_path,
        {"plain.csv": ",".join("0" * 12) + "\n", "named.csv": ",".join("abcdefghijkl") + "\n" + "0," * 11 + "0"},
    )
    plain = trainkit_here("predict", f"ckpt={run}", "input=plain.csv")
    named = trainkit_here("predict", f"ckpt={run}", "input=named.csv", "by_position=true")
    assert (plain.code, named.code) == (0, 0)
    assert rows_of(plain.out)[0]["probability"] == rows_of(named.out)[0]["probability"]


def test_names_of_features_are_scikit_learns() -> None:
    from sklearn import datasets

    for name in ("iris", "wine", "breast_cancer", "diabetes"):
        ours = getattr(tables, name)(Path(), 0).spec.input.names
        assert ours == list(getattr(datasets, f"load_{name}")().feature_names)


def test_multilabel_needs_no_data_set(trainkit_here: CommandHere, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x > 0).astype(np.int64))
    words = ["dataset=npz", "dataset.file=data.npz", "dataset.classes=['=right',up]", "model=linear", "epochs=30"]
    run = trained(tmp_path, *words)
    (tmp_path / "data.npz").unlink()
    (tmp_path / "points.csv").write_text("9,9\n-9,9\n-9,-9\n")
    done = trainkit_here("predict", f"ckpt={run}", "input=points.csv")
    assert done.code == 0, done.err
    assert [row["classes"] for row in rows_of(done.out)] == ["'=right;up", "up", ""]
    done = trainkit_here("predict", f"ckpt={run}", "input=points.csv", "--json")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert [row["classes"] for row in found] == [["=right", "up"], ["up"], []]
    assert found[0]["probability_up"] > 0.9 > 0.1 > found[2]["probability_=right"]
    done = trainkit_here("predict", f"ckpt={run}", "input=points.csv", "topk=2")
    assert done.code == 2 and "topk=2: a multilabel model does not choose" in done.err


def test_what_cannot_be_read_is_told_and_the_others_are_done(
    digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    gray = image(mode="L")
    lay_out(tmp_path / "in", {"a.png": gray, "b.png": "no image", "c.png": gray[:60], "e.png": gray})
    (tmp_path / "in" / "d.png").symlink_to("nowhere")
    done = trainkit_here("predict", f"ckpt={digits_run}", "input=in", "output=out.csv", "workers=0")
    assert done.code == 3
    assert done.out == "out.csv: 5 inputs, 3 failed\n"
    lines = done.err.splitlines()
    assert len(lines) == 4 and lines[-1] == "trainkit: error: 3 of 5 inputs could not be predicted; the others are done"
    assert lines[0].startswith("trainkit: error: in/b.png: not a readable image (")
    found = rows_of((tmp_path / "out.csv").read_text(encoding="utf-8"))
    assert [bool(row["error"]) for row in found] == [False, True, True, True, False]
    assert [bool(row["class"]) for row in found] == [True, False, False, False, True]
    assert found[0]["probability"] == found[4]["probability"]


def test_many_failures_are_told_once(digits_run: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path / "in", {f"{number}.png": "no image" for number in range(100)})
    done = trainkit_here("predict", f"ckpt={digits_run}", "input=in", "output=out.csv")
    assert done.code == 3 and len(done.err.splitlines()) == 22
    assert "and more; the column error has them all" in done.err
    assert sum(bool(row["error"]) for row in rows_of((tmp_path / "out.csv").read_text())) == 100


def test_the_formats_say_the_same(digits_run: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    from pyarrow import parquet

    names = ["=cmd|' '!A0.png", "a, b.png", "é.png", '"q".png']
    lay_out(tmp_path, {name: image(mode="L", seed=number) for number, name in enumerate(names)})
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(image(mode="L", seed=9))
    (tmp_path / "z.png").write_text("no image")
    words = [f"ckpt={digits_run}", "input=*.png", "topk=2"]
    tables: dict[str, list[dict[str, Any]]] = {}
    for kind in ("csv", "jsonl", "parquet"):
        assert trainkit_here("predict", *words, f"output=out.{kind}").code == 3
    tables["csv"] = list(rows_of((tmp_path / "out.csv").read_text(encoding="utf-8")))
    tables["jsonl"] = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    tables["parquet"] = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    wanted = [*sorted([*names, "z.png"]), "\ufffd.png"]
    assert [row["input"] for row in tables["jsonl"]] == wanted
    assert [row["input"] for row in tables["parquet"]] == wanted
    assert [row["input"] for row in tables["csv"]] == [f"'{name}" if name[0] == "=" else name for name in wanted]
    for as_csv, as_json, as_parquet in zip(*tables.values(), strict=True):
        assert list(as_csv) == list(as_json) == list(as_parquet)
        assert as_csv["class_2"] == (as_json["class_2"] or "") == (as_parquet["class_2"] or "")
        assert as_csv["error"] == (as_json["error"] or "") == (as_parquet["error"] or "")
        if not as_csv["error"]:
            assert float(as_csv["probability"]) == as_json["probability"]
            assert as_json["probability"] == pytest.approx(as_parquet["probability"], rel=1e-6)


def test_an_output_is_not_overwritten_unless_asked(
    digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    lay_out(tmp_path, {"a.png": image(mode="L"), "out.csv": "precious"})
    words = ["predict", f"ckpt={digits_run}", "input=a.png", "output=out.csv"]
    done = trainkit_here(*words)
    assert done.code == 2 and "out.csv: it exists; name another file, or add overwrite=true" in done.err
    assert (tmp_path / "out.csv").read_text() == "precious"
    done = trainkit_here(*words, "overwrite=true", "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert (result["inputs"], result["failed"]) == (1, 0) and result["output"] == str(tmp_path / "out.csv")
    assert len(rows_of((tmp_path / "out.csv").read_text())) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out.csv"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 2, "input is required (text or a list, each text): add input=…"),
        ("input=[]", 3, "input=[] names nothing"),
        ("input=gone", 3, "input=gone: no such file or folder"),
        (
            "input=a.png output=out.txt",
            2,
            "output=out.txt: no format has this suffix (.csv, .jsonl, .ndjson, .parquet)",
        ),
        ("input=a.png output=no/out.csv", 2, "there is no folder"),
        ("input=a.png output=folder format=csv", 2, "it is not a regular file"),
        ("input=a.png format=parquet", 2, "format=parquet needs a file: add output=FILE"),
        ("input=a.png format=csv --json", 2, "--json and format=csv contradict each other"),
        ("input=a.png format=xml", 2, "format: value 'xml' is not known"),
        ("input=a.png topk=0", 2, "topk: expected an integer >= 1, got 0"),
        ("input=a.png dataset=mnist", 2, "key 'dataset' is not known"),
        ("input=a.png model.hidden=[3]", 4, "does not fit this model"),
        ("input=a.png epochs=3", 2, "key 'epochs' is not known"),
        ("input=a.png -m seed=1,2", 2, "trainkit predict does one thing at a time: leave out -m"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: str, code: int, message: str, digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    lay_out(tmp_path, {"a.png": image(mode="L"), "folder": None})
    done = trainkit_here("predict", f"ckpt={digits_run}", *words.split())
    assert done.code == code and message in done.err, done.err
    assert len(done.err.splitlines()) == 1 and done.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder"]


def test_a_table_of_the_wrong_kind_is_a_row(iris_run: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("width,height\n1,2\n")
    done = trainkit_here("predict", f"ckpt={iris_run}", "input=a.csv")
    assert done.code == 3
    assert rows_of(done.out)[0]["error"] == "it has no column 'sepal length (cm)'"
    assert "1 of 1 inputs could not be predicted\n" in done.err


def test_a_checkpoint_says_neither_where_to_write_nor_what_to_read(
    digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    from trainkit.checkpoints import checkpoint

    tensors, meta = checkpoint.load(checkpoint.locate(digits_run))
    meta["config"] |= {"output": str(tmp_path / "x.csv"), "overwrite": True, "topk": 7, "input": "/", "batch_size": 3}
    facts = {key: meta[key] for key in meta if key not in ("format", "trainkit", "sha256")}
    (tmp_path / "hostile.safetensors").write_bytes(packed(tensors, facts))
    lay_out(tmp_path, {"a.png": image(mode="L")})
    done = trainkit_here("predict", "ckpt=hostile.safetensors", "--cfg", "job")
    assert {"output: null", "overwrite: false", "topk: 1", "input: ???", "batch_size: 3"} <= set(done.out.splitlines())
    assert trainkit_here("predict", "ckpt=hostile.safetensors", "input=a.png").out.count("\n") == 2
    assert not (tmp_path / "x.csv").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.clear(),
        lambda spec: spec["inputs"]["x"].update(dtype=7),
        lambda spec: spec["inputs"]["x"].update(shape="wide"),
        lambda spec: spec["inputs"]["x"].update(mean=None),
        lambda spec: spec["targets"]["y"].update(task="guessing"),
        lambda spec: spec["targets"]["y"].update(classes=["one"]),
    ],
)
def test_a_checkpoint_with_other_facts_is_refused(
    change: Any, digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    from trainkit.checkpoints import checkpoint

    tensors, meta = checkpoint.load(checkpoint.locate(digits_run))
    change(meta["spec"])
    facts = {key: meta[key] for key in meta if key not in ("format", "trainkit", "sha256")}
    (tmp_path / "odd.safetensors").write_bytes(packed(tensors, facts))
    lay_out(tmp_path, {"a.png": image(mode="L")})
    done = trainkit_here("predict", "ckpt=odd.safetensors", "input=a.png")
    assert done.code == 4 and len(done.err.splitlines()) == 1 and "odd.safetensors" in done.err


def test_memory_does_not_grow_with_the_number_of_inputs(
    digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    """Eight times as many images, from file to row: the same peak, give or take what one batch holds."""
    lay_out(tmp_path, {"in/0.png": image(mode="L")})
    peaks = []
    for count in (1_000, 1_000, 8_000):  # the first time, modules are loaded
        for number in range(len(os.listdir(tmp_path / "in")), count):
            os.link(tmp_path / "in" / "0.png", tmp_path / "in" / f"{number}.png")
        tracemalloc.start()
        words = ["input=in", "output=out.csv", "overwrite=true", "workers=0"]
        done = trainkit_here("predict", f"ckpt={digits_run}", *words)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.out == f"out.csv: {count:,} inputs, 0 failed\n", done.err
    names = 7_000 * 400  # bytes for the entries of one folder, of which up to 10,000 are held
    assert peaks[2] < peaks[1] + names, peaks


def test_a_closed_pipe_is_no_error(digits_run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((20_000, 1, 8, 8), np.uint8))
    command = (
        f"'{sys.executable}' -m trainkit predict ckpt='{digits_run}' input=x.npz | head -1; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "input,row,class,probability,error\n0\n" and done.stderr == ""


def test_a_full_disk_behind_stdout_is_one_line(digits_run: Path, tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    lay_out(tmp_path, {"a.png": image(mode="L")})
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "trainkit", "predict", f"ckpt={digits_run}", "input=a.png"],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 6
    assert done.stderr == "trainkit: error: cannot write to stdout (No space left on device)\n"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_leaves_the_old_output(signum: int, code: int, digits_run: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((2_000_000, 1, 8, 8), np.uint8))
    (tmp_path / "out.csv").write_text("old")
    words = ["predict", f"ckpt={digits_run}", "input=x.npz", "output=out.csv", "overwrite=true"]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainkit", *words],
        cwd=tmp_path,
        env=clean_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.csv.*.tmp")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code and err == f"trainkit: error: stopped by {signal.Signals(signum).name}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "x.npz"]
    assert (tmp_path / "out.csv").read_text() == "old"


def test_the_installed_command_in_a_folder_with_a_space(digits_run: Path, trainkit: Command, tmp_path: Path) -> None:
    place = tmp_path / "ein Ordner, größer"
    lay_out(place, {"a b.png": image(mode="L")})
    shutil.copy(digits_run / "checkpoints" / "best.safetensors", place / "m.safetensors")
    done = trainkit("predict", "ckpt=m.safetensors", "input=a b.png", cwd=place, env={"NO_COLOR": "1", "LC_ALL": "C"})
    assert done.returncode == 0, done.stderr
    assert [row["input"] for row in rows_of(done.stdout)] == ["a b.png"]
    assert sorted(path.name for path in place.iterdir()) == ["a b.png", "m.safetensors"]
