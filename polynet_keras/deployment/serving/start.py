"""`serve`: its checks, and then the process. The packages of a service are imported after the check for them."""

import os
from collections.abc import Callable, Sequence

from polynet_keras.basics.checks import check_choice
from polynet_keras.deployment.artifact import verify_files
from polynet_keras.deployment.serving.checks import check_proxies, check_served, renamed
from polynet_keras.deployment.serving.settings import ServingSettings


def serve(
    model_dir: str | os.PathLike,
    settings: ServingSettings | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    on_ready: Callable[[str], None] = lambda url: None,
    verify: bool = False,
    name: str | None = None,
    access_log: str | os.PathLike | None = None,
    access_log_format: str = "combined",
    forwarded_allow_ips: Sequence[str] = (),
) -> None:
    """Serves an exported model until SIGTERM or SIGINT; requests in flight are answered first.

    If the model does not return then, the process ends without it, with exit code 1: Python cannot end a thread, and
    would wait for it.

    Args:
        model_dir: the folder that `polynet export` wrote.
        settings: the limits; by default `ServingSettings()`.
        host: the address to listen on.
        port: the port; 0 for any free one.
        on_ready: called with the service's URL when the model is loaded and warm.
        verify: whether the files must match the hashes in the card.
        name: the model's name in answers, metrics and `/v1/model`; by default the card's.
        access_log: a file to which a line is appended for each request, or `"-"` for standard output; see `AccessLog`.
        access_log_format: `"combined"` or `"json"`.
        forwarded_allow_ips: addresses and networks of proxies whose header `X-Forwarded-For` names the client in the
            access log; `"*"` alone for any.

    Raises:
        ValueError: the export is missing or cannot be loaded, an extra is missing, the log cannot be written, or the
            address is not free.
        KeyboardInterrupt: after SIGINT.

    Examples:
        >>> import signal
        >>> _ = export(trained, folder / "pets")
        >>> def stop(url):
        ...     print("ready")
        ...     signal.raise_signal(signal.SIGTERM)
        >>> serve(folder / "pets", port=0, on_ready=stop)
        ready
    """
    card, path = check_served(model_dir)

    from polynet_keras.deployment.serving.access_log import LINES
    from polynet_keras.deployment.serving.server import run

    check_proxies(forwarded_allow_ips)
    check_choice("access_log_format", access_log_format, tuple(LINES))
    if access_log is None and access_log_format != "combined":
        raise ValueError(f"access_log_format={access_log_format!r} needs an access log; name its file with access_log")
    if name is not None:
        card = renamed(card, name)
    if verify:
        verify_files(model_dir, card)
    run(
        model_dir,
        card,
        path,
        settings or ServingSettings(),
        host,
        port,
        on_ready,
        access_log,
        access_log_format,
        forwarded_allow_ips,
    )
