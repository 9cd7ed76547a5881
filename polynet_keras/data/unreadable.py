"""Handling of unreadable images: the end of a pipeline, or a list of the skipped images."""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.names import number_of
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.image_files import ON_ERROR

LISTED = 20
"""Most skipped images that are listed by name."""

READING_ERRORS = (tf.errors.NotFoundError, tf.errors.DataLossError, tf.errors.PermissionDeniedError)
"""Errors of a file that vanished or a damaged record; the message names it."""

OF_THE_FILE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.FailedPreconditionError,  # it is a folder
)
"""Errors of a file itself, which occur again the next time; all others are the storage's."""


class Unreadable:
    """How to handle images that cannot be read, and a record of them.

    Attributes:
        on_error: `"error"` ends the pipeline, `"skip"` continues without the image.
        error: the error that ended the pipeline and names the image, if TensorFlow's own error does not: a
            `ValueError`, or an `OSError` if the storage failed and the image may be good.
        skipped: the reason for each skipped image, by index.

    Examples:
        >>> _ = (photos / "cat" / "broken.jpg").write_bytes(b"not an image")
        >>> unreadable = Unreadable("skip")
        >>> examples, preprocessing = open_split(photos), Preprocessing(16, 18)
        >>> batches = evaluation_batches(examples, preprocessing, batch_size=4, unreadable=unreadable)
        >>> sum(len(labels) for images, labels in validation_data(batches))
        10
        >>> len(unreadable.skipped)
        1
    """

    def __init__(self, on_error: str = "error"):
        check_choice("on_error", on_error, ON_ERROR)
        self.on_error = on_error
        self.error: ValueError | OSError | None = None
        self.skipped: dict[int, str] = {}

    def add(self, index: int, error: ValueError) -> None:
        """Records an image that cannot be read; under `"error"` raises its error."""
        self.keep(index, error)
        if self.on_error == "error":
            raise error

    def keep(self, index: int, error: ValueError) -> None:
        """Records an image that cannot be read, inside a graph; then `refused` ends the pipeline."""
        if self.on_error == "error":
            self.error = self.error or error
        else:
            self.skipped[index] = str(error)

    def refused(self, *nothing: tf.Tensor) -> list[tf.Tensor]:
        """Returns the replacement of a recorded image; inside a graph, under `"error"`, ends the pipeline.

        TensorFlow writes a traceback to standard error for each exception of a Python function, but not for this.
        """
        if self.on_error == "skip" or tf.executing_eagerly():
            return list(nothing)
        with tf.control_dependencies(nothing):  # after the error was kept
            end = tf.debugging.Assert(False, ["an image cannot be read"])
        with tf.control_dependencies([end]):
            return [tf.identity(one) for one in nothing]

    def log(self, count: int) -> None:
        """Logs the skipped images of a dataset of `count` images."""
        if not self.skipped:
            return
        reasons = [self.skipped[index] for index in sorted(self.skipped)]
        more = f"\n  and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
        listed = "\n  ".join(reasons[:LISTED])
        images = number_of(count, "image")
        logging.warning("skipped %d of %s that cannot be read:\n  %s%s", len(reasons), images, listed, more)


@contextlib.contextmanager
def reading(*unreadable: Unreadable) -> Iterator[None]:
    """Replaces errors of a pipeline, which name an operation, by errors that name the image or file.

    Args:
        unreadable: the records of all datasets that are read.

    Raises:
        ValueError: in place of an error of reading.
        OSError: in place of an error of the storage.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for one in unreadable:
            if one.error is not None:
                try:
                    raise one.error from None
                finally:  # the error refers to this frame: both would keep each other and the pipeline alive
                    one.error = None
        if isinstance(error, READING_ERRORS) or "assertion failed" in error.message:
            raise ValueError(plain_message(error)) from None
        raise


@atexit.register
def _end_pipelines() -> None:
    """Ends pipelines that only the last error, or a cycle, still holds, while Python can still wait for them.

    When Python ends, a thread that asks for Python's lock is ended. An iterator that is destroyed after that waits for
    such a thread for ever: with TensorFlow 2.21, a process with an unreadable image did not end.
    """
    sys.last_value = sys.last_traceback = None
    if sys.version_info >= (3, 12):
        sys.last_exc = None
    gc.collect()
