"""`polynet completion`: prints a script with which a shell completes commands, flags, their values, and files.

The script contains all names, so no process is started when you press TAB. zsh runs bash's function.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence

from absl import flags

from polynet_keras.cli.headings import choices_of
from polynet_keras.cli.recipe_flags import PRESETS
from polynet_keras.cli.renamed import old_names

USAGE = "bash | zsh"
EXAMPLES = (
    'eval "$(polynet completion bash)"      # in ~/.bashrc',
    "source <(polynet completion zsh)       # in ~/.zshrc, after compinit",
)
SHELLS = ("bash", "zsh")
ARGUMENTS = {"benchmark": ("input",), "completion": SHELLS, "launch": ("train",), "recipes": PRESETS}
"""The values of the first argument, by command, if it is not a file."""

SCRIPT = r"""# Completes `polynet`. Written by `polynet completion @SHELL@`.
@ZSH@_polynet() {
    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" command="${COMP_WORDS[1]}"
    local flags= switches= arguments= choices= prefix= index IFS=$' \t\n'
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "@COMMANDS@ help --help --version" -- "$current"))
        return
    fi
    # bash takes `--flag=value` for three words, where COMP_WORDBREAKS has not been changed; zsh for one.
    if [[ "$current" == "=" ]]; then
        current=
    elif [[ "$before" == "=" ]]; then
        before="${COMP_WORDS[COMP_CWORD-2]}"
    elif [[ "$current" == --*=* ]]; then
        before="${current%%=*}" prefix="${current%%=*}=" current="${current#*=}"
    fi
    # What follows `polynet launch -- train` is of train; another program's is not known here.
    if [[ "$command" == launch ]]; then
        for ((index = 2; index < COMP_CWORD; index++)); do
            if [[ "${COMP_WORDS[index]}" == "--" ]]; then
                if ((index + 1 == COMP_CWORD)); then
                    before=
                    break
                fi
                command="${COMP_WORDS[index+1]}"
                [[ "$command" == train ]] || return
                break
            fi
        done
    fi
    case "$command" in
@FLAGS@
        help) arguments="@COMMANDS@" ;;
    esac
    case "$command $before" in
@CHOICES@
    esac
    if [[ -n "$choices" ]]; then
        COMPREPLY=($(compgen -P "$prefix" -W "$choices" -- "$current"))
    elif [[ -n "$prefix" ]]; then
        for index in "$current"*; do  # zsh's `compgen -f` would look for files that begin with the flag
            [[ -e "$index" ]] && COMPREPLY+=("$prefix$index")
        done
    elif [[ "$current" == -* ]]; then
        COMPREPLY=($(compgen -W "$flags $switches --help --helpfull" -- "$current"))
    elif [[ " $flags " != *" $before "* ]]; then
        COMPREPLY=($(compgen -W "$arguments" -- "$current"))
    fi
    # What has no reply is the name of a file: that is what `-o default` is for.
}
complete -o default -F _polynet polynet
"""
BASH_IN_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def define_flags(values: flags.FlagValues) -> None:
    pass


def run(values: flags.FlagValues, arguments: list[str]) -> None:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise ValueError(f"expected a shell, {' or '.join(SHELLS)}; got {' '.join(arguments) or 'nothing'}")
    from polynet_keras.cli.main import COMMANDS

    defined = {command: _flags_of(command) for command in COMMANDS}
    texts = {
        "SHELL": arguments[0],
        "ZSH": BASH_IN_ZSH if arguments[0] == "zsh" else "",
        "COMMANDS": " ".join(COMMANDS),
        "FLAGS": "\n".join(_lines_of_flags(defined)),
        "CHOICES": "\n".join(_lines_of_choices(defined)),
    }
    script = SCRIPT
    for name, text in texts.items():
        script = script.replace(f"@{name}@", text)
    print(script, end="")


def _flags_of(command: str) -> Sequence[flags.Flag]:
    values = flags.FlagValues()
    importlib.import_module(f"polynet_keras.cli.{command}").define_flags(values)
    return [values[name] for name in values if name not in old_names(command)]


def _lines_of_flags(defined: Mapping[str, Sequence[flags.Flag]]) -> Iterator[str]:
    """Yields a line for each command: its flags with a value, and those without."""
    for command, its_flags in defined.items():
        words = " ".join(f"--{flag.name}" for flag in its_flags if not flag.boolean)
        switches = " ".join(f"--{flag.name} --no{flag.name}" for flag in its_flags if flag.boolean)
        arguments = " ".join(ARGUMENTS.get(command, ()))
        yield f'        {command}) flags="{words}" switches="{switches}" arguments="{arguments}" ;;'


def _lines_of_choices(defined: Mapping[str, Sequence[flags.Flag]]) -> Iterator[str]:
    """Yields a line for each set of values: the flags that take them."""
    patterns: dict[str, list[str]] = {}
    for command, its_flags in defined.items():
        for flag in its_flags:
            if choices := " ".join(choices_of(flag)):
                patterns.setdefault(choices, []).append(f'"{command} --{flag.name}"')
    for choices, places in patterns.items():
        yield f'        {" | ".join(places)}) choices="{choices}" ;;'
