"""Network outputs of image files, at the speed of the input pipeline, even if some files are unreadable."""

from collections.abc import Iterator

import keras
import numpy as np

from polynet_keras.basics.names import shown
from polynet_keras.basics.progress import progress
from polynet_keras.basics.stderr_filter import warned
from polynet_keras.data.crops import crop_plan, least_side
from polynet_keras.data.image_files import read_image
from polynet_keras.data.image_paths import ImagePaths
from polynet_keras.evaluation.scoring import Scoring, crop_logits, scored

Output = tuple[int, np.ndarray | None, str]
"""The index of a file, and its outputs (crops, numbers) or the reason why it cannot be read."""


def image_outputs(model: Scoring, images: ImagePaths, crops: int = 1, batch_size: int = 32) -> Iterator[Output]:
    """Reads image files, preprocesses them and runs the network on them, with a progress bar.

    Args:
        model: the network, and its protocol.
        images: the image files.
        crops: crops per image: 1, 10 or 144.
        batch_size: images, or crops of one image, in one forward pass.

    Yields:
        One output for each file, in their order.
    """
    reasons = dict(images.refused)
    following = 0

    def failed_before(index: int) -> Iterator[Output]:
        nonlocal following
        for i in range(following, index):
            yield i, None, reasons[i].removeprefix(f"{shown(images.paths[i])}: ")
        following = index + 1

    if images.sizes:
        if crops == 1:  # all batches have one size; the last one has as few empty places as possible
            count = len(images.sizes)
            batch_size = -(-count // -(-count // batch_size))
        is_tensorflow = keras.backend.backend() == "tensorflow"
        for outputs, indices in (_piped if is_tensorflow else _plain)(model, images, crops, batch_size, reasons):
            for index, output in zip(indices.tolist(), outputs, strict=True):
                yield from failed_before(index)
                yield index, output, ""
    yield from failed_before(len(images))


Batches = Iterator[tuple[np.ndarray, np.ndarray]]
"""Outputs (images, crops, numbers) and indices (images,), ascending, of the readable files."""


def _piped(model: Scoring, images: ImagePaths, crops: int, batch_size: int, reasons: dict[int, str]) -> Batches:
    """Reads, decodes and preprocesses images in many threads beside the model."""
    from polynet_keras.data.decoder_warnings import log_damaged
    from polynet_keras.data.sources import unlabelled_files
    from polynet_keras.data.unreadable import Unreadable

    places = np.fromiter(images.sizes, "int64")
    paths = [images.paths[place] for place in places]
    examples = unlabelled_files(paths, tuple(images.sizes.values()), model.class_names, model.preprocessing.channels)
    unreadable = Unreadable("skip")
    told = 0
    for logits, _, indices in scored(model, examples, unreadable, batch_size=batch_size, crops=crops):
        # Dictionaries keep the order, while other threads continue to read.
        for index in list(unreadable.skipped)[told:]:
            reasons[int(places[index])] = unreadable.skipped[index]
            told += 1
        yield logits, places[indices]
    reasons.update((int(places[index]), reason) for index, reason in unreadable.skipped.items())
    if warned():
        log_damaged(examples)


def _plain(model: Scoring, images: ImagePaths, crops: int, batch_size: int, reasons: dict[int, str]) -> Batches:
    """Reads one image after the other, without TensorFlow, which other backends do not need."""
    waiting: list[np.ndarray] = []
    indices: list[int] = []

    def batch() -> tuple[np.ndarray, np.ndarray]:
        inputs = np.stack(waiting)
        if keras.config.image_data_format() == "channels_first":
            inputs = np.moveaxis(inputs, -1, 1)
        result = model.logits(inputs)[:, np.newaxis], np.array(indices)
        waiting.clear()
        indices.clear()
        return result

    preprocessing = model.preprocessing
    with progress(len(images.sizes)) as advance:
        for index in images.sizes:
            path = images.paths[index]
            advance(1)
            try:
                image = read_image(path, preprocessing.channels, least_side(preprocessing, crops))
                if crops == 1:
                    waiting.append(preprocessing(image))
                    indices.append(index)
                else:
                    height, width, _ = image.shape
                    plan = crop_plan(height, width, preprocessing, crops)
            except ValueError as error:
                reasons[index] = str(error)
                continue
            if crops > 1:
                yield crop_logits(model.logits, image, preprocessing, plan, batch_size)[np.newaxis], np.array([index])
            elif len(waiting) == batch_size:
                yield batch()
        if waiting:
            yield batch()
