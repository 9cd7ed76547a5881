"""Workers meet: threads here, each with the cluster of a worker."""

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from polynet_keras.cluster import entrance, rendezvous, signed_lines
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.cluster.entrance import GREETING
from polynet_keras.cluster.rendezvous import MissingWorkerError, code_fingerprint, meet
from polynet_keras.cluster.signed_lines import MAX_LINE, opened, sealed
from tests.processes import free_addresses

SECRET, OTHER = "0123456789abcdef", "fedcba9876543210"


def failure_of(cluster, facts, timeout, secret="") -> str:
    """What a worker was told: "" where it may go on."""
    try:
        meet(cluster, facts, timeout, secret)
    except ValueError as error:
        return str(error)
    return ""


def meet_all(clusters, facts, timeout=20.0, secret="") -> list[str]:
    count = len(clusters)
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(failure_of, clusters, facts, [timeout] * count, [secret] * count))


def cluster_of(count):
    addresses = tuple(free_addresses(count))
    return [Cluster(addresses, index, "TF_CONFIG") for index in range(count)]


def test_all_meet():
    clusters = cluster_of(4)
    assert meet_all(clusters, [{"recipe": "a"}] * 4) == [""] * 4
    assert meet_all(clusters, [{"recipe": "a"}] * 4) == [""] * 4  # the ports are free again


def test_one_process_meets_nobody():
    meet(Cluster(), {})


def test_long_values_are_shown_where_they_differ():
    structure = "1 x [2-way] | 1 x [poly-3, 2-way] | 1 x "
    structures = [f"{structure}[poly-3]", f"{structure}[2-way]"]
    told = meet_all(cluster_of(2), [{"structure": one} for one in structures], secret=SECRET)
    assert "(…y] | 1 x [2-way] and not …y] | 1 x [poly-3])" in told[0]


def test_a_fact_that_one_does_not_have():
    told = meet_all(cluster_of(2), [{"a": "1", "b": "2"}, {"c": "3"}], secret=SECRET)
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
        waiting = [pool.submit(meet, cluster, {"a": str(cluster.index)}, 1.5, SECRET) for cluster in clusters]
        assert type(waiting[0].exception()) is ValueError


def test_a_silent_program_at_the_chiefs_address_is_told():
    clusters = cluster_of(2)
    host, port = clusters[0].workers[0].split(":")
    with socket.create_server((host, int(port))):
        (told,) = meet_all(clusters[1:], [{}], timeout=0.5)
    assert f"could not be reached within 0.5 s: {rendezvous.NO_CHIEF}" in told


def stranger(chief):
    """A connection to a chief, as soon as it listens."""
    host, port = chief.workers[0].split(":")
    for _ in range(400):
        try:
            return socket.create_connection((host, int(port)), timeout=5)
        except OSError:
            time.sleep(0.01)
    raise AssertionError("the chief does not listen")


def line_of(connection):
    return json.loads(raw_line_of(connection))


def raw_line_of(connection):
    """Without its end; what comes after it stays in the socket."""
    line = bytearray()
    while not line.endswith(b"\n"):
        more = connection.recv(1)
        assert more, "the connection ended"
        line += more
    return bytes(line[:-1])


def hello_of(cluster, facts):
    return {
        "greeting": GREETING,
        "index": cluster.index,
        "workers": list(cluster.workers),
        "facts": facts,
        "nonce": "0" * 32,
        "process": "a process of the test's",
    }


def connected(cluster, facts, secret=""):
    """A worker's connection to its chief: it has heard the chief's number, said hello and been welcomed."""
    connection, key = stranger(cluster), secret.encode()
    nonce, hello = line_of(connection)["nonce"], hello_of(cluster, facts)
    connection.sendall(sealed(hello, f"hello {nonce}", key))
    context = f"{nonce} {hello['nonce']}"
    assert opened(raw_line_of(connection), f"welcome {context}", key)["welcome"]
    return connection, context


def answer_of(connection, context, secret=""):
    return opened(raw_line_of(connection), f"answer {context}", secret.encode())


