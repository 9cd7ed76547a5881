"""`polynet <command>`: finds the command, reads its flags, and reports a user's mistake in one line."""

import importlib
import logging as stdlib_logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from absl import flags, logging

from polynet_keras.basics.checks import near_name
from polynet_keras.basics.exits import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_SOFTWARE, EXIT_UNREAD, TRANSIENT
from polynet_keras.basics.extras import PACKAGES, install_line
from polynet_keras.basics.interrupts import is_interrupt
from polynet_keras.basics.names import number_of, quoted, shown
from polynet_keras.cli.flag_names import named_by_flag
from polynet_keras.cli.headings import bold, flag_help, headed, is_rare
from polynet_keras.cli.installed import devices, versions
from polynet_keras.cli.parsing import parsed
from polynet_keras.cli.quiet import quiet_imports
from polynet_keras.cli.renamed import define_old_names, old_names, settle_old_names
from polynet_keras.cli.streams import has_no_reader, leave_unread, output_named

PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
"""This package's folder."""

GROUPS = {
    "Train": {
        "train": "train a PolyNet on digits or on a folder of images",
        "launch": "train with several workers on this machine",
        "recipes": "list the named training recipes, or show one",
        "grow": "insert residual units into a trained net",
        "ablation": "compare Poly and K-way modules with Inception-ResNet",
    },
    "Use and measure": {
        "predict": "classify image files with a trained model",
        "explain": "show which parts of image files support a class",
        "features": "write embeddings of image files, to search and compare them by",
        "evaluate": "measure a model on a dataset, with exact counts",
        "results": "show and plot the table of evaluations",
        "ensemble": "mix the scores of several models",
    },
    "Deploy": {
        "export": "write a trained model for a runtime: OpenVINO, ONNX, LiteRT, SavedModel, PyTorch",
        "serve": "serve an exported model over HTTP",
    },
    "Data": {
        "records": "write a folder of images as TFRecords",
        "benchmark": "find the bottleneck of a training run",
        "crops": "draw the crops that a network gets from an image",
    },
    "Networks and weights": {
        "summary": "list the structures, or show what each stage of one costs",
        "card": "write down the classes and the preprocessing of a Keras model that has no card",
        "weights": "list the published checkpoints, or show one's provenance card",
        "convert": "turn a published weights file into this package's own, and compare both",
    },
    "This installation": {
        "doctor": "list what is installed and what is missing, with the command that installs it",
        "completion": "print a script with which bash or zsh completes commands and flags",
    },
}
EXAMPLES = ("polynet train --data photos", "polynet predict photos/cat/1.jpg")
COMMANDS = {name: what for commands in GROUPS.values() for name, what in commands.items()}


def program() -> int:
    """Runs the command of this process as `main` does; a second Ctrl-C ends the process at once."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored in the background of a script
        return main()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return main()
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's exit would print the traceback of an interrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 for a mistake of the user (one line on stderr), 70 for any other error, 130 for an
        interrupt, 141 if the reader of the output is gone, as with `polynet summary | head -1`.

    Raises:
        SystemExit: with code 75: training ended because of another worker or SIGTERM, and can be started again.
    """
    with output_named():
        try:
            code = _answer(list(sys.argv[1:] if argv is None else argv))
        except BrokenPipeError:
            if not has_no_reader():
                raise
            leave_unread()
            return EXIT_UNREAD
        try:
            if sys.stdout is not None:
                sys.stdout.flush()  # report a failed write now, not when Python exits
        except OSError as error:
            leave_unread()
            return EXIT_UNREAD if isinstance(error, BrokenPipeError) else _mistake(error)
        return code


def _answer(words: list[str]) -> int:
    if words[:1] == ["help"] and words[1:]:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "--helpfull", "help"):
        print(_usage())
        return 0
    if words[0] in ("--version", "version"):
        facts = [*versions(), ("devices", devices())]
        width = max(len(name) for name, _ in facts)
        for name, fact in facts:
            print(f"{name:<{width}}  {fact}")
        print("`polynet doctor` lists which of them TensorFlow can use, and what is missing.")
        return 0
    own = words.index("--") if "--" in words else len(words)  # the rest belongs to another program
    name, *rest = [*map(_with_home, words[:own]), *words[own:]]
    values = flags.FlagValues()
    try:
        if name not in COMMANDS:
            what = "expected a command before" if name.startswith("-") else "unknown command"
            near = near_name(name, COMMANDS)
            raise ValueError(f"{what} {quoted(name)}{near or ';'} `polynet --help` lists the commands")
        command = importlib.import_module(f"polynet_keras.cli.{name}")
        flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
        flags.DEFINE_bool("helpfull", False, "Show this help with rare flags.", flag_values=values)
        command.define_flags(values)
        define_old_names(name, values)
        positional = parsed(name, values, rest)
        if values.help or values.helpfull:
            print(_command_help(name, command, values, full=values.helpfull))
            return 0
        _check_characters(values, positional)
        _log_plainly()
        with quiet_imports():
            code = command.run(values, settle_old_names(name, values, positional))
    except (Exception, KeyboardInterrupt) as error:
        return report(error, values)
    return code or 0


