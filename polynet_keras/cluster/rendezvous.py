"""Before they train, all workers meet: everyone is there, once, and is about to do the same thing.

They meet at the chief's address, before TensorFlow opens its server there. TensorFlow itself waits for an hour for a
worker that never comes, and compares nothing. The chief sends each guest a number that is used once, the guest says who
it is and what it is about to do, the chief welcomes it and answers in the end: a line of JSON each. Where the job has a
secret, all but the first are signed with it (HMAC-SHA-256 over the line and both sides' numbers). Who does not show
that it knows the secret is passed over, as a guest and at the chief's address: it ends nobody's start.
Anybody may connect: what a guest sends, how long it takes and how many wait is limited.
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
"""Characters of what the chief says is wrong."""
LONG = 40
"""Characters of a value that a message shows."""
RETRY_SECONDS = 0.2
CONNECT_SECONDS = 10.0
STRANGER_SECONDS = 2.0
"""Until the next attempt, where something else answers at the chief's address: the last attempt's chief, say, which has
not yet noticed that the worker before this one is gone."""
NO_CHIEF = (
    "what answers there does not wait for workers: its job runs already, which a worker cannot join later (end it and "
    "start all), or another program has its port"
)
ONE_SECRET = "all workers of a job need the same, or none"
ANSWER_SECONDS = 5
"""For what the chief has to say, once it need not wait any longer."""
MAX_WARNINGS = 10
"""Of guests that are no workers of this job; the others are counted."""


class MissingWorkerError(ValueError):
    """A worker did not come, or the chief could not be reached, in time."""


class _NotTheChiefError(Exception):
    """What answers at the chief's address has not shown that it is the chief; it may come yet."""


def meet(cluster: Cluster, facts: Mapping[str, str], timeout_seconds: float = 300, secret: str | None = None) -> None:
    """Returns when all workers have called this with the same facts.

    Args:
        cluster: of the workers; one process alone meets nobody.
        facts: by name, what must be alike: versions, the fingerprint of the code, what a recipe says.
        timeout_seconds: how long to wait for the others.
        secret: that the workers of this job share; by default that of the environment's `POLYNET_JOB_SECRET`, if it is
            there.

    Raises:
        MissingWorkerError: on every worker that is there: one did not come.
        ValueError: likewise: one came twice, or differs from the chief in a fact; an address is not this machine's, or
            a port is taken. Without a secret only the one that came is told of the first two: it may be a stranger.
            On one worker: its secret is too short.
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
    """SHA-256 of the package's source files."""
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
        raise ValueError(f"{me}: its own host name is not known here: {error.strerror}") from None
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
        # The name was this machine's, and may yet stand for the loopback, as Debian's own does in /etc/hosts. Others
        # come to another address: as TensorFlow's server, this one listens on all.
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
    """The chief's part: hears every worker, and tells all of them what is wrong, or that nothing is."""
    guests: dict[int, Guest] = {}
    failure: ValueError | None = ValueError(f"{cluster.name(0)} ended before all workers were there")
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
    """Fills `guests` with the connections of all workers; returns what is wrong, if something is.

    Without a secret a guest that is wrong ends nothing: it may be no worker of this job.
    """
    turned_away, reason = 0, ""
    while len(guests) < cluster.count - 1:
        if time.monotonic() >= deadline:
            missing = ", ".join(cluster.name(i) for i in range(1, cluster.count) if i not in guests)
            count, host = entrance.refused
            strangers = f"; {count} did not know {SECRET_VARIABLE}, the last one at {host}" if count else ""
            strangers += f"; turned away were {turned_away}, the last one because {reason}" if turned_away else ""
            return MissingWorkerError(f"{missing} did not come within {timeout_seconds:g} s{strangers}")
        arrived = entrance.next(deadline)
        for place, (guest, hello) in enumerate(arrived):
            index, guest.process = hello.get("index"), hello.get("process")
            objection = _objection(cluster, facts, hello)
            if objection is None:
                # Those that ended while they waited will be started again. Whoever comes last finds the others there.
                for other in [other for other, one in guests.items() if _has_left(one.connection)]:
                    guests.pop(other).connection.close()
            if objection is None and index in guests:
                if guests[index].process == guest.process:  # its first connection broke, which nobody told us
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
    """Whether the process at the other end of a connection has closed it, or is gone."""
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
            f"a process that says it is worker {shown(str(index), LONG)} knows other workers than {cluster.name(0)}: "
            f"{shown(str(hello.get('workers')), 10 * LONG)} and not {', '.join(cluster.workers)}"
        )
    theirs = hello.get("facts")
    theirs = theirs if isinstance(theirs, dict) else {}
    # In the chief's order, which has versions first: from them others may follow.
    different = [name for name in {**facts, **theirs} if facts.get(name) != theirs.get(name)]
    if different:
        name, *others = (shown(name, LONG) for name in different[:20])
        values = " and not ".join(_distinct(theirs.get(different[0]), facts.get(different[0])))
        more = f", and in {', '.join(others)}" if others else ""
        return f"{cluster.name(index)} differs from {cluster.name(0)} in {name} ({values}){more}; all must run the same"
    return None


