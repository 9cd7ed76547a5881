"""Work without a word: what is done twice is told once."""

import contextlib
from collections.abc import Iterator

from absl import logging


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Leaves out information and warnings."""
    logger = logging.get_absl_logger()
    level = logger.level
    logger.setLevel("ERROR")
    try:
        yield
    finally:
        logger.setLevel(level)
