"""Section 2a: config and command line. Exit code 2, one line for each mistake, before anything starts."""

from __future__ import annotations

from fault_table import Fault, mine

from writers import alias_bomb

INPUT = "tests/e2e/test_bad_input.py::test_refused_before_anything_starts"

ROWS = [
    Fault(1, "a mistyped key", "train modle=cnn", 2, r"key 'modle' is not known \(did you mean model\?\)"),
    Fault(2, "a mistyped option", "train model=cnnn", 2, r"'cnnn' is not known .*cnn\?\); choose from: airbench, cnn"),
    Fault(3, "a mistyped argument", "train optim.lrr=1", 2, r"key 'optim.lrr' is not known \(did you mean optim.lr\?"),
    Fault(
        4,
        "values of the wrong type and range",
        "train seed=abc batch_size=3.5 epochs=-1",
        2,
        ("seed: expected an integer", "batch_size: expected an integer >= 1", "epochs: expected an integer >= 1"),
    ),
    Fault(
        5,
        "a learning rate that is no number",
        "train optim.lr=nan",
        2,
        "optim.lr: expected a number > 0, got nan",
        proof=(f"{INPUT}[r05-inf]",),
    ),
    Fault(6, "a value that must be given", "train dataset=folder", 2, r"dataset.root is required \(a path\)"),
    Fault(
        7,
        "interpolations in a circle",
        "train 'monitor=${patience}' 'patience=${monitor}'",
        2,
        "monitor: .*runs in a circle",
        proof=(f"{INPUT}[r07-cycle-in-file]",),
    ),
    Fault(8, "an alias bomb", "train model=mine", 2, "its aliases expand to more than 10,000", mine(alias_bomb())),
    Fault(
        9,
        "YAML that is none",
        "train model=mine",
        2,
        "mine.yaml:2: found duplicate key name",
        mine("name: a\nname: b"),
        proof=(f"{INPUT}[r09-tab]", f"{INPUT}[r09-not-utf-8]"),
    ),
    Fault(
        10,
        "YAML that means something else",
        "train model=mine",
        2,
        ("model.hidden: .* got 8$", "model.dropout: .* got False$"),
        mine("name: mlp\nhidden: 010\ndropout: no\n"),
        proof=("tests/e2e/test_bad_input.py::test_r10_cfg_shows_what_yaml_made_of_a_value",),
    ),
    Fault(
        11,
        "quotes and brackets without a partner",
        "train 'monitor=\"x' 'model.hidden=[1,2'",
        2,
        (
            r"cannot read .*\(\" at character 9 is never closed: monitor=\^\"x\)",
            r"cannot read .*\(\[ at character 14 is never closed: model.hidden=\^\[1,2\)",
        ),
        proof=("tests/config/test_compose.py::test_where_a_quote_or_bracket_lacks_its_partner",),
    ),
    Fault(12, "a path with accents, not quoted", "train data_dir=données --cfg job", 0, "data_dir: données"),
    Fault(  # runs have no name to choose: their folder is made of the date, registered names and a random id
        13,
        "names that lead out of the run folder",
        "train hydra.job.name=../../x hydra.output_subdir=../x output_dir=",
        2,
        (
            r"hydra.job.name=\.\./\.\./x is refused; it names a file",
            "it must be a plain name",
            "output_dir: expected a path",
        ),
        proof=(
            f"{INPUT}[r13-name-with-path]",
            "tests/e2e/test_bad_input.py::test_refused_for_want_of_a_folder[r13-long-name]",
        ),
    ),
    Fault(14, "no such folder of config", "train --config-dir nope", 2, "config folder '.*/nope' does not exist"),
    Fault(
        15,
        "no such command",
        "trian",
        2,
        r"command 'trian' is not known \(did you mean train\?\)",
        proof=("tests/e2e/test_bad_input.py::test_no_argument_shows_the_usage",),
    ),
    Fault(  # YAML has no version of its own: what this version does not know, it names. A checkpoint has one
        16,
        "a config of a newer version",
        "train model=mine",
        2,
        "key 'model.experts' is not known",
        mine("name: mlp\nexperts: 8\n"),
        proof=("tests/e2e/test_bad_checkpoint.py::test_damaged[r16-newer-format]",),
    ),
    Fault(17, "a mistyped key with a plus", "train +epocs=1", 2, r"key 'epocs' is not known \(did you mean epochs\?\)"),
]
