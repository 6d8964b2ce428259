"""`trainkit train --help`: usage, examples, the groups with their options, the config with its values."""

from __future__ import annotations

from pathlib import Path

from trainkit.config import folders
from trainkit.config.compose import FRAMES, group_names
from trainkit.config.frame import Frame
from trainkit.text import say, visible

EXAMPLES = {
    "train": [
        ("trainkit train", "digits with an MLP, offline"),
        ("trainkit train dataset=mnist model=cnn optim=adam epochs=3", "another data set, model, optimizer"),
        ("trainkit train model=mlp model.hidden=[64,32] optim.lr=0.05", "arguments of a component"),
        ("trainkit train -m model=mlp,cnn seed=0,1", "a sweep: every combination"),
        ("trainkit train --cfg job", "print the config, run nothing"),
    ],
    "eval": [
        ("trainkit eval ckpt=outputs/train/RUN", "the best checkpoint of a run on its test split"),
        ("trainkit eval ckpt=outputs/train/RUN split=val", "another split"),
        ("trainkit eval ckpt=best.safetensors device=cpu batch_size=512", "a file, with overrides"),
    ],
    "predict": [
        ("trainkit predict ckpt=outputs/train/RUN input=photos", "every image in a folder, as CSV on stdout"),
        (
            "trainkit predict ckpt=outputs/train/RUN input='photos/*.png' topk=3",
            "a pattern; the three likeliest classes",
        ),
        ("trainkit predict ckpt=outputs/train/RUN input=[a.csv,b.npz] output=out.jsonl", "rows of tables, to a file"),
    ],
    "export": [
        ("trainkit export ckpt=outputs/train/RUN output=model.onnx", "ONNX that takes raw inputs, for ONNX Runtime"),
        ("trainkit export ckpt=outputs/train/RUN output=model.pt2 probabilities=true", "torch.export, with softmax"),
        ("trainkit export ckpt=best.safetensors output=weights.safetensors", "the weights alone, a state_dict"),
    ],
}
FLAGS = [
    ("-m, --multirun", "sweep: every comma-separated value, range() or choice()"),
    ("-c, --cfg job|hydra|all", "print the config and stop; -p KEY one part; --resolve"),
    ("-cd, --config-dir DIR", "config files of your own, before ./conf and the packaged ones"),
    ("-cn, --config-name NAME", "compose NAME.yaml of such a folder instead"),
    ("-i, --info [WHAT]", "searchpath, defaults-tree, plugins, …"),
    ("--json", "print the result as JSON on stdout, everything else on stderr"),
    ("--hydra-help", "Hydra's own flags"),
]


def show_help(verb: str, confs: list[Path]) -> None:
    """Print the help of a verb."""
    say(f"usage: trainkit {verb} [group=option …] [key=value …] [flags]", "", "examples:")
    for command, meaning in EXAMPLES[verb]:
        say(f"  {command}", f"      {meaning}")
    say("", "groups (trainkit ls GROUP describes the options):")
    for group in group_names(verb):
        say(*_wrap(group, list(folders.options(group, confs))))
    say("", "keys:", *_keys(verb, confs))
    say("", "flags:")
    for flag, meaning in FLAGS if issubclass(FRAMES[verb], Frame) else FLAGS[1:]:
        say(f"  {flag:26} {meaning}")


def _wrap(group: str, names: list[str]) -> list[str]:
    import textwrap

    return textwrap.wrap(visible(", ".join(names)), 79, initial_indent=f"  {group:10} ", subsequent_indent=" " * 13)


def _keys(verb: str, confs: list[Path]) -> list[str]:
    """The top-level keys as the verb's YAML file has them, with its comments."""
    files = [folder / f"{verb}.yaml" for folder in [*confs, folders.packaged_conf()]]
    lines = folders.read_text(next(file for file in files if file.is_file())).splitlines()
    start = lines.index("# keys") + 1 if "# keys" in lines else 0
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("hydra:")), len(lines))
    while end > start and not lines[end - 1].strip():
        end -= 1
    return [f"  {line}" for line in lines[start:end]]
