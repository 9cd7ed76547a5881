"""What the service refuses, with a status and a reason wherever it is found, and where it fails."""

import secrets
from collections.abc import Mapping

from absl import logging

CLIENT_GONE = 499
"""What nginx calls a request whose client has left; nobody reads it but the metrics and the access log."""
REFUSED = "polynet.refused"
"""In a request's scope, where the connection has answered in the application's place: the status, and the bytes."""


class RefusalError(Exception):
    """A request, or one image of it, that is not answered.

    Attributes:
        status: of HTTP; below 500 the client's mistake, 503 an overload.
        reason: one line for the client.
        headers: of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


def overloaded(reason: str, seconds: float = 1.0) -> RefusalError:
    """503, with when to try again."""
    return RefusalError(503, reason, {"Retry-After": str(min(60, max(1, round(seconds))))})


def log_failure(reason: str, error: BaseException | None) -> str:
    """Logs a failure of the service's own, with its cause and where that is from.

    Returns:
        What the client gets to name it by: it is in the log too.
    """
    name = secrets.token_hex(4)
    logging.error("failure %s: %s", name, reason, exc_info=error)
    return name
