"""Section 2d: checkpoints and disk."""

from __future__ import annotations

from fault_table import Fault

DAMAGED = "tests/e2e/test_bad_checkpoint.py::test_damaged"
ASKED = "tests/e2e/test_bad_checkpoint.py::test_asked_too_much"
CHECKPOINT = "tests/checkpoints/test_checkpoint.py"
SAVES = "tests/proofs/test_saves.py"
CHANGED = "tests/proofs/test_changed.py"
RESUME = "tests/faults/test_resume.py"

ROWS = [
    Fault(50, "killed at any call of a save", proof=(f"{SAVES}::test_killed_at_every_call",)),
    Fault(
        51,
        "a full disk",
        proof=("tests/test_storage.py::test_a_write_that_does_not_fit_keeps_the_old_file", "tests/faults/test_disk.py"),
    ),
    Fault(52, "fsync fails", proof=(f"{SAVES}::test_failed_at_every_call",)),
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
        proof=(f"{DAMAGED}[flipped-in-a-tensor]", "tests/proofs/test_damage.py::test_the_run_ends_in_the_same_bits"),
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
    Fault(57, "parameters in another order", proof=(f"{RESUME}::test_r57_optimizer_state_goes_by_name",)),
    Fault(58, "state of another optimizer", proof=(f"{RESUME}::test_r58_another_optimizer_is_refused",)),
    Fault(
        59,
        "resumed with another learning rate",
        proof=(f"{RESUME}::test_r59_another_learning_rate_is_refused_unless_allowed",),
    ),
    Fault(60, "of another type of number", proof=(f"{CHECKPOINT}::test_a_model_that_does_not_fit_is_told_where",)),
    Fault(61, "more elements declared than there are bytes", proof=(f"{RESUME}::test_r61_more_elements_than_bytes",)),
    Fault(62, "written by a newer trainkit", proof=(f"{DAMAGED}[r16-newer-format]",)),
    Fault(
        63,
        "an output folder that cannot be written",
        "train output_dir=here",
        6,
        "cannot make the run folder .*here",
        {"here": "a file"},
        proof=(f"{RESUME}::test_r63_a_run_folder_that_is_removed",),
    ),
    Fault(
        64,
        "killed between checkpoint and log",
        proof=(
            f"{SAVES}::test_power_lost_in_a_training_run",
            f"{CHANGED}::test_a_longer_run_killed_at_any_call",
            f"{CHANGED}::test_another_lr_killed_at_any_call",
            "tests/proofs/test_damage.py::test_a_lost_log_is_said_and_the_run_goes_on",
        ),
    ),
    Fault(65, "best and last disagree", proof=(f"{SAVES}::test_killed_at_every_call",)),
    Fault(66, "a checkpoint removed while it is read", proof=(f"{SAVES}::test_power_lost_at_every_call",)),
]