def report(error: Exception | KeyboardInterrupt, values: flags.FlagValues | None = None) -> int:
    """Prints why a command failed, and returns its exit code. Call it where the error is handled."""
    if isinstance(error, (ValueError, OSError)):
        if isinstance(error, BrokenPipeError) and has_no_reader():
            raise
        if _may_pass(error):
            traceback.print_exc()
            return EXIT_SOFTWARE
        if os.environ.get("POLYNET_TRACEBACK"):
            raise
        return _mistake(error, values)
    if is_interrupt(error):
        print("polynet: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    missing = _missing_package(error)
    if missing is not None and not os.environ.get("POLYNET_TRACEBACK"):
        return _mistake(ValueError(f"not installed: {missing}; `polynet doctor` lists all that is missing"))
    # Not a mistake of the user: a supervisor may try again.
    traceback.print_exc()
    return EXIT_SOFTWARE


def _interrupt(number: int, frame: object) -> NoReturn:
    """Ends the command with its cleanup; another Ctrl-C ends the process at once, without tracebacks of the cleanup."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


def _mistake(error: Exception, values: flags.FlagValues | None = None) -> int:
    line = " ".join(_message(error).split())
    print(f"polynet: {line if values is None else named_by_flag(line, values)}", file=sys.stderr)
    return EXIT_MISTAKE


def _missing_package(error: BaseException) -> str | None:
    """Returns the package that an import has not found, with the command that installs it, or None."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    if module in sys.stdlib_module_names or module == __package__.partition(".")[0]:
        return None
    extra = next((extra for extra, packages in PACKAGES.items() if module in packages), None)
    if extra is None:
        return module
    return f"{PACKAGES[extra][module]}; the extra `{extra}` has it: {install_line([extra])}"


def _message(error: Exception) -> str:
    """Returns an error's message; for an error of the system, the file and the problem."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{shown(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def _with_home(argument: str) -> str:
    """Replaces the `~` in `--run_dir=~/runs`; shells replace it only at the start of a word."""
    match = re.fullmatch(r"(--?\w+=)?(~.*)", argument, re.DOTALL)
    return argument if match is None else (match[1] or "") + os.path.expanduser(match[2])


def _check_characters(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Refuses null characters, which a flag file can have: paths cannot have them, and system errors name no flag."""
    given = [(f"--{name}", values[name].value) for name in values]
    for name, value in [*given, *(("argument", text) for text in positional)]:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\0" in text:
                raise ValueError(f"{name} {text!r} has a null character, which no name can have")


class _Plain(stdlib_logging.Formatter):
    """Formats messages for people: with the level, except for information, and with an exception's traceback."""

    def format(self, record):
        text = record.getMessage().rstrip()
        text = text if record.levelno == stdlib_logging.INFO else f"{record.levelname.lower()}: {text}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _is_news(record: stdlib_logging.LogRecord) -> bool:
    """Whether a record is news, and not another package's progress: TensorFlow reports each step of an export."""
    return record.levelno > stdlib_logging.INFO or record.pathname.startswith(PACKAGE)


def _log_plainly() -> None:
    logging.set_verbosity(logging.INFO)
    if not stdlib_logging.root.handlers:
        handler = stdlib_logging.StreamHandler()
        handler.setFormatter(_Plain())
        handler.addFilter(_is_news)
        stdlib_logging.root.addHandler(handler)


def _may_pass(error: Exception) -> bool:
    """Whether an error, or its cause, is from a file system or network that may work the next time."""
    return any(isinstance(one, OSError) and one.errno in TRANSIENT for one in (error, error.__context__))


def _usage() -> str:
    return (
        f"usage: polynet <command> [flags]\n\n{headed(GROUPS)}\n\n"
        "`polynet <command> --help` lists the command's flags, `polynet --version` the versions.\n"
        "With POLYNET_TRACEBACK=1 in the environment an error shows its traceback.\n\n"
        f"{_examples(EXAMPLES)}"
    )


def _command_help(name: str, command: ModuleType, values: flags.FlagValues, full: bool) -> str:
    left_out = ("help", "helpfull", *old_names(name))
    rare = [flag for flag in values if flag not in left_out and is_rare(values[flag])]
    flags_are = number_of(len(rare), "more flag, which is", "more flags, which are")
    parts = (
        f"usage: polynet {name} {command.USAGE}".rstrip(),
        COMMANDS[name],
        flag_help(values, left_out, full),
        "" if full or not rare else f"`polynet {name} --helpfull` lists {flags_are} needed rarely.",
        _examples(command.EXAMPLES),
    )
    return "\n\n".join(part for part in parts if part)


def _examples(lines: Sequence[str]) -> str:
    return "\n".join([bold("Examples" if len(lines) > 1 else "Example"), *(f"  {line}" for line in lines)])