def test_a_different_fact_is_named_on_every_worker():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {"recipe": "a" * 64}, 20.0, SECRET)
        second, context = connected(clusters[1], {"recipe": "a" * 64}, SECRET)
        with second:
            third = failure_of(clusters[2], {"recipe": "b" * 64}, 20.0, SECRET)
            assert third == chief.result() == answer_of(second, context, SECRET)["failure"]
    address = clusters[2].workers[2]
    assert f"worker 2 ({address}) differs from worker 0 ({clusters[0].workers[0]}) in recipe" in third
    assert f"({'b' * 40}… and not {'a' * 40}…); all must run the same" in third


def test_workers_that_come_in_one_moment_are_all_told():
    cluster, key = cluster_of(3)[0], b"k" * 32
    pairs = [socket.socketpair() for _ in range(2)]
    arrived = [
        (
            entrance.Guest(ours, "127.0.0.1", 0.0),
            {"index": index, "workers": list(cluster.workers), "facts": {"a": "b"}},
        )
        for index, (ours, _) in enumerate(pairs, 1)
    ]
    waiting = SimpleNamespace(next=lambda deadline: arrived, refused=(0, ""))
    failure = rendezvous._gather(cluster, {"a": "c"}, waiting, time.monotonic() + 5, 5.0, {}, key)
    assert "worker 1 (" in str(failure)
    for _, theirs in pairs:
        with theirs:
            assert str(failure) in theirs.recv(MAX_LINE).decode()


def test_two_processes_with_one_index():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0, SECRET)
        # Says hello without a listener of its own: on one machine, two of one index may also meet at their own port.
        first, context = connected(clusters[1], {}, SECRET)
        with first:
            second = pool.submit(failure_of, clusters[1], {}, 20.0, SECRET)
            answers = [answer_of(first, context, SECRET)["failure"], chief.result(), second.result()]
    assert len(set(answers)) == 1
    address = clusters[1].workers[1]
    assert answers[0] == f"two processes say that they are worker 1 ({address}): at 127.0.0.1 and at 127.0.0.1"


def test_a_worker_that_ended_while_it_waited_may_come_again():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(3) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0)
        connected(clusters[1], {})[0].close()
        again = pool.submit(failure_of, clusters[1], {}, 20.0)
        last = pool.submit(failure_of, clusters[2], {}, 20.0)
        assert [one.result() for one in (chief, again, last)] == [""] * 3


def test_a_worker_that_ended_is_not_counted_when_the_last_one_comes():
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0)
        connected(clusters[1], {})[0].close()
        with connected(clusters[2], {})[0] as last:
            last.settimeout(1.0)
            with pytest.raises(TimeoutError):  # it is not told to go on
                last.recv(1)
            again = pool.submit(failure_of, clusters[1], {}, 20.0)
            assert [chief.result(), again.result()] == ["", ""]


def test_a_chief_that_ends_while_others_wait_tells_them(monkeypatch):
    clusters = cluster_of(3)

    def interrupted(*_):
        raise KeyboardInterrupt

    def said_hello():
        waiting.result()
        with stranger(clusters[2]) as connection:
            line_of(connection)
            connection.sendall(b"{}\n")

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connected, clusters[1], {})
        monkeypatch.setattr(rendezvous, "_objection", lambda *_: monkeypatch.setattr(entrance, "opened", interrupted))
        second = pool.submit(said_hello)
        with pytest.raises(KeyboardInterrupt):
            meet(clusters[0], {}, 20.0)
        answer = line_of(waiting.result()[0])
        second.result()
    assert answer["failure"] == f"worker 0 ({clusters[0].workers[0]}) exited before all workers were there"


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
    assert "worker 0 (no-such-host.invalid:5000): its own host name is unknown here" in told


def test_other_lists_of_workers_are_refused():
    clusters = cluster_of(2)
    other = Cluster((clusters[0].workers[0], free_addresses(1)[0]), 1)
    told = meet_all([clusters[0], other], [{}, {}], secret=SECRET)
    assert told[0] == told[1]
    assert "a process that says it is worker 1 has other workers than worker 0" in told[0]


