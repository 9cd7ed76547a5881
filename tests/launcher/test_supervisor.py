"""What becomes of a job whose workers fail, hang and are told to end. The workers are small scripts."""

import json
import os
import re
import signal

import pytest

from polynet_keras.cluster.cluster import Cluster
from polynet_keras.launcher.job import cores
from tests.launcher.launched import Launched, run_job
from tests.waiting import wait_until

FOREVER = "time.sleep(600)"


def touch(folder, name):
    """Text of a script that leaves a file, named after the worker."""
    return f"open({str(folder)!r} + f'/{name}-{{index}}', 'a').write('x')\n"


def files(folder, name):
    return sorted(path.name for path in folder.glob(f"{name}-*"))


def hears(folder, signal_name, code):
    """Text of a script that notes each signal in a file, and ends a moment later."""
    return f"""
def hear(number, frame):
    {touch(folder, "heard")}
    global told
    told = True
told = False
signal.signal(signal.{signal_name}, hear)
{touch(folder, "ready")}
while not told:
    time.sleep(0.02)
time.sleep(0.3)
sys.exit({code})
"""


def test_workers_form_a_cluster_and_own_their_ports(tmp_path):
    script = f"""
import socket
config = json.loads(os.environ["TF_CONFIG"])
host, port = config["cluster"]["worker"][index].split(":")
with socket.create_server((host, int(port))):
    time.sleep(0.3)
open({str(tmp_path)!r} + f"/environment-{{index}}", "w").write(json.dumps(dict(os.environ)))
"""
    ended = run_job(script, tmp_path, workers=3)
    assert ended.code == 0, ended.stderr
    clusters, secrets = [], set()
    for worker in range(3):
        environment = json.loads((tmp_path / f"environment-{worker}").read_text())
        assert environment["KERAS_DISTRIBUTION_PROCESS_ID"] == str(worker)
        assert environment["POLYNET_ATTEMPT"] == "0"
        secrets.add(environment["POLYNET_JOB_SECRET"])
        clusters.append(Cluster.from_environment(environment))
    (secret,) = secrets  # one for all, which nobody guesses
    assert re.fullmatch("[0-9a-f]{64}", secret)
    assert len(set(secret)) > 4
    assert [cluster.index for cluster in clusters] == [0, 1, 2]
    assert len({cluster.workers for cluster in clusters}) == 1
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address in clusters[0].workers)
    assert [event["event"] for event in ended.events].count("start") == 3
    assert ended.ends() == {0: 0, 1: 0, 2: 0}
    assert ended.events[-1]["event"] == "done"
    assert ended.events[-1]["code"] == 0


@pytest.mark.parametrize(
    ("end", "how"),
    [
        ("sys.exit(75)", "exited with 75"),
        pytest.param("sys.exit(3)", "exited with 3", marks=pytest.mark.slow),
        pytest.param("sys.exit(1)", "exited with 1", marks=pytest.mark.slow),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        pytest.param("os.abort()", "was killed by SIGABRT", marks=pytest.mark.slow),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", "was killed by signal 37"),
    ],
)
def test_all_are_started_again(tmp_path, end, how):
    script = f"""
about_to_end = {str(tmp_path)!r} + f"/attempt-{{attempt}}"
if attempt < 2 and index == 1:
    open(about_to_end, "w").close()
    {end}
if attempt < 2:
    while not os.path.exists(about_to_end):
        time.sleep(0.01)
    time.sleep(0.3)
    sys.exit(75)
"""
    ended = run_job(script, tmp_path)
    assert ended.code == 0
    assert f"worker 1 {how}; restart 1 of 3 in 0.05 s" in ended.stderr
    assert f"worker 1 {how}; restart 2 of 3 in 0.1 s" in ended.stderr
    assert [event["attempt"] for event in ended.events if event["event"] == "start"] == [0, 0, 1, 1, 2, 2]
    assert ended.count("restart") == 2


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(75)", 75), pytest.param("sys.exit(3)", 3, marks=pytest.mark.slow), ("os.kill(os.getpid(), 9)", 137)],
)
@pytest.mark.parametrize("max_restarts", [0, 2])
def test_restarts_are_counted(tmp_path, end, code, max_restarts):
    ended = run_job(f"if index == 1: {end}\nsys.exit(75)", tmp_path, max_restarts=max_restarts)
    assert ended.code == code
    assert f"; no restart is left of {max_restarts}" in ended.stderr
    assert ended.count("start") == 2 * (max_restarts + 1)
    assert ended.count("restart") == max_restarts


