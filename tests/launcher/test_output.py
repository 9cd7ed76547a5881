"""What of the workers' output arrives where: on the launcher's own, and in files."""

import os
import pty
import subprocess
import time

import pytest

from polynet_keras.launcher.output import Target, WorkerOutput
from tests.launcher.launched import Launched, run_job
from tests.waiting import wait_until

BAR = "for i in range(4): sys.stdout.write(f'\\r{i}/3'); sys.stdout.flush(); time.sleep(0.05)\nprint()"


def forwarded(folder, data, prefix, log=None):
    """What comes out of `WorkerOutput` for what a worker writes."""
    read, write = os.pipe()
    shown = folder / "shown"
    with open(read, "rb", buffering=0) as source, open(shown, "wb", buffering=0) as target:
        output = WorkerOutput([(source, Target(target.fileno()))], prefix, log)
        output.start()
        with open(write, "wb") as worker:
            for part in data if isinstance(data, list) else [data]:
                worker.write(part)
                worker.flush()
                time.sleep(0.01 * isinstance(data, list))
        assert output.is_read(20)
    return shown.read_bytes(), output.last_line


@pytest.mark.parametrize(
    ("data", "shown", "last"),
    [
        (b"one\ntwo\n", b"[w] one\n[w] two\n", "two"),
        (b"one\n\ntwo", b"[w] one\n[w] \n[w] two\n", "two"),
        ([b"on", b"e\nt", b"wo\n", b"  \n"], b"[w] one\n[w] two\n[w]   \n", "two"),
        (b"windows\r\n", b"[w] windows\n", "windows"),
        (b"1/3\r2/3\r3/3\n", b"[w] 3/3\n", "3/3"),
        (b"caf\xc3\xa9 \xff\n", b"[w] caf\xc3\xa9 \xff\n", "café �"),
        (b"", b"", ""),
        (b"x" * 200_000 + b"\ny\n", None, "y"),
    ],
)
def test_lines_get_a_prefix(tmp_path, data, shown, last):
    found, last_line = forwarded(tmp_path, data, b"[w] ")
    if shown is None:
        lines = found.splitlines()
        assert all(line.startswith(b"[w] ") for line in lines)
        assert len(lines) > 2
        assert b"".join(line[4:] for line in lines) == data.replace(b"\n", b"")
    else:
        assert found == shown
    assert last_line == last


@pytest.mark.parametrize("data", [b"one\ntwo\n", [b"\r1/3", b"\r2/3", b"\r3/3\n"], os.urandom(300_000) + b"\n", b""])
def test_without_a_prefix_all_goes_on_as_it_comes(tmp_path, data):
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    found, _ = forwarded(tmp_path, data, b"", log)
    whole = b"".join(data) if isinstance(data, list) else data
    assert found == whole
    assert log.read_bytes() == b"before\n" + whole


def test_what_comes_after_an_unfinished_line_has_a_line_of_its_own(tmp_path):
    assert forwarded(tmp_path, b"one\ntw", b"") == (b"one\ntw\n", "tw")


def test_each_worker_is_told_apart(tmp_path):
    script = f"{BAR}\nprint('warning', index, file=sys.stderr)\nsys.stdout.write('unfinished')"
    ended = run_job(script, tmp_path)
    lines = ended.stdout.splitlines(keepends=True)
    assert [line for line in lines if line.startswith(b"[worker 1] ")] == [
        b"[worker 1] 3/3\n",
        b"[worker 1] unfinished\n",
    ]
    chief = b"".join(line for line in lines if not line.startswith(b"[worker 1] "))
    assert chief.replace(b"\n", b"") == b"\r0/3\r1/3\r2/3\r3/3unfinished"
    assert sorted(line for line in ended.stderr.splitlines() if "warning" in line) == [
        "[worker 1] warning 1",
        "warning 0",
    ]


def test_progress_is_shown_as_it_is_made(tmp_path):
    with Launched("print('step'); print('1/9', end=''); time.sleep(600)", tmp_path) as launched:
        seen = b""
        while b"1/9" not in seen or b"[worker 1] step\n" not in seen:
            seen += os.read(launched.process.stdout.fileno(), 1000)
        launched.process.terminate()
        assert launched.end().code == 75


