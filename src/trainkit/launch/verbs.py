"""The verbs: what each does, which config it takes, and the function behind it. The one list of them; no import but
the standard library's."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb.

    target: the "module:function" behind it. kind: a `run` is composed from a config and works in a run folder, a `file`
    is composed and writes the file that its `output` names, and `words` is a function of the words behind the verb,
    beside the text of its help, `HELP`. config: whose keys its words set. examples: command and meaning.
    """

    help: str
    target: str
    kind: Literal["run", "file", "words"] = "words"
    config: str | None = None
    examples: tuple[tuple[str, str], ...] = ()

    def function(self) -> Callable[..., Any]:
        """The function behind the verb, imported."""
        found: Callable[..., Any] = getattr(self._module(), self.target.partition(":")[2])
        return found

    def long_help(self) -> str:
        """What `trainkit VERB --help` prints of a verb of words."""
        return str(self._module().HELP)

    def _module(self) -> Any:
        return importlib.import_module(self.target.partition(":")[0])


VERBS = {
    "train": Verb(
        "train a model; prints the run folder and what to type next",
        "trainkit.commands.train:train",
        "run",
        "train",
        (
            ("trainkit train", "digits with an MLP, offline"),
            ("trainkit train dataset=mnist model=cnn optim=adam epochs=3", "another data set, model, optimizer"),
            ("trainkit train model=mlp model.hidden=[64,32] optim.lr=0.05", "arguments of a component"),
            ("trainkit train -m model=mlp,cnn seed=0,1", "a sweep: every combination"),
            ("trainkit train --cfg job", "print the config, run nothing"),
        ),
    ),
    "eval": Verb(
        "evaluate a checkpoint: ckpt=RUN_FOLDER|FILE",
        "trainkit.commands.eval:evaluate",
        "run",
        "eval",
        (
            ("trainkit eval ckpt=outputs/train/RUN", "the best checkpoint of a run on its test split"),
            ("trainkit eval ckpt=outputs/train/RUN split=val", "another split"),
            ("trainkit eval ckpt=best.safetensors device=cpu batch_size=512", "a file, with overrides"),
        ),
    ),
    "resume": Verb("go on with a stopped run; epochs=+N extends one", "trainkit.launch.resume:resume"),
    "reproduce": Verb("run it again: bit-identical or not", "trainkit.commands.reproduce:reproduce"),
    "predict": Verb(
        "the classes of new inputs: ckpt=RUN input=FILE|FOLDER",
        "trainkit.commands.predict:predict",
        "file",
        "predict",
        (
            ("trainkit predict ckpt=outputs/train/RUN input=photos", "every image in a folder, as CSV on stdout"),
            (
                "trainkit predict ckpt=outputs/train/RUN input='photos/*.png' topk=3",
                "a pattern; the three likeliest classes",
            ),
            (
                "trainkit predict ckpt=outputs/train/RUN input=[a.csv,b.npz] output=out.jsonl",
                "rows of tables, to a file",
            ),
        ),
    ),
    "export": Verb(
        "a model for other programs: ckpt=RUN output=FILE",
        "trainkit.commands.export:export",
        "file",
        "export",
        (
            (
                "trainkit export ckpt=outputs/train/RUN output=model.onnx",
                "ONNX that takes raw inputs, for ONNX Runtime",
            ),
            (
                "trainkit export ckpt=outputs/train/RUN output=model.pt2 probabilities=true",
                "torch.export, with softmax",
            ),
            (
                "trainkit export ckpt=best.safetensors output=weights.safetensors",
                "the weights alone, a state_dict",
            ),
        ),
    ),
    "report": Verb("one HTML file about runs or a sweep", "trainkit.commands.report:report"),
    "runs": Verb("what ran: filter, sort, choose columns", "trainkit.commands.runs:runs"),
    "compare": Verb("runs side by side, with statistics", "trainkit.commands.compare:compare"),
    "ls": Verb("what can be chosen: all groups, or the options of one", "trainkit.commands.ls:ls"),
    "plan": Verb("what a training would be, without training", "trainkit.commands.plan:plan", config="train"),
    "check": Verb("read a whole data set and say what is wrong", "trainkit.commands.check:check", config="train"),
    "doctor": Verb("this machine and installation, for a bug report", "trainkit.commands.doctor:doctor"),
    "explain": Verb("a config key: value, type, what set it", "trainkit.commands.explain:explain", config="train"),
    "completion": Verb("tab completion for bash, zsh or fish", "trainkit.completion.command:completion"),
}