@pytest.mark.parametrize("secret", ["", "s" * 16])
def test_strangers_are_passed_over(secret):
    """A port scanner that says nothing, and others that say something else, before the worker comes."""
    clusters = cluster_of(2)
    hello = hello_of(clusters[1], {})
    odd = [json.dumps({**hello, "nonce": nonce}) for nonce in (None, 1, ["0"], "0" * 31, "0" * 31 + " ", "0" * 33)]
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(meet, clusters[0], {}, 20.0, secret)
        for words in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b'{"greeting": "other"}\n',
            b"[1]\n",
            b"[" * 100_000 + b"\n",
            b'{"a":' * 100_000 + b"\n",
            b"9" * 100_000 + b"\n",
            b"\xff\xfe\x00\xd8\n",
            bytes(2 * MAX_LINE),
            *(f"{words}\n".encode() for words in odd),
        ):
            with stranger(clusters[0]) as connection, contextlib.suppress(OSError):
                connection.sendall(words)
        meet(clusters[1], {}, 20.0, secret)
        chief.result()


def test_strangers_who_are_slow_keep_nobody_from_coming(monkeypatch):
    """Silent ones, more than are waited for, and one who sends a byte at a time: the line has a time, not the byte."""
    monkeypatch.setattr(entrance, "MAX_STRANGERS", 3)
    monkeypatch.setattr(entrance, "HELLO_SECONDS", 0.3)
    clusters, start = cluster_of(3), time.monotonic()
    with ThreadPoolExecutor(3) as pool, contextlib.ExitStack() as stack:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0)
        silent = [stack.enter_context(stranger(clusters[0])) for _ in range(20)]
        first = pool.submit(failure_of, clusters[1], {}, 20.0)
        dripping = stack.enter_context(stranger(clusters[0]))
        with contextlib.suppress(OSError):  # it is cut off
            while time.monotonic() < start + 10:
                dripping.sendall(b"x")
                time.sleep(0.02)
        for connection in silent:
            connection.settimeout(5)
            line_of(connection)
            assert connection.recv(1) == b""
        assert failure_of(clusters[2], {}, 20.0) == first.result() == chief.result() == ""
    assert time.monotonic() - start < 10


def test_strangers_do_not_prolong_the_wait():
    clusters = cluster_of(2)
    with ThreadPoolExecutor(1) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 1.0)
        start = time.monotonic()
        with stranger(clusters[0]) as dripping:
            while not chief.done() and time.monotonic() < start + 10:
                with contextlib.suppress(OSError):
                    dripping.sendall(b"x")
                time.sleep(0.05)
        assert "did not come within 1 s" in chief.result()
    assert time.monotonic() - start < 5


def test_a_line_that_is_too_long_is_cut_off():
    clusters = cluster_of(2)
    with ThreadPoolExecutor(1) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 8.0)
        with stranger(clusters[0]) as connection, pytest.raises(ConnectionError):
            connection.sendall(bytes(64 * MAX_LINE))
        assert not chief.done()
        assert failure_of(clusters[1], {}, 20.0) == chief.result() == ""


def test_what_strangers_send_is_shown_without_commands_for_the_terminal():
    clusters = cluster_of(2)
    hello = {**hello_of(clusters[1], {}), "index": "\x1b[2J" * 1000, "workers": ["\ud800" * 1000]}
    with ThreadPoolExecutor(1) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 0.5)
        with stranger(clusters[0]) as connection:
            connection.sendall(json.dumps(hello).encode() + b"\n")
            told = chief.result()
    assert "has other workers than worker 0" in told
    assert told.isprintable()
    assert len(told) < 1000


# --- The secret of a job ---


def told_with(secrets, timeout=20.0):
    clusters = cluster_of(len(secrets))
    with ThreadPoolExecutor(len(secrets)) as pool:
        told = pool.map(failure_of, clusters, [{}] * len(secrets), [timeout] * len(secrets), secrets)
        return list(told), clusters[0]


