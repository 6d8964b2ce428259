"""argv -> verb. The only place that prints errors and decides exit codes; imports only the standard library.

Exit codes: 0 done, 1 internal error, a failed job of a sweep or export, 2 usage or config, 3 data, 4 checkpoint,
5 numerics, 6 resources, 130 interrupted.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from trainkit.errors import (
    ConfigError,
    ResourceError,
    TrainkitError,
    first_line,
    is_out_of_memory,
    out_of_memory,
    unknown,
)
from trainkit.text import say


@dataclass(frozen=True)
class Verb:
    """What a verb does, in a line, and the "module:function" behind it."""

    help: str
    target: str
    config: bool = True  # composed by Hydra from conf/<verb>.yaml; else a plain function of argv, beside its HELP


VERBS = {
    "train": Verb("train a model; prints the run folder and what to type next", "trainkit.commands.train:train"),
    "eval": Verb("evaluate a checkpoint: ckpt=RUN_FOLDER|FILE", "trainkit.commands.eval:evaluate"),
    "resume": Verb("go on with a stopped run; epochs=+N extends one", "trainkit.launch.resume:resume", config=False),
    "reproduce": Verb("run it again: bit-identical or not", "trainkit.commands.reproduce:reproduce", config=False),
    "predict": Verb("the classes of new inputs: ckpt=RUN input=FILE|FOLDER", "trainkit.commands.predict:predict"),
    "export": Verb("a model for other programs: ckpt=RUN output=FILE", "trainkit.commands.export:export"),
    "report": Verb("one HTML file about runs or a sweep", "trainkit.commands.report:report", config=False),
    "runs": Verb("what ran: filter, sort, choose columns", "trainkit.commands.runs:runs", config=False),
    "compare": Verb("runs side by side, with statistics", "trainkit.commands.compare:compare", config=False),
    "ls": Verb("what can be chosen: all groups, or the options of one", "trainkit.commands.ls:ls", config=False),
    "plan": Verb("what a training would be, without training", "trainkit.commands.plan:plan", config=False),
    "check": Verb("read a whole data set and say what is wrong", "trainkit.commands.check:check", config=False),
    "doctor": Verb("this machine and installation, for a bug report", "trainkit.commands.doctor:doctor", config=False),
    "explain": Verb("a config key: value, type, what set it", "trainkit.commands.explain:explain", config=False),
    "completion": Verb("tab completion for bash, zsh or fish", "trainkit.completion.command:completion", config=False),
}

EXAMPLES = """\
examples:
  trainkit train                                    digits with an MLP, offline
  trainkit train dataset=mnist model=cnn optim=adam epochs=3
  trainkit eval ckpt=outputs/train/RUN
  trainkit predict ckpt=outputs/train/RUN input=photos
  trainkit export ckpt=outputs/train/RUN output=model.onnx
  trainkit train -m model=mlp,cnn optim=sgd,adam seed=0,1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The `trainkit` command. Returns the exit code."""
    prepare_streams()
    if argv is None:
        read_words_as_utf8()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except TrainkitError as error:
        for line in error.problems:
            say(f"trainkit: error: {line}", stream=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        say("trainkit: interrupted", stream=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has left (`| head`); what is left in the buffer has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return internal_error(error)
        say(f"trainkit: error: the output cannot be written ({error.strerror})", stream=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ResourceError.exit_code
    except Exception as error:
        return internal_error(error)


def internal_error(error: Exception) -> int:
    """Say in one line that something went wrong that should not have. Returns the exit code."""
    # A bug of ours, or of a plugin that Hydra loads (a launcher, a sweeper).
    if os.environ.get("TRAINKIT_FULL_ERROR") == "1":
        import traceback

        say(*"".join(traceback.format_exception(error)).rstrip().split("\n"), stream=sys.stderr)
        return 1
    if is_out_of_memory(error):
        say(f"trainkit: error: {out_of_memory(error)}", stream=sys.stderr)
        return ResourceError.exit_code
    hint = "set TRAINKIT_FULL_ERROR=1 for the traceback"
    say(f"trainkit: error: internal error: {first_line(error)} ({hint})", stream=sys.stderr)
    return 1


def prepare_streams() -> None:
    """Have all three standard streams open, and let no character that one of them cannot write end a run."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # closed by the caller (`>&-`): the next file opened
        os.set_inheritable(descriptor, True)  # would take its place, and what is printed would end up in it
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def read_words_as_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale is plain C, in which no path with an accent can be opened."""
    if sys.getfilesystemencoding() == "ascii":
        os.environ["PYTHONUTF8"] = "1"  # for the processes of a sweep and the workers too
        os.execv(sys.executable, sys.orig_argv)


def dispatch(words: list[str]) -> int:
    """Run the verb that the first word names."""
    if not words or words[0] in ("-h", "--help", "help"):
        say(*usage().split("\n"))
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from trainkit import __version__

        say(f"trainkit {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        what = "flag" if name.startswith("-") else "command"
        raise ConfigError(unknown(what, name, [*VERBS, "--help", "--version"]))
    verb = VERBS[name]
    refuse_ranks()
    if verb.config:
        from trainkit.launch.run import run

        return run(name, verb.target, rest)
    place, _, function = verb.target.partition(":")
    module = importlib.import_module(place)
    if "-h" in rest or "--help" in rest:
        say(*module.HELP.split("\n"))
        return 0
    return int(getattr(module, function)(rest))


def refuse_ranks() -> None:
    """Raise ConfigError for one of several processes that torchrun or its like have started for one run."""
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if rank.isdecimal() and size.isdecimal() and int(size) > 1:
        raise ConfigError(
            f"this is process {rank} of {size} (RANK, WORLD_SIZE: torchrun), and trainkit trains in one process: each "
            "would do all of the work, in a folder of its own; start it without torchrun"
        )


def usage() -> str:
    """The text of `trainkit --help`."""
    verbs = "\n".join(f"  {name:10} {verb.help}" for name, verb in VERBS.items())
    return (
        "usage: trainkit COMMAND [group=option …] [key=value …] [flags]\n\n"
        f"commands:\n{verbs}\n\n{EXAMPLES}\ntrainkit COMMAND --help shows its options; trainkit --version the version."
    )


if __name__ == "__main__":
    raise SystemExit(main())
