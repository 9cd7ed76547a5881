"""Before they train, all workers meet: each is present, once, and is about to do the same thing.

They meet at the chief's address, before TensorFlow opens its server there. TensorFlow itself waits for an hour for a
missing worker, and compares nothing. The exchange has four lines of JSON: the chief sends each guest a number that is
used once, the guest says who it is and what it is about to do, the chief welcomes it, and answers when all have met. If
the job has a secret, all lines but the first are signed with it (HMAC-SHA-256 over the line and both sides' numbers). A
process that does not prove that it knows the secret is ignored, as a guest and at the chief's address: it cannot stop a
job from starting. Any process may connect: the length and the time of what a guest sends and the number of guests are
limited.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from polynet_keras.basics.checks import is_integer
from polynet_keras.basics.names import shown
from polynet_keras.cluster.cluster import Cluster, split_address
from polynet_keras.cluster.entrance import GREETING, HELLO_SECONDS, Entrance, Guest
from polynet_keras.cluster.signed_lines import SECRET_VARIABLE, Lines, is_nonce, key_of, opened, sealed

MAX_FAILURE = 2000
"""The largest number of characters of the chief's error message."""
LONG = 40
"""The largest number of characters of a value in a message."""
RETRY_SECONDS = 0.2
CONNECT_SECONDS = 10.0
STRANGER_SECONDS = 2.0
"""The time until the next attempt if another program answers at the chief's address: for example the chief of the last
attempt, which has not yet noticed that the worker before this one is gone."""
NO_CHIEF = (
    "the process that answers there does not wait for workers: its job already runs, and a worker cannot join it later "
    "(stop it and start all workers), or another program has its port"
)
ONE_SECRET = "all workers of a job need the same, or none"
ANSWER_SECONDS = 5
"""The time for the chief's answer, after the chief has stopped waiting."""
MAX_WARNINGS = 10
"""The largest number of warnings about guests that are not workers of this job; further guests are only counted."""


class MissingWorkerError(ValueError):
    """A worker did not arrive, or the chief could not be reached, in time."""


class _NotTheChiefError(Exception):
    """The process at the chief's address has not proved that it is the chief. The chief may still come."""


def meet(cluster: Cluster, facts: Mapping[str, str], timeout_seconds: float = 300, secret: str | None = None) -> None:
    """Returns when all workers have called this with the same facts.

    Args:
        cluster: the cluster. A single process meets nobody.
        facts: values by name that must be equal: versions, the fingerprint of the code, the values of a recipe.
        timeout_seconds: how long to wait for the others.
        secret: the secret that the workers of this job share; by default the value of the environment variable
            `POLYNET_JOB_SECRET`, if it is set.

    Raises:
        MissingWorkerError: on every present worker: another worker did not arrive.
        ValueError: on every present worker: a worker came twice, or differs from the chief in a fact; an address is not
            this machine's, or a port is taken. Without a secret, only the worker that came learns of the first two: it
            may be a stranger. On one worker: its secret is too short.
    """
    if not cluster.is_distributed:
        return
    key = key_of(os.environ.get(SECRET_VARIABLE, "") if secret is None else secret)
    deadline = time.monotonic() + timeout_seconds
    listener = _own_port(cluster)
    if cluster.is_chief:
        with listener:
            _receive_all(cluster, facts, listener, deadline, timeout_seconds, key)
    else:
        listener.close()
        _report(cluster, facts, deadline, timeout_seconds, key)