def test_a_mistake_is_not_repeated(tmp_path):
    script = """
if index == 0: time.sleep(0.3); sys.exit(75)
print("usage: ...")
sys.exit("polynet: epochs=0 must be an integer of at least 1")
"""
    ended = run_job(script, tmp_path, mistakes=[1, 2])
    assert ended.code == 1
    assert (
        "worker 1 exited with 1, and a restart would not fix that: polynet: epochs=0 must be an integer of at least 1"
        in ended.stderr
    )
    assert ended.count("restart") == 0


def test_a_silent_mistake(tmp_path):
    ended = run_job("sys.exit(2)", tmp_path)
    assert ended.code == 1
    assert "exited with 2, and a restart would not fix that: it wrote nothing" in ended.stderr


def test_what_cannot_be_run_is_a_mistake(tmp_path):
    program = tmp_path / "program"
    program.write_text("neither binary nor script")
    program.chmod(0o755)
    ended = run_job([str(program)], tmp_path)
    assert ended.code == 1
    assert f"polynet: {program} cannot be run: Exec format error" in ended.stderr
    assert ended.count("restart") == 0


@pytest.mark.parametrize("end", ["sys.exit(130)", "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"])
def test_an_interrupted_worker_interrupts_the_job(tmp_path, end):
    ended = run_job(f"if index: {end}\ntime.sleep(0.3); sys.exit(75)", tmp_path)
    assert ended.code == 130
    assert re.search(r"worker 1 .*: interrupted", ended.stderr)
    assert ended.count("restart") == 0


def test_the_first_cause_is_named(tmp_path):
    ended = run_job("time.sleep(0.5 * index); sys.exit(3 if index else 75)", tmp_path, max_restarts=0)
    assert ended.code == 3
    assert "worker 1 exited with 3; no restart" in ended.stderr


@pytest.mark.parametrize(
    ("hang", "code"),
    [
        (FOREVER, -signal.SIGTERM),
        (f"signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}", -signal.SIGKILL),
        (f"os.kill(os.getpid(), signal.SIGSTOP); {FOREVER}", -signal.SIGKILL),
    ],
)
def test_who_does_not_notice_a_failure_is_ended(tmp_path, hang, code):
    ended = run_job(f"if index: sys.exit(3)\n{hang}", tmp_path, max_restarts=0, grace_seconds=1.5)
    assert ended.ends() == {0: code, 1: 3}
    assert ended.code == 3
    assert "worker 1 exited with 3; no restart" in ended.stderr
    # Both have their time: `signal` is sent when the grace is over.
    assert ended.seconds("end", "signal") >= 1.4


def test_who_hangs_is_named_when_the_others_end_for_it(tmp_path):
    script = f"if index: time.sleep(0.2); sys.exit(75)\nos.kill(os.getpid(), signal.SIGSTOP); {FOREVER}"
    ended = run_job(script, tmp_path, max_restarts=0, grace_seconds=0.5)
    assert ended.code == 75
    assert "worker 0 did not exit by itself and was killed by SIGKILL; no restart" in ended.stderr


def test_who_notices_within_the_grace_is_left_alone(tmp_path):
    ended = run_job("time.sleep(0 if index else 1); sys.exit(75)", tmp_path, max_restarts=0, grace_seconds=10)
    assert ended.ends() == {0: 75, 1: 75}
    assert ended.count("signal") == 0


def test_one_that_hangs_after_the_others_are_done_has_failed(tmp_path):
    script = f"if index == 0 and attempt == 0: {FOREVER}"
    ended = run_job(script, tmp_path, constants={"FINISH_SECONDS": 0.5}, grace_seconds=0.5, workers=3)
    assert ended.ends() == {0: -signal.SIGTERM, 1: 0, 2: 0}
    assert "worker 0 did not exit by itself and was killed by SIGTERM; restart 1 of 3" in ended.stderr
    assert ended.code == 0


