"""News of this package's work: the progress of a training, choices that it made, files that it left out."""

import contextlib
import sys
from collections.abc import Iterator
from logging import INFO

from absl import logging

_silenced = 0
"""Number of `without_logs` contexts that are open."""


@logging.skip_log_prefix
def tell(line: str, *arguments: object) -> None:
    """Logs a line; where the log does not show information, prints it to standard error.

    Commands show information. In a plain script or a notebook absl's log does not, and a training would show nothing
    for minutes. `keras.config.disable_interactive_logging()` turns these lines off, as it does Keras's progress.
    """
    log = logging.get_absl_logger()
    if log.isEnabledFor(INFO) and log.hasHandlers():
        logging.info(line, *arguments)
        return
    keras = sys.modules.get("keras")  # where nothing has imported it, nothing has turned the lines off
    if not _silenced and (keras is None or keras.config.is_interactive_logging_enabled()):
        print(line % arguments if arguments else line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Suppresses news and log lines below errors, so that a step that is done twice logs once."""
    global _silenced
    logger = logging.get_absl_logger()
    level = logger.level
    logger.setLevel("ERROR")
    _silenced += 1
    try:
        yield
    finally:
        _silenced -= 1
        logger.setLevel(level)
