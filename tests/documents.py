"""The code blocks of README.md, CONTRIBUTING.md and docs/, and a shell that runs the lines of their `bash` blocks.

A block that is not executed says why in an HTML comment on the line before it, which no reader sees:

    <!-- ci: NAME -->           .ci/run runs it
    <!-- not run: REASON -->    for one of `REASONS`

A block of a tutorial may have `<!-- no output: REASON -->`: it is executed here, and not in the notebook.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import keras
import pytest
from absl import flags

from polynet_keras.cli.main import main
from polynet_keras.cli.recipe_from_flags import recipe_of
from tests.children import Child

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]

EXECUTED = ("python", "bash")
OTHERS = ("", "json")
"""Output that a page shows, and data."""
REASONS = (
    "a signature, not a program",
    "needs a cluster",
    "needs ImageNet's weights",
    "needs another package",
    "needs the network",
    "takes minutes",
)

OTHER_PROGRAMS = {
    *(".", "python3", "pip", "uv", "unzip", "iperf3", "cp", "curl", "htpasswd", "nginx"),
    *("check-jsonschema", "codespell", "lint-imports", "mkdocs", "mypy", "pytest", "ruff"),
}
"""Programs whose flags are not ours to check."""

FENCE = re.compile(r"(?P<indent> *)(?P<fence>```+|~~~+)(?P<language>.*)")
MARKER = re.compile(r"<!-- (?P<kind>ci|not run|no output): (?P<text>.+) -->")

SMALL = "1 x [ir] | 1 x [ir] | 1 x [ir]"
SMALLER = {
    "train": ["--epochs=1", "--width=0.1", "--image_size=75", "--batch_size=8"],
    "benchmark": ["--width=0.1", "--image_size=75", "--batch_size=8", "--seconds=0.1"],
    "serve": ["--port=0"],
}
"""What is put after a command of the pages, so that it takes seconds: its other flags stand. (And the service takes a
port that is free.)"""
PROGRAM = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
"""`polynet`, for a process of its own."""
DEFAULT_ADDRESS = "http://127.0.0.1:8000/"
SECONDS = 60
"""For a service to begin, to answer and to end."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is its fence's, `marker` the kind and the text of the comment before it."""

    page: str
    line: int
    language: str
    code: str
    marker: tuple[str, str] | None

    @property
    def is_left_out(self) -> bool:
        """Whether the tests do not execute it."""
        return self.marker is not None and self.marker[0] != "no output"

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a fence that nothing closes or that is not read as one, or a marker that no fence follows.
    """
    name = page.relative_to(ROOT).as_posix()
    found, marker = [], None
    lines = enumerate(page.read_text().splitlines(), 1)
    for number, line in lines:
        if opened := FENCE.fullmatch(line):
            code = []
            for _, inside in lines:
                if inside.strip() == opened["fence"]:
                    break
                code.append(inside.removeprefix(opened["indent"]))
            else:
                raise ValueError(f"{name}:{number}: nothing closes this fence")
            found.append(Block(name, number, opened["language"].strip(), "\n".join(code) + "\n", marker))
        elif marker or "```" in line:
            raise ValueError(f"{name}:{number}: a fence that is not read, or a comment before this line marks no block")
        marked = MARKER.fullmatch(line)
        marker = (marked["kind"], marked["text"]) if marked else None
    if marker:
        raise ValueError(f"{name}: the comment at its end marks no block")
    return found


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command of a `bash` block."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


def _without_assignments(words: Sequence[str]) -> list[str]:
    """A command without the `NAME=value` before it."""
    first = next(i for i, word in enumerate(words) if not re.match(r"[A-Z_]+=", word))
    return list(words[first:])


def check_flags(words: Sequence[str]) -> None:
    """Whether a command that is not executed could be: the flags of `polynet`, and those of our own programs.

    Raises:
        AssertionError: a flag is unknown or has no such value, or there is no such program here.
    """
    program, *arguments = _without_assignments(words)
    if program == "polynet":
        _check_flags_of_polynet(arguments)
    elif program == "python":
        _check_flags_of_program(ROOT / arguments[0], arguments[1:])
    elif program == "srun":
        check_flags(arguments[[word.startswith("-") for word in arguments].index(False) :])
    else:
        assert program in OTHER_PROGRAMS, f"{program} is no program that tests/documents.py knows: is it misspelled?"


def _check_flags_of_polynet(arguments: Sequence[str]) -> None:
    name, *rest = arguments
    command = importlib.import_module(f"polynet_keras.cli.{name}")
    values = flags.FlagValues()
    command.define_flags(values)
    try:
        values([name, *rest])
        if "optimizer" in values:
            recipe_of(values)
    except (flags.Error, ValueError) as error:
        raise AssertionError(f"polynet {shlex.join(arguments)}: {error}") from None


class _ParsedError(Exception):
    pass


def _check_flags_of_program(path: Path, arguments: Sequence[str]) -> None:
    assert path.is_file(), f"{path.relative_to(ROOT)} is not there"
    if "argparse" not in path.read_text():
        return
    parse, parsed, said = argparse.ArgumentParser.parse_args, [], io.StringIO()

    def parse_only(parser, *rest):
        parsed.append(parse(parser, *rest))
        raise _ParsedError

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        patch.setattr(sys, "argv", [str(path), *arguments])
        patch.syspath_prepend(path.parent)
        with contextlib.suppress(_ParsedError, SystemExit):
            runpy.run_path(str(path), run_name="__main__")
    assert parsed, f"{path.name} {shlex.join(arguments)}: {said.getvalue()}"


class Shell:
    """Runs commands in the current folder and in this process, but for services, which answer until it is closed."""

    def __init__(self):
        self._services: list[tuple[Child, str]] = []

    def run(self, block: Block) -> None:
        """Runs the block's commands, of which none may fail."""
        for words in commands(block.code):
            try:
                self._run(words)
            except AssertionError as error:
                raise AssertionError(f"{block}: {shlex.join(words)}: {error}") from error

    def _run(self, words: list[str]) -> None:
        file = None
        if words[-1] == "&":
            words.pop()  # services alone are in the background, and they are anyway
        if ">" in words:
            *words, _, file = words
        match words:
            case ["polynet", "serve", *arguments]:
                self._serve(arguments)
            case ["polynet", *arguments]:
                _polynet(arguments, file)
            case [variable, "polynet", *arguments] if variable.startswith("KERAS_BACKEND="):
                _on_another_backend(variable, arguments)
            case ["pip", "install", "-e", what]:
                _check_extras(what)
            case ["kill", "$!"]:
                self.close()
            case ["python", script, *arguments]:
                run_program(script, *arguments)
            case ["curl", *_, "--data-binary", data, url]:
                self._post(data, url)
            case _:
                raise AssertionError("nothing here executes it; mark the block, or teach tests/documents.py")

    def _serve(self, arguments: list[str]) -> None:
        service = Child(PROGRAM, "serve", *arguments, *SMALLER["serve"], stderr=subprocess.STDOUT)
        timer = threading.Timer(SECONDS, service.kill)
        timer.start()
        said = ""
        while (line := service.stdout.readline()) and not line.startswith("ready: "):
            said += line
        timer.cancel()
        self._services.append((service, line.split()[-1] if line else ""))
        assert line, f"ended, or was not ready within {SECONDS} s: {said[-2000:]}"

    def _post(self, data: str, url: str) -> None:
        """What `curl` sends, to the service that was started last; not every machine has curl."""
        _, address = self._services[-1]
        assert data.startswith("@"), "--data-binary @FILE sends a file"
        assert url.startswith(DEFAULT_ADDRESS), f"the service's address is {DEFAULT_ADDRESS} unless flags say otherwise"
        content = Path(data[1:]).read_bytes()
        answer = httpx.post(url.replace(DEFAULT_ADDRESS, address), content=content, timeout=SECONDS)
        assert answer.status_code == 200, answer.text

    def close(self) -> None:
        """Tells the services to end.

        Raises:
            AssertionError: one does not end well.
        """
        try:
            for service, _ in self._services:
                service.terminate()
                assert service.wait(SECONDS) == 0
        finally:
            for service, _ in self._services:
                service.end()
            self._services.clear()


