"""argv -> verb: prints errors and decides exit codes, but for those of a run; imports only the standard library.

Exit codes: 0 done, 1 internal error, a failed job of a sweep or export, 2 usage or config, 3 data, 4 checkpoint,
5 numerics, 6 resources, 130 interrupted.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
from collections.abc import Callable, Sequence

from trainkit.errors import (
    ConfigError,
    ResourceError,
    TrainkitError,
    first_line,
    is_out_of_memory,
    out_of_memory,
    unknown,
)
from trainkit.launch.verbs import VERBS
from trainkit.text import say

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
        code = choose(words)()
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


def choose(words: list[str]) -> Callable[[], int]:
    """What the words ask for, ready to be called. Raises ConfigError for a verb that does not exist."""
    if not words or words[0] in ("-h", "--help", "help"):
        return functools.partial(show, usage(), 0 if words else 2)
    if words[0] in ("-V", "--version"):
        from trainkit.version import __version__

        return functools.partial(show, f"trainkit {__version__}")
    name, rest = words[0], words[1:]
    if name not in VERBS:
        what = "flag" if name.startswith("-") else "command"
        raise ConfigError(unknown(what, name, [*VERBS, "--help", "--version"]))
    verb = VERBS[name]
    refuse_ranks()
    if verb.kind != "words":
        from trainkit.launch.run import run

        return functools.partial(run, name, rest)
    if "-h" in rest or "--help" in rest:
        return functools.partial(show, verb.long_help())
    return functools.partial(verb.function(), rest)


def show(text: str, code: int = 0) -> int:
    """Print a text; returns the exit code."""
    say(*text.split("\n"))
    return code


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
