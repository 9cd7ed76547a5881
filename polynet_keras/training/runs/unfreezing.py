"""Gradual unfreezing within one call of `fit`."""

from typing import Any

import keras

from polynet_keras.basics.news import tell
from polynet_keras.checkpoints.position import Position
from polynet_keras.cluster.workers import is_chief, model_strategy
from polynet_keras.training.fine_tuning import freeze
from polynet_keras.training.making import make_optimizer
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.preparation import phase_schedule


class Unfreezing(keras.callbacks.Callback):
    """Begins each phase of a run at its first epoch: freezes its parts, and restarts optimizer and schedule.

    The optimizer is built for everything that the last phase trains, and gets the gradients of the current phase's
    variables. So a checkpoint of any phase holds the same variables, and one `fit` with its callbacks and data covers
    the run. A new phase resets the optimizer to its first values, including its step count: AdamW corrects its moments
    by the count, and would otherwise take steps several times too large for newly trained weights. The averages restart
    too.

    The callback must stand before the callbacks that save: when a training resumes within a phase, they restore the
    optimizer's values.

    On JAX Keras's step needs the gradients of all variables that the optimizer is built for. There each phase has an
    optimizer of its own, and a checkpoint holds the variables of the phase that it was written in.

    Args:
        recipe: recipe of the run.
        steps_per_epoch: steps per epoch of its training data.
        place: position where the run begins or resumes.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int, place: Position | None = None):
        super().__init__()
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._place = place or Position()
        self._first: int | None = None  # first epoch of the current phase

    def on_train_begin(self, logs=None):
        if keras.backend.backend() == "jax":
            # What is saved at the end of a phase, `Checkpoints` restores into this phase's optimizer.
            self._begin(max(0, self._place.epoch - (self._place.step == 0)))

    def on_epoch_begin(self, epoch, logs=None):
        self._begin(epoch)

    def _begin(self, epoch: int) -> None:
        """Begins the phase of an epoch, unless it is the current one."""
        first = 0
        for phase in self._recipe.phases:
            if epoch < first + phase.epochs:
                break
            first += phase.epochs
        if first == self._first:
            return
        self._first = first
        model: Any = self.model
        start, schedule = self._recipe.start, phase_schedule(self._recipe, phase, self._steps_per_epoch)
        if keras.backend.backend() == "jax":
            freeze(model, phase.frozen_through, start.frozen_normalizations)
            self._replace_optimizer(schedule)
        else:
            self._restart_optimizer(schedule, anew=epoch == first > 0)
            freeze(model, phase.frozen_through, start.frozen_normalizations)
        model.make_train_function(force=True)
        if is_chief(model_strategy(model)):
            rate = phase.learning_rate or self._recipe.schedule.learning_rate
            frozen = f"frozen through {phase.frozen_through}" if phase.frozen_through else "nothing is frozen"
            until = first + phase.epochs
            tell("epochs %d to %d: %s, learning rate %g", first + 1, until, frozen, rate)

    def _restart_optimizer(self, schedule: keras.optimizers.schedules.LearningRateSchedule, anew: bool) -> None:
        """Sets the schedule of the optimizer, and if it begins anew its first values."""
        model: Any = self.model
        start, optimizer = self._recipe.start, model.optimizer
        freeze(model, start.frozen_through, start.frozen_normalizations)
        with model.distribute_strategy.scope():
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            if anew:
                fresh = type(optimizer).from_config(optimizer.get_config())
                fresh.build(model.trainable_variables)
                for variable, value in zip(optimizer.variables, fresh.variables, strict=True):
                    variable.assign(keras.ops.convert_to_numpy(value))
        optimizer.learning_rate = schedule

    def _replace_optimizer(self, schedule: keras.optimizers.schedules.LearningRateSchedule) -> None:
        """Gives the model a new optimizer for the variables that it trains now."""
        model: Any = self.model
        settings, decay = self._recipe.optimizer, self._recipe.regularization.weight_decay
        optimizer = make_optimizer(settings, schedule, decay, model)
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):  # as `compile` has it for float16
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
        optimizer.build(model.trainable_variables)
        model.optimizer = optimizer
