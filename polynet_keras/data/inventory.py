"""Reports on data before a run begins: classes, sizes, and likely mistakes."""

import time
from dataclasses import dataclass

import numpy as np
from absl import logging

from polynet_keras.basics.names import number_of, shown, some_of
from polynet_keras.basics.news import tell
from polynet_keras.data.duplicates import Duplicates, find_duplicates
from polynet_keras.data.examples import Examples, Source
from polynet_keras.data.image_files import read_picture
from polynet_keras.data.image_headers import first_picture
from polynet_keras.data.picture import Picture
from polynet_keras.data.splits import HELD_OUT

CLASSES_SHOWN = 20
NAME_SHOWN = 40
"""Most characters of a class's name."""
FEW = 5
"""Number of images below which a class can hardly be learned."""
LISTED = 3
FILES_LOOKED_AT, OTHERS_LOOKED_AT = 2000, 200
"""Images whose headers are read: of files, and of data that is read through TensorFlow."""
SECONDS = 5.0
"""Most seconds for the headers, and again for the duplicates: on a slow disk, fewer files are checked."""


@dataclass(frozen=True)
class Look:
    """Facts from the headers of some images.

    Attributes:
        sizes: int64 array (count, 2): width and height of the upright image, in pixels, of readable ones.
        bad: name and reason of files that are not images.
        looked_at, total: number of images checked, and of all images.
    """

    sizes: np.ndarray
    bad: list[tuple[str, str]]
    looked_at: int
    total: int


def tell_inventory(data: str, source: Source, on_error: str, strict: bool = False) -> None:
    """Logs the contents of a source: images per class, the held-out ones, sizes; and warns of likely mistakes.

    It reads the headers of up to 2,000 images, and, to find images in several splits, the files of equal size, each for
    at most 5 seconds. The log says what was not checked.

    Args:
        data: name of the source.
        source: source of a run.
        on_error: how a run handles an image that cannot be read: `"error"` or `"skip"`.
        strict: whether files in several splits are an error; then all files of equal size are read.

    Raises:
        ValueError: `strict` is set, and a file is in several splits.
    """
    parts = [*source.parts, *source.unused.values()]
    tell("%s", "\n".join([f"{shown(data)}: {_counted(source)}", *_table(source, parts), _held_out(source)]))
    _warn_of_few(source)
    look = look_at(parts)
    tell("%s", _sizes(look))
    if look.bad:
        logging.warning("%s", _bad(look, on_error))
    message = _duplicates(find_duplicates(parts, None if strict else SECONDS))
    if message and strict:
        raise ValueError(f"{message}. Remove one of each pair, or leave --strict out")
    if message:
        logging.warning("%s", message)


def look_at(parts: list[Examples]) -> Look:
    """Reads headers of images, of a sample if there are many."""
    starts = np.cumsum([0, *map(len, parts)])
    are_files = all(part.are_files for part in parts)
    order = np.random.default_rng(0).permutation(starts[-1])[: FILES_LOOKED_AT if are_files else OTHERS_LOOKED_AT]
    until = time.monotonic() + SECONDS
    sizes, bad, looked_at = [], [], 0
    for place in order:
        if looked_at and time.monotonic() > until:
            break
        looked_at += 1
        part = int(np.searchsorted(starts, place, "right")) - 1
        examples, index = parts[part], int(place - starts[part])
        try:
            picture = _picture(examples, index)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            bad.append((examples.shown_name(index), reason or str(error)))
            continue
        size = (picture.width, picture.height)
        sizes.append(size if picture.orientation < 5 else size[::-1])
    return Look(np.array(sizes, "int64").reshape(-1, 2), bad, looked_at, int(starts[-1]))


def _picture(examples: Examples, index: int) -> Picture:
    if not examples.are_files:
        return first_picture(examples.encoded(index))
    return read_picture(examples.name_of(index))


def _counted(source: Source) -> str:
    classes = number_of(len(source.class_names), "class", "classes")
    return f"{classes}, {number_of(len(source.training), 'image')} to train on"


