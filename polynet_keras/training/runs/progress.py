"""The progress of a run: a bar on a terminal, elsewhere a line per epoch and per minute."""

import math
import statistics
import time
from collections import deque

import keras
from tqdm import tqdm

from polynet_keras.basics.names import number_of
from polynet_keras.basics.news import bar_disabled, tell

REFRESH_SECONDS = 0.5
"""Seconds between two updates of loss and accuracy, on a terminal."""
PACES = 100
"""Number of latest steps that give the pace."""
LINE_SECONDS = 60
"""Seconds between two lines within an epoch, if there is no terminal."""


class ProgressDisplay(keras.callbacks.Callback):
    """Shows an epoch's progress, images per second and remaining time, and adds two columns to the logs.

    `images_per_second` covers an epoch's training steps, without validation and without the process's first step (which
    includes tracing); it is NaN if there were no others. `learning_rate` is the rate after the epoch. The callback must
    stand before the callbacks that write logs.

    Args:
        images: number of images in an epoch.
        batch_size: images per step.
        first_step: step of the first epoch where training really begins; earlier steps are only counted.
    """

    def __init__(self, images: int, batch_size: int, first_step: int = 0):
        super().__init__()
        self._images = images
        self._batch_size = batch_size
        self._first_step = first_step
        self._bar: tqdm | None = None
        self._is_traced = False
        self._paces: deque[float] = deque(maxlen=PACES)
        """Seconds an image, of the latest steps."""
        self._validations: list[float] = []
        """Seconds of each epoch's validation."""

    def on_epoch_begin(self, epoch, logs=None):
        before = min(self._images, self._first_step * self._batch_size)
        self._name = f"epoch {epoch + 1}/{self.params['epochs']}"
        self._left = self.params["epochs"] * self._images - epoch * self._images - before
        self._epochs_left = self.params["epochs"] - epoch - 1
        self._timed_images = 0
        self._timed_from = self._timed_to = self._shown = time.monotonic()
        self._bar = tqdm(
            total=self._images, initial=before, desc=self._name, unit=" images", disable=bar_disabled(), leave=False
        )

    def on_train_batch_end(self, batch, logs=None):
        if batch < self._first_step:
            return
        now = time.monotonic()
        done = min(self._images, (batch + 1) * self._batch_size)
        images = done - batch * self._batch_size
        self._left -= images
        if not self._is_traced:
            self._is_traced = True  # by this step
            self._timed_from = now
        else:
            self._timed_images += images
            self._paces.append((now - self._timed_to) / images)
        self._timed_to = now
        bar = self._bar
        if bar is None:
            return
        bar.update(images)
        if now - self._shown >= (LINE_SECONDS if bar.disable else REFRESH_SECONDS):
            self._shown = now
            if bar.disable:
                of = f"{done:,} of {number_of(self._images, 'image')}"
                tell("%s: %s, %s%s", self._name, of, _numbers(logs), self._to_go())
            else:
                bar.set_postfix_str(f"{_numbers(logs)}{self._to_go()}", refresh=False)

    def on_test_begin(self, logs=None):
        if self._bar is not None:
            self._bar.set_description(f"{self._name}, validation")

    def on_epoch_end(self, epoch, logs=None):
        self.close()
        self._first_step = 0
        self._validations.append(time.monotonic() - self._timed_to)
        seconds = self._timed_to - self._timed_from
        rate = self._timed_images / seconds if seconds else math.nan  # one step, which was traced, gives no rate
        pace = f"; {rate:.4g} images/s" if seconds else ""
        tell("%s: %s%s%s", self._name, _numbers(logs), pace, self._to_go())
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs["images_per_second"] = rate

    def close(self) -> None:
        """Removes the bar, after an epoch or when an error ended `fit`."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _to_go(self) -> str:
        """Returns the time to the end of the run, of steps and, after two epochs, of validations.

        What is compiled comes once: in the first step and validation, and on JAX in the first smaller batch. So the
        slowest of the latest steps does not count. The others have a mean, because an accelerator queues several steps.
        """
        if not self._paces or not self._left:
            return ""
        paces = sorted(self._paces)
        validation = min(self._validations[1:], default=0.0)
        seconds = statistics.fmean(paces[:-1] or paces) * self._left + validation * self._epochs_left
        return f"; about {duration(seconds)} left"


def tell_of_compilation() -> None:
    """Announces the first step, which shows nothing until it is done."""
    tell("the first step compiles the network, and takes much longer than the others")


def _numbers(logs) -> str:
    return ", ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())


def short_duration(seconds: float) -> str:
    """Formats a duration with two digits below a minute: `0.28 s`, `12 s`, `2 min 3 s`."""
    return f"{seconds:.2g} s" if seconds < 59.5 else duration(seconds)


def duration(seconds: float) -> str:
    """Formats a duration for people: `1 h 5 min`, `2 min 3 s`, `40 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
