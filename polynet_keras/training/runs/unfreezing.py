"""Gradual unfreezing within one call of `fit`."""

from typing import Any

import keras
from absl import logging

from polynet_keras.cluster.workers import is_chief
from polynet_keras.training.fine_tuning import freeze
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

    Args:
        recipe: recipe of the run.
        steps_per_epoch: steps per epoch of its training data.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int):
        super().__init__()
        self._recipe = recipe
        self._steps_per_epoch = steps_per_epoch
        self._first: int | None = None  # first epoch of the current phase

    def on_epoch_begin(self, epoch, logs=None):
        first = 0
        for phase in self._recipe.phases:
            if epoch < first + phase.epochs:
                break
            first += phase.epochs
        if first == self._first:
            return
        self._first = first
        model: Any = self.model
        start, optimizer = self._recipe.start, model.optimizer
        freeze(model, start.frozen_through, start.frozen_normalizations)
        with model.distribute_strategy.scope():
            if not optimizer.built:
                optimizer.build(model.trainable_variables)
            if epoch == first > 0:
                fresh = type(optimizer).from_config(optimizer.get_config())
                fresh.build(model.trainable_variables)
                for variable, value in zip(optimizer.variables, fresh.variables, strict=True):
                    variable.assign(keras.ops.convert_to_numpy(value))
        optimizer.learning_rate = phase_schedule(self._recipe, phase, self._steps_per_epoch)
        freeze(model, phase.frozen_through, start.frozen_normalizations)
        model.make_train_function(force=True)
        if is_chief(model.distribute_strategy):
            rate = phase.learning_rate or self._recipe.schedule.learning_rate
            frozen = f"frozen through {phase.frozen_through}" if phase.frozen_through else "nothing is frozen"
            until = first + phase.epochs
            logging.info("epochs %d to %d: %s, learning rate %g", first + 1, until, frozen, rate)
