"""What is left of standard error in a process of its own, and when it comes."""

import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from polynet_keras.basics import stderr_filter

WARNINGS = [
    b"Corrupt JPEG data: premature end of data segment\n",
    b"Corrupt JPEG data: 219 extraneous bytes before marker 0xd9\n",
    b"Premature end of JPEG file\n",
    b"Invalid SOS parameters for sequential JPEG\n",
    b"Inconsistent progression sequence for component 1 coefficient 3\n",
    b"Warning: unknown JFIF revision number 3.01\n",
    b"Unknown Adobe color transform code 7\n",
    b"tempfile.tif: Warning, Nonstandard tile length 3, convert file.\n",
]


def written_by(program: str, **options) -> subprocess.Popen:
    """A process without TensorFlow, which writes to descriptor 2 as a decoder does."""
    folder = str(Path(stderr_filter.__file__).parent)  # the package itself would import TensorFlow
    start = f"import contextlib, os, sys; sys.path.insert(0, {folder!r})\nfrom stderr_filter import held_back, warned\n"
    command = [sys.executable, "-c", start + textwrap.dedent(program)]
    return subprocess.Popen(command, **{"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, **options})


def filtered(*pieces: bytes, kinds: str = "d") -> tuple[bytes, bytes]:
    """What the program makes of pieces that come one after the other, and what it says of it."""
    switch = b"\0polynet: without %s\0" % kinds.encode()
    command = [sys.executable, "-I", "-S", stderr_filter.__file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(switch + b"up\n")
        assert process.stderr.read(3) == b"up\n"
        for piece in pieces[:-1]:
            process.stdin.write(piece)
            time.sleep(0.05)
        told, passed_on = process.communicate(pieces[-1], timeout=60)
    return passed_on, told


@pytest.mark.parametrize("warning", WARNINGS, ids=lambda warning: warning.split(b":")[0].decode()[:20])
def test_a_warning_is_left_out(warning):
    assert filtered(b"one\n" + warning + b"two\n") == (b"one\ntwo\n", b".")


def test_all_else_is_passed_on_as_it_is():
    text = (
        b"W0000 loop_optimizer.cc:934] Skipping\nTraceback:\n\xff\x00 corrupt JPEG data: 3\r 10%|##  |\n no line feed"
    )
    assert filtered(text) == (text, b"")


def test_a_progress_bar_before_a_warning_is_kept():
    assert filtered(b"\r 10%|#  | 3/30" + WARNINGS[0] + b"\r 20%") == (b"\r 10%|#  | 3/30\r 20%", b".")


def test_a_warning_in_pieces_and_one_without_an_end():
    assert filtered(b"tempfile.tif: ", b"Warning, Nonstandard", b".\nafter", b"\n") == (b"after\n", b".")
    assert filtered(b"before\n", b"Premature end of JPEG file") == (b"before\n", b".")


def test_much_at_once():
    """Each write is whole lines, as those of decoders are, and so small that no other one parts it in the pipe."""
    lines = [b"line %d\n" % i + WARNINGS[i % 8] for i in range(20000)]
    writes = [b"".join(lines[i : i + 20]) for i in range(0, len(lines), 20)]
    assert max(map(len, writes)) <= select.PIPE_BUF
    program = (
        "import os, sys\n"
        "sizes = map(int, sys.argv[1].split(','))\n"
        "text = sys.stdin.buffer.read()\n"
        "os.write(1, b'\\0polynet: without d\\0')\n"
        "for size in sizes:\n"
        "    os.write(1, text[:size])\n"
        "    text = text[size:]\n"
        "os.write(1, b'x' * 200000)\n"
    )
    sizes = ",".join(str(len(one)) for one in writes)
    writer = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with (
        writer,
        subprocess.Popen(
            [sys.executable, "-I", "-S", stderr_filter.__file__],
            stdin=writer.stdout,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        writer.stdout.close()
        writer.stdin.write(b"".join(writes))
        writer.stdin.close()
        _, passed_on = process.communicate(timeout=60)
    # Not in the `assert`: pytest would compare what differs for minutes.
    is_the_same = passed_on == b"".join(b"line %d\n" % i for i in range(20000)) + b"x" * 200000
    assert is_the_same


def test_a_process_and_what_it_writes_before_and_after():
    process = written_by("""
        os.write(2, b"Premature end of JPEG file\\n")
        with held_back():
            print(warned())
            print("of Python", file=sys.stderr)
            os.write(2, b"Premature end of JPEG file\\n")
            os.system("echo of a child >&2")
            print(warned())
            os.write(2, b"Premature end of JPEG file\\n")
            print(warned())
        print(warned())
        os.write(2, b"after\\n")
    """)
    output, error = process.communicate(timeout=60)
    assert output.split() == [b"False", b"True", b"False", b"False"]
    assert sorted(error.splitlines()) == [b"Premature end of JPEG file", b"after", b"of Python", b"of a child"]


def test_what_is_interrupted_says_that_some_images_are_damaged():
    """Once, and not where they were named."""
    process = written_by("""
        def interrupted(is_named):
            with contextlib.suppress(KeyboardInterrupt), held_back():
                os.write(2, b"Premature end of JPEG file\\n")
                is_named and warned()
                raise KeyboardInterrupt
        interrupted(True)
        interrupted(False)
    """)
    said = process.communicate(timeout=60)[1]
    assert said.count(b"damaged images: `polynet train` and `polynet evaluate` name them") == 1
    assert b"Premature" not in said


def test_the_last_words_of_a_process_that_crashes():
    process = written_by("""
        with held_back():
            os.write(2, b"Check failed: it was not\\n")
            os.abort()
    """)
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGABRT
    assert error == b"Check failed: it was not\n"


def test_text_comes_at_once():
    process = written_by("""
        with held_back():
            os.write(2, b"\\r 10%")
            sys.stdin.read()
    """, stdin=subprocess.PIPE)  # fmt: skip
    assert process.stderr
    assert process.stderr.read(5) == b"\r 10%"
    process.communicate(timeout=60)


def test_ctrl_c_ends_the_process_and_its_words_are_read():
    process = written_by("""
        import time
        with held_back():
            try:
                print("ready", flush=True)
                time.sleep(60)
            except KeyboardInterrupt:
                os.write(2, b"interrupted\\n")
    """, start_new_session=True)  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: the whole group
    assert process.communicate(timeout=60)[1] == b"interrupted\n"
    assert process.returncode == 0


def test_who_ends_all_processes_of_a_job_reads_their_last_words():
    process = written_by("""
        import signal, stderr_filter
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with held_back():
            os.write(2, b"up\\n")
            print(stderr_filter._filter.pid, flush=True)
            sys.stdin.read()
            os.write(2, b"terminated\\n")
    """, stdin=subprocess.PIPE)  # fmt: skip
    assert process.stdout
    assert process.stderr
    assert process.stderr.read(3) == b"up\n"
    os.kill(int(process.stdout.readline()), signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == b"terminated\n"


def test_without_standard_error_all_is_as_it_was():
    process = written_by("""
        os.close(2)
        with held_back():
            print(warned())
    """)
    assert process.communicate(timeout=60)[0] == b"False\n"
    assert process.returncode == 0


GREETINGS = [
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n",
    b"I0000 00:00:1795996901.128650    2551 port.cc:153] oneDNN custom operations are on. You may see\n",
    b"I0000 00:00:1795996901.129004    2551 cudart_stub.cc:31] Could not find cuda drivers on your machine\n",
    b"W0000 00:00:1795996946.465328    5115 loop_optimizer.cc:934] Skipping loop optimization for Merge node with "
    b"control input: cond/then/_0/cond/cond_1\n",
    b"E0000 00:00:1796002901.841525   20854 util.cc:131] oneDNN supports DT_UINT8 only on platforms with AVX-512. "
    b"Falling back to the default Eigen-based implementation if present.\n",
    b"W0000 00:00:1796009122.767934   25175 local_rendezvous.cc:412] Local rendezvous is aborting with status: "
    b"INVALID_ARGUMENT: assertion failed: [an image cannot be read]\n\t [[{{function_node cond}}{{node Assert}}]]\n",
]
NO_DRIVER = (
    b"E0000 00:00:1795996944.764753    5115 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed "
    b"call to cuInit: UNKNOWN ERROR (303)\n"
)
SERIOUS = [
    b"W0000 00:00:1795996946.465328    5115 cpu_allocator_impl.cc:83] Allocation exceeds 10% of free system memory.\n",
    b"E0000 00:00:1795996944.764753    5115 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_NO_DEVICE\n",
    b"F0000 00:00:1795996901.128650    2551 cpu_feature_guard.cc:55] The library was compiled to use AVX\n",
    b"2026-01-01 00:00:00.000001: I tensorflow/compiler/xla: what you asked for with TF_CPP_MIN_LOG_LEVEL=0\n",
    b"note: I0000 00:00:1795996901.128650    2551 port.cc:153] in the middle of a line\n",
    b"WARNING: all else\n",
]


@pytest.mark.parametrize("greeting", GREETINGS, ids=lambda line: line[:24].decode())
def test_a_greeting_of_tensorflow_is_left_out(greeting):
    assert filtered(b"one\n" + greeting + b"two\n", kinds="t") == (b"one\ntwo\n", b"")
    assert filtered(b"one\n", greeting[:-1], kinds="t") == (b"one\n", b"")
    assert filtered(greeting, kinds="d") == (greeting, b"")


def test_a_driver_that_is_missing_is_an_error_only_where_there_is_a_card():
    there = os.path.exists("/dev/nvidiactl")
    assert filtered(b"one\n" + NO_DRIVER, kinds="t") == (b"one\n" + NO_DRIVER * there, b"")


def test_errors_and_warnings_of_tensorflow_stay():
    text = b"".join(SERIOUS)
    assert filtered(text, kinds="t") == (text, b"")
    assert filtered(b"".join(WARNINGS), kinds="t") == (b"".join(WARNINGS), b"")


def test_both_kinds_go_through_one_process():
    process = written_by("""
        import stderr_filter
        from stderr_filter import DECODERS, TENSORFLOW
        def say(word):
            os.write(2, b"Premature end of JPEG file\\n")
            os.write(2, b"I0000 00:00:1.1  1 port.cc:1] oneDNN\\n")
            os.write(2, word + b"\\n")
        say(b"neither")
        with held_back(TENSORFLOW):
            first = stderr_filter._filter
            print(warned())
            say(b"of tensorflow")
            with held_back(DECODERS), held_back(DECODERS):
                assert stderr_filter._filter is first
                say(b"both")
                print(warned())
            say(b"of tensorflow")
            print(warned())
        say(b"neither")
        with contextlib.ExitStack() as longer:
            with held_back():
                longer.enter_context(held_back(TENSORFLOW))
                say(b"both")
            say(b"neither")  # the process ends with whoever started it
    """)
    output, error = process.communicate(timeout=60)
    damaged, greeting = WARNINGS[2], b"I0000 00:00:1.1  1 port.cc:1] oneDNN\n"
    assert output.split() == [b"False", b"True", b"False"]
    assert error == (
        damaged + greeting + b"neither\n" + damaged + b"of tensorflow\n" + b"both\n" + damaged + b"of tensorflow\n"
        + damaged + greeting + b"neither\n" + b"both\n" + damaged + greeting + b"neither\n"
    )  # fmt: skip


def test_a_file_of_that_name_is_somebodys():
    text = b"  photos/cats/tempfile.tif: no image\n  photos/dogs/2.jpg: cut\n"
    assert filtered(text) == (text, b"")


def test_a_slow_reader_that_does_not_block_gets_all():
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    text = b"x" * 63 + b"\n"
    process = written_by("""
        with held_back():
            for _ in range(4000):
                os.write(2, b"x" * 63 + b"\\n")
    """, stderr=writable)  # fmt: skip
    os.close(writable)
    time.sleep(0.3)
    with open(readable, "rb") as file:
        assert file.read() == text * 4000
    assert process.wait(60) == 0


def test_what_python_writes_sees_the_terminal():
    """Progress bars ask whether there is one."""
    ours, theirs = pty.openpty()
    process = written_by("""
        import logging
        logging.root.addHandler(logging.StreamHandler())
        with held_back():
            print(sys.stderr.isatty(), os.isatty(2))
            logging.warning("logged")
            print("printed", file=sys.stderr)
        logging.warning("logged after")
        print(sys.stderr.fileno())
    """, stderr=theirs)  # fmt: skip
    os.close(theirs)
    output, _ = process.communicate(timeout=60)
    assert output.split() == [b"True", b"False", b"2"]
    assert os.read(ours, 1000).split(b"\r\n") == [b"logged", b"printed", b"logged after", b""]
    os.close(ours)


@pytest.mark.parametrize("stream", ["None", "open(os.devnull)"])
def test_without_a_stream_nothing_is_filtered(stream):
    process = written_by(f"""
        sys.stderr = {stream}
        if sys.stderr: sys.stderr.close()
        with held_back():
            os.write(2, b"Premature end of JPEG file\\n")
    """)
    assert process.communicate(timeout=60)[1] == b"Premature end of JPEG file\n"
    assert process.returncode == 0


def test_the_first_process_of_a_container_is_not_filtered(monkeypatch, capfd):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with stderr_filter.held_back():
        os.write(2, WARNINGS[0])
    assert capfd.readouterr().err == WARNINGS[0].decode()


def test_a_process_that_lives_on_is_not_waited_for(monkeypatch, capfd):
    monkeypatch.setattr(stderr_filter, "SECONDS", 0.1)
    start = time.monotonic()
    with stderr_filter.held_back():
        other = subprocess.Popen(["sleep", "30"])
    assert time.monotonic() - start < 5
    other.kill()
    other.wait()


def test_where_no_process_can_be_started(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with stderr_filter.held_back():
        os.write(2, WARNINGS[0])
        assert not stderr_filter.warned()
    assert capfd.readouterr().err == WARNINGS[0].decode()


def test_no_descriptor_is_left_open(capfd):
    def descriptors():
        return sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else []

    before = descriptors()
    with pytest.raises(RuntimeError), stderr_filter.held_back():
        raise RuntimeError
    assert descriptors() == before
