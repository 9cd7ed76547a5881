"""The signature `classify` of a SavedModel, with the preprocessing inside: from image files to class names."""

import io
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics.names import number_of
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.image_headers import JPEG_SIGNATURE, MAX_PIXELS, MAX_SCANS, PNG_SIGNATURE, START_OF_SCAN
from polynet_keras.data.resizing import normalizer, resize
from polynet_keras.data.tensorflow_decoders import decode_jpeg, has_at_most, png_sides, whole
from polynet_keras.deployment.comparing import LARGEST_DIFFERENCE
from polynet_keras.evaluation.loading import TrainedModel

TOP = 5


def classifier(model: keras.Model, trained: TrainedModel) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """Returns the function of the signature for `model`, the network of `trained`, with its preprocessing.

    It maps `encoded`, strings (batch,), each a JPEG or PNG file, to `classes`, strings (batch, k), and `scores`,
    float32 (batch, k), best first, where k is the smaller of 5 and the number of classes. It ignores EXIF orientations,
    and reads PNGs of 16 bits as 8. TensorFlow's libjpeg fills in the last scans that a progressive JPEG lacks. The call
    fails for other files, and for files of more than `MAX_PIXELS` pixels or `MAX_SCANS` scans.
    """
    preprocessing = trained.preprocessing
    size, channels = preprocessing.image_size, preprocessing.channels
    names = tf.constant(trained.class_names)
    normalize = normalizer(preprocessing)

    def prepared(encoded: tf.Tensor) -> tf.Tensor:
        image = decode(encoded, channels, preprocessing.least_side)
        high, wide, fits = preprocessing.resized_sides(*tf.unstack(tf.shape(image, tf.int64)[:2]))
        with tf.control_dependencies([tf.debugging.Assert(fits, ["the image is too narrow to be resized"])]):
            image = resize(image, tf.cast(tf.stack([high, wide]), tf.int32), preprocessing)
        height, width = tf.unstack(tf.shape(image)[:2])
        top, left, bottom, right = preprocessing.crop_box(height, width)
        return normalize(tf.ensure_shape(image[top:bottom, left:right], (size, size, channels)))

    def classify(encoded):
        shape = tf.TensorSpec((size, size, channels), tf.float32)
        images = tf.map_fn(tf.autograph.experimental.do_not_convert(prepared), encoded, fn_output_signature=shape)
        scores, best = tf.math.top_k(model(images, training=False), min(TOP, len(trained.class_names)))
        return {"classes": tf.gather(names, best), "scores": scores}

    return classify


def decode(encoded: tf.Tensor, channels: int, least_side: int | None = None) -> tf.Tensor:
    """Decodes a JPEG or PNG to uint8 (height, width, channels), by TensorFlow's operations; other files are errors.

    The pixels are those of `decode_image`: opaque if the file has no alpha, and grey with the same weights of the
    colours.
    """
    is_jpeg = tf.strings.substr(encoded, 0, 3) == JPEG_SIGNATURE
    is_png = tf.strings.substr(encoded, 0, 8) == PNG_SIGNATURE
    check = tf.debugging.Assert(is_jpeg | is_png, ["expected the bytes of a JPEG or a PNG file"])
    with tf.control_dependencies([check]):
        image = tf.cond(
            is_png, lambda: _png(encoded, 4 if channels == 4 else 3), lambda: _jpeg(encoded, channels, least_side)
        )
    return tf.ensure_shape(_grey(image) if channels == 1 else image, (None, None, channels))


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Converts RGB to grey as Pillow's mode "L" (ITU-R BT.601, in 16 bits); TensorFlow's decoders differ slightly."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    return tf.cast((19595 * red + 38470 * green + 7471 * blue + 32768) // 65536, tf.uint8)[..., tf.newaxis]


def _png(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    check = tf.debugging.Assert(tf.strings.length(encoded) > 24, ["the PNG file ends in its header"])
    with tf.control_dependencies([check]):
        sides = png_sides(encoded)
    with tf.control_dependencies([_few_pixels(sides)]):
        return tf.io.decode_png(encoded, channels)


def _jpeg(encoded: tf.Tensor, channels: int, least_side: int | None) -> tf.Tensor:
    scans = tf.size(tf.strings.split([encoded], START_OF_SCAN, MAX_SCANS + 1).values) - 1
    few_scans = tf.debugging.Assert(scans <= MAX_SCANS, [f"the JPEG has over {MAX_SCANS} scans"])
    rows, columns = tf.unstack(tf.io.extract_jpeg_shape(encoded)[:2])
    with tf.control_dependencies([few_scans, _few_pixels(tf.stack([rows, columns]))]):
        image = decode_jpeg(encoded, 3, whole(rows, columns), least_side)
    # A JPEG has no alpha.
    return tf.pad(image, [(0, 0), (0, 0), (0, 1)], constant_values=255) if channels == 4 else image


def _few_pixels(sides: tf.Tensor) -> tf.Operation:
    """Asserts the pixel limit before decoding: a few kilobytes can claim to be gigabytes of pixels."""
    fits = has_at_most(MAX_PIXELS, sides[0], sides[1])
    return tf.debugging.Assert(fits, [f"the image is over {MAX_PIXELS:,} pixels"])


def compare_classify(folder: Path, trained: TrainedModel) -> None:
    """Runs the signature `classify` on image files, and compares it with the model on Pillow's pixels.

    Args:
        folder: folder of the SavedModel.
        trained: the exported model.

    Raises:
        ValueError: the signature fails, or its names or scores differ.
    """
    files, protocol, tolerance = encoded_photographs(), trained.preprocessing, LARGEST_DIFFERENCE["float32"]
    side = protocol.least_side
    images = np.stack([protocol(decode_image(file, protocol.channels, "", least_side=side)) for file in files])
    expected = trained.probabilities(images)
    loaded = tf.saved_model.load(str(folder))
    try:
        found = loaded.signatures["classify"](encoded=tf.constant(files))
    except tf.errors.OpError as error:
        raise ValueError(f"the signature classify fails: {plain_message(error)}. Nothing was written") from error
    scores, names = found["scores"].numpy(), found["classes"].numpy()
    difference = float(np.abs(scores + np.sort(-expected, axis=1)[:, : scores.shape[1]]).max())
    # Any class with this name and score: either of two equal ones may come first.
    named = np.array([name.encode() for name in trained.class_names]) == names[..., np.newaxis]
    scored = np.abs(expected[:, np.newaxis] - scores[..., np.newaxis]) <= tolerance
    wrong = ~(named & scored).any(axis=-1)
    if difference > tolerance or wrong.any():
        raise ValueError(
            f"the signature classify differs from Keras on {number_of(len(files), 'image file')}: scores by "
            f"{difference:.2g}, of which {tolerance:g} is explained, and {wrong.sum()} of {wrong.size} names. "
            "Nothing was written"
        )


def encoded_photographs() -> list[bytes]:
    """Returns scikit-learn's two photographs as image files: each a JPEG and a PNG."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    files = []
    for photograph in load_sample_images().images:
        for format in ("JPEG", "PNG"):
            file = io.BytesIO()
            Image.fromarray(photograph).save(file, format)
            files.append(file.getvalue())
    return files
