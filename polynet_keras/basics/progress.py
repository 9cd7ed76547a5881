"""Progress of the work on a dataset: a bar on a terminal, a line a minute elsewhere."""

import contextlib
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import bar_disabled, tell

LINE_SECONDS = 60
"""The time between two lines without a terminal."""


@contextlib.contextmanager
def progress(images: int, work: str = "") -> Iterator[Callable[[int], None]]:
    """Shows how many images are done. Yields a function to call with the number of newly done images.

    Args:
        images: the number of all images.
        work: the name of the work, if it is not obvious.
    """
    with tqdm(total=images, desc=work or None, unit=" images", disable=bar_disabled(), leave=False) as bar:
        done, start = 0, time.monotonic()
        last = start

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - last >= LINE_SECONDS:
                last = now
                of = f"{done:,} of {number_of(images, 'image')}"
                tell("%s%s, %.4g images/s", f"{work}: " if work else "", of, done / (now - start))

        yield advance
