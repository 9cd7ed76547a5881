"""Names of splits, in their common spellings."""

import os
from collections.abc import Iterable

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "held_out": ("held_out",),
}
"""Names of each split; upper and lower case are the same."""
SPLITS = tuple(SPELLINGS)
TRAINING = "train"
HELD_OUT_SPLITS = ("held_out", "test", "val")
"""Names of the held-out part in data with its own splits: the first of these that exists."""
VALIDATION = "val"
"""The split that chooses the best epoch, beside one of the other held-out splits."""
WHOLE = "all"
"""The only split of data without splits."""

HELD_OUT = 0.2
"""The share of each class that is held out from training, for data without splits."""

_SPLIT_OF = {name: split for split, names in SPELLINGS.items() for name in names}


def held_out_of(count: int, share: float = HELD_OUT) -> int:
    """Returns how many of `count` images of a class to hold out: the share, at least one, never all of several."""
    return max(1, min(count - 1, round(share * count)))


def split_of(name: str) -> str | None:
    """Returns the split that a name means, one of `SPLITS`; None if it is not a split's name."""
    return _SPLIT_OF.get(name.lower())


def in_order(names: Iterable[str]) -> list[str]:
    """Returns names of splits in the order of `SPLITS`."""
    return sorted(names, key=lambda name: SPLITS.index(_SPLIT_OF[name.lower()]))


def check_spellings(names: Iterable[str], where: str) -> None:
    """Refuses two spellings of one split.

    Args:
        names: names of splits.
        where: place of the names, for the message.

    Raises:
        ValueError: two names mean the same split; the message has both.
    """
    first: dict[str, str] = {}
    for name in names:
        split = _SPLIT_OF[name.lower()]
        if split in first:
            raise ValueError(
                f"{where} has '{first[split]}' and '{name}', which are two names of one split; keep one of them"
            )
        first[split] = name


def find_split(splits: Iterable[str], name: str) -> str | None:
    """Returns the name of a split in data: this name, or another spelling of it; None if the split does not exist."""
    splits = list(splits)
    if name in splits:
        return name
    return next((one for one in splits if split_of(name) and split_of(one) == split_of(name)), None)


def validation_split(splits: Iterable[str]) -> str | None:
    """Returns the split that chooses the best epoch, by its name, in data with another held-out split; else None."""
    splits = list(splits)
    held_out = next((name for split in HELD_OUT_SPLITS if (name := find_split(splits, split))), None)
    validation = find_split(splits, VALIDATION)
    return None if validation == held_out else validation


def split_named(splits: Iterable[str], split: str | None, data: str | os.PathLike) -> str:
    """Returns the split for evaluation, among those of data; another spelling is accepted.

    Args:
        splits: names of the splits in the data.
        split: a name; by default the held-out split, or all of data without splits.
        data: name of the data, for the message.

    Raises:
        ValueError: there is no such split.
    """
    splits = list(splits)
    wanted = (split,) if split else (*HELD_OUT_SPLITS, WHOLE)
    for name in wanted:
        if found := find_split(splits, name):
            return found
    raise ValueError(f"data={os.fspath(data)!r} has no split {' or '.join(wanted)}; it has {', '.join(splits)}")
