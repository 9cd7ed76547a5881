"""`polynet <command>`: finds the command, reads its flags, and turns a user's mistake into one line."""

import errno
import importlib
import logging as stdlib_logging
import os
import re
import sys
import traceback
from collections.abc import Sequence

from absl import flags, logging

from polynet_keras.basics.exits import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_SOFTWARE
from polynet_keras.basics.names import shown
from polynet_keras.cli.headings import flag_help, headed
from polynet_keras.cli.renamed import define_old_names, old_names, settle_old_names

TRANSIENT = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EAGAIN, errno.ENOMEM)
"""What a file system or network fails with that may work the next time: no mistake of the user's."""

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
        "evaluate": "count what a model gets right of a dataset, exactly",
        "results": "show and plot the table of evaluations",
        "ensemble": "mix the scores of several models",
    },
    "Deploy": {
        "export": "write a trained model for a runtime: OpenVINO, ONNX, LiteRT, SavedModel, PyTorch",
        "serve": "answer over HTTP with an exported model",
    },
    "Data": {
        "records": "write a folder of images as TFRecords",
        "benchmark": "measure what a training run would wait for",
        "crops": "draw the crops that a network is shown of an image",
    },
    "Networks and weights": {
        "summary": "list the structures, or show what each stage of one costs",
        "weights": "list the published checkpoints, or show one's provenance card",
        "convert": "turn a published weights file into this package's own, and compare both",
    },
}
COMMANDS = {name: what for commands in GROUPS.values() for name, what in commands.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: arguments after the program's name; those of the process by default.

    Returns:
        The exit code: 0, 1 for a mistake of the user's (one line on stderr), 70 for any other error, 130 for an
        interrupt.

    Raises:
        SystemExit: with code 75: training ended because of another worker or of SIGTERM, and can be started again.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    own = arguments.index("--") if "--" in arguments else len(arguments)  # what follows is another program's
    name, *rest = [*map(_with_home, arguments[:own]), *arguments[own:]]
    try:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name!r}; known are {', '.join(COMMANDS)}")
        command = importlib.import_module(f"polynet_keras.cli.{name}")
        values = flags.FlagValues()
        flags.DEFINE_bool("help", False, "Show this help.", short_name="h", flag_values=values)
        command.define_flags(values)
        define_old_names(name, values)
        positional = values([f"polynet {name}", *rest])[1:]
        if values.help:
            print(_command_help(name, command.USAGE, values))
            return 0
        _check_characters(values, positional)
        _log_plainly()
        code = command.run(values, settle_old_names(name, values, positional))
    except (flags.Error, ValueError, OSError) as error:
        if _may_pass(error):
            traceback.print_exc()
            return EXIT_SOFTWARE
        if os.environ.get("POLYNET_TRACEBACK"):
            raise
        print(f"polynet: {' '.join(_message(error).split())}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print("polynet: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception:
        # No mistake of the user's: a supervisor may try again.
        traceback.print_exc()
        return EXIT_SOFTWARE
    return code or 0


def _message(error: Exception) -> str:
    """What an error says; of one of the system's, which file it is about, and what about it."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{shown(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def _with_home(argument: str) -> str:
    """Shells replace the `~` of a word, not that of `--run_dir=~/runs`."""
    match = re.fullmatch(r"(--?\w+=)?(~.*)", argument, re.DOTALL)
    return argument if match is None else (match[1] or "") + os.path.expanduser(match[2])


def _check_characters(values: flags.FlagValues, positional: Sequence[str]) -> None:
    """Refuses null characters, which a flag file can have: no path holds one, and the system's errors name no flag."""
    given = [(f"--{name}", values[name].value) for name in values]
    for name, value in [*given, *(("argument", text) for text in positional)]:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and "\0" in text:
                raise ValueError(f"{name} {text!r} holds a null character, which no name can have")


class _Plain(stdlib_logging.Formatter):
    """What is said, of all but information how bad it is, and of an exception where it is from. It is for people."""

    def format(self, record):
        text = record.getMessage().rstrip()
        text = text if record.levelno == stdlib_logging.INFO else f"{record.levelname.lower()}: {text}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _log_plainly() -> None:
    logging.set_verbosity(logging.INFO)
    if not stdlib_logging.root.handlers:
        handler = stdlib_logging.StreamHandler()
        handler.setFormatter(_Plain())
        stdlib_logging.root.addHandler(handler)


def _may_pass(error: Exception) -> bool:
    """Whether an error, or what it was raised for, is of a file system or network that may work the next time."""
    return any(isinstance(one, OSError) and one.errno in TRANSIENT for one in (error, error.__context__))


def _usage() -> str:
    return (
        f"usage: polynet <command> [flags]\n\n{headed(GROUPS)}\n\n"
        "`polynet <command> --help` lists the command's flags.\n"
        "With POLYNET_TRACEBACK=1 in the environment an error shows where it comes from."
    )


def _command_help(name: str, usage: str, values: flags.FlagValues) -> str:
    listed = flag_help(values, left_out=("help", *old_names(name)))
    return "\n\n".join(part for part in (f"usage: polynet {name} {usage}", COMMANDS[name], listed) if part)
