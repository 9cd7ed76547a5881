"""Bounds the time in which TensorFlow's servers connect; nothing in this process could interrupt them."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from polynet_keras.cluster.cluster import Cluster, split_address

GUARD = """
import json, os, select, signal, socket, sys
pid, seconds, me, names, addresses = json.loads(sys.argv[1])
if select.select([sys.stdin], [], [], seconds)[0]:
    sys.exit()
silent = []
for index, address in enumerate(addresses):
    try:
        socket.create_connection(address, 3).close()
    except OSError:
        silent.append(names[index])
if select.select([sys.stdin], [], [], 0)[0]:
    sys.exit()
why = f"{', '.join(silent)} cannot be reached" if silent else "each has a server, but one does not take part"
print(f"{names[me]}: the workers met, but did not connect within {seconds:g} s: {why}", file=sys.stderr, flush=True)
os.kill(pid, signal.SIGKILL)
"""
"""Kills the process that started it after the given seconds, unless its standard input is closed before."""


@contextlib.contextmanager
def limited_connecting(cluster: Cluster, seconds: float) -> Iterator[None]:
    """Lets TensorFlow connect its servers inside the block. Kills this process if that takes too long.

    If a worker exits after the workers met and before TensorFlow has connected them, the others wait for an hour, in
    C++ and with Python's lock held: no thread or signal handler of this process runs, so another process watches.

    Args:
        cluster: the cluster. The guard reports unreachable workers on standard error.
        seconds: the longest time to connect.
    """
    names = [cluster.name(index) for index in range(cluster.count)]
    addresses = [split_address(address) for address in cluster.workers]
    order = json.dumps([os.getpid(), seconds, cluster.index, names, addresses])
    guard = subprocess.Popen([sys.executable, "-I", "-S", "-c", GUARD, order], stdin=subprocess.PIPE)
    try:
        yield
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()
