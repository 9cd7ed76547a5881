"""Forked children are to their tests what processes of their own are."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.children import ROOT, Child, run

ABOUT = """
import json, os, random, signal, sys
imported = "polynet_keras.engine.distributed_model" in sys.modules
import numpy
import tensorflow as tf
descriptors = os.listdir("/proc/self/fd") if sys.platform == "linux" else None
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
print(json.dumps({
    "imported": imported, "devices": len(tf.config.list_logical_devices("CPU")), "name": __name__, "argv": sys.argv,
    "path": sys.path[0], "environment": dict(os.environ), "cwd": os.getcwd(), "session": os.getsid(0),
    "descriptors": descriptors, "draws": [random.random(), numpy.random.rand()], "input": sys.stdin.read(),
    "handlers": [str(signal.getsignal(number)) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)],
}))
print("mistake", file=sys.stderr)
sys.exit(7)
"""


def test_it_is_as_python_with_a_program(tmp_path, monkeypatch):
    monkeypatch.setenv("FORGOTTEN", "1")
    file = tmp_path / "program.py"
    file.write_text(ABOUT)
    draws = []
    for script, name, folder in ((file, str(file), str(tmp_path)), (ABOUT, "-c", "")):
        child = Child(script, "an argument", env={"OWN": "ü", "FORGOTTEN": None}, cwd=tmp_path)
        out, err = child.communicate(60)
        assert child.returncode == 7
        assert err.splitlines()[-1] == "mistake"
        found = json.loads(out)
        assert (found["imported"], found["devices"], found["name"]) == (True, 2, "__main__")
        assert (found["argv"], found["path"]) == ([name, "an argument"], folder)
        assert (found["cwd"], found["input"], found["session"]) == (str(tmp_path), "", child.pid)
        expected = {name: value for name, value in os.environ.items() if name != "FORGOTTEN"}
        assert found["environment"].items() >= (expected | {"TF_CPP_MIN_LOG_LEVEL": "2", "OWN": "ü"}).items()
        assert "FORGOTTEN" not in found["environment"]
        if found["descriptors"] is not None:
            assert sorted(found["descriptors"]) == ["0", "1", "2", "3"]  # the last one reads the folder
        handlers = [str(handler) for handler in (signal.SIG_DFL, signal.default_int_handler, signal.SIG_DFL)]
        assert found["handlers"] == handlers
        draws.append(found["draws"])
    for first, second in zip(*draws, strict=True):
        assert first != second


@pytest.mark.parametrize(
    ("script", "code", "last"),
    [
        ("print('done', end='')", 0, ""),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('a mistake')", 1, "a mistake"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, "KeyboardInterrupt"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
        ("import atexit, os; atexit.register(os._exit, 9)", 9, ""),
    ],
)
def test_how_it_ends(script, code, last):
    done = run(script)
    assert done.returncode == code
    assert done.stdout == ("done" if code == 0 else "")
    assert "".join(done.stderr.splitlines()[-1:]) == last


def test_it_is_waited_for_and_told_to_end():
    with pytest.raises(subprocess.TimeoutExpired):
        run("import time; time.sleep(600)", timeout=0.2)
    child = Child("import sys, time; print('ready', flush=True); time.sleep(600)", stderr=subprocess.STDOUT)
    assert child.stdout.readline() == "ready\n"
    assert child.stderr is None
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.1)
    child.terminate()
    assert child.wait(30) == child.poll() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    child.kill()  # which nobody gets any more
    child.end()


def test_what_is_read_at_import_needs_a_real_process():
    with pytest.raises(ValueError, match="KERAS_BACKEND is read before the fork: this needs a real process"):
        Child("pass", env={"KERAS_BACKEND": "numpy"})


def test_nothing_is_left_when_this_process_is_killed():
    script = """
import os, signal
from tests import children
children.PRELOADED = ()
one = children.Child("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)")
print(one.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # The server writes its errors to the same pipe, which is read until all have closed it.
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
