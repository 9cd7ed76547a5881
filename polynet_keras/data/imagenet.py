"""The thousand classes of ImageNet (ILSVRC 2012), in the order of the published networks' outputs."""

import functools
import json
from pathlib import Path

CLASS_INDEX_FILE = Path(__file__).with_name("imagenet_class_index.json")
"""Byte for byte the file that `keras.applications` downloads (MD5 c2c37ea517e94d9795004a39431a14cb)."""


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Returns (WordNet id, name) by index of the output."""
    index = json.loads(CLASS_INDEX_FILE.read_text())
    return tuple((wordnet_id, name) for wordnet_id, name in (index[str(i)] for i in range(1000)))
