"""What the service refuses: a status and a reason, wherever it is found."""

from collections.abc import Mapping


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
