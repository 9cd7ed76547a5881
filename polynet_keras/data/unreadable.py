"""What becomes of images that cannot be read: the end of a pipeline, or a list of what was skipped."""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from polynet_keras.basics.checks import check_choice
from polynet_keras.basics.tensorflow_errors import plain_message
from polynet_keras.data.image_files import ON_ERROR

LISTED = 20
"""How many skipped images are listed by name."""

READING_ERRORS = (tf.errors.NotFoundError, tf.errors.DataLossError, tf.errors.PermissionDeniedError)
"""What a file that vanished or a record that was damaged raises; the message names it."""

OF_THE_FILE = (
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.OutOfRangeError,
    tf.errors.FailedPreconditionError,  # it is a folder
)
"""What is wrong with a file, and will be the next time; everything else is the storage's."""


class Unreadable:
    """What to do about images that cannot be read, and which those were.

    Attributes:
        on_error: `"error"` ends the pipeline, `"skip"` goes on without the image.
        error: what ended the pipeline and names the image, where TensorFlow's own error does not: a `ValueError`, or an
            `OSError` where the storage failed and the image may be as good as any.
        skipped: for the index of each image that was skipped, why.
    """

    def __init__(self, on_error: str = "error"):
        check_choice("on_error", on_error, ON_ERROR)
        self.on_error = on_error
        self.error: ValueError | OSError | None = None
        self.skipped: dict[int, str] = {}

    def add(self, index: int, error: ValueError) -> None:
        """Takes an image that cannot be read; under `"error"` raises its error."""
        self.keep(index, error)
        if self.on_error == "error":
            raise error

    def keep(self, index: int, error: ValueError) -> None:
        """Takes an image that cannot be read, inside a graph: `refused` ends that."""
        if self.on_error == "error":
            self.error = self.error or error
        else:
            self.skipped[index] = str(error)

    def refused(self, *nothing: tf.Tensor) -> list[tf.Tensor]:
        """What an image that was kept is replaced by; inside a graph, under `"error"`, the end of the pipeline.

        TensorFlow writes a traceback to standard error for each exception of a Python function, and none for this.
        """
        if self.on_error == "skip" or tf.executing_eagerly():
            return list(nothing)
        with tf.control_dependencies(nothing):  # after it was kept
            end = tf.debugging.Assert(False, ["an image cannot be read"])
        with tf.control_dependencies([end]):
            return [tf.identity(one) for one in nothing]

    def log(self, count: int) -> None:
        """Lists what was skipped, of a dataset of `count` images."""
        if not self.skipped:
            return
        reasons = [self.skipped[index] for index in sorted(self.skipped)]
        more = f"\n  and {len(reasons) - LISTED} more" if len(reasons) > LISTED else ""
        listed = "\n  ".join(reasons[:LISTED])
        logging.warning("skipped %d of %d images that cannot be read:\n  %s%s", len(reasons), count, listed, more)


@contextlib.contextmanager
def reading(*unreadable: Unreadable) -> Iterator[None]:
    """Says which image or file it was where TensorFlow's error of a pipeline says an operation.

    Args:
        unreadable: those of all datasets that are read.

    Raises:
        ValueError: in place of an error of reading.
        OSError: likewise, where the storage failed.
    """
    try:
        yield
    except tf.errors.OpError as error:
        for one in unreadable:
            if one.error is not None:
                try:
                    raise one.error from None
                finally:  # the error knows this frame: both would keep each other, and the pipeline, alive
                    one.error = None
        if isinstance(error, READING_ERRORS) or "assertion failed" in error.message:
            raise ValueError(plain_message(error)) from None
        raise


@atexit.register
def _end_pipelines() -> None:
    """Ends what only the last error, or a cycle, still holds, while Python can still wait for it.

    As Python ends, a thread that asks for Python's lock is ended. An iterator that is destroyed after that waits for
    the answer of such a thread for ever: with TensorFlow 2.21, a process with an image that cannot be read did not end.
    """
    sys.last_value = sys.last_traceback = None
    if sys.version_info >= (3, 12):
        sys.last_exc = None
    gc.collect()