def run_program(script: str, *arguments: str) -> None:
    """Runs a Python program in this process; what it does to the global dtype is undone."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *arguments])
        try:
            runpy.run_path(script, run_name="__main__")
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)


def _polynet(arguments: list[str], file: str | None) -> None:
    """Runs a command, with what makes it smaller; what it prints may go to a file."""
    name = "train" if arguments[0] == "launch" and "train" in arguments else arguments[0]
    smaller = list(SMALLER.get(name, ()))
    if name == "train" and {"probe", "finetune"} & set(arguments):
        smaller = [flag for flag in smaller if not flag.startswith("--width")]  # that of the weights
    elif name == "train" and "--weights" in arguments:
        # The recipes of ImageNet have a width of their own.
        if not any(argument.startswith("imagenet-") for argument in arguments):
            smaller = ["--epochs=1"]  # all else as the weights have it
    elif name == "train" and "--structure" not in arguments:
        smaller.append(f"--structure={SMALL}")
    with contextlib.ExitStack() as stack:
        if file:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(file, "w"))))
        code = main([*arguments, *smaller])
    assert code == 0, f"ended with {code}; its output says why"


def _on_another_backend(variable: str, arguments: list[str]) -> None:
    """Runs a command in a process of its own: Keras takes its backend once, when it is imported."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = {**os.environ, **dict([variable.split("=")])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


def _check_extras(what: str) -> None:
    """Whether this package has the extras; it is installed already where tests run."""
    named = re.fullmatch(r"\.\[([a-z,-]+)\]", what)
    assert named, "only this package is installed so; mark the block"
    extras = importlib.metadata.metadata("polynet_keras").get_all("Provides-Extra")
    assert set(named[1].split(",")) <= set(extras), f"the extras are {', '.join(extras)}"
