"""Refusals of the service, each with a status and a reason, and failures of the service."""

import secrets
from collections.abc import Mapping

from absl import logging

CLIENT_GONE = 499
"""nginx's status for a request whose client has left; only the metrics and the access log show it."""
REFUSED = "polynet.refused"
"""The key in a request's scope for an answer by the connection instead of the application: its status and bytes."""


class RefusalError(Exception):
    """A refused request, or one refused image of a request.

    Attributes:
        status: the HTTP status: below 500 for a mistake of the client, 503 for an overload.
        reason: one line for the client.
        headers: the headers of the answer.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None):
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})


def overloaded(reason: str, seconds: float = 1.0) -> RefusalError:
    """Returns a refusal with status 503 and the time to wait before a retry."""
    return RefusalError(503, reason, {"Retry-After": str(min(60, max(1, round(seconds))))})


def log_failure(reason: str, error: BaseException | None) -> str:
    """Logs a failure of the service itself, with its cause and traceback.

    Returns:
        A name for the failure, which the client gets and the log has too.
    """
    name = secrets.token_hex(4)
    logging.error("failure %s: %s", name, reason, exc_info=error)
    return name