def code_fingerprint() -> str:
    """Returns the SHA-256 of the package's source files."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _own_port(cluster: Cluster) -> socket.socket:
    host, port = split_address(cluster.workers[cluster.index])
    me = cluster.name(cluster.index)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ValueError(f"{me}: its own host name is unknown here: {error.strerror}") from None
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(cluster.count + 8)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"the port of {me} is taken on this machine: by another program, or by a second process with this index"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(
                f"the address of {me} is not this machine's: another machine is that worker; give each its own index"
            ) from None
        raise ValueError(f"the address of {me} cannot be listened on: {error.strerror}") from None
    if len({split_address(worker)[0] for worker in cluster.workers}) > 1 and family == socket.AF_INET:
        # The name is this machine's, but may stand for the loopback, as in Debian's /etc/hosts. Other machines come to
        # another address, so this server listens on all addresses, as TensorFlow's does.
        listener.close()
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))
            listener.listen(cluster.count + 8)
        except OSError as error:
            listener.close()
            raise ValueError(f"the port of {me} cannot be listened on: {error.strerror}") from None
    return listener


def _receive_all(
    cluster: Cluster,
    facts: Mapping[str, str],
    listener: socket.socket,
    deadline: float,
    timeout_seconds: float,
    key: bytes,
) -> None:
    """The chief's part: reads every worker's line, and answers all of them with the error, or with none."""
    guests: dict[int, Guest] = {}
    failure: ValueError | None = ValueError(f"{cluster.name(0)} exited before all workers were there")
    try:
        with Entrance(listener, key) as entrance:
            failure = _gather(cluster, facts, entrance, deadline, timeout_seconds, guests, key)
    finally:
        for guest in guests.values():
            _answer(guest, failure, key)
    if failure is not None:
        raise failure


def _gather(
    cluster: Cluster,
    facts: Mapping[str, str],
    entrance: Entrance,
    deadline: float,
    timeout_seconds: float,
    guests: dict[int, Guest],
    key: bytes,
) -> ValueError | None:
    """Fills `guests` with the connections of all workers. Returns an error, or None.

    Without a secret, a wrong guest does not end the meeting: it may not be a worker of this job.
    """
    turned_away, reason = 0, ""
    while len(guests) < cluster.count - 1:
        if time.monotonic() >= deadline:
            missing = ", ".join(cluster.name(i) for i in range(1, cluster.count) if i not in guests)
            count, host = entrance.refused
            strangers = f"; {count} did not know {SECRET_VARIABLE}, the last one at {host}" if count else ""
            strangers += f"; {turned_away} were turned away, the last one because {reason}" if turned_away else ""
            return MissingWorkerError(f"{missing} did not come within {timeout_seconds:g} s{strangers}")
        arrived = entrance.next(deadline)
        for place, (guest, hello) in enumerate(arrived):
            index, guest.process = hello.get("index"), hello.get("process")
            objection = _objection(cluster, facts, hello)
            if objection is None:
                # A worker that exits while it waits will be started again. The last worker to come completes the set.
                for other in [other for other, one in guests.items() if _has_left(one.connection)]:
                    guests.pop(other).connection.close()
            if objection is None and index in guests:
                if guests[index].process == guest.process:  # its first connection broke without notice
                    guests.pop(index).connection.close()
                else:
                    hosts = f"at {guests[index].host} and at {guest.host}"
                    objection = f"two processes say that they are {cluster.name(index)}: {hosts}"
            if objection is None and isinstance(index, int):
                guests[index] = guest
                continue
            failure = ValueError(objection)
            _answer(guest, failure, key)
            if key:
                for later, _ in arrived[place + 1 :]:
                    _answer(later, failure, key)
                return failure
            turned_away, reason = turned_away + 1, str(objection)
            if turned_away <= MAX_WARNINGS:
                logging.warning("turned a process at %s away: %s", guest.host, objection)
    return None


def _has_left(guest: socket.socket) -> bool:
    """Whether the process at the other end has closed the connection, or is gone."""
    guest.setblocking(False)
    try:
        return guest.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with contextlib.suppress(OSError):
            guest.settimeout(1.0)


def _objection(cluster: Cluster, facts: Mapping[str, str], hello: dict) -> str | None:
    index: Any = hello.get("index")
    is_index = is_integer(index) and 0 < index < cluster.count
    if hello.get("workers") != list(cluster.workers) or not is_index:
        return (
            f"a process that says it is worker {shown(str(index), LONG)} has other workers than {cluster.name(0)}: "
            f"{shown(str(hello.get('workers')), 10 * LONG)} and not {', '.join(cluster.workers)}"
        )
    theirs = hello.get("facts")
    theirs = theirs if isinstance(theirs, dict) else {}
    # In the chief's order, which has versions first: they may cause the other differences.
    different = [name for name in {**facts, **theirs} if facts.get(name) != theirs.get(name)]
    if different:
        name, *others = (shown(name, LONG) for name in different[:20])
        values = " and not ".join(_distinct(theirs.get(different[0]), facts.get(different[0])))
        more = f", and in {', '.join(others)}" if others else ""
        return f"{cluster.name(index)} differs from {cluster.name(0)} in {name} ({values}){more}; all must run the same"
    return None


def _report(cluster: Cluster, facts: Mapping[str, str], deadline: float, timeout_seconds: float, key: bytes) -> None:
    """The other workers' part: says hello to the chief and reads its answer."""
    hello = {
        "greeting": GREETING,
        "index": cluster.index,
        "workers": list(cluster.workers),
        "facts": dict(facts),
        "process": secrets.token_hex(16),
    }
    chief, address = cluster.name(0), split_address(cluster.workers[0])
    reason, warned = "", set()
    while time.monotonic() < deadline:
        pause = RETRY_SECONDS
        try:
            # The first of several addresses may be dead.
            seconds = max(0.1, min(CONNECT_SECONDS, deadline - time.monotonic()))
            with socket.create_connection(address, timeout=seconds) as connection:
                answer = _ask(connection, cluster, hello, deadline, timeout_seconds, key)
        except OSError as error:
            reason = f": {error.strerror or error}"
        except _NotTheChiefError as error:
            reason, pause = f": {error}", STRANGER_SECONDS
            if reason not in warned:
                logging.warning("%s%s; trying again until %g s are over", chief, reason, timeout_seconds)
                warned.add(reason)
        else:
            if answer["failure"]:
                failure = shown(str(answer["failure"]), MAX_FAILURE)
                raise (MissingWorkerError if answer.get("missing") else ValueError)(failure)
            return
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
    raise MissingWorkerError(f"{chief} could not be reached within {timeout_seconds:g} s{reason}")