def test_much_output_is_whole(tmp_path):
    script = """
with open(1, "w", closefd=False) as out:
    for i in range(100_000):
        print(i, file=out)
if index: os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = run_job(script, tmp_path, max_restarts=0)
    lines = ended.stdout.decode().splitlines()
    assert [line for line in lines if not line.startswith("[")] == [str(i) for i in range(100_000)]
    assert [line for line in lines if line.startswith("[")] == [f"[worker 1] {i}" for i in range(100_000)]


def test_no_worker_waits_for_who_does_not_read(tmp_path):
    script = "for i in range(100): print('x' * 50_000)\nopen(sys.argv[1], 'w')".replace(
        "sys.argv[1]", f"{str(tmp_path)!r} + f'/done-{{index}}'"
    )
    command = ["sh", "-c", 'exec "$@" | head -c 10', "sh"]
    with Launched(script, tmp_path, wrapper=command) as launched:
        ended = launched.end()
    assert ended.ends() == {0: 0, 1: 0}
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-0", "done-1"]


def test_told_to_end_while_nobody_reads(tmp_path):
    flood = tmp_path / "flood"
    script = f"""
print("ready", file=sys.stderr)
while not os.path.exists({str(flood)!r}): time.sleep(0.01)
while True: print("x" * 50_000)
"""
    with Launched(script, tmp_path) as launched:
        lines = iter(launched.process.stderr)
        assert {next(lines), next(lines)} == {b"ready\n", b"[worker 1] ready\n"}
        flood.touch()  # not before both are heard: a full standard output would hold back what follows it
        time.sleep(0.5)  # by now the pipes are full
        launched.process.terminate()
        assert launched.process.wait(20) == 75
        assert launched.left() == []


def test_files_of_each_worker_and_attempt(tmp_path):
    logs = tmp_path / "logs"
    script = "print('out', index, attempt); print('error', file=sys.stderr); sys.exit(75 if attempt == 0 else 0)"
    for _ in range(2):  # the second job's are appended
        assert run_job(script, tmp_path, log_dir=str(logs)).code == 0
    expected = {
        f"worker-{worker}-attempt-{attempt}.log": ["error"] * 2 + [f"out {worker} {attempt}"] * 2
        for worker in range(2)
        for attempt in range(2)
    }
    assert {path.name: sorted(path.read_text().splitlines()) for path in logs.iterdir()} == expected


@pytest.mark.parametrize("log", [False, True])
def test_the_chief_has_the_terminal(tmp_path, log):
    main, terminal = pty.openpty()
    script = f"open({str(tmp_path)!r} + f'/terminal-{{index}}', 'w').write(str(os.isatty(1)))\n"
    script += "import time; time.sleep(index / 2); print('shown')"  # lines of two writers may meet on a terminal
    settings = {"log_dir": str(tmp_path / "logs")} if log else {}
    with Launched(script, tmp_path, options={"stdout": terminal}, **settings) as launched:
        os.close(terminal)
        assert launched.end().code == 0
        shown = os.read(main, 1000)
    os.close(main)
    assert sorted(shown.splitlines()) == [b"[worker 1] shown", b"shown"]
    assert (tmp_path / "terminal-0").read_text() == str(not log)
    assert (tmp_path / "terminal-1").read_text() == "False"


def test_a_full_disk_ends_no_job(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "worker-1-attempt-0.log").symlink_to("/dev/full")
    ended = run_job("for i in range(9): print(i)", tmp_path, log_dir=str(logs))
    assert ended.code == 0
    assert ended.stderr.count("No space left on device; later output is not logged") == 1
    assert ended.stdout.count(b"[worker 1] ") == 9
    (tmp_path / "events").symlink_to("/dev/full")
    ended = run_job("for i in range(9): print(i)", tmp_path, event_log=str(tmp_path / "events"))
    assert ended.code == 0
    assert ended.stderr.count("No space left on device; later events are not logged") == 1


def test_a_daemon_that_holds_the_output_is_not_waited_for(tmp_path):
    script = """
subprocess.Popen(["sleep", "600"], start_new_session=True)
print("last line")
"""
    with Launched(script, tmp_path) as launched:
        ended = launched.end()
        wait_until(lambda: len(launched.left()) == 2)  # which are no longer the job's
    assert ended.code == 0
    assert sorted(ended.stdout.splitlines()) == [b"[worker 1] last line", b"last line"]


def test_a_daemon_that_writes_for_ever_is_not_read_for_ever(tmp_path):
    with Launched("subprocess.Popen(['yes'], start_new_session=True)", tmp_path, workers=1) as launched:
        assert launched.process.stdout is not None
        reader = subprocess.Popen(["cat"], stdin=launched.process.stdout, stdout=subprocess.DEVNULL)
        assert launched.process.wait(30) == 0
        reader.kill()
        reader.wait()
