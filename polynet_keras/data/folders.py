"""Folders with one folder of images a class, or with such a folder for each split, listed without opening a file."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from absl import logging

from polynet_keras.basics.names import check_class_names, shown

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLITS = ("train", "training", "val", "validation", "test", "held_out")
"""Folders of these names hold splits, not classes."""
CLASSES_FILE = "classes.txt"
"""Names of the classes' folders in the order of their labels, one a line; where there is none, they are sorted."""
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")
"""What macOS puts into archives, and a Synology disk beside photographs: never pictures of the user's."""
SUFFIXES_TOLD = 5
EXPECTED = "a folder with one folder of images for each class, such as DATA/cat/1.jpg"


@dataclass(frozen=True)
class ClassFolder:
    """The labelled images of a folder.

    Attributes:
        folder: that the paths start from.
        class_names: by label; a class may have no image here.
        paths: of the images, relative, with slashes; sorted by class folder, then by path.
        labels: int64 array (count,), indices into the class names.
        sizes: int64 array (count,), in bytes.
    """

    folder: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, of the class names and of each image's path, size and label; not of its bytes."""
        digest = hashlib.sha256("\n".join(self.class_names).encode("utf-8", "surrogateescape"))
        for path, size, label in zip(self.paths, self.sizes, self.labels, strict=True):
            digest.update(b"\0%s\0%d\0%d" % (os.fsencode(path), size, label))
        return digest.hexdigest()


@dataclass
class _PassedOver:
    """What is no image of a folder.

    Attributes:
        folders: names of hidden and of the system's folders.
        hidden: how many hidden image files there are.
        suffixes: of the other files, by their number.
    """

    folders: set[str] = field(default_factory=set)
    hidden: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)

    def add(self, entry: os.DirEntry) -> None:
        if _is_folder(entry):
            self.folders.add(entry.name)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            self.hidden += 1

    def log(self, root: Path) -> None:
        folders = ", ".join(f"'{shown(name)}'" for name in sorted(self.folders))
        parts = [f"folders {folders}"] if folders else []
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden image file{'s' if self.hidden > 1 else ''}")
        if parts:
            logging.info("data=%r: passed over %s", str(root), " and ".join(parts))
        if self.suffixes:
            count = self.suffixes.total()
            logging.warning(
                "data=%r: left out %s file%s (%s): the names of images end in %s",
                str(root),
                f"{count:,}",
                "s" if count > 1 else "",
                self.told_suffixes(),
                ", ".join(IMAGE_SUFFIXES),
            )

    def told_suffixes(self) -> str:
        told = [
            f"{n:,} {shown(suffix) or 'without a suffix'}" for suffix, n in self.suffixes.most_common(SUFFIXES_TOLD)
        ]
        rest = self.suffixes.total() - sum(n for _, n in self.suffixes.most_common(SUFFIXES_TOLD))
        return ", ".join(told) + (f" and {rest:,} others" if rest else "")


def list_folder(folder: str | os.PathLike, class_names: Sequence[str] | None = None) -> ClassFolder:
    """Lists a folder with one folder of images a class, as torchvision's `ImageFolder` and Keras do.

    Images lie anywhere below their class's folder, links are followed. Hidden files and folders, such as macOS's
    `._1.jpg`, and `SYSTEM_FOLDERS` are passed over, which the log says. A link to nothing counts as an image, of 0
    bytes: it is refused when it is read, not passed over in silence. What is neither a file nor a folder (a FIFO, a
    device) is passed over, and so is a link to it.

    Args:
        folder: the folder of classes.
        class_names: names of the classes' folders, by label; those of the folder's `classes.txt` by default, else the
            folders' own, sorted. A class that is named may have no folder here.

    Raises:
        ValueError: no such folder, fewer than two classes, a folder that is none of `class_names`, one without images,
            a class whose name is no text (see `check_class_names`), or a link that leads in a circle.
    """
    root = Path(folder)
    found = _class_folders(root)
    passed_over = _passed_over_folders(root)
    names = _given_class_names(root, class_names) or found
    if len(names) < 2:
        raise ValueError(f"data={str(root)!r} holds {len(names)} folders; expected {EXPECTED}, two classes or more")
    check_class_names((*found, *names), f"data={str(root)!r}")
    label_of = {name: label for label, name in enumerate(names)}
    paths: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    for name in found:
        if name not in label_of:
            raise ValueError(
                f"data={str(root)!r} holds the folder {name!r}, which is none of the {len(names)} classes that are "
                "named; name it or move it away"
            )
        others = passed_over.suffixes.total()
        files = sorted(_images(root / name, f"{name}/", frozenset(), passed_over))
        if not files:
            others = passed_over.suffixes.total() - others
            holds = f"0 images, but {others:,} other file{'s' if others > 1 else ''}" if others else "0 images"
            raise ValueError(
                f"class {name!r} of data={str(root)!r} has {holds} (images are {', '.join(IMAGE_SUFFIXES)}); "
                "add some or remove its folder"
            )
        paths += [path for path, _ in files]
        sizes += [size for _, size in files]
        labels += [label_of[name]] * len(files)
    passed_over.log(root)
    if not paths:
        raise ValueError(f"data={str(root)!r} holds none of the {len(names)} classes that are named")
    return ClassFolder(root, tuple(names), tuple(paths), np.array(labels, "int64"), np.array(sizes, "int64"))


