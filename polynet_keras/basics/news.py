"""News of this package's work: the progress of a training, choices that it made, files that it left out."""

import contextlib
import sys
import threading
from collections.abc import Iterator
from logging import INFO

from absl import logging

_lock = threading.Lock()
_silenced = 0
"""Number of `without_logs` contexts that are open."""
_level = 0
"""Level of the log outside of them."""


def is_shown() -> bool:
    """Whether bars, and lines that are not in the log, are shown: what Keras does with its own progress."""
    keras = sys.modules.get("keras")  # where nothing has imported it, nothing has turned them off
    return keras is None or keras.config.is_interactive_logging_enabled()


def bar_disabled() -> bool | None:
    """Returns what tqdm calls `disable`: None shows a bar on a terminal only."""
    return None if is_shown() else True


@logging.skip_log_prefix
def tell(line: str, *arguments: object) -> None:
    """Logs a line; where the log does not show information, prints it to standard error.

    Commands show information. In a plain script or a notebook absl's log does not, and a training would show nothing
    for minutes. `keras.config.disable_interactive_logging()` turns these lines off, as it does Keras's progress.
    """
    log = logging.get_absl_logger()
    if log.isEnabledFor(INFO) and log.hasHandlers():
        logging.info(line, *arguments)
    elif not _silenced and is_shown():
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, which must not end a training
            print(line % arguments if arguments else line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Suppresses news and log lines below errors, so that a step that is done twice logs once."""
    global _silenced, _level
    logger = logging.get_absl_logger()
    with _lock:
        if not _silenced:
            _level = logger.level
            logger.setLevel("ERROR")
        _silenced += 1
    try:
        yield
    finally:
        with _lock:
            _silenced -= 1
            if not _silenced:
                logger.setLevel(_level)
