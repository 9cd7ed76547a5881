"""How far the work on a dataset is: a bar on a terminal, a line a minute elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from absl import logging
from tqdm import tqdm

LINE_SECONDS = 60
"""Between two lines, where there is no terminal."""


@contextlib.contextmanager
def progress(images: int, work: str = "") -> Iterator[Callable[[int], None]]:
    """Shows how many of so many images are done: what it gives is called with the number of further ones.

    Args:
        images: in all.
        work: what is done, where that is not plain.
    """
    with tqdm(total=images, desc=work or None, unit=" images", disable=None, leave=False) as bar:
        done, start = 0, time.monotonic()
        last = start

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - last >= LINE_SECONDS:
                last = now
                of = f"{done:,} of {images:,} images"
                logging.info("%s%s, %.4g images/s", f"{work}: " if work else "", of, done / (now - start))

        yield advance
