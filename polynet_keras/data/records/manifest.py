"""The manifest of a folder of TFRecord files, and the verification of the files against it."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from polynet_keras.basics.files import file_hash, written_whole
from polynet_keras.basics.json_fields import Fields, fields_of
from polynet_keras.basics.names import number_of
from polynet_keras.data.image_files import CHANNELS
from polynet_keras.data.records.shrinking import Shrinking

MANIFEST = "manifest.json"
UNFINISHED = "manifest.partial.json"
"""The manifest of the finished shards; `MANIFEST` replaces it when all are finished."""
FORMAT_VERSION = 1
MAX_BYTES = 256 << 20
"""Most bytes of a manifest: it lists each skipped image, with the reason."""


@dataclass(frozen=True)
class Shard:
    """A TFRecord file.

    Attributes:
        file: its name.
        count: number of its records.
        bytes, sha256: its size, and its checksum in hex.
        skipped: reasons for skipped images, by path.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    skipped: dict[str, str]


def fingerprint_of(shards: Iterable[Shard]) -> str:
    """Returns the SHA-256 of all records in order, from the files' checksums: 64 hexadecimal digits."""
    return hashlib.sha256("".join(shard.sha256 for shard in shards).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """The shards of a split.

    Attributes:
        fingerprint: fingerprint of the source folder, `LabelledFiles.fingerprint`.
        shard_count: number of shards when the split is finished.
        shards: the shards in order.
    """

    fingerprint: str
    shard_count: int
    shards: tuple[Shard, ...] = ()

    @property
    def count(self) -> int:
        return sum(shard.count for shard in self.shards)

    @property
    def skipped(self) -> dict[str, str]:
        return {path: reason for shard in self.shards for path, reason in shard.skipped.items()}


@dataclass(frozen=True)
class Manifest:
    """Contents of a folder of records of RGB images.

    Attributes:
        class_names: names by label.
        seed: seed of the order.
        splits: splits by name.
        channels: channels of the decoded images.
        first_label: label of the first class in the records.
        shrinking: how large images were shrunk; `None`: all files are unchanged.
    """

    class_names: tuple[str, ...]
    seed: int
    splits: dict[str, Split]
    channels: int = 3
    first_label: int = 0
    shrinking: Shrinking | None = None

    def save(self, path: Path) -> None:
        """Writes the manifest as JSON, completely or not at all."""
        splits = {name: {"count": split.count, **asdict(split)} for name, split in self.splits.items()}
        content = {"format_version": FORMAT_VERSION, **asdict(self), "splits": splits}
        if self.shrinking is None:
            del content["shrinking"]
        with written_whole(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Manifest":
        """Reads a file of `save`.

        Raises:
            ValueError: the file cannot be read or is not a manifest; the message names the file and the field.
        """
        with fields_of(path, "cannot be read: {}", "not a manifest of records", MAX_BYTES) as fields:
            version = fields.take("format_version")
            if version != FORMAT_VERSION:
                raise ValueError(f"its format_version is {version!r}, this package reads {FORMAT_VERSION}")
            channels = fields.whole("channels")
            if channels not in CHANNELS:
                raise fields.error("channels", channels, f"one of {', '.join(map(str, CHANNELS))}")
            splits = fields.take("splits")
            if not isinstance(splits, dict):
                raise fields.error("splits", splits, "an object of splits")
            return cls(
                fields.class_names("class_names"),
                fields.whole("seed"),
                {name: _split(name, Fields(split, f"splits.{name}")) for name, split in splits.items()},
                channels,
                fields.whole("first_label"),
                _shrinking(fields.object("shrinking")) if "shrinking" in fields else None,
            )


def _shrinking(fields: Fields) -> Shrinking:
    shrinking = Shrinking(fields.whole("max_side"), fields.whole("quality"))
    fields.end()
    return shrinking


def _split(name: str, fields: Fields) -> Split:
    shards = fields.take("shards")
    if not isinstance(shards, list):
        raise fields.error("shards", shards, "a list of shards")
    shards = tuple(_shard(Fields(shard, f"splits.{name}.shards[{place}]")) for place, shard in enumerate(shards))
    split = Split(fields.text("fingerprint"), fields.whole("shard_count"), shards)
    count = fields.whole("count")
    if split.count != count:
        raise ValueError(f"the shards of {name!r} have {number_of(split.count, 'record')}, not {count:,}")
    fields.end()
    return split


def _shard(fields: Fields) -> Shard:
    file = fields.text("file")
    if Path(file).name != file or file in ("", "..") or "\0" in file:  # a path could lead to any file
        raise fields.error("file", file, "the name of a file in the manifest's folder")
    skipped = fields.take("skipped")
    # Paths can have bytes that are not text.
    if not isinstance(skipped, dict) or not all(isinstance(reason, str) for reason in skipped.values()):
        raise fields.error("skipped", skipped, "an object of reasons by path")
    shard = Shard(file, fields.whole("count"), fields.whole("bytes"), fields.text("sha256"), skipped)
    fields.end()
    return shard


def load_manifest(folder: str | os.PathLike) -> Manifest:
    """Returns the manifest of a folder that `write_records` has finished.

    Raises:
        ValueError: the manifest is missing or damaged.
    """
    path = Path(folder, MANIFEST)
    if not path.is_file():
        if Path(folder, UNFINISHED).is_file():
            raise ValueError(f"{os.fspath(folder)}: its records are unfinished; run `polynet records` again")
        raise ValueError(f"{os.fspath(folder)}: holds no {MANIFEST}; name a folder that `polynet records` has written")
    manifest = Manifest.load(path)
    for name, split in manifest.splits.items():
        if len(split.shards) != split.shard_count:
            raise ValueError(
                f"{path}: names {len(split.shards)} of {number_of(split.shard_count, 'shard')} of {name!r}"
            )
    return manifest


def verify_records(folder: str | os.PathLike) -> tuple[str, ...]:
    """Reads all shards again and compares them with the manifest.

    Args:
        folder: folder of records and their manifest.

    Returns:
        The path and the fault of each damaged shard; empty if the records are undamaged.

    Raises:
        ValueError: the manifest is missing or damaged.

    Examples:
        >>> _ = write_records(photos, folder / "records", processes=1)
        >>> verify_records(folder / "records")
        ()
    """
    shards = [shard for split in load_manifest(folder).splits.values() for shard in split.shards]
    damages = []
    with tqdm(total=sum(shard.bytes for shard in shards), unit="B", unit_scale=True, disable=None) as bar:
        for shard in shards:
            path = Path(folder, shard.file)
            found = damage(path, shard)
            if found:
                damages.append(f"{path}: {found}")
            bar.update(shard.bytes)
    return tuple(damages)


def damage(path: Path, shard: Shard) -> str | None:
    """Returns the fault of a shard's file; None if it is unchanged."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != shard.bytes:
        return f"has {path.stat().st_size:,} bytes, not {shard.bytes:,}"
    return None if file_hash(path) == shard.sha256 else "its SHA-256 is not the one in the manifest"
