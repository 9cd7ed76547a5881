"""Finds the names of damaged images when a decoder only warns of damage."""

import os
import tempfile
import time

import tensorflow as tf
from absl import logging

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import tell
from polynet_keras.basics.stderr_filter import WARNING
from polynet_keras.data.examples import Examples
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.image_headers import claimed_pixels, jpeg_orientation

JPEG = b"\xff\xd8\xff"
TIFF = b"II*\0", b"MM\0*"
LISTED = 20
"""Most damaged images that are listed by name."""
SECONDS = 20.0
"""Most seconds for the search for damaged images."""


def log_damaged(*datasets: Examples) -> None:
    """Logs the names of images that make a decoder warn."""
    count = sum(map(len, datasets))
    tell("a decoder has warned of damaged images; looking for them, for at most %d seconds", SECONDS)
    looked_at, found, stop = 0, [], time.monotonic() + SECONDS
    for examples in datasets:
        for index in range(len(examples)):
            if time.monotonic() > stop:
                break
            looked_at += 1
            try:
                # Twice: the warning may be of an image that another thread decodes.
                if _warning(examples, index) and (warning := _warning(examples, index)):
                    found.append(f"{examples.shown_name(index)}: {warning}")
            except OSError as error:
                logging.warning("damaged images cannot be looked for: %s", error)
                return
    images = number_of(count, "image") if looked_at == count else f"the first {looked_at:,} of {count:,} images"
    if not found:
        logging.warning("none of %s is damaged", images)
        return
    more = f"\n  and {len(found) - LISTED} more" if len(found) > LISTED else ""
    listed = "\n  ".join(found[:LISTED])
    what = "damaged, and used as far as they can be decoded"
    logging.warning("%d of %s are %s:\n  %s%s", len(found), images, what, listed, more)


def _warning(examples: Examples, index: int) -> str:
    """Returns a decoder's warning about an image that it decodes, in one line; empty if there is none."""
    try:
        encoded = examples.read(tf.constant(index, tf.int64))[0].numpy()
    except tf.errors.OpError:
        return ""
    is_jpeg = encoded.startswith(JPEG)
    # Pillow reads or refuses an incomplete JPEG without a warning.
    if not (jpeg_orientation(encoded) if is_jpeg else encoded.startswith(TIFF)) or not claimed_pixels(encoded):
        return ""
    with tempfile.TemporaryFile() as captured:
        before, decoded = os.dup(2), False
        os.dup2(captured.fileno(), 2)
        try:
            if is_jpeg:
                tf.io.decode_jpeg(encoded)
            else:
                decode_image(encoded, examples.channels, "")
            decoded = True
        except (tf.errors.OpError, ValueError):
            pass  # it is refused elsewhere, and named
        finally:
            os.dup2(before, 2)
            os.close(before)
        captured.seek(0)
        written = captured.read()
    if other := WARNING.sub(b"", written):
        os.write(2, other)  # a line of another thread
    match = WARNING.search(written)
    if match is None or not decoded:
        return ""
    warning = match[0].decode(errors="replace").strip().removeprefix("tempfile.tif: ")
    return warning[0].lower() + warning[1:]  # as it was, the filter would take it for another warning