def test_workers_that_share_a_secret_meet():
    told, _ = told_with([SECRET, f"{SECRET}\n", SECRET])
    assert told == [""] * 3


def test_the_secret_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("POLYNET_JOB_SECRET", SECRET)
    told, _ = told_with([None, SECRET])
    assert told == [""] * 2


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ([SECRET, OTHER], "worker 1 has a different POLYNET_JOB_SECRET from worker 0; "),
        ([SECRET, ""], "worker 0 has a POLYNET_JOB_SECRET, but worker 1 has none; "),
        (["", SECRET], "worker 1 has a POLYNET_JOB_SECRET, but worker 0 has none; "),
    ],
)
def test_another_secret_is_told_and_does_not_end_the_job(secrets, message, caplog):
    told, cluster = told_with(secrets, timeout=1.0)
    for index in (0, 1):
        message = message.replace(f"worker {index} ", f"{cluster.name(index)} ")
        message = message.replace(f"worker {index};", f"{cluster.name(index)};")
    reason = f"{message}all workers of a job need the same, or none"
    assert told[1] == f"{cluster.name(0)} could not be reached within 1 s: {reason}"
    assert f"{reason}; trying again until 1 s are over" in caplog.text  # at once
    refused = "; 1 did not know POLYNET_JOB_SECRET, the last one at 127.0.0.1" if all(secrets) else ""
    assert told[0] == f"{cluster.name(1)} did not come within 1 s{refused}"


def test_a_secret_that_is_too_short():
    for secret in ("a", "0123456789abcde", " 0123456789abcde\n"):
        with pytest.raises(ValueError, match="expected at least 16"):
            meet(cluster_of(2)[0], {}, 0.1, secret)


def test_what_was_overheard_is_of_no_use():
    """A worker's signed line, sent again on another connection, and to a second meeting of the same job."""
    clusters, lines = cluster_of(3), []
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            chief = pool.submit(failure_of, clusters[0], {}, 20.0, SECRET)
            for line in lines:
                with stranger(clusters[0]) as connection:
                    line_of(connection)
                    connection.sendall(line)
                    assert line_of(connection)["refused"] == "secret"
            with stranger(clusters[0]) as connection:
                nonce = line_of(connection)["nonce"]
                key, hello = SECRET.encode(), hello_of(clusters[1], {})
                lines.append(sealed(hello, f"hello {nonce}", key))
                connection.sendall(lines[-1])
                second = pool.submit(failure_of, clusters[2], {}, 20.0, SECRET)
                for word, name in (("welcome", "welcome"), ("answer", "failure")):
                    line = raw_line_of(connection)
                    assert name in opened(line, f"{word} {nonce} {hello['nonce']}", key)
                    assert opened(line, f"{word} {nonce} {'1' * 32}", key) is None
            assert [chief.result(), second.result()] == ["", ""]


def test_who_does_not_know_the_secret_cannot_end_a_job():
    """A stranger who knows the cluster and speaks as a worker does: another fact would end a job that has no secret."""
    clusters = cluster_of(2)
    with ThreadPoolExecutor(1) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0, SECRET)
        for signature in (b"", b"0" * 64 + b" ", signed_lines._signature(b"", "", b"") + b" "):
            with stranger(clusters[0]) as connection:
                line_of(connection)
                hello = hello_of(clusters[1], {"recipe": "another"})
                connection.sendall(signature + json.dumps(hello).encode() + b"\n")
                assert line_of(connection)["refused"] == "secret"
        assert failure_of(clusters[1], {}, 20.0, SECRET) == chief.result() == ""


NONCE = "0" * 32
CHALLENGE = {"greeting": GREETING, "nonce": NONCE, "secret": True}
FAILURE = {"greeting": GREETING, "failure": "you are fired", "missing": False}


