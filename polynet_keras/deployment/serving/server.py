"""The process: a port, a server on it, and a graceful end."""

import errno
import logging as stdlib_logging
import os
import signal
import socket
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
from absl import logging

from polynet_keras.basics.checks import check_integer
from polynet_keras.deployment.artifact import ExportCard, load_artifact
from polynet_keras.deployment.serving.access_log import AccessLog, LoggingMiddleware
from polynet_keras.deployment.serving.app import create_app
from polynet_keras.deployment.serving.connections import MAX_HEAD_BYTES, limited_protocol
from polynet_keras.deployment.serving.service import Service
from polynet_keras.deployment.serving.settings import ServingSettings

BACKLOG = 1024
KEEP_ALIVE_SECONDS = 5


def run(
    model_dir: str | os.PathLike,
    card: ExportCard,
    path: Path,
    settings: ServingSettings,
    host: str,
    port: int,
    on_ready: Callable[[str], None],
    access_log: str | os.PathLike | None,
    access_log_format: str,
    forwarded_allow_ips: Sequence[str],
) -> None:
    """Runs the process of `serve`, with its arguments.

    Args:
        card: the export's card, with the name in the service.
        path: the path of the artifact.
    """
    _keep_quiet()
    listening = listen(host, port)
    failures: list[Exception] = []

    def fail(error: Exception) -> None:
        failures.append(error)
        server.should_exit = True

    service = Service(
        card,
        lambda: load_artifact(path, card.format, settings.threads or None),
        settings,
        on_ready=lambda: on_ready(url_of(listening)),
        on_failure=fail,
    )
    log = None
    if access_log is not None:
        log = AccessLog(os.fspath(access_log), access_log_format, service.metrics.access_log_lost.inc)
    server = make_server(service, log, forwarded_allow_ips)

    def end(number, frame) -> None:
        server.should_exit = True

    # Uvicorn ends gracefully and then raises the signal again for the previous handler. A signal that comes before
    # uvicorn listens must not be lost either.
    before = signal.signal(signal.SIGTERM, end)
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()
        if log:
            log.close()
        if service.busy:
            logging.error("the model did not return; the process ends without it")
            os._exit(1)
    if failures:
        failure = failures[0]
        known = str(failure).startswith(str(model_dir))
        raise failure if known or not isinstance(failure, ValueError) else ValueError(f"{model_dir}: {failure}")


def _keep_quiet() -> None:
    """Keeps clients' bad files and forms out of the log; they are answered and counted."""
    stdlib_logging.getLogger("python_multipart").setLevel(stdlib_logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _is_news(record: stdlib_logging.LogRecord) -> bool:
    """Whether a record is new: the application itself has logged its errors, with the name that the client got."""
    return not str(record.msg).startswith("Exception in ASGI application")


def make_server(
    service: Service, log: AccessLog | None = None, forwarded_allow_ips: Sequence[str] = ()
) -> uvicorn.Server:
    """Makes the server of a service, which `run(sockets=[...])` starts; see `serve`."""
    settings = service.settings
    app = create_app(service)

    def count(status: int, kind: str) -> None:
        service.metrics.count_request("", status, 0.0)
        service.metrics.rejected.labels(kind).inc()

    stdlib_logging.getLogger("uvicorn.error").addFilter(_is_news)
    config = uvicorn.Config(
        LoggingMiddleware(app, log) if log else app,
        http=limited_protocol(settings, count, log.put_refused if log else lambda *_: None),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # clients' actions are counted
        access_log=False,  # uvicorn's log blocks, and lacks the connections' refusals
        server_header=False,
        proxy_headers=bool(forwarded_allow_ips),
        forwarded_allow_ips=list(forwarded_allow_ips),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # No longer than a request may take: a hanging one must not keep the process alive.
        timeout_graceful_shutdown=int(settings.body_timeout + settings.timeout) + 1,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        backlog=BACKLOG,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    Raises:
        ValueError: the address is invalid or not free.
    """
    check_integer("port", port, 0, 65535)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "it is in use; --port=0 takes any free one" if in_use else error.strerror or error
        raise ValueError(f"cannot listen on {host} port {port}: {reason}") from None
    return listening


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