def test_one_may_take_longer_than_the_grace_to_finish(tmp_path):
    ended = run_job("time.sleep(0 if index else 1.5)", tmp_path, grace_seconds=0.3)
    assert ended.code == 0
    assert ended.count("restart") == 0


@pytest.mark.parametrize(("sent", "heard"), [("SIGTERM", "SIGTERM"), ("SIGHUP", "SIGTERM"), ("SIGINT", "SIGINT")])
def test_workers_are_told_to_end_and_save(tmp_path, sent, heard):
    with Launched(hears(tmp_path, heard, 75), tmp_path) as launched:
        wait_until(lambda: files(tmp_path, "ready") == ["ready-0", "ready-1"])
        os.killpg(launched.process.pid, getattr(signal, sent))  # to the group, as Ctrl-C on a terminal
        ended = launched.end()
        assert launched.left() == []
    assert ended.code == (130 if sent == "SIGINT" else 75)
    assert ended.ends() == {0: 75, 1: 75}
    assert ended.count("restart") == 0
    assert f"stopped by {heard}" in ended.stderr
    # Once each: the terminal's own signal does not reach them.
    assert [(tmp_path / f"heard-{worker}").read_text() for worker in range(2)] == ["x", "x"]


def test_who_does_not_follow_sigterm_is_killed(tmp_path):
    script = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{touch(tmp_path, 'ready')}\n{FOREVER}"
    with Launched(script, tmp_path, grace_seconds=0.5) as launched:
        wait_until(lambda: len(files(tmp_path, "ready")) == 2)
        launched.process.terminate()
        ended = launched.end()
        assert launched.left() == []
    assert ended.code == 75
    assert ended.ends() == {0: -signal.SIGKILL, 1: -signal.SIGKILL}


def test_done_is_done_though_told_to_end(tmp_path):
    with Launched(hears(tmp_path, "SIGTERM", 0), tmp_path) as launched:
        wait_until(lambda: len(files(tmp_path, "ready")) == 2)
        launched.process.terminate()
        assert launched.end().code == 0


def test_a_second_interrupt_kills(tmp_path):
    script = f"signal.signal(signal.SIGINT, signal.SIG_IGN)\n{touch(tmp_path, 'ready')}\n{FOREVER}"
    with Launched(script, tmp_path, grace_seconds=600) as launched:
        wait_until(lambda: len(files(tmp_path, "ready")) == 2)
        launched.process.send_signal(signal.SIGINT)
        wait_until(lambda: any(event["event"] == "signal" for event in launched.events()))
        launched.process.send_signal(signal.SIGINT)
        ended = launched.end()
        assert launched.left() == []
    assert ended.code == 130
    assert ended.ends() == {0: -signal.SIGKILL, 1: -signal.SIGKILL}


def test_told_to_end_before_a_restart(tmp_path):
    with Launched("sys.exit(75)", tmp_path, constants={"BACK_OFF_SECONDS": (600, 600)}) as launched:
        wait_until(lambda: any(event["event"] == "restart" for event in launched.events()))
        launched.process.terminate()
        ended = launched.end()
    assert ended.code == 75
    assert ended.count("start") == 2


def test_an_ignored_signal_stays_ignored(tmp_path):
    command = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]  # as nohup
    with Launched(f"{touch(tmp_path, 'ready')}\ntime.sleep(1)", tmp_path, wrapper=command) as launched:
        wait_until(lambda: len(files(tmp_path, "ready")) == 2)
        launched.process.send_signal(signal.SIGHUP)
        ended = launched.end()
    assert ended.code == 0
    assert ended.count("signal") == 0


def test_a_killed_launcher_takes_its_workers_along(tmp_path):
    script = f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{touch(tmp_path, 'ready')}\n{FOREVER}"
    with Launched(script, tmp_path) as launched:
        wait_until(lambda: len(files(tmp_path, "ready")) == 2)
        assert len(launched.left()) == 2
        launched.process.kill()
        wait_until(lambda: launched.left() == [])


