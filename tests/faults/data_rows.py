"""Section 2b: data. Exit code 3 (6 where the machine is at fault), and the run folder says why."""

from __future__ import annotations

import numpy as np
from fault_table import FOLDER, NPZ, Fault, arrays

from writers import Link, class_folders, image, png_header, table

FINE = "tests/e2e/test_bad_input.py::test_fine"
REFUSED = "tests/e2e/test_bad_input.py::test_refused_when_data_and_model_are_known"
STREAMING = "tests/data/images/test_decoders.py"
FOLDERS = "tests/data/datasets/test_folder.py"
X, Y = table()["x"], table()["y"]


def with_value(array: np.ndarray, row: int, value: float) -> np.ndarray:
    changed = np.array(array)
    changed[row] = value
    return changed


PIXELS = image(size=64)

ROWS = [
    Fault(
        18,
        "an empty split",
        FOLDER,
        3,
        "images/val: no class folders",
        class_folders("images/train") | {"images/val": None},
        proof=(f"{REFUSED}[r18-empty-array]",),
    ),
    Fault(
        19,
        "a batch larger than the data",
        f"{NPZ} batch_size=5000",
        0,
        r"note: batch_size=5000 is larger than the train split \(36\): a step is an epoch",
        arrays(**table(50)),
    ),
    Fault(20, "a last batch of one with batch norm", proof=(f"{FINE}[r20-lone-sample]",)),
    Fault(
        21,
        "a label outside the classes",
        NPZ,
        3,
        r"data.npz.*row 4 is -1, outside 0",
        arrays(y=with_value(Y, 4, -1)),
        proof=(f"{REFUSED}[r21-label-too-large]",),
    ),
    Fault(
        22,
        "a class without images",
        FOLDER,
        3,
        "images/bird: no image in this class folder",
        class_folders(bird=None),
        proof=(f"{REFUSED}[r22-class-not-in-train]", f"{FINE}[r22-hidden-folder]"),
    ),
    Fault(
        23,
        "a truncated image",
        FOLDER,
        3,
        r"images/cat/a.png: not a readable image .*remove it or set dataset.on_bad=skip",
        class_folders() | {"images/cat/a.png": PIXELS[:500]},
        proof=(f"{FINE}[r23-skip]", f"{FOLDERS}::test_every_truncation_of_a_jpeg_is_seen"),
    ),
    Fault(  # a flipped bit of a JPEG cannot be seen: the format has no checksum
        24,
        "a flipped bit in a PNG",
        FOLDER,
        3,
        "images/cat/a.png: not a readable image",
        class_folders() | {"images/cat/a.png": PIXELS[:2000] + bytes([PIXELS[2000] ^ 1]) + PIXELS[2001:]},
    ),
    Fault(
        25,
        "text called .jpg",
        FOLDER,
        3,
        r"images/cat/a.jpg: not a readable image \(cannot identify",
        class_folders() | {"images/cat/a.jpg": "text"},
        proof=(f"{REFUSED}[r25-empty-file]", f"{FINE}[r25-no-images]"),
    ),
    Fault(26, "gray, RGBA, CMYK and 16-bit images mixed", proof=(f"{FINE}[r26-color-modes]", f"{FINE}[r26-cmyk]")),
    Fault(
        27,
        "a decompression bomb",
        FOLDER,
        3,
        "images/cat/a.png: .*decompression bomb",
        class_folders() | {"images/cat/a.png": png_header(20000, 20000)},
        proof=(
            f"{REFUSED}[r27-small-bomb]",
            "tests/data/datasets/test_npz.py::test_what_unpacks_to_more_than_the_memory",
        ),
    ),
    Fault(
        28,
        "a link that leads nowhere",
        FOLDER,
        3,
        "images/bird: a link that leads nowhere",
        class_folders(bird=Link("gone")),
        proof=(
            f"{REFUSED}[r28-loop]",
            f"{FOLDERS}::test_forbidden_folder_and_file",
            f"{STREAMING}::test_a_file_that_goes_bad_is_named",
        ),
    ),
    Fault(
        29,
        "no network for a download",
        proof=(
            "tests/e2e/test_bad_input.py::test_r29_no_network",
            "tests/data/datasets/test_datasets.py::test_download",
        ),
    ),
    Fault(30, "an archive that writes elsewhere", proof=("tests/data/datasets/test_datasets.py::test_cifar_archive",)),
    Fault(  # a table is an .npz file
        31,
        "a table with a hole",
        NPZ,
        3,
        "data.npz.*: inputs: row 7, column 0 is nan",
        arrays(x=with_value(X, 7, float("nan"))),
        proof=(f"{REFUSED}[r31-unknown-text-label]", f"{REFUSED}[r31-objects]"),
    ),
    Fault(
        32,
        "a feature that never changes",
        NPZ,
        0,
        r"note: 1 constant feature \(std 0\): centered, not scaled",
        arrays(x=np.hstack([X, np.full((20, 1), 7, dtype=np.float32)])),
        proof=(f"{REFUSED}[r32-mean-nan]",),
    ),
    Fault(
        33,
        "data changed since the checkpoint",
        proof=("tests/faults/test_resume.py::test_r33_data_that_changed_is_refused_unless_allowed",),
    ),
    Fault(
        34,
        "a worker is killed",
        proof=(f"{STREAMING}::test_a_run_whose_worker_is_killed_ends_with_6_and_keeps_its_checkpoint",),
    ),
    Fault(
        35,
        "a worker fails or hangs",
        proof=(
            f"{STREAMING}::test_a_worker_that_hangs_is_one_error",
            f"{STREAMING}::test_a_file_that_goes_bad_is_named",
        ),
    ),
    Fault(
        36,
        "too few open files for the workers",
        proof=(
            "tests/faults/test_processes.py::test_few_open_files",
            f"{STREAMING}::test_too_few_open_files_is_one_error",
        ),
    ),
    Fault(  # workers are fresh interpreters that get paths, so nothing is forked and nothing pickled
        37,
        "fork after threads",
        proof=(f"{STREAMING}::test_the_weights_are_those_of_resident_for_any_number_of_workers",),
    ),
]
