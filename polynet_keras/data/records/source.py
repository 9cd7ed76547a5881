"""TFRecords with a manifest as a source."""

import os
from pathlib import Path

from polynet_keras.basics.names import number_of, shown
from polynet_keras.data.examples import Examples
from polynet_keras.data.records.features import Features
from polynet_keras.data.records.manifest import fingerprint_of, load_manifest
from polynet_keras.data.records.read import record_reader


def record_splits(folder: str | os.PathLike) -> dict[str, Examples]:
    """Opens the splits of a folder of records that `polynet records` has written or described.

    Raises:
        ValueError: the manifest or a file is damaged, or missing.
    """
    manifest = load_manifest(folder)
    splits = {}
    for name, split in manifest.splits.items():
        paths = [Path(folder, shard.file) for shard in split.shards]
        for path, shard in zip(paths, split.shards, strict=True):
            found = path.stat().st_size if path.is_file() else None
            if found != shard.bytes:
                state = "is missing" if found is None else f"has {found:,} bytes, not {shard.bytes:,}"
                raise ValueError(f"{path}: {state}; `polynet records --verify {os.fspath(folder)}` tells what else")
        features = Features(first_label=manifest.first_label)
        count, read, name_of = record_reader(paths, features, len(manifest.class_names))
        if count != split.count:
            told = f"{number_of(count, 'record')} of {name!r}"
            raise ValueError(f"{os.fspath(folder)}: {told}, its manifest says {split.count}")
        splits[name] = Examples(
            name=f"{shown(folder)}, {name}",
            class_names=manifest.class_names,
            channels=manifest.channels,
            count=count,
            read=read,
            name_of=name_of,
            # Of the records, not of the images that they were made of: order and skipped images tell them apart.
            fingerprint=fingerprint_of(split.shards),
        )
    return splits