@pytest.mark.skipif(len(cores()) < 2, reason="needs two cores")
def test_cores_are_divided(tmp_path):
    script = "open(sys.argv[1] + f'/{index}', 'w').write(json.dumps(sorted(os.sched_getaffinity(0))))"
    for pin in (True, False):
        folder = tmp_path / str(pin)
        folder.mkdir()
        ended = run_job(script.replace("sys.argv[1]", repr(str(folder))), folder, pin=pin)
        assert ended.code == 0, ended.stderr
        shares = [json.loads((folder / str(worker)).read_text()) for worker in range(2)]
        if pin:
            assert sorted(shares[0] + shares[1]) == cores()
            assert abs(len(shares[0]) - len(shares[1])) <= 1
        else:
            assert shares == [cores(), cores()]


@pytest.mark.parametrize(("workers", "shares"), [(4, ["3", "0", "GPU-b1", "1"]), (2, ["3,0", "GPU-b1,1"]), (1, None)])
def test_gpus_are_divided(tmp_path, workers, shares):
    script = f"open({str(tmp_path)!r} + f'/{{index}}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    gpus = ["3", "0", "GPU-b1", "1"]
    ended = run_job(script, tmp_path, workers=workers, gpus=gpus)
    assert ended.code == 0, ended.stderr
    seen = [(tmp_path / str(worker)).read_text() for worker in range(workers)]
    assert seen == (shares or [",".join(gpus)])


def test_the_workers_of_one_of_several_machines(tmp_path, monkeypatch):
    """They have the indices, addresses and secret of the whole cluster, and count the restarts of the machine too."""
    monkeypatch.setenv("POLYNET_JOB_SECRET", "of all machines 1234")
    monkeypatch.setenv("POLYNET_ATTEMPT", "4")
    addresses = ["a:8888", "a:8889", "b:8888", "b:8889"]
    script = f"""
names = ("TF_CONFIG", "POLYNET_JOB_SECRET", "CUDA_VISIBLE_DEVICES")
said = [attempt, *(os.environ[name] for name in names)]
open({str(tmp_path)!r} + f"/{{index}}-{{attempt}}", "w").write(json.dumps(said))
print("here")
if attempt == 4 and index == 3: sys.exit(75)
"""
    logs = {"log_dir": str(tmp_path / "logs")}
    ended = run_job(script, tmp_path, cluster=[addresses, 2, "Slurm"], gpus=["0", "1"], **logs)
    assert ended.code == 0, ended.stderr
    assert "worker 3 exited with 75; restart 1 of 3" in ended.stderr
    assert sorted(ended.stdout.splitlines()) == [b"[worker 2] here"] * 2 + [b"[worker 3] here"] * 2
    assert (tmp_path / "logs" / "worker-3-attempt-1.log").read_text() == "here\n"
    for index in (2, 3):
        for attempt in (4, 5):
            number, config, secret, gpu = json.loads((tmp_path / f"{index}-{attempt}").read_text())
            cluster = Cluster.from_environment({"TF_CONFIG": config})
            assert (list(cluster.workers), cluster.index) == (addresses, index)
            assert (number, secret, gpu) == (attempt, "of all machines 1234", str(index - 2))


def test_nothing_starts_where_a_log_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for settings in ({"log_dir": str(tmp_path / "file")}, {"event_log": str(tmp_path / "file" / "events")}):
        ended = run_job(touch(tmp_path, "ready"), tmp_path, **settings)
        assert ended.code != 0
        assert str(tmp_path / "file") in ended.stderr
    assert files(tmp_path, "ready") == []


def test_what_was_started_is_ended_where_the_rest_cannot_be(tmp_path):
    logs = tmp_path / "logs"
    (logs / "worker-1-attempt-0.log").mkdir(parents=True)
    ended = run_job(FOREVER, tmp_path, log_dir=str(logs))
    assert ended.code != 0
    assert "IsADirectoryError" in ended.stderr
    assert ended.count("start") == 2
