"""Section 2e: processes, signals, terminal, time. What needs a process of its own is in test_processes.py."""

from __future__ import annotations

from fault_table import Fault

HERE = "tests/faults/test_processes.py"
SWEEP = "tests/e2e/test_sweep.py"
KILLS = "tests/proofs/test_kills.py"

ROWS = [
    Fault(67, "two runs in the same second", proof=(f"{SWEEP}::test_two_runs_of_one_moment_have_two_folders",)),
    Fault(68, "a run folder in use", proof=(f"{KILLS}::test_one_process_at_a_time",)),
    Fault(
        69, "interrupted", proof=(f"{KILLS}::test_a_signal_saves", f"{KILLS}::test_the_second_signal_ends_it_at_once")
    ),
    Fault(70, "terminated, hung up", proof=(f"{KILLS}::test_a_signal_saves", f"{KILLS}::test_a_signal_at_any_moment")),
    Fault(
        71,
        "an interrupt that the parent ignores",
        proof=(f"{KILLS}::test_a_signal_that_the_parent_ignores_stays_ignored",),
    ),
    Fault(72, "stopped and continued", proof=(f"{HERE}::test_stopped_and_continued",)),
    Fault(
        73,
        "workers of a killed run",
        proof=("tests/data/images/test_decoders.py::test_no_worker_outlives_a_killed_run",),
    ),
    Fault(74, "the reader of the output has gone", proof=(f"{HERE}::test_the_reader_has_gone",)),
    Fault(75, "the output goes to a full disk", proof=(f"{HERE}::test_a_full_disk_behind_the_output",)),
    Fault(76, "standard streams closed", proof=(f"{HERE}::test_closed_streams",)),
    Fault(77, "no terminal", proof=(f"{HERE}::test_no_terminal",)),
    Fault(78, "a plain C locale", proof=(f"{HERE}::test_plain_c_locale",)),
    Fault(79, "odd paths", proof=(f"{HERE}::test_odd_paths", f"{HERE}::test_paths_that_cannot_be")),
    Fault(80, "a clock that is wrong", proof=(f"{HERE}::test_a_clock_that_is_wrong",)),
    Fault(81, "a sweep with a failing job", proof=(f"{SWEEP}::test_failed_jobs_are_rows_and_the_others_run",)),
    Fault(
        82,
        "a sweep killed and restarted",
        proof=("tests/faults/test_resume.py::test_r82_a_sweep_goes_on_and_passes_over_what_is_done",),
    ),
    Fault(
        83,
        "resumed with another environment",
        proof=("tests/faults/test_resume.py::test_r83_another_environment_is_said",),
    ),
    Fault(
        84,
        "no home folder, another umask",
        proof=(
            f"{HERE}::test_no_home_and_another_umask",
            "tests/test_text.py::test_a_user_without_a_home_gets_a_private_folder",
        ),
    ),
    Fault(85, "python -O and warnings as errors", proof=(f"{HERE}::test_optimised_and_warnings_as_errors",)),
]
