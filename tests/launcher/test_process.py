"""Nothing of a worker is left when it has ended, and nothing of the launcher's is in it."""

import signal
import subprocess
import sys

from tests.launcher.launched import Launched, run_job
from tests.waiting import wait_until


def test_what_a_worker_left_running_is_killed(tmp_path):
    # run_job sees to it that nothing is left.
    ended = run_job("subprocess.Popen(['sleep', '600']); subprocess.Popen(['sh', '-c', 'sleep 600 & wait'])", tmp_path)
    assert ended.code == 0
    assert ended.seconds("start", "done") < 60


def test_what_a_failed_worker_left_running_is_killed_before_the_restart(tmp_path):
    script = f"""
if attempt == 0:
    child = subprocess.Popen(["sleep", "600"])
    open({str(tmp_path)!r} + f"/child-{{index}}", "w").write(str(child.pid))
    time.sleep(0.3)
    sys.exit(75)
pid = int(open({str(tmp_path)!r} + f"/child-{{index}}").read())
try:
    state = open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0]
except FileNotFoundError:
    state = "gone"
sys.exit(0 if state in ("gone", "Z", "X") else 3)
"""
    ended = run_job(script, tmp_path)
    assert ended.code == 0, ended.stderr


def test_a_shell_script_passes_sigterm_on_to_what_it_runs(tmp_path):
    program = f"""
import signal, sys, time
def hear(*_):
    open({str(tmp_path)!r} + "/saved", "w")
    sys.exit(75)
signal.signal(signal.SIGTERM, hear)
open({str(tmp_path)!r} + "/ready", "w")
time.sleep(600)
"""
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", program]
    with Launched(command, tmp_path, workers=1) as launched:
        wait_until((tmp_path / "ready").exists)
        launched.process.terminate()
        assert launched.end().code == 75
        wait_until((tmp_path / "saved").exists)


def test_a_worker_starts_as_from_a_shell(tmp_path):
    # Python ignores SIGPIPE and SIGXFSZ: what it starts must not.
    ended = run_job(["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"], tmp_path, workers=1)
    masks = dict(line.split(":\t") for line in ended.stdout.decode().splitlines())
    here = dict(line.split(":\t") for line in status() if line.startswith(("SigIgn", "SigBlk")))
    assert masks == {**here, "SigIgn": masks["SigIgn"]}
    ignored = int(masks["SigIgn"], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored >> (number - 1) & 1


def status():
    done = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_worker_has_no_input_and_no_open_files(tmp_path):
    script = """
assert sys.stdin.read() == ""
files = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if int(name) > 2
         and os.path.exists(f"/proc/self/fd/{name}")}
assert not files, files
"""
    ended = run_job(script, tmp_path, max_restarts=0)
    assert ended.code == 0, ended.stderr


def test_no_such_program(tmp_path):
    ended = run_job(["no/such/program", "argument"], tmp_path)
    assert ended.code == 1
    assert "no/such/program cannot be run: No such file or directory" in ended.stderr
    assert ended.count("restart") == 0
