"""Section 2d: checkpoints and disk."""

from __future__ import annotations

from fault_table import Fault

DAMAGED = "tests/e2e/test_bad_checkpoint.py::test_damaged"
ASKED = "tests/e2e/test_bad_checkpoint.py::test_asked_too_much"
CHECKPOINT = "tests/test_checkpoint.py"

ROWS = [
    Fault(50, "killed at any call of a save", pending="a kill at every call"),
    Fault(51, "a full disk", proof=("tests/test_storage.py::test_a_write_that_does_not_fit_keeps_the_old_file",)),
    Fault(52, "fsync fails", pending="EIO from every call"),
    Fault(
        53,
        "a checkpoint that is cut, empty, text, a folder, missing",
        "eval ckpt=gone",
        4,
        "checkpoint '.*/gone' does not exist; name a run folder",
        proof=(f"{CHECKPOINT}::test_every_flipped_bit_and_every_cut_is_noticed", f"{ASKED}[empty-folder]"),
    ),
    Fault(
        54,
        "a flipped bit",
        proof=(f"{DAMAGED}[flipped-in-a-tensor]", f"{CHECKPOINT}::test_every_flipped_bit_and_every_cut_is_noticed"),
        pending="resume falls back to the previous one",
    ),
    Fault(
        55,
        "a pickle that runs code",
        "eval ckpt=evil.pt",
        4,
        "is not a whole trainkit checkpoint$",
        {"evil.pt": b"cos\nsystem\n(S'touch HACKED'\ntR."},
        proof=(f"{CHECKPOINT}::test_foreign_files_are_refused", "tests/test_no_code.py"),
    ),
    Fault(
        56,
        "of another model",
        proof=(f"{ASKED}[other-width]", f"{CHECKPOINT}::test_a_model_that_does_not_fit_is_told_where"),
    ),
    Fault(57, "parameters in another order", pending="optimizer state is put back by name"),
    Fault(58, "state of another optimizer", pending="resume with another optim"),
    Fault(59, "resumed with another learning rate", pending="resume says which wins"),
    Fault(60, "of another type of number", proof=(f"{CHECKPOINT}::test_a_model_that_does_not_fit_is_told_where",)),
    Fault(61, "more elements declared than there are bytes", pending="a header that lies, with its digest right"),
    Fault(62, "written by a newer trainkit", proof=(f"{DAMAGED}[r16-newer-format]",)),
    Fault(
        63,
        "an output folder that cannot be written",
        "train output_dir=here",
        6,
        "cannot make the run folder .*here",
        {"here": "a file"},
        pending="read-only, and removed while running",
    ),
    Fault(64, "killed between checkpoint and log", pending="the log is cut to the offset of the checkpoint"),
    Fault(65, "best and last disagree", pending="one record names both"),
    Fault(66, "a checkpoint removed while it is read", pending="keep the last k"),
]
