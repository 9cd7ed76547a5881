"""Image files that are in more than one split, compared byte by byte."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polynet_keras.basics.progress import progress
from polynet_keras.data.examples import Examples


@dataclass(frozen=True)
class Duplicates:
    """Files of one split that are in another too.

    Attributes:
        count: number of files that are also in an earlier split.
        pair: names of two equal files; None if there are none.
        looked_at, alike: number of hashed files, and of files with the same size as one of another split.
    """

    count: int
    pair: tuple[str, str] | None
    looked_at: int
    alike: int


def find_duplicates(splits: Sequence[Examples], seconds: float | None) -> Duplicates:
    """Looks for files of the same bytes in several splits, with a progress bar; reads only files of equal size.

    Args:
        splits: splits of image files; splits of other data are skipped.
        seconds: time limit of the search; None for no limit.
    """
    files = [part for part in splits if part.file_sizes is not None]
    if len(files) < 2:
        return Duplicates(0, None, 0, 0)
    sizes = np.concatenate([part.file_sizes for part in files if part.file_sizes is not None])
    part_of = np.repeat(np.arange(len(files)), [len(part) for part in files])
    index_of = np.concatenate([np.arange(len(part)) for part in files])
    _, group_of = np.unique(sizes, return_inverse=True)
    lowest = np.full(group_of.max() + 1, len(files))
    highest = np.zeros_like(lowest)
    np.minimum.at(lowest, group_of, part_of)
    np.maximum.at(highest, group_of, part_of)
    alike = np.flatnonzero((lowest < highest)[group_of] & (sizes > 0))
    # Groups in random order: where the time does not suffice, what was looked at is a sample.
    turn = np.random.default_rng(0).permutation(len(lowest))[group_of[alike]]
    alike = alike[np.lexsort((part_of[alike], turn))]
    until = None if seconds is None else time.monotonic() + seconds
    first: dict[bytes, int] = {}  # by digest, of the group that is looked at
    group, count, pair, looked_at = -1, 0, None, 0
    with progress(len(alike), "looking for duplicates") as advance:
        for place in alike:
            if until is not None and time.monotonic() > until:
                break
            looked_at += 1
            advance(1)
            if group_of[place] != group:
                group = group_of[place]
                first.clear()
            name = files[part_of[place]].name_of(int(index_of[place]))
            try:
                with open(name, "rb") as file:
                    digest = hashlib.file_digest(file, "blake2b").digest()
            except OSError:
                continue  # the reader reports it
            other = first.setdefault(digest, int(place))
            if part_of[other] != part_of[place]:
                count += 1
                pair = pair or (files[part_of[other]].name_of(int(index_of[other])), name)
    return Duplicates(count, pair, looked_at, len(alike))
