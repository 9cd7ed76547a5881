"""The events of a job as lines of JSON, for operators and for measurements of restarts."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from absl import logging


class EventLog:
    """Appends events to a file, if there is one, as a context manager.

    Args:
        path: the path of the file, or None.

    Raises:
        OSError: on entering: the file cannot be written.
    """

    def __init__(self, path: Path | None):
        self._path = path

    def __enter__(self) -> "EventLog":
        self._file = open(self._path, "a") if self._path is not None else None
        return self

    def __exit__(self, *error) -> None:
        self._close()

    def write(self, event: str, **values: Any) -> None:
        """Appends a line: the time in seconds since 1970, the event's name, and values that JSON can hold."""
        if self._file is not None:
            try:
                print(json.dumps({"time": time.time(), "event": event, **values}), file=self._file, flush=True)
            except OSError as error:  # a full disk must not end a training
                logging.warning("%s: %s; later events are not logged", self._path, error.strerror)
                self._close()

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
