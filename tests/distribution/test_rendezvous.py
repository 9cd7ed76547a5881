"""Workers meet: threads here, each with the cluster of a worker."""

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from processes import free_addresses

from polynet_keras.distribution import rendezvous
from polynet_keras.distribution.cluster import Cluster
from polynet_keras.distribution.rendezvous import MissingWorkerError, code_fingerprint, meet


def failure_of(cluster, facts, timeout) -> str:
    """What a worker was told: "" where it may go on."""
    try:
        meet(cluster, facts, timeout)
    except ValueError as error:
        return str(error)
    return ""


def meet_all(clusters, facts, timeout=20.0) -> list[str]:
    with ThreadPoolExecutor(len(clusters)) as pool:
        return list(pool.map(failure_of, clusters, facts, [timeout] * len(clusters)))


def cluster_of(count):
    addresses = tuple(free_addresses(count))
    return [Cluster(addresses, index, "TF_CONFIG") for index in range(count)]


def test_all_meet():
    clusters = cluster_of(4)
    assert meet_all(clusters, [{"recipe": "a"}] * 4) == [""] * 4
    assert meet_all(clusters, [{"recipe": "a"}] * 4) == [""] * 4  # the ports are free again


def test_one_process_meets_nobody():
    meet(Cluster(), {})


def test_a_different_fact_is_named_on_every_worker():
    clusters = cluster_of(3)
    told = meet_all(clusters, [{"recipe": "a" * 64}, {"recipe": "a" * 64}, {"recipe": "b" * 64}])
    assert told[0] == told[2]
    address = clusters[2].workers[2]
    assert f"worker 2 ({address}) differs from worker 0 ({clusters[0].workers[0]}) in recipe" in told[0]
    assert f"({'b' * 40}... and not {'a' * 40}...); all must run the same" in told[0]
    # The third may have been there first, and then the second hears of it too; else it finds nobody any more.
    assert told[1]


def test_long_values_are_shown_where_they_differ():
    structure = "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x "
    told = meet_all(cluster_of(2), [{"structure": f"{structure}[poly-3]"}, {"structure": f"{structure}[2-way]"}])
    assert "(...y] | 1 x [2-way] and not ...y] | 1 x [poly-3])" in told[0]


def test_a_fact_that_one_does_not_have():
    told = meet_all(cluster_of(2), [{"a": "1", "b": "2"}, {"c": "3"}])
    assert "in a (nothing and not 1), and in b, c" in told[0]


def test_a_worker_that_does_not_come_is_named():
    clusters = cluster_of(3)
    told = meet_all(clusters[:2], [{}, {}], timeout=1.5)
    assert told == [f"worker 2 ({clusters[0].workers[2]}) did not come within 1.5 s"] * 2


def test_a_chief_that_does_not_come_is_named():
    clusters = cluster_of(2)
    (told,) = meet_all(clusters[1:], [{}], timeout=1.0)
    assert told == f"worker 0 ({clusters[0].workers[0]}) could not be reached within 1 s: Connection refused"


def test_who_is_missing_is_told_apart_from_a_mistake():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(meet, cluster, {}, 1.5) for cluster in clusters[:2]]
        assert {type(one.exception()) for one in waiting} == {MissingWorkerError}
    clusters = cluster_of(2)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(meet, cluster, {"a": str(cluster.index)}, 1.5) for cluster in clusters]
        assert type(waiting[0].exception()) is ValueError


def test_a_silent_program_at_the_chiefs_address_is_told(monkeypatch):
    monkeypatch.setattr(rendezvous, "ANSWER_SECONDS", 0.2)
    clusters = cluster_of(2)
    host, port = clusters[0].workers[0].split(":")
    with socket.create_server((host, int(port))):
        (told,) = meet_all(clusters[1:], [{}], timeout=1.0)
    assert told.endswith("within 1 s: it accepts connections and says nothing; another program may have its port")


def connected(cluster, facts):
    """A worker's connection to its chief, with what it says first."""
    hello = {"greeting": rendezvous.GREETING, "index": cluster.index, "workers": list(cluster.workers), "facts": facts}
    host, port = cluster.workers[0].split(":")
    for _ in range(100):
        try:
            connection = socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            time.sleep(0.05)
            continue
        connection.sendall(json.dumps(hello).encode() + b"\n")
        return connection
    raise AssertionError("the chief does not listen")


def test_two_processes_with_one_index():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0)
        # Says hello without a listener of its own: on one machine, two of one index may also meet at their own port.
        with connected(clusters[1], {}) as first:
            second = pool.submit(failure_of, clusters[1], {}, 20.0)
            answers = [json.loads(first.makefile().readline())["failure"], chief.result(), second.result()]
    assert len(set(answers)) == 1
    address = clusters[1].workers[1]
    assert answers[0] == f"two processes say that they are worker 1 ({address}): at 127.0.0.1 and at 127.0.0.1"


