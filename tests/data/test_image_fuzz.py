"""Files that are cut, spliced and mutated: no crash, no hang, no memory over a bound, and no error but `ValueError`."""

import contextlib
import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SECONDS = 20
MAX_PIXELS = 2_000_000
"""So that what takes no notice of it is seen."""
MEMORY = 1000
"""MiB of address space over that after the first images: what is allocated counts, whether it is used or not."""
WARM = 20
"""So many images at the beginning start threads and load libraries."""
SLOWEST = 10
"""Seconds for one file, on a machine that does other work as well."""


@pytest.mark.slow
def test_fuzz(tmp_path):
    """In a process of its own, which may crash; what it was at lies in a file."""
    file = tmp_path / "last"
    program = f"from tests.data.test_image_fuzz import fuzz; fuzz({str(file)!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=8 * 60)
    assert done.returncode == 0, f"of {file}: exit code {done.returncode}, {done.stderr[-2000:]}"
    readable, refused = map(int, done.stdout.split())
    assert readable > 20
    assert refused > 200


def fuzz(file: str, seed: int = 22) -> None:
    import tensorflow as tf

    from polynet_keras.data import decoding, image_files
    from tests.data.arrays import examples_of
    from tests.data.hostile import hostile_images
    from tests.data.test_image_headers import CLAIMS, burdened

    decoding.MAX_PIXELS = image_files.MAX_PIXELS = MAX_PIXELS
    corpus = [image.encoded for image in hostile_images() if image.encoded] + [
        encoded for encoded, _ in CLAIMS.values()
    ]
    corpus += [burdened(form) for form in ("JPEG", "PNG", "WEBP", "TIFF")]
    # The two ways of the pipelines: this one asks TensorFlow's decoders first.
    examples, unreadable, current = examples_of([b""]), decoding.Unreadable("skip"), [b""]

    def read(index):
        encoded = tf.numpy_function(lambda: current[0], [], tf.string)
        return tf.ensure_shape(encoded, ()), index

    examples = dataclasses.replace(examples, read=read)
    dataset = (
        tf.data.Dataset.from_tensors(tf.constant(0, tf.int64))
        .repeat()
        .map(
            tf.autograph.experimental.do_not_convert(lambda index: decoding.decode_region(index, examples, unreadable))
        )
    )
    pipeline = iter(dataset)
    rng = np.random.default_rng(seed)
    counts, start = [0, 0], time.monotonic()
    before = 0.0
    for number, encoded in enumerate(_mutants(corpus, rng)):
        Path(file).write_bytes(encoded)
        current[0], begun = encoded, time.monotonic()
        channels = (1, 3, 4)[number % 3]
        with contextlib.suppress(ValueError):
            assert image_files.decode_image(encoded, channels, "x").shape[2] == channels
        image, _, readable = next(pipeline)
        assert (tf.size(image) > 0) == readable
        counts[0 if readable else 1] += 1
        took = time.monotonic() - begun
        assert took < SLOWEST, f"{took:.1f} s"
        if number == WARM:
            before = _peak()
        assert not before or _peak() < before + MEMORY, f"{_peak() - before:.0f} MiB more"
        if number > len(corpus) and time.monotonic() > start + SECONDS:
            break
    print(*counts)


def _mutants(corpus, rng):
    yield from corpus
    while True:
        content = bytearray(corpus[rng.integers(len(corpus))][:300_000])
        for _ in range(rng.integers(1, 4)):
            if not content:
                break
            kind = rng.integers(4)
            # Headers say most, and are at the beginning, or, of TIFF, at the end.
            place = int(rng.integers(min(len(content), 400)))
            place = len(content) - 1 - place if rng.random() < 0.3 else place
            if kind == 0:  # a byte, or a number as large as it can be
                width = int(rng.choice([1, 2, 4]))
                content[place : place + width] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", rng.bytes(4)])[
                    :width
                ]
            elif kind == 1:
                del content[int(rng.integers(len(content))) :]
            elif kind == 2:  # a part of it twice, or often
                part = content[place : place + int(rng.integers(1, 200))]
                content[place:place] = part * int(rng.choice([1, 200]))
            else:  # the rest is another's
                other = corpus[rng.integers(len(corpus))][:300_000]
                content[place:] = other[min(place, len(other)) :]
        yield bytes(content)


def _peak() -> float:
    """MiB of address space that this process has held at most; elsewhere than on Linux 0."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return int(next(line for line in lines if line.startswith("VmPeak")).split()[1]) / 2**10
