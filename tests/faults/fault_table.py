"""The faults that a training command must survive, by the numbers of the project's list, and the tests that show each.

What is one bad command is a row of tests/e2e/test_bad_input.py; the other tests are named here, and written where they
belong. test_faults.py sees that no number is left out and every named test exists.
"""

from __future__ import annotations

import dataclasses

REFUSED = "tests/e2e/test_bad_input.py::test_refused"
FINE = "tests/e2e/test_bad_input.py::test_fine"
BAD_CHECKPOINT = "tests/e2e/test_bad_checkpoint.py"
CHANGED = "tests/proofs/test_changed.py"
CHECKPOINT = "tests/checkpoints/test_checkpoint.py"
DAMAGE = "tests/proofs/test_damage.py"
DATASETS = "tests/data/datasets/test_datasets.py"
DECODERS = "tests/data/images/test_decoders.py"
FOLDER = "tests/data/datasets/test_folder.py"
KILLS = "tests/proofs/test_kills.py"
LOOP = "tests/test_loop.py"
PROCESSES = "tests/faults/test_processes.py"
RESUME = "tests/faults/test_resume.py"
SAVES = "tests/proofs/test_saves.py"
STORAGE = "tests/test_storage.py"
SWEEP = "tests/e2e/test_sweep.py"


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong, the tests that show how it ends, and, where nothing here runs it, why."""

    number: int
    what: str
    proof: tuple[str, ...] = ()
    skip: str = ""


FAULTS = [
    # 2a: config and command line
    Fault(1, "a mistyped key", (f"{REFUSED}[r01-wrong-key]",)),
    Fault(2, "a mistyped option", (f"{REFUSED}[r02-wrong-option]",)),
    Fault(3, "a mistyped argument", (f"{REFUSED}[r03-wrong-argument]",)),
    Fault(4, "values of the wrong type and range", (f"{REFUSED}[r04-several]",)),
    Fault(5, "a learning rate that is no number", (f"{REFUSED}[r05-nan]", f"{REFUSED}[r05-inf]")),
    Fault(6, "a value that must be given", (f"{REFUSED}[r06-missing]",)),
    Fault(7, "interpolations in a circle", (f"{REFUSED}[r07-cycle]", f"{REFUSED}[r07-cycle-in-file]")),
    Fault(8, "an alias bomb", (f"{REFUSED}[r08-alias-bomb]",)),
    Fault(
        9, "YAML that is none", (f"{REFUSED}[r09-duplicate-key]", f"{REFUSED}[r09-tab]", f"{REFUSED}[r09-not-utf-8]")
    ),
    Fault(
        10,
        "YAML that means something else",
        (f"{REFUSED}[r10-octal-and-no]", "tests/e2e/test_bad_input.py::test_r10_cfg_shows_what_yaml_made_of_a_value"),
    ),
    Fault(
        11,
        "quotes and brackets without a partner",
        (
            f"{REFUSED}[r11-without-a-partner]",
            "tests/config/test_compose.py::test_where_a_quote_or_bracket_lacks_its_partner",
        ),
    ),
    Fault(
        12,
        "a path with accents, not quoted",
        ("tests/e2e/test_bad_input.py::test_r12_a_value_that_is_not_ascii_needs_no_quotes",),
    ),
    # runs have no name to choose: their folder is made of the date, registered names and a random id
    Fault(
        13,
        "names that lead out of the run folder",
        (f"{REFUSED}[r13-hydras-names]", f"{REFUSED}[r13-name-with-path]", f"{REFUSED}[r13-long-name]"),
    ),
    Fault(14, "no such folder of config", (f"{REFUSED}[r14-no-config-dir]",)),
    Fault(
        15,
        "no such command",
        (f"{REFUSED}[r15-unknown-verb]", "tests/e2e/test_bad_input.py::test_no_argument_shows_the_usage"),
    ),
    # YAML has no version of its own: what this version does not know, it names. A checkpoint has one
    Fault(
        16,
        "a config of a newer version",
        (f"{REFUSED}[r16-newer-config]", f"{BAD_CHECKPOINT}::test_damaged[r16-newer-format]"),
    ),
    Fault(17, "a mistyped key with a plus", (f"{REFUSED}[r17-plus-key]",)),
    # 2b: data
    Fault(18, "an empty split", (f"{REFUSED}[r18-empty-val]", f"{REFUSED}[r18-empty-array]")),
    Fault(19, "a batch larger than the data", (f"{FINE}[r19-batch-larger-than-data]",)),
    Fault(20, "a last batch of one with batch norm", (f"{FINE}[r20-lone-sample]",)),
    Fault(21, "a label outside the classes", (f"{REFUSED}[r21-label-minus-one]", f"{REFUSED}[r21-label-too-large]")),
    Fault(
        22,
        "a class without images",
        (f"{REFUSED}[r22-class-without-image]", f"{REFUSED}[r22-class-not-in-train]", f"{FINE}[r22-hidden-folder]"),
    ),
    Fault(
        23,
        "a truncated image",
        (f"{REFUSED}[r23-cut-png]", f"{FINE}[r23-skip]", f"{FOLDER}::test_every_truncation_of_a_jpeg_is_seen"),
    ),
    # a flipped bit of a JPEG cannot be seen: the format has no checksum
    Fault(24, "a flipped bit in a PNG", (f"{REFUSED}[r24-flipped-png]",)),
    Fault(25, "text called .jpg", (f"{REFUSED}[r25-text]", f"{REFUSED}[r25-empty-file]", f"{FINE}[r25-no-images]")),
    Fault(26, "gray, RGBA, CMYK and 16-bit images mixed", (f"{FINE}[r26-color-modes]", f"{FINE}[r26-cmyk]")),
    Fault(
        27,
        "a decompression bomb",
        (
            f"{REFUSED}[r27-bomb]",
            f"{REFUSED}[r27-small-bomb]",
            "tests/data/datasets/test_npz.py::test_what_unpacks_to_more_than_the_memory",
        ),
    ),
    Fault(
        28,
        "a link that leads nowhere",
        (
            f"{REFUSED}[r28-dangling-folder]",
            f"{REFUSED}[r28-loop]",
            f"{FOLDER}::test_forbidden_folder_and_file",
            f"{DECODERS}::test_a_file_that_goes_bad_is_named",
        ),
    ),
    Fault(
        29,
        "no network for a download",
        ("tests/e2e/test_bad_input.py::test_r29_no_network", f"{DATASETS}::test_download"),
    ),
    Fault(30, "an archive that writes elsewhere", (f"{DATASETS}::test_cifar_archive",)),
    # a table is an .npz file
    Fault(
        31,
        "a table with a hole",
        (f"{REFUSED}[r31-nan-feature]", f"{REFUSED}[r31-unknown-text-label]", f"{REFUSED}[r31-objects]"),
    ),
    Fault(32, "a feature that never changes", (f"{FINE}[r32-constant-feature]", f"{REFUSED}[r32-mean-nan]")),
    Fault(
        33, "data changed since the checkpoint", (f"{RESUME}::test_r33_data_that_changed_is_refused_unless_allowed",)
    ),
    Fault(
        34,
        "a worker is killed",
        (f"{DECODERS}::test_a_run_whose_worker_is_killed_ends_with_6_and_keeps_its_checkpoint",),
    ),
    Fault(
        35,
        "a worker fails or hangs",
        (f"{DECODERS}::test_a_worker_that_hangs_is_one_error", f"{DECODERS}::test_a_file_that_goes_bad_is_named"),
    ),
    Fault(
        36,
        "too few open files for the workers",
        (f"{PROCESSES}::test_few_open_files", f"{DECODERS}::test_too_few_open_files_is_one_error"),
    ),
    # workers are fresh interpreters that get paths, so nothing is forked and nothing pickled
    Fault(37, "fork after threads", (f"{DECODERS}::test_the_weights_are_those_of_resident_for_any_number_of_workers",)),
    # 2c: numerics and device
    Fault(
        38,
        "a loss that is not finite",
        (f"{REFUSED}[r38-not-finite]", f"{LOOP}::test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved"),
    ),
    Fault(39, "exploding gradients", (f"{LOOP}::test_clip_bounds_the_first_update",)),
    # no label is ignored: those outside the classes are refused when the data is read
    Fault(40, "all labels ignored", (f"{REFUSED}[r40-ignored-labels]",)),
    Fault(
        41,
        "a loss scale that has fallen to 0",
        (f"{REFUSED}[r41-fp16]",),
        skip="that a scale which falls too far ends the run needs a GPU",
    ),
    Fault(
        42, "not a number as first monitored value", (f"{LOOP}::test_monitor_breaks_ties_by_loss_and_never_takes_nan",)
    ),
    Fault(43, "no CUDA device", ("tests/e2e/test_bad_input.py::test_cuda_without_one",)),
    Fault(44, "a device that there is not", (f"{REFUSED}[r44-no-such-device]", f"{REFUSED}[x-gpu]")),
    Fault(45, "cuDNN flags on the CPU", (f"{FINE}[r45-cudnn-on-cpu]",)),
    Fault(46, "out of memory on the GPU", skip="needs a GPU; its message is that of row 47"),
    Fault(
        47,
        "out of memory on the host",
        (f"{REFUSED}[r47-memory]", f"{PROCESSES}::test_too_little_memory_to_import_torch"),
    ),
    Fault(48, "an operation that has no deterministic form", (f"{REFUSED}[r48-no-deterministic-form]",)),
    Fault(
        49,
        "not a number in JSON",
        (
            f"{STORAGE}::test_replace_json_refuses_what_json_cannot_hold",
            "tests/faults/test_faults.py::test_row_49_json_has_null_for_what_is_not_finite",
        ),
    ),
    # 2d: checkpoints and disk
    Fault(50, "killed at any call of a save", (f"{SAVES}::test_killed_at_every_call",)),
    Fault(
        51,
        "a full disk",
        (f"{STORAGE}::test_a_write_that_does_not_fit_keeps_the_old_file", "tests/faults/test_disk.py"),
    ),
    Fault(52, "fsync fails", (f"{SAVES}::test_failed_at_every_call",)),
    Fault(
        53,
        "a checkpoint that is cut, empty, text, a folder, missing",
        (
            f"{REFUSED}[r53-no-checkpoint]",
            f"{CHECKPOINT}::test_every_flipped_bit_and_every_cut_is_noticed",
            f"{BAD_CHECKPOINT}::test_asked_too_much[empty-folder]",
        ),
    ),
    Fault(
        54,
        "a flipped bit",
        (f"{BAD_CHECKPOINT}::test_damaged[flipped-in-a-tensor]", f"{DAMAGE}::test_the_run_ends_in_the_same_bits"),
    ),
    Fault(
        55,
        "a pickle that runs code",
        (f"{REFUSED}[r55-pickle]", f"{CHECKPOINT}::test_foreign_files_are_refused", "tests/test_no_code.py"),
    ),
    Fault(
        56,
        "of another model",
        (
            f"{BAD_CHECKPOINT}::test_asked_too_much[other-width]",
            f"{CHECKPOINT}::test_a_model_that_does_not_fit_is_told_where",
        ),
    ),
    Fault(57, "parameters in another order", (f"{RESUME}::test_r57_optimizer_state_goes_by_name",)),
    Fault(58, "state of another optimizer", (f"{RESUME}::test_r58_another_optimizer_is_refused",)),
    Fault(
        59,
        "resumed with another learning rate",
        (f"{RESUME}::test_r59_another_learning_rate_is_refused_unless_allowed",),
    ),
    Fault(60, "of another type of number", (f"{CHECKPOINT}::test_a_model_that_does_not_fit_is_told_where",)),
    Fault(61, "more elements declared than there are bytes", (f"{RESUME}::test_r61_more_elements_than_bytes",)),
    Fault(62, "written by a newer trainkit", (f"{BAD_CHECKPOINT}::test_damaged[r16-newer-format]",)),
    Fault(
        63,
        "an output folder that cannot be written",
        (f"{REFUSED}[x-output-is-file]", f"{RESUME}::test_r63_a_run_folder_that_is_removed"),
    ),
    Fault(
        64,
        "killed between checkpoint and log",
        (
            f"{SAVES}::test_power_lost_in_a_training_run",
            f"{CHANGED}::test_a_longer_run_killed_at_any_call",
            f"{CHANGED}::test_another_lr_killed_at_any_call",
            f"{DAMAGE}::test_a_lost_log_is_said_and_the_run_goes_on",
        ),
    ),
    Fault(65, "best and last disagree", (f"{SAVES}::test_killed_at_every_call",)),
    Fault(66, "a checkpoint removed while it is read", (f"{SAVES}::test_power_lost_at_every_call",)),
    # 2e: processes, signals, terminal, time
    Fault(67, "two runs in the same second", (f"{SWEEP}::test_two_runs_of_one_moment_have_two_folders",)),
    Fault(
        68,
        "a run folder in use",
        (
            f"{KILLS}::test_one_process_at_a_time",
            f"{SWEEP}::test_a_sweep_folder_in_use_is_refused",
            f"{SWEEP}::test_a_folder_with_another_sweep_is_refused",
        ),
    ),
    Fault(69, "interrupted", (f"{KILLS}::test_a_signal_saves", f"{KILLS}::test_the_second_signal_ends_it_at_once")),
    Fault(70, "terminated, hung up", (f"{KILLS}::test_a_signal_saves", f"{KILLS}::test_a_signal_at_any_moment")),
    Fault(
        71, "an interrupt that the parent ignores", (f"{KILLS}::test_a_signal_that_the_parent_ignores_stays_ignored",)
    ),
    Fault(72, "stopped and continued", (f"{PROCESSES}::test_stopped_and_continued",)),
    Fault(73, "workers of a killed run", (f"{DECODERS}::test_no_worker_outlives_a_killed_run",)),
    Fault(74, "the reader of the output has gone", (f"{PROCESSES}::test_the_reader_has_gone",)),
    Fault(75, "the output goes to a full disk", (f"{PROCESSES}::test_a_full_disk_behind_the_output",)),
    Fault(76, "standard streams closed", (f"{PROCESSES}::test_closed_streams",)),
    Fault(77, "no terminal", (f"{PROCESSES}::test_no_terminal",)),
    Fault(78, "a plain C locale", (f"{PROCESSES}::test_plain_c_locale",)),
    Fault(79, "odd paths", (f"{PROCESSES}::test_odd_paths", f"{PROCESSES}::test_paths_that_cannot_be")),
    Fault(80, "a clock that is wrong", (f"{PROCESSES}::test_a_clock_that_is_wrong",)),
    Fault(81, "a sweep with a failing job", (f"{SWEEP}::test_failed_jobs_are_rows_and_the_others_run",)),
    Fault(82, "a sweep killed and restarted", (f"{RESUME}::test_r82_a_sweep_goes_on_and_passes_over_what_is_done",)),
    Fault(83, "resumed with another environment", (f"{RESUME}::test_r83_another_environment_is_said",)),
    Fault(
        84,
        "no home folder, another umask",
        (
            f"{PROCESSES}::test_no_home_and_another_umask",
            "tests/test_text.py::test_a_user_without_a_home_gets_a_private_folder",
        ),
    ),
    Fault(85, "python -O and warnings as errors", (f"{PROCESSES}::test_optimised_and_warnings_as_errors",)),
]
