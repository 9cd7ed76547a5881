"""Identifies image files by their names, and counts the files that folder listings skip."""

import os
from collections import Counter
from dataclasses import dataclass, field

from absl import logging

from polynet_keras.basics.names import listed, number_of, shown
from polynet_keras.basics.news import tell

IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that macOS puts into archives, Synology disks beside photographs, and Windows and Linux on disks; they never
contain the user's pictures."""
SYSTEM_FILES = ("thumbs.db", "ehthumbs.db", "desktop.ini")
"""Files that Windows puts beside photographs, in lower case."""
SUFFIXES_TOLD = 5


@dataclass
class PassedOver:
    """Everything in a folder that is not an image.

    Attributes:
        folders: names of hidden folders and of system folders.
        hidden: number of hidden image files.
        loose: number of images outside of any class's folder.
        suffixes: suffixes of the other files, with their numbers.
    """

    folders: set[str] = field(default_factory=set)
    hidden: int = 0
    loose: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)

    def add(self, entry: os.DirEntry) -> None:
        if is_folder(entry):
            self.folders.add(entry.name)
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            self.hidden += 1

    def log(self, where: str) -> None:
        parts = [f"folders {listed(sorted(self.folders), len(self.folders))}"] if self.folders else []
        if self.hidden:
            parts.append(number_of(self.hidden, "hidden image file"))
        if parts:
            tell("%s: ignored %s", where, " and ".join(parts))
        if self.loose:
            images = number_of(self.loose, "image that lies", "images that lie")
            logging.warning("%s: left out %s in no class's folder", where, images)
        if self.suffixes:
            logging.warning(
                "%s: left out %s (%s): the names of images end in %s",
                where,
                number_of(self.suffixes.total(), "file"),
                self._told_suffixes(),
                ", ".join(IMAGE_SUFFIXES),
            )

    def _told_suffixes(self) -> str:
        common = self.suffixes.most_common(SUFFIXES_TOLD)
        rest = self.suffixes.total() - sum(n for _, n in common)
        told = ", ".join(f"{n:,} {shown(suffix) or 'without a suffix'}" for suffix, n in common)
        return told + (f" and {number_of(rest, 'other')}" if rest else "")


def is_passed_over(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS or name.lower() in SYSTEM_FILES


def is_folder(entry: os.DirEntry) -> bool:
    # Of a link that leads around in a circle, `entry.is_dir` raises.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
