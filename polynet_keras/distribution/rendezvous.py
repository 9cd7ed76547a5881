"""Before they train, all workers meet: everyone is there, once, and is about to do the same thing.

They meet at the chief's address, before TensorFlow opens its server there, with a line of JSON each. TensorFlow itself
waits for an hour for a worker that never comes, and compares nothing.
"""

import contextlib
import errno
import hashlib
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from polynet_keras.distribution.cluster import Cluster, split_address

GREETING = "polynet_keras rendezvous"
MAX_LINE = 1 << 20
LONG = 40
"""Characters of a value that a message shows."""
RETRY_SECONDS = 0.2
ANSWER_SECONDS = 5
"""For what the chief has to say, once it need not wait any longer."""
STRANGER_SECONDS = 90
"""How long something else may answer at the chief's address: the last attempt's chief, say, which has not yet noticed
that the worker before this one is gone."""


class MissingWorkerError(ValueError):
    """A worker did not come, or the chief could not be reached, in time."""


def meet(cluster: Cluster, facts: Mapping[str, str], timeout_seconds: float = 300) -> None:
    """Returns when all workers have called this with the same facts.

    Args:
        cluster: of the workers; one process alone meets nobody.
        facts: by name, what must be alike: versions, the fingerprint of the code, what a recipe says.
        timeout_seconds: how long to wait for the others.

    Raises:
        MissingWorkerError: on every worker that is there: one did not come.
        ValueError: likewise: one came twice, or differs from the chief in a fact; an address is not this machine's, a
            port is taken, or the job runs already.
    """
    if not cluster.is_distributed:
        return
    deadline = time.monotonic() + timeout_seconds
    listener = _own_port(cluster)
    if cluster.is_chief:
        with listener:
            _receive_all(cluster, facts, listener, deadline, timeout_seconds)
    else:
        listener.close()
        _report(cluster, facts, deadline, timeout_seconds)


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
    cluster: Cluster, facts: Mapping[str, str], listener: socket.socket, deadline: float, timeout_seconds: float
) -> None:
    """The chief's part: hears every worker, and tells all of them what is wrong, or that nothing is."""
    guests: dict[int, socket.socket] = {}
    failure: ValueError | None = ValueError(f"{cluster.name(0)} ended before all workers were there")
    try:
        failure = _gather(cluster, facts, listener, deadline, timeout_seconds, guests)
    finally:
        for guest in guests.values():
            _answer(guest, failure)
            guest.close()
    if failure is not None:
        raise failure


def _gather(
    cluster: Cluster,
    facts: Mapping[str, str],
    listener: socket.socket,
    deadline: float,
    timeout_seconds: float,
    guests: dict[int, socket.socket],
) -> ValueError | None:
    """Fills `guests` with the connections of all workers; returns what is wrong, if something is."""
    while len(guests) < cluster.count - 1:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            guest, address = listener.accept()
        except TimeoutError:
            missing = ", ".join(cluster.name(i) for i in range(1, cluster.count) if i not in guests)
            return MissingWorkerError(f"{missing} did not come within {timeout_seconds:g} s")
        guest.settimeout(max(1.0, min(10.0, deadline - time.monotonic())))
        hello = _read(guest)
        if hello is None or hello.get("greeting") != GREETING:
            guest.close()  # a port scanner, say
            continue
        index = hello.get("index")
        objection = _objection(cluster, facts, hello)
        if objection is None:
            # Those that ended while they waited will be started again. Whoever comes last finds the others there.
            for other in [other for other, connection in guests.items() if _has_left(connection)]:
                guests.pop(other).close()
        if objection is None and index in guests:
            first = guests[index].getpeername()[0]
            objection = f"two processes say that they are {cluster.name(index)}: at {first} and at {address[0]}"
        if objection is not None or not isinstance(index, int):
            failure = ValueError(objection)
            _answer(guest, failure)
            guest.close()
            return failure
        guests[index] = guest
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
    index = hello.get("index")
    if hello.get("workers") != list(cluster.workers) or not isinstance(index, int) or not 0 < index < cluster.count:
        return (
            f"a process that says it is worker {index} knows other workers than {cluster.name(0)}: "
            f"{hello.get('workers')} and not {list(cluster.workers)}"
        )
    theirs = hello.get("facts")
    theirs = theirs if isinstance(theirs, dict) else {}
    # In the chief's order, which has versions first: from them others may follow.
    different = [name for name in {**facts, **theirs} if facts.get(name) != theirs.get(name)]
    if different:
        name = different[0]
        values = " and not ".join(_distinct(theirs.get(name), facts.get(name)))
        more = f", and in {', '.join(different[1:])}" if different[1:] else ""
        return f"{cluster.name(index)} differs from {cluster.name(0)} in {name} ({values}){more}; all must run the same"
    return None


def _report(cluster: Cluster, facts: Mapping[str, str], deadline: float, timeout_seconds: float) -> None:
    """The other workers' part: says hello to the chief and hears what it answers."""
    hello = {
        "greeting": GREETING,
        "index": cluster.index,
        "workers": list(cluster.workers),
        "facts": dict(facts),
    }
    chief, address = cluster.name(0), split_address(cluster.workers[0])
    reason, stranger_since = "", None
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(address, timeout=max(0.1, deadline - time.monotonic())) as connection:
                # A chief that came later waits for the others until later; what it then says is the reason.
                connection.settimeout(timeout_seconds + ANSWER_SECONDS)
                connection.sendall(json.dumps(hello).encode() + b"\n")
                answer = _read(connection)
        except OSError as error:
            reason, answer, stranger_since = f": {error.strerror or error}", None, None
        else:
            if answer is not None and answer.get("greeting") == GREETING:
                if answer.get("failure"):
                    raise (MissingWorkerError if answer.get("missing") else ValueError)(answer["failure"])
                return
            reason = ": it accepts connections and says nothing; another program may have its port"
            stranger_since = stranger_since or time.monotonic()
            if time.monotonic() - stranger_since > STRANGER_SECONDS:
                raise MissingWorkerError(
                    f"{chief} does not wait for workers: its job is running already, or another program has its "
                    "port. A worker cannot join later; end the job and start all of them"
                )
        time.sleep(RETRY_SECONDS)
    raise MissingWorkerError(f"{chief} could not be reached within {timeout_seconds:g} s{reason}")


def _answer(guest: socket.socket, failure: ValueError | None) -> None:
    message = {
        "greeting": GREETING,
        "failure": None if failure is None else str(failure),
        "missing": isinstance(failure, MissingWorkerError),
    }
    with contextlib.suppress(OSError):  # where it is gone, TensorFlow will notice
        guest.sendall(json.dumps(message).encode() + b"\n")


def _read(connection: socket.socket) -> dict | None:
    """A line of JSON, or None if something else came or nothing."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < MAX_LINE:
            more = connection.recv(1 << 16)
            if not more:
                break
            data += more
        message = json.loads(data)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None


def _distinct(*values: str | None) -> list[str]:
    """Different values, in words: of long ones, from shortly before they differ."""
    found = ["nothing" if value is None else str(value) for value in values]
    if max(map(len, found)) <= LONG:
        return found
    same = next((place for place, both in enumerate(zip(*found, strict=False)) if len({*both}) > 1), 0)
    start = max(0, same - LONG // 4)

    def cut(value: str) -> str:
        return f"{'...' if start else ''}{value[start : start + LONG]}{'...' if len(value) > start + LONG else ''}"

    return [cut(value) for value in found]