def _table(source: Source, parts: list[Examples]) -> list[str]:
    """Returns a table of images by class and split; without the classes if the labels are unknown."""
    validation = ["validation"] if source.validation is not None else []
    titles = ["to train on", *validation, "held out", *map(shown, source.unused)]
    rows = [("all", [len(part) for part in parts])]
    more = []
    known = [part.labels for part in parts if part.labels is not None]
    if len(known) == len(parts):
        counts = [np.bincount(labels, minlength=len(source.class_names)) for labels in known]
        names = source.class_names[:CLASSES_SHOWN]
        rows = [
            (shown(name, NAME_SHOWN), [int(one[label]) for one in counts]) for label, name in enumerate(names)
        ] + rows
        if rest := counts[0][CLASSES_SHOWN:].tolist():
            classes = number_of(len(rest), "more class", "more classes")
            more = [f"  and {classes}, of {min(rest):,} to {max(rest):,} images to train on"]
    width = max(len(name) for name, _ in rows)
    lines = [
        f"  {name:<{width}}" + "".join(f"{n:>{len(title) + 2},}" for n, title in zip(row, titles, strict=True))
        for name, row in rows
    ]
    return [" " * (width + 2) + "".join(f"  {title}" for title in titles), *lines[:-1], *more, lines[-1]]


def _held_out(source: Source) -> str:
    # Labels of records are read later than they are split; those of the training part may be known by now.
    of = "each class" if source.held_out.labels is not None else "all images"
    if source.seed is None:
        unused = f"; not used: {', '.join(map(shown, source.unused))}" if source.unused else ""
        held_out = f"held out: {source.held_out.name}{unused}"
    else:
        held_out = f"held out: {HELD_OUT:.0%} of {of}, drawn with seed {source.seed}".replace("%", " %")
    if source.validation is None:
        return held_out
    of = "each class" if source.validation.labels is not None else "all images"
    drawn = f"{100 * source.validation_share:g} % of {of} to train on, drawn with the seed of the run"
    by = drawn if source.validation_share else source.validation.name
    return f"{held_out}\nvalidation: {by}; the best epoch is chosen by it"


def _warn_of_few(source: Source) -> None:
    labels = source.training.labels
    if labels is None:
        return
    if source.seed is not None and source.held_out.labels is not None:  # which are of the same images
        labels = np.concatenate([labels, source.held_out.labels])
    if source.validation_share and source.validation is not None and source.validation.labels is not None:
        labels = np.concatenate([labels, source.validation.labels])
    counts = np.bincount(labels, minlength=len(source.class_names))
    few = np.flatnonzero((counts > 0) & (counts < FEW))  # classes without images are reported when the data are opened
    if len(few):
        told = some_of([f"{shown(source.class_names[i], NAME_SHOWN)} ({counts[i]})" for i in few], CLASSES_SHOWN)
        have = number_of(len(few), "class has", "classes have")
        logging.warning("%s fewer than %d images: %s", have, FEW, told)


def _sizes(look: Look) -> str:
    where = "" if look.looked_at == look.total else f" ({number_of(look.looked_at, 'image')} looked at)"
    if not len(look.sizes):
        return f"image sizes: none of {number_of(look.looked_at, 'image')} can be read"
    by_area = look.sizes[np.argsort(look.sizes.prod(1), kind="stable")]
    smallest, median, largest = (f"{w:,} x {h:,}" for w, h in by_area[[0, (len(by_area) - 1) // 2, -1]])
    if smallest == largest and (by_area == by_area[0]).all():
        return f"image sizes: all {median} px{where}"
    return f"image sizes: median {median}, smallest {smallest}, largest {largest} px{where}"


def _bad(look: Look, on_error: str) -> str:
    told = some_of([f"{name} ({reason})" for name, reason in look.bad], LISTED, "; ")
    what = "is not a readable image" if len(look.bad) == 1 else "are not readable images"
    then = "a run leaves them out" if on_error == "skip" else "a run ends at the first; --on_error=skip leaves them out"
    return f"{len(look.bad):,} of {number_of(look.looked_at, 'file')} {what}: {told}; {then}"


def _duplicates(found: Duplicates) -> str | None:
    if found.pair is None:
        return None
    one, other = map(shown, found.pair)
    what = "image is in two parts of the data" if found.count == 1 else "images are in two parts of the data"
    part = "" if found.looked_at == found.alike else f" of {found.looked_at:,} looked at"
    such = f"such as {one} and {other}"
    return f"{found.count:,}{part} {what}, byte by byte, {such}: accuracy on them says nothing about new images"
