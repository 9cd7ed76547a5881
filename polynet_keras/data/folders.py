"""Folders with one folder of images per class, optionally inside split folders, listed without opening a file."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import check_class_names, listed, number_of, shown
from polynet_keras.basics.news import tell
from polynet_keras.data.labelled_files import LabelledFiles, check_distinct
from polynet_keras.data.passed_over import IMAGE_SUFFIXES, PassedOver, is_folder, is_passed_over
from polynet_keras.data.splits import SPELLINGS, check_spellings, in_order, split_of

LAYOUTS = ("auto", "classes", "splits")
"""Meaning of the folders in a folder: classes, splits that contain classes, or automatic by their names."""
CLASSES_FILE = "classes.txt"
"""Names of the classes' folders in the order of their labels, one per line; without this file, they are sorted."""
RENAME = "give both one name, or name them in classes.txt if they are two classes"
EXPECTED = "a folder with one folder of images for each class, such as DATA/cat/1.jpg"


def list_folder(folder: str | os.PathLike, class_names: Sequence[str] | None = None) -> LabelledFiles:
    """Lists a folder with one folder of images per class, as torchvision's `ImageFolder` and Keras do.

    Images may be anywhere below their class's folder; links are followed. Hidden files and folders, such as macOS's
    `._1.jpg`, and `SYSTEM_FOLDERS` are skipped, and the log says so. A broken link counts as an image of 0 bytes:
    reading it raises an error, so that it is not skipped silently. Anything that is neither a file nor a folder (a
    FIFO, a device) is skipped, and so is a link to it.

    Args:
        folder: the folder of classes.
        class_names: names of the classes' folders, by label; by default those of the folder's `classes.txt`, else the
            folders' own, sorted. A named class need not have a folder here.

    Raises:
        ValueError: there is no such folder, there are fewer than two classes, a folder is not in `class_names` or has
            no images, a class's name is not text (see `check_class_names`) or nearly equals another (see
            `check_distinct`), or a link leads in a circle.
    """
    root = Path(folder)
    found, names = _classes(root, class_names)
    passed_over = _passed_over_folders(root)
    label_of = {name: label for label, name in enumerate(names)}
    paths: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    empty: dict[str, int] = {}
    for name in found:
        others = passed_over.suffixes.total()
        files = sorted(_images(root / name, f"{name}/", frozenset(), passed_over))
        if not files:
            empty[name] = passed_over.suffixes.total() - others
        paths += [path for path, _ in files]
        sizes += [size for _, size in files]
        labels += [label_of[name]] * len(files)
    if empty:
        others = sum(empty.values())
        holds = f"0 images, but {number_of(others, 'other file')}" if others else "0 images"
        one = len(empty) == 1
        raise ValueError(
            f"{'class' if one else 'classes'} {listed(list(empty))} of data={str(root)!r} {'has' if one else 'have'} "
            f"{holds} (images are {', '.join(IMAGE_SUFFIXES)}); add some or remove {'its folder' if one else 'these'}"
        )
    passed_over.log(f"data={str(root)!r}")
    if not paths:
        raise ValueError(f"data={str(root)!r} holds none of the {len(names)} classes that are named")
    return LabelledFiles(root, tuple(names), tuple(paths), np.array(labels, "int64"), np.array(sizes, "int64"))


def _classes(root: Path, class_names: Sequence[str] | None = None) -> tuple[list[str], Sequence[str]]:
    """Returns the existing class folders, sorted, and the names of all classes, by label."""
    found = _class_folders(root)
    given = _given_class_names(root, class_names)
    names = given or found
    if len(names) < 2:
        raise ValueError(
            f"data={str(root)!r} holds {number_of(len(names), 'folder')}; expected {EXPECTED}, two classes or more"
        )
    if not given:
        check_distinct({name: name for name in found}, f"data={str(root)!r}", RENAME)
    check_class_names((*found, *names), f"data={str(root)!r}")
    if unknown := [name for name in found if name not in names]:
        raise ValueError(
            f"data={str(root)!r} holds the folder {unknown[0]!r}, which is none of the {len(names)} classes that are "
            "named; name it or move it away"
        )
    return found, names


def check_folder(folder: str | os.PathLike, layout: str = "auto") -> list[str]:
    """Refuses a folder whose folder names `list_splits` refuses; returns its splits, none for classes.

    Raises:
        ValueError: as `list_splits`, except for faults that only a list of the images shows.
    """
    splits = split_folders(folder, layout)
    if not splits:
        _classes(Path(folder))
    return list(splits)


def list_splits(
    folder: str | os.PathLike,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    layout: str = "auto",
) -> dict[str, LabelledFiles]:
    """Lists a folder of splits, such as DATA/train/cat/1.jpg and DATA/val/cat/2.jpg, or a folder of classes.

    All splits have the same labels: those of `class_names`, of the folder's `classes.txt`, or else of the sorted class
    folders of all splits together. A split may lack a class.

    Args:
        folder: folder of splits or of classes.
        split: name for a folder of classes, which has no splits.
        class_names: names of the classes' folders, by label.
        layout: meaning of the folders in it: one of `LAYOUTS`.

    Returns:
        The images by the name of the split's folder, in lower case, in the order of `SPLITS`.

    Raises:
        ValueError: as `list_folder` and `split_folders`.
    """
    root = Path(folder)
    splits = split_folders(root, layout)
    if not splits:
        return {split: list_folder(root, class_names)}
    found = {name: f"{path.name}/{name}" for path in splits.values() for name in _class_folders(path)}
    if not found:
        raise ValueError(
            f"data={str(root)!r}: the splits {', '.join(splits)} hold no folders of classes, such as "
            f"{next(iter(splits))}/cat; say --layout=classes if they are classes themselves"
        )
    names = _given_class_names(root, class_names)
    if not names:
        check_distinct(found, f"data={str(root)!r}", RENAME)
    if others := sorted({*_class_folders(root)} - {path.name for path in splits.values()}):
        tell("data=%r: left out folders that are not splits: %s", str(root), listed(others))
    _passed_over_folders(root).log(f"data={str(root)!r}")
    return {name: list_folder(path, names or sorted(found)) for name, path in splits.items()}