def test_a_worker_that_ended_while_it_waited_may_come_again():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(3) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0)
        connected(clusters[1], {}).close()
        again = pool.submit(failure_of, clusters[1], {}, 20.0)
        last = pool.submit(failure_of, clusters[2], {}, 20.0)
        assert [one.result() for one in (chief, again, last)] == [""] * 3


def test_a_worker_that_ended_is_not_counted_when_the_last_one_comes():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0)
        connected(clusters[1], {}).close()
        with connected(clusters[2], {}) as last:
            last.settimeout(1.0)
            with pytest.raises(TimeoutError):  # it is not told to go on
                last.recv(1)
            again = pool.submit(failure_of, clusters[1], {}, 20.0)
            assert [chief.result(), again.result()] == ["", ""]


def test_a_chief_that_ends_while_others_wait_tells_them(monkeypatch):
    clusters = cluster_of(3)

    def interrupted(*_):
        raise KeyboardInterrupt

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connected, clusters[1], {})
        monkeypatch.setattr(rendezvous, "_objection", lambda *_: monkeypatch.setattr(rendezvous, "_read", interrupted))
        second = pool.submit(lambda: (waiting.result(), connected(clusters[2], {})))
        with pytest.raises(KeyboardInterrupt):
            meet(clusters[0], {}, 20.0)
        answer = json.loads(waiting.result().makefile().readline())
        second.result()
    assert answer["failure"] == f"worker 0 ({clusters[0].workers[0]}) ended before all workers were there"


def test_workers_of_other_machines_reach_a_chief_whose_name_is_the_loopbacks():
    port = free_addresses(1)[0].split(":")[1]
    one_machine = Cluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0)
    with rendezvous._own_port(one_machine) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    with rendezvous._own_port(Cluster((f"localhost:{port}", "other-machine:1"), 0)) as listener:
        assert listener.getsockname()[0] in ("0.0.0.0", "::1")


def test_a_busy_port_is_named():
    clusters = cluster_of(2)
    with socket.create_server(("127.0.0.1", int(clusters[0].workers[0].split(":")[1]))):
        (told,) = meet_all(clusters[:1], [{}])
    assert "the port of worker 0" in told
    assert "is taken on this machine: by another program, or by a second process with this index" in told


def test_an_address_of_another_machine_is_named():
    """A second chief, on a machine that is not the chief's: 192.0.2.1 is nobody's (RFC 5737)."""
    (told,) = meet_all([Cluster(("192.0.2.1:5000", "127.0.0.1:5001"), 0)], [{}])
    assert "the address of worker 0 (192.0.2.1:5000) is not this machine's" in told


def test_an_unknown_host_is_named():
    (told,) = meet_all([Cluster(("no-such-host.invalid:5000", "127.0.0.1:5001"), 0)], [{}])
    assert "worker 0 (no-such-host.invalid:5000): its own host name is not known here" in told


def test_other_lists_of_workers_are_refused():
    clusters = cluster_of(2)
    other = Cluster((clusters[0].workers[0], free_addresses(1)[0]), 1)
    told = meet_all([clusters[0], other], [{}, {}])
    assert told[0] == told[1]
    assert "a process that says it is worker 1 knows other workers than worker 0" in told[0]


def test_who_comes_late_finds_a_job_that_runs(monkeypatch):
    """Something answers at the chief's address that is no rendezvous: TensorFlow's server, say."""
    monkeypatch.setattr(rendezvous, "STRANGER_SECONDS", 0.5)
    clusters = cluster_of(2)
    with (
        socket.create_server(("127.0.0.1", int(clusters[0].workers[0].split(":")[1]))) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        server.settimeout(0.1)
        over = threading.Event()

        def answer():
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    guest, _ = server.accept()
                    guest.sendall(b"\x00\x00\x12\x04")
                    guest.close()

        pool.submit(answer)
        try:
            (told,) = meet_all(clusters[1:], [{}])
        finally:
            over.set()
    assert "does not wait for workers: its job is running already, or another program has its port" in told


def test_strangers_are_passed_over():
    """A port scanner that says nothing, and one that says something else, before the worker comes."""
    clusters = cluster_of(2)
    host, port = clusters[0].workers[0].split(":")
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(meet, clusters[0], {}, 20.0)
        for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b'{"greeting": "other"}\n', b"[1]\n"):
            for _ in range(100):
                try:
                    with socket.create_connection((host, int(port)), timeout=1) as stranger:
                        stranger.sendall(words)
                    break
                except OSError:
                    pass
        meet(clusters[1], {}, 20.0)
        chief.result()


def test_the_fingerprint_is_of_the_code():
    assert len(code_fingerprint()) == 64
    assert code_fingerprint() == code_fingerprint()