def list_splits(
    folder: str | os.PathLike, split: str = "train", class_names: Sequence[str] | None = None
) -> dict[str, ClassFolder]:
    """Lists a folder of splits, such as DATA/train/cat/1.jpg and DATA/val/cat/2.jpg, or a folder of classes.

    All splits have the same labels: those of `class_names`, of the folder's `classes.txt`, or else of all class folders
    of all splits together, sorted. A split may lack a class.

    Args:
        folder: of splits or of classes.
        split: what a folder of classes, which has no splits, is called.
        class_names: names of the classes' folders, by label.

    Returns:
        The images by the split's name, in the order of `SPLITS`.

    Raises:
        ValueError: as `list_folder` and `split_folders`.
    """
    root = Path(folder)
    splits = split_folders(root)
    if not splits:
        return {split: list_folder(root, class_names)}
    names = _given_class_names(root, class_names) or sorted(
        {name for path in splits.values() for name in _class_folders(path)}
    )
    _passed_over_folders(root).log(root)
    return {name: list_folder(path, names) for name, path in splits.items()}


def split_folders(folder: str | os.PathLike) -> dict[str, Path]:
    """The folders of a folder that has nothing but splits, by name, in the order of `SPLITS`; of another, none.

    One folder with a split's name among others is taken for a class: photographs of trains, say.

    Raises:
        ValueError: no such folder, or one that mixes several splits with other folders.
    """
    root = Path(folder)
    found = _class_folders(root)
    splits = {name: root / name for name in SPLITS if name in found}
    others = [name for name in found if name not in splits]
    if len(splits) > 1 and others:
        raise ValueError(
            f"data={str(root)!r} holds splits ({', '.join(splits)}) and other folders ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}); name one split's folder, or move the others away"
        )
    return {} if others else splits


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Reads a text file of class names: one a line, in the order of their labels; empty lines are passed over.

    Raises:
        ValueError: the file cannot be read, or names fewer than two classes or one twice.
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
        raise ValueError(f"{path}: names {len(names)} classes; expected two or more, one a line")
    check_class_names(names, path)
    return names


def _given_class_names(root: Path, class_names: Sequence[str] | None) -> tuple[str, ...]:
    if class_names is not None:
        return tuple(class_names)
    return read_class_names(root / CLASSES_FILE) if (root / CLASSES_FILE).is_file() else ()


def _class_folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise ValueError(f"data={str(root)!r} is no folder; expected {EXPECTED}")
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if _is_folder(entry) and not _is_passed_over(entry.name))


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _passed_over_folders(root: Path) -> _PassedOver:
    with os.scandir(root) as entries:
        return _PassedOver({entry.name for entry in entries if _is_passed_over(entry.name) and _is_folder(entry)})


def _images(folder: Path | str, prefix: str, above: frozenset, passed_over: _PassedOver) -> Iterator[tuple[str, int]]:
    """(path below the root, bytes) of all images below a folder.

    Args:
        folder: where.
        prefix: its path below the root, with a slash at the end.
        above: identities of the folders that it lies in.
        passed_over: takes what is no image.
    """
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise ValueError(f"{shown(folder)}: leads back to a folder that it lies in; remove the link")
    # One call for a folder, none to tell a file from a folder: a million images list in seconds.
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_passed_over(entry.name):
                passed_over.add(entry)
                continue
            if _is_folder(entry):
                yield from _images(entry.path, f"{prefix}{entry.name}/", above | {identity}, passed_over)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                if not entry.is_symlink():
                    if entry.is_file():
                        yield prefix + entry.name, entry.stat().st_size
                elif os.path.isfile(entry.path):
                    yield prefix + entry.name, entry.stat().st_size
                elif not os.path.exists(entry.path):  # it leads to nothing, or around in a circle
                    yield prefix + entry.name, 0
            else:
                passed_over.suffixes[os.path.splitext(entry.name)[1].lower()] += 1


def _is_folder(entry: os.DirEntry) -> bool:
    # Of a link that leads around in a circle, `entry.is_dir` raises.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