def images_below(folder: str | os.PathLike) -> list[str]:
    """Returns the paths of all images below a folder, whatever its folders' names, sorted; they begin with `folder`.

    The function skips and logs the same files as `list_folder`.

    Raises:
        ValueError: the folder cannot be read, or a link leads in a circle.
    """
    passed_over = PassedOver()
    try:
        found = sorted(_images(os.fspath(folder), "", frozenset(), passed_over))
    except OSError as error:
        raise ValueError(f"{shown(error.filename or folder)}: cannot be read: {error.strerror}") from None
    passed_over.log(shown(folder))
    return [os.path.join(folder, path) for path, _ in found]


def split_folders(folder: str | os.PathLike, layout: str = "auto") -> dict[str, Path]:
    """Returns the split folders of a folder, by name in lower case, in the order of `SPLITS`; none for classes.

    Args:
        folder: folder of splits or of classes.
        layout: `"auto"`: the folders are splits if all have a split's name, in any of its spellings. `"splits"`: those
            with such a name are splits, and the others are skipped. `"classes"`: all are classes, whatever their names.

    Raises:
        ValueError: there is no such folder or layout; splits are beside other folders, so that the meaning is
            ambiguous; `layout` says splits, and there are none; or one split has two spellings.
    """
    check_choice("layout", layout, LAYOUTS)
    root = Path(folder)
    found = _class_folders(root)
    if layout == "classes":
        return {}
    splits = [name for name in found if split_of(name)]
    others = [name for name in found if not split_of(name)]
    if layout == "splits" and not splits:
        known = ", ".join(name for names in SPELLINGS.values() for name in names)
        there = listed(others) if others else "no folders"
        raise ValueError(f"layout='splits', but data={str(root)!r} has no folder {known}; it has {there}")
    if splits and others and layout == "auto":
        raise ValueError(
            f"data={str(root)!r} has folders with names of splits ({listed(splits)}) beside others ({listed(others)}). "
            "If all are classes, say --layout=classes; if the others are to be left out, --layout=splits; else move "
            "one of both away"
        )
    check_spellings(splits, f"data={str(root)!r}")
    return {name.lower(): root / name for name in in_order(splits)}


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads class names from a text file: one per line, in the order of their labels; skips empty lines.

    Raises:
        ValueError: the file cannot be read, or has fewer than two classes or one twice.
    """
    path = os.fspath(path)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a text file in UTF-8, one class name a line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path}: names the class {twice[0]!r} twice")
    if len(names) < 2:
        raise ValueError(f"{path}: has {number_of(len(names), 'class', 'classes')}; expected two or more, one per line")
    check_class_names(names, path)
    return names


def _given_class_names(root: Path, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if class_names is not None:
        return tuple(class_names)
    return read_class_names(root / CLASSES_FILE) if (root / CLASSES_FILE).is_file() else ()


def _class_folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise ValueError(f"data={str(root)!r} is not {'a folder' if root.exists() else 'there'}; expected {EXPECTED}")
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not is_passed_over(entry.name) and is_folder(entry))


def _passed_over_folders(root: Path) -> PassedOver:
    passed_over = PassedOver()
    with os.scandir(root) as entries:
        for entry in entries:
            if is_folder(entry):
                if is_passed_over(entry.name):
                    passed_over.folders.add(entry.name)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith("."):
                passed_over.loose += 1
    return passed_over


def _images(folder: Path | str, prefix: str, above: frozenset, passed_over: PassedOver) -> Iterator[tuple[str, int]]:
    """Yields (path below the root, bytes) of all images below a folder.

    Args:
        folder: the folder.
        prefix: its path below the root, with a slash at the end.
        above: identities of its parent folders.
        passed_over: receives everything that is not an image.
    """
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise ValueError(f"{shown(folder)}: leads back to a folder that contains it; remove the link")
    # One call for a folder, none to tell a file from a folder: a million images list in seconds.
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_passed_over(entry.name):
                passed_over.add(entry)
                continue
            if is_folder(entry):
                yield from _images(entry.path, f"{prefix}{entry.name}/", above | {identity}, passed_over)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                if not entry.is_symlink():
                    if entry.is_file():
                        yield prefix + entry.name, entry.stat().st_size
                elif os.path.isfile(entry.path):
                    yield prefix + entry.name, entry.stat().st_size
                elif not os.path.exists(entry.path):  # the link leads nowhere, or in a circle
                    yield prefix + entry.name, 0
            else:
                passed_over.suffixes[os.path.splitext(entry.name)[1].lower()] += 1
