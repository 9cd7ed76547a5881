"""Output that nobody reads any more, or that cannot be written."""

import os
import subprocess
import sys

import pytest

START = "import sys; from polynet_keras.cli.main import main; sys.exit(main())"
LONG = """
import sys
from polynet_keras.cli import main, results
def run(values, arguments):
    for _ in range(100000):
        print("a row")
results.run = run
sys.exit(main.main(["results"]))
"""


def run(program, *argv, unbuffered=False, **streams):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    return subprocess.run([sys.executable, "-c", program, *argv], env=environment, check=False, timeout=60, **streams)


def unread():
    """The end of a pipe that nobody reads."""
    readable, writable = os.pipe()
    os.close(readable)
    return writable


@pytest.mark.parametrize(
    ("program", "argv"), [(START, ["--help"]), (START, ["train", "--help"]), (START, ["--version"]), (LONG, [])]
)
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_has_gone_is_no_error(program, argv, unbuffered):
    writable = unread()
    done = run(program, *argv, unbuffered=unbuffered, stdout=writable, stderr=subprocess.PIPE)
    os.close(writable)
    assert done.stderr == b""
    assert done.returncode == 141


def test_head():
    command = f'{sys.executable} -c "$0" | head -1; echo ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command, LONG], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("a row\n141\n", "")


def test_a_mistake_that_nobody_reads():
    writable = unread()
    assert run(START, "trian", stdout=subprocess.PIPE, stderr=writable).returncode == 141
    os.close(writable)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", ["train", "summary"])
def test_a_full_disk_is_one_line(command):
    """Of more than a buffer holds, and of less."""
    with open("/dev/full", "w") as full:
        done = run(START, command, "--help", stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"polynet: standard output: No space left on device\n")


def test_without_standard_output():
    done = subprocess.run(f"{sys.executable} -c '{START}' --help >&-", shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_pipe_of_the_commands_own_is_an_error(monkeypatch, capsys):
    from polynet_keras.cli.main import main

    def run(*_):
        raise BrokenPipeError(32, "Broken pipe", "socket")

    monkeypatch.setattr("polynet_keras.cli.results.run", run)
    assert main(["results"]) == 1
    assert capsys.readouterr().err == "polynet: socket: Broken pipe\n"
