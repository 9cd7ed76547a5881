"""A dry run: a few steps of a run, to see whether it works and how long it takes; it leaves no files."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from polynet_keras.cluster.workers import is_chief, scope_of
from polynet_keras.data.unreadable import Unreadable, reading
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.checking import check_dry_run
from polynet_keras.training.runs.divergence import StopOnDivergence
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.opening import opened, tell_of_data
from polynet_keras.training.runs.preparation import compiled_model, held_out_data, preprocessing_of, training_data
from polynet_keras.training.runs.progress import tell_of_compilation

STEPS = 4
"""Number of steps. The median of the last three is a full step, even if an epoch's last one is smaller and retraced."""
HELD_OUT_BATCHES = 4
"""Number of held-out batches that are timed, if there are as many. The first one takes longer: reading has to start."""


@dataclass(frozen=True)
class DryRun:
    """The results of the first steps.

    Attributes:
        loss: of the first training batch.
        held_out_loss: of the first held-out batch, after the steps.
        seconds: time of the first step, compilation included.
        held_out_seconds: time of the held-out batch, compilation included.
        next_seconds: median time of a later step.
        validation_seconds: estimated time of the validation after an epoch.
        epochs, steps: number of epochs in the run, and of steps in an epoch.

    Examples:
        >>> times = {"seconds": 8.0, "held_out_seconds": 2.0, "next_seconds": 0.25, "validation_seconds": 1.0}
        >>> found = DryRun(loss=2.5, held_out_loss=2.3, **times, epochs=10, steps=40)
        >>> found.run_seconds
        110.0
    """

    loss: float
    held_out_loss: float
    seconds: float
    held_out_seconds: float
    next_seconds: float
    validation_seconds: float
    epochs: int
    steps: int

    @property
    def run_seconds(self) -> float:
        """An estimate of the time for training and validation, in seconds, without starting and saving.

        It is too low if reading images is slower than the network: the batches of the later steps were prepared while
        the first one was traced.
        """
        return self.epochs * (self.steps * self.next_seconds + self.validation_seconds)


class _Steps(keras.callbacks.Callback):
    """Records the loss of the first step, and the end time of each step and of each held-out batch."""

    def __init__(self):
        super().__init__()
        self.loss, self.ends = math.nan, []

    def on_train_batch_end(self, batch, logs=None):
        if not self.ends:
            self.loss = float(logs["loss"])
        self.ends.append(time.monotonic())

    def on_test_batch_end(self, batch, logs=None):
        self.ends.append(time.monotonic())


def dry_run(recipe: Recipe, execution: Execution | None = None, *, strict: bool = False) -> DryRun:
    """Runs the first steps of `train`, the first of which includes tracing, and evaluates a few held-out batches.

    Args:
        recipe: as in `train`.
        execution: as in `train`.
        strict: as in `train`.

    Raises:
        DivergenceError: the loss of a step is not finite.
        ValueError: as `train`, or the recipe caches features.
        PeerFailure: as `train`.

    Examples:
        >>> recipe = Recipe(data=str(photos), structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, epochs=1)
        >>> found = dry_run(recipe)
        >>> found.epochs, found.steps
        (1, 1)
        >>> found.next_seconds < found.seconds  # which includes compilation
        True
    """
    check_dry_run(recipe)
    with opened(recipe, execution or Execution()) as (source, strategy):
        keras.utils.set_random_seed(recipe.seed)
        tell_of_data(recipe, source, strategy, strict)
        preprocessing = preprocessing_of(recipe, source)
        unread, unread_held_out = Unreadable(recipe.on_error), Unreadable(recipe.on_error)
        training = training_data(recipe, source, preprocessing, unread, strategy, first_step=0)
        held_out = held_out_data(recipe, source.held_out, preprocessing, unread_held_out, strategy)
        with scope_of(strategy):
            model = compiled_model(recipe, source, training.steps)
            model.gradient_dtype = (execution or Execution()).gradient_dtype
        with reading(unread, unread_held_out):
            if is_chief(strategy):
                tell_of_compilation()
            began, steps = time.monotonic(), _Steps()
            model.fit(
                training.dataset,
                steps_per_epoch=STEPS,
                shuffle=False,
                verbose=0,
                callbacks=[StopOnDivergence(), steps],
            )
            trained = time.monotonic()
            held_out_loss = model.evaluate(held_out, steps=1, verbose=0)[0]
            evaluated, batches = time.monotonic(), _Steps()
            full = len(source.held_out) // recipe.batch_size
            model.evaluate(held_out, steps=max(1, min(HELD_OUT_BATCHES, full)), verbose=0, callbacks=[batches])
        count = -(-len(source.validation or source.held_out) // recipe.batch_size)
        return DryRun(
            loss=steps.loss,
            held_out_loss=float(held_out_loss),
            seconds=steps.ends[0] - began,
            held_out_seconds=evaluated - trained,
            next_seconds=float(np.median(np.diff(steps.ends))),
            validation_seconds=validation_seconds([evaluated, *batches.ends], count),
            epochs=recipe.epochs,
            steps=training.steps,
        )


def validation_seconds(times: Sequence[float], batches: int) -> float:
    """Estimates the time of a validation.

    Args:
        times: the start, and the end of each batch that was evaluated; of the first one reading has to start.
        batches: number of batches of the validation.
    """
    first, *others = np.diff(times)
    return float(first + (batches - 1) * np.median(others or first))
