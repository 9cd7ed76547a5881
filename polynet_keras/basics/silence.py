"""Work without log lines, so that a step that is done twice logs once."""

import contextlib
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Suppresses log lines below errors."""
    logger = logging.get_absl_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