def words(*messages):
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (words({**CHALLENGE, "secret": False}), None),
        (words({"greeting": GREETING, "nonce": NONCE}), None),
        (words({**CHALLENGE, "nonce": f"{NONCE} {{"}), None),  # to have words signed that mean something else
        (words({**CHALLENGE, "nonce": [NONCE]}), None),
        (b"[" * 100_000 + b"\n", None),
        (words({**CHALLENGE, "secret": False}, FAILURE), None),
        (words(FAILURE), None),
        (words(CHALLENGE), words({"greeting": GREETING, "refused": "secret"})),
        (words(CHALLENGE), words(FAILURE)),
        (words(CHALLENGE), words({"greeting": GREETING, "welcome": True}, FAILURE)),
        (words(CHALLENGE), sealed({**FAILURE, "welcome": True}, f"welcome {NONCE} {NONCE}", b"other")),
        (words(CHALLENGE), b""),  # and then nothing, until the worker does not wait any longer
    ],
)
def test_who_answers_in_the_chiefs_place_ends_no_worker(first, then, monkeypatch):
    """And hears nothing from a worker that has not heard a chief's number; then the chief comes, and they meet."""
    monkeypatch.setattr(rendezvous, "HELLO_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "STRANGER_SECONDS", 0.01)
    clusters = cluster_of(2)
    host, port = clusters[0].workers[0].split(":")
    with ThreadPoolExecutor(1) as pool:
        with socket.create_server((host, int(port))) as server:
            worker = pool.submit(failure_of, clusters[1], {}, 20.0, SECRET)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(5)
                connection.sendall(first)
                if then is not None:
                    raw_line_of(connection)
                    connection.sendall(then)
                assert connection.recv(1) == b""
        assert failure_of(clusters[0], {}, 20.0, SECRET) == worker.result() == ""


def test_a_worker_that_says_hello_again_takes_its_own_place():
    """As after a connection that somebody between them holds, or that broke and nobody told the chief."""
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 20.0, SECRET)
        first, _ = connected(clusters[1], {}, SECRET)
        second, context = connected(clusters[1], {}, SECRET)
        with first, second:
            assert first.recv(1) == b""
            last = pool.submit(failure_of, clusters[2], {}, 20.0, SECRET)
            assert answer_of(second, context, SECRET)["failure"] is None
        assert chief.result() == last.result() == ""


@pytest.mark.parametrize(
    "change",
    [
        {"workers": ["another:1", "job:2"]},
        {"facts": {"recipe": "another"}},
        {"index": 0},
        {"index": 3},
        {"index": True},
        {"index": None},
        {"facts": None, "workers": None},
    ],
)
def test_without_a_secret_who_is_wrong_is_told_and_ends_nothing(change, caplog):
    """A worker of another job, say, or one whose recipe is another."""
    clusters = cluster_of(3)
    with ThreadPoolExecutor(3) as pool:
        chief = pool.submit(failure_of, clusters[0], {"recipe": "a"}, 20.0)
        with stranger(clusters[0]) as connection:
            line_of(connection)
            connection.sendall(words({**hello_of(clusters[1], {"recipe": "a"}), **change}))
            assert line_of(connection)["welcome"]
            told = line_of(connection)["failure"]
        workers = [pool.submit(failure_of, cluster, {"recipe": "a"}, 20.0) for cluster in clusters[1:]]
        assert [one.result() for one in (chief, *workers)] == [""] * 3
    assert f"turned a process at 127.0.0.1 away: {told}" in caplog.text


def test_without_a_secret_who_was_turned_away_is_said_at_the_end():
    """A second process of an index too: the first one keeps its place."""
    clusters = cluster_of(3)
    with ThreadPoolExecutor(2) as pool:
        chief = pool.submit(failure_of, clusters[0], {}, 1.0)
        first, context = connected(clusters[1], {})
        second = failure_of(clusters[1], {}, 20.0)
        with first:
            told = answer_of(first, context)["failure"]
    address = clusters[1].workers[1]
    assert second == f"two processes say that they are worker 1 ({address}): at 127.0.0.1 and at 127.0.0.1"
    assert told == chief.result()
    assert told == (f"{clusters[2].name(2)} did not come within 1 s; 1 were turned away, the last one because {second}")


def test_the_fingerprint_is_of_the_code():
    assert len(code_fingerprint()) == 64
    assert code_fingerprint() == code_fingerprint()