def _ask(
    connection: socket.socket, cluster: Cluster, hello: dict, deadline: float, timeout_seconds: float, key: bytes
) -> dict:
    """Returns the chief's answer. Raises `_NotTheChiefError`, or `OSError` if the connection breaks."""
    chief, me, lines = cluster.name(0), cluster.name(cluster.index), Lines(connection)
    challenge = opened(lines.next(min(deadline, time.monotonic() + HELLO_SECONDS))) or {}
    if challenge.get("greeting") != GREETING or not is_nonce(challenge.get("nonce")):
        raise _NotTheChiefError(NO_CHIEF)
    if bool(challenge.get("secret")) != bool(key):
        has, lacks = (me, chief) if key else (chief, me)
        raise _NotTheChiefError(f"{has} has a {SECRET_VARIABLE}, but {lacks} has none; {ONE_SECRET}")
    hello = {**hello, "nonce": secrets.token_hex(16)}
    context = f"{challenge['nonce']} {hello['nonce']}"
    connection.settimeout(HELLO_SECONDS)
    connection.sendall(sealed(hello, f"hello {challenge['nonce']}", key))
    line = lines.next(time.monotonic() + HELLO_SECONDS)
    if "welcome" not in (opened(line, f"welcome {context}", key) or {}):
        if key and (opened(line) or {}).get("refused") == "secret":
            raise _NotTheChiefError(f"{me} has a different {SECRET_VARIABLE} from {chief}; {ONE_SECRET}")
        raise _NotTheChiefError(NO_CHIEF)
    # A chief that started later waits longer for the others; its answer then has the reason.
    line = lines.next(time.monotonic() + timeout_seconds + ANSWER_SECONDS)
    answer = opened(line, f"answer {context}", key)
    if answer is None or "failure" not in answer:
        raise ConnectionError("it was there, but left before all workers had come")
    return answer


def _answer(guest: Guest, failure: ValueError | None, key: bytes) -> None:
    """Sends a guest the result of the meeting, and closes the connection."""
    message = {
        "greeting": GREETING,
        "failure": None if failure is None else str(failure),
        "missing": isinstance(failure, MissingWorkerError),
    }
    with contextlib.suppress(OSError), guest.connection:  # if the guest is gone, TensorFlow will notice
        guest.connection.settimeout(1.0)
        guest.connection.sendall(sealed(message, f"answer {guest.context}", key))


def _distinct(*values: str | None) -> list[str]:
    """Returns different values as text; long ones are cut to begin shortly before the difference."""
    found = ["nothing" if value is None else str(value) for value in values]
    if max(map(len, found)) <= LONG:
        return [shown(value, LONG) for value in found]
    same = next((place for place, both in enumerate(zip(*found, strict=False)) if len({*both}) > 1), 0)
    start = max(0, same - LONG // 4)

    def cut(value: str) -> str:
        return f"{'…' if start else ''}{shown(value[start:], LONG)}"

    return [cut(value) for value in found]
