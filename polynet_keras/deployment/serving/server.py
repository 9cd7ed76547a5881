"""The process: a port, a server on it, and an end in good order."""

import errno
import logging as stdlib_logging
import os
import signal
import socket
import warnings
from collections.abc import Callable
from pathlib import Path

import uvicorn
from absl import logging

from polynet_keras.deployment.artifact import ExportCard, artifact_path, load_artifact, verify_files
from polynet_keras.deployment.serving.app import create_app
from polynet_keras.deployment.serving.connections import MAX_HEAD_BYTES, limited_protocol
from polynet_keras.deployment.serving.service import Service
from polynet_keras.deployment.serving.settings import Settings

BACKLOG = 1024
KEEP_ALIVE_SECONDS = 5


def serve(
    model_dir: str | Path,
    settings: Settings,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] = lambda url: None,
    verify: bool = False,
) -> None:
    """Serves an exported model until SIGTERM or SIGINT; what is in flight then is answered first.

    Where the model does not come back then, the process ends without it, with exit code 1: Python cannot end a thread,
    and would wait for it.

    Args:
        model_dir: the folder that `polynet export` left.
        settings: the limits.
        host: the address to listen on.
        port: 0 for any that is free.
        on_ready: called with the service's URL when the model is loaded and warm.
        verify: whether the files have to be those that the card names by their hashes.

    Raises:
        ValueError: no such export, one that cannot be loaded, or an address that is not free.
        KeyboardInterrupt: after SIGINT.
    """
    card = ExportCard.load(model_dir)
    path = artifact_path(model_dir, card.format)
    if not path.is_file():
        raise ValueError(f"{path}: no such file, which the card beside it describes; export the model again")
    if verify:
        verify_files(model_dir, card)
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
    server = make_server(service)

    def end(number, frame) -> None:
        server.should_exit = True

    # Uvicorn ends in good order and then raises the signal again, for whoever was there before it; nor must one be lost
    # that comes before uvicorn listens to it.
    before = signal.signal(signal.SIGTERM, end)
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()
        if service.busy:
            logging.error("the model did not come back; the process ends without it")
            os._exit(1)
    if failures:
        failure = failures[0]
        known = str(failure).startswith(str(model_dir))
        raise failure if known or not isinstance(failure, ValueError) else ValueError(f"{model_dir}: {failure}")


def _keep_quiet() -> None:
    """The clients' bad files and forms are answered and counted; they must not fill a log."""
    stdlib_logging.getLogger("python_multipart").setLevel(stdlib_logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _is_news(record: stdlib_logging.LogRecord) -> bool:
    """Whether it is not what the application has logged itself, with the name that the client got."""
    return not str(record.msg).startswith("Exception in ASGI application")


def make_server(service: Service) -> uvicorn.Server:
    """The server of a service, which `run(sockets=[...])` starts."""
    settings = service.settings

    def count(status: int, kind: str) -> None:
        service.metrics.count_request("", status, 0.0)
        service.metrics.rejected.labels(kind).inc()

    stdlib_logging.getLogger("uvicorn.error").addFilter(_is_news)
    config = uvicorn.Config(
        create_app(service),
        http=limited_protocol(settings, count),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",  # what clients do is counted
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # No longer than a request may take: one that hangs must not keep the process.
        timeout_graceful_shutdown=int(settings.body_timeout + settings.timeout) + 1,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        backlog=BACKLOG,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: the address is none, or is not free.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"port={port} must be from 0 (any that is free) to 65535")
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
        reason = "it is in use; --port=0 takes any that is free" if in_use else error.strerror or error
        raise ValueError(f"cannot listen on {host} port {port}: {reason}") from None
    return listening


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
