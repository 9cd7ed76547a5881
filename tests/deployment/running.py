"""A service on a free port of this machine, in a thread of the test's process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from polynet_keras.deployment.artifact import ExportCard, load_exported
from polynet_keras.deployment.serving.access_log import AccessLog
from polynet_keras.deployment.serving.server import listen, make_server, url_of
from polynet_keras.deployment.serving.service import Service
from polynet_keras.deployment.serving.settings import ServingSettings
from tests.deployment.exported import exported
from tests.waiting import wait_until


@dataclass
class Running:
    """What a test talks to."""

    url: str
    port: int
    service: Service
    client: httpx.Client
    connections: set
    """Those that are open, as uvicorn counts them."""

    def metric(self, name: str, **labels: str) -> float:
        return self.service.metrics.registry.get_sample_value(f"polynet_{name}", labels) or 0.0


@contextmanager
def running(
    run=None, channels: int = 3, wait: bool = True, log=None, forwarded_allow_ips=(), **settings
) -> Iterator[Running]:
    """Serves the small exported model, or `run` in its place, under `settings`.

    Args:
        log: the arguments of an `AccessLog`, but the last.
    """
    folder, _ = exported(channels)
    ready, failures = threading.Event(), []
    service = Service(
        ExportCard.load(folder),
        lambda: run or load_exported(folder).run,
        ServingSettings(**settings),
        on_ready=ready.set,
        on_failure=failures.append,
    )
    listening = listen("127.0.0.1", 0)
    access_log = AccessLog(*log, service.metrics.access_log_lost.inc) if log else None
    server = make_server(service, access_log, forwarded_allow_ips)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        if wait:
            assert ready.wait(60), failures
        else:
            wait_until(lambda: server.started, "the server listens")
        url = url_of(listening)
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Running(url, listening.getsockname()[1], service, client, server.server_state.connections)
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
        if access_log:
            access_log.close()
