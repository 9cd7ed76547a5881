"""Names of splits, in the spellings that people give them."""

import os
from collections.abc import Iterable

SPELLINGS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
    "held_out": ("held_out",),
}
"""By split, its names; upper and lower case are the same."""
SPLITS = tuple(SPELLINGS)
TRAINING = "train"
HELD_OUT_SPLITS = ("held_out", "test", "val")
"""What the held-out part is called in data that has splits of its own: the first of these that is there."""
VALIDATION = "val"
"""What an epoch is chosen on, beside one of the other held-out splits."""
WHOLE = "all"
"""The one split of data that has none."""

HELD_OUT = 0.2
"""The share of each class that is held out from training, where the data has no split of its own."""

_SPLIT_OF = {name: split for split, names in SPELLINGS.items() for name in names}


def held_out_of(count: int, share: float = HELD_OUT) -> int:
    """How many of so many images of a class are held out: the share, but one at least, and of several not all."""
    return max(1, min(count - 1, round(share * count)))


def split_of(name: str) -> str | None:
    """Which split a name means: one of `SPLITS`; None where it is no split's name."""
    return _SPLIT_OF.get(name.lower())


def in_order(names: Iterable[str]) -> list[str]:
    """Names of splits in the order of `SPLITS`."""
    return sorted(names, key=lambda name: SPLITS.index(_SPLIT_OF[name.lower()]))


def check_spellings(names: Iterable[str], where: str) -> None:
    """Refuses two spellings of one split.

    Args:
        names: of splits.
        where: they were found, for the message.

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
    """The name that a split has in data: this one, or another spelling of it; None where it is not there."""
    splits = list(splits)
    if name in splits:
        return name
    return next((one for one in splits if split_of(name) and split_of(one) == split_of(name)), None)


def validation_split(splits: Iterable[str]) -> str | None:
    """The split that the best epoch is chosen on, by its name in data that has another one to hold out; else None."""
    splits = list(splits)
    held_out = next((name for split in HELD_OUT_SPLITS if (name := find_split(splits, split))), None)
    validation = find_split(splits, VALIDATION)
    return None if validation == held_out else validation


def split_named(splits: Iterable[str], split: str | None, data: str | os.PathLike) -> str:
    """The split to evaluate on, of those that data has: in another spelling, too.

    Args:
        splits: the names that data has.
        split: a name; by default the held-out one, or all of data that has no splits.
        data: for the message.

    Raises:
        ValueError: there is none.
    """
    splits = list(splits)
    wanted = (split,) if split else (*HELD_OUT_SPLITS, WHOLE)
    for name in wanted:
        if found := find_split(splits, name):
            return found
    raise ValueError(f"data={os.fspath(data)!r} has no split {' or '.join(wanted)}; it has {', '.join(splits)}")