def _report(cluster: Cluster, facts: Mapping[str, str], deadline: float, timeout_seconds: float, key: bytes) -> None:
    """The other workers' part: says hello to the chief and hears what it answers."""
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
            # Of several addresses the first may be dead.
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
    """The chief's answer. Raises `_NotTheChiefError`, or `OSError` if the connection breaks."""
    chief, me, lines = cluster.name(0), cluster.name(cluster.index), Lines(connection)
    challenge = opened(lines.next(min(deadline, time.monotonic() + HELLO_SECONDS))) or {}
    if challenge.get("greeting") != GREETING or not is_nonce(challenge.get("nonce")):
        raise _NotTheChiefError(NO_CHIEF)
    if bool(challenge.get("secret")) != bool(key):
        has, lacks = (me, chief) if key else (chief, me)
        raise _NotTheChiefError(f"{has} has a {SECRET_VARIABLE}, and {lacks} has none; {ONE_SECRET}")
    hello = {**hello, "nonce": secrets.token_hex(16)}
    context = f"{challenge['nonce']} {hello['nonce']}"
    connection.settimeout(HELLO_SECONDS)
    connection.sendall(sealed(hello, f"hello {challenge['nonce']}", key))
    line = lines.next(time.monotonic() + HELLO_SECONDS)
    if "welcome" not in (opened(line, f"welcome {context}", key) or {}):
        if key and (opened(line) or {}).get("refused") == "secret":
            raise _NotTheChiefError(f"{me} has another {SECRET_VARIABLE} than {chief}; {ONE_SECRET}")
        raise _NotTheChiefError(NO_CHIEF)
    # A chief that came later waits for the others until later; what it then says is the reason.
    line = lines.next(time.monotonic() + timeout_seconds + ANSWER_SECONDS)
    answer = opened(line, f"answer {context}", key)
    if answer is None or "failure" not in answer:
        raise ConnectionError("it was there, and left before all had come")
    return answer


def _answer(guest: Guest, failure: ValueError | None, key: bytes) -> None:
    """Tells a guest the end of the meeting, and leaves it."""
    message = {
        "greeting": GREETING,
        "failure": None if failure is None else str(failure),
        "missing": isinstance(failure, MissingWorkerError),
    }
    with contextlib.suppress(OSError), guest.connection:  # where it is gone, TensorFlow will notice
        guest.connection.settimeout(1.0)
        guest.connection.sendall(sealed(message, f"answer {guest.context}", key))


def _distinct(*values: str | None) -> list[str]:
    """Different values, in words: of long ones, from shortly before they differ."""
    found = ["nothing" if value is None else str(value) for value in values]
    if max(map(len, found)) <= LONG:
        return [shown(value, LONG) for value in found]
    same = next((place for place, both in enumerate(zip(*found, strict=False)) if len({*both}) > 1), 0)
    start = max(0, same - LONG // 4)

    def cut(value: str) -> str:
        return f"{'…' if start else ''}{shown(value[start:], LONG)}"

    return [cut(value) for value in found]
