"""The range test of the learning rate: a training whose rate grows from far too small to far too large."""

import math

import keras
from keras import ops
from tqdm import tqdm

from polynet_keras.basics.news import bar_disabled, tell
from polynet_keras.cluster.workers import scope_of
from polynet_keras.data.unreadable import Unreadable, reading
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.checking import check_range_test
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.learning_rate_range import LearningRateRange, check_one_worker
from polynet_keras.training.runs.opening import opened, tell_of_data
from polynet_keras.training.runs.preparation import compiled_model, preprocessing_of, training_data
from polynet_keras.training.runs.progress import tell_of_compilation

LOWEST, HIGHEST, UPDATES = 1e-7, 10.0, 100
"""The values of fastai's `lr_find`."""
LINE = 20
"""Updates between two log lines if there is no terminal."""
DIVERGED = 4.0
"""The test ends when the smoothed loss is above this multiple of its lowest value, as in fastai."""


def find_learning_rate(
    recipe: Recipe, execution: Execution | None = None, *, strict: bool = False
) -> LearningRateRange:
    """Trains for a hundred updates at rates that grow by a constant factor from 1e-7 to 10, and leaves no files.

    The test uses the whole recipe except its schedule: network and initial weights, data and augmentation,
    regularization and precision, and the optimizer with its accumulated steps, clipping and factors by part. It ends
    early if the loss is not finite, or if the smoothed loss exceeds four times its lowest value.

    Args:
        recipe: as in `train`.
        execution: as in `train`; one worker only.
        strict: as in `train`.

    Returns:
        Rates, losses, and the proposed rate.

    Raises:
        ValueError: as `train`; or there are several workers, or cached features.

    Source: Smith, "Cyclical learning rates for training neural networks", 2017 (arXiv:1506.01186), section 3.3, where
    the rates grow linearly and the accuracy is watched. Growth by a factor, the bias-corrected mean of the losses and
    the end are those of `lr_find` of fastai 2. The proposal is the rate at which this mean is lowest.

    Examples:
        >>> recipe = Recipe(data=str(photos), structure="1 x [ir] | 1 x [ir] | 1 x [ir]", width=0.1, epochs=1)
        >>> found = find_learning_rate(recipe)
        >>> f"{found.rates[0]:.0e}", found.updates
        ('1e-07', 100)
    """
    check_one_worker()
    check_range_test(recipe)
    accumulated = recipe.optimizer.gradient_accumulation_steps
    execution = execution or Execution()
    with opened(recipe, execution) as (source, strategy):
        keras.utils.set_random_seed(recipe.seed)
        tell_of_data(recipe, source, strategy, strict)
        unread = Unreadable(recipe.on_error)
        training = training_data(recipe, source, preprocessing_of(recipe, source), unread, strategy, first_step=0)
        with scope_of(strategy):
            model = compiled_model(recipe, source, training.steps)
            model.gradient_dtype = execution.gradient_dtype
        model.optimizer.learning_rate = _Rising(accumulated)
        tell_of_compilation()
        steps = _Steps(accumulated)
        with reading(unread), steps.progress:
            model.fit(
                training.dataset,
                steps_per_epoch=UPDATES * accumulated,
                shuffle=False,
                verbose=0,
                callbacks=[steps],
            )
        unread.log(len(source.training))
    return steps.found()


class _Rising(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that grows by a constant factor per update from `LOWEST` to `HIGHEST`."""

    def __init__(self, accumulated: int):
        super().__init__()
        self._accumulated = accumulated

    def __call__(self, step):
        update = ops.cast(ops.floor_divide(step, self._accumulated), "float32")
        return LOWEST * ops.exp(update * (math.log(HIGHEST / LOWEST) / (UPDATES - 1)))


class _Steps(keras.callbacks.Callback):
    """Records rate and loss of each update, and ends the test if the loss diverges."""

    def __init__(self, accumulated: int):
        super().__init__()
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.progress = tqdm(total=UPDATES, desc="range test", unit=" updates", disable=bar_disabled(), leave=False)
        self._accumulated = accumulated
        self._parts: list[float] = []
        self._rate = math.nan

    def found(self) -> LearningRateRange:
        """Returns the results of the updates so far."""
        return LearningRateRange(tuple(self.rates), tuple(self.losses), UPDATES)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()  # so that the logs have the loss of this batch alone
        # Asked, not counted: an update that overflows in float16 is left out, and the next one has the same rate.
        self._rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        self._parts.append(float(logs["loss"]))
        if not math.isfinite(self._parts[-1]):
            self.model.stop_training = True
            return
        if len(self._parts) < self._accumulated:
            return
        loss = sum(self._parts) / len(self._parts)
        self._parts = []
        self.rates.append(self._rate)
        self.losses.append(loss)
        smoothed = self.found().smoothed
        self.model.stop_training = bool(smoothed[-1] > DIVERGED * smoothed.min())
        self.progress.update()
        told = f"learning rate {self._rate:.1e}, loss {smoothed[-1]:.4f}"
        self.progress.set_postfix_str(told, refresh=False)
        if self.progress.disable and len(self.losses) % LINE == 0:
            tell("range test: %d of %d updates, %s", len(self.losses), UPDATES, told)
