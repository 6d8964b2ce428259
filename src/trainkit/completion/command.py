"""`trainkit completion SHELL`: the script that a shell needs to complete trainkit's words with the tab key.

The scripts ask this program itself, on every tab, with `trainkit completion --answer LINE`. Nothing is cached, and
torch is not imported.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from trainkit.completion.words import answers
from trainkit.config.flags import FlagParser
from trainkit.console.columns import emit
from trainkit.errors import ConfigError, TrainkitError, unknown

HELP = """\
usage: trainkit completion bash|zsh|fish

Prints the script that lets the shell complete commands, groups and their options, keys, flags and paths.

examples:
  source <(trainkit completion bash)                     bash, best as a line of ~/.bashrc
  source <(trainkit completion zsh)                      zsh, in ~/.zshrc, after compinit
  trainkit completion fish | source                      fish, in ~/.config/fish/config.fish

The scripts call trainkit completion --answer LINE, which prints the words that may stand at the end of LINE."""

# Bash takes `=` and `:` for ends of words (COMP_WORDBREAKS), so of an answer only what follows the last of them is
# inserted. Characters that the shell would read are escaped. `compopt` is missing in the bash 3.2 of macOS.
BASH = r"""
_trainkit() {
    local line=${COMP_LINE:0:COMP_POINT} word answer last head
    word=${line//\\ /_}
    word=${word##*[[:space:]]}
    head=${word%"${word##*[=:]}"}
    [[ $COMP_WORDBREAKS == *=* ]] || head=
    COMPREPLY=()
    while IFS= read -r answer; do
        answer=${answer#"$head"}
        case $answer in *[[:space:]\'\"\\\$\`\&\;\|\<\>\(\)\*\?\!\#]*) printf -v answer %q "$answer" ;; esac
        COMPREPLY+=("$answer")
        last=$answer
    done < <("$1" completion --answer "$line" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && $last == *[=/.] ]] && type compopt &>/dev/null; then
        compopt -o nospace
    fi
}
complete -F _trainkit trainkit
"""
ZSH = r"""
#compdef trainkit
_trainkit() {
    local -a found open
    found=("${(@f)$("${(Q)words[1]}" completion --answer "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    open=("${(@M)found:#*[=/.]}")
    found=("${(@)found:#*[=/.]}")
    compadd -S '' -- "${(@)open:#}"
    compadd -- "${(@)found:#}"
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _trainkit trainkit
"""
FISH = r"""
function __trainkit_answer
    set -l words (commandline -opc)
    $words[1] completion --answer (commandline -cp | string collect) 2>/dev/null
end
complete -c trainkit -f -a '(__trainkit_answer)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(argv: Sequence[str]) -> int:
    """Print a script, or the answers to a line. Raises ConfigError for a shell that is not known."""
    parser = FlagParser("completion")
    parser.add_argument("shell", nargs="?")
    parser.add_argument("--answer")
    flags = parser.read(argv)
    if flags.answer is not None:
        emit(answer(flags.answer))
        return 0
    if flags.shell is None:
        raise ConfigError(f"completion: name a shell; choose from: {', '.join(SCRIPTS)}")
    if flags.shell not in SCRIPTS:
        raise ConfigError(unknown("shell", flags.shell, SCRIPTS))
    emit(SCRIPTS[flags.shell].strip().splitlines())
    return 0


def answer(line: str) -> list[str]:
    """The words that may stand at the end of a command line; none when it cannot be read."""
    try:
        words = shlex.split(line)
    except ValueError:  # within quotes
        return []
    if not line.strip() or not os.path.basename(words[0]):
        return []
    if line[-1].isspace():
        words.append("")
    try:
        return answers(words[1:-1], words[-1]) if len(words) > 1 else []
    except TrainkitError:  # a broken config of the user's is told when it is used
        return []
