"""Runs on the backend that KERAS_BACKEND names; `test_on_jax.py` starts these programs.

    python on_jax.py first FOLDER    the initial weights of a PolyNet and the losses of its first two steps; the losses
                                     of ten steps that train the run FOLDER/trained further
    python on_jax.py run FOLDER      a run that nothing happens to, and one that kills itself
    python on_jax.py stop FOLDER     that run goes on, and gets SIGTERM in a validation
    python on_jax.py end FOLDER      that run goes on to its end; what is refused afterwards

But for the first, FOLDER has a folder `data` of images.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics.tuning import untuned
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.engine.network import Network
from polynet_keras.layers.batch_normalization import BatchNormalization
from polynet_keras.layers.stochastic_residual_scaling import StochasticResidualScaling
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.recipes.start import Start
from polynet_keras.training.runs import preparation
from polynet_keras.training.runs.dry_run import dry_run
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.find_learning_rate import find_learning_rate
from polynet_keras.training.runs.opening import opened
from polynet_keras.training.runs.train import train

TINY = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.1}


def one_unit(input_shape, classes, remat="none", **_):
    """A network of one residual unit, which compiles sooner than a PolyNet; takes `PolyNet`'s arguments."""
    image = keras.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, strides=8, name="stem_conv1")(image)
    x = keras.layers.ReLU()(BatchNormalization(name="stem_conv1_bn")(x))
    path = keras.layers.Conv2D(4, 3, padding="same", name="stage_b_01_f_conv")(x)
    path = BatchNormalization(name="stage_b_01_f_conv_bn")(path)
    x = StochasticResidualScaling(survival_probability=0.5, name="stage_b_01_sum_f")([x, path])
    x = keras.layers.GlobalAveragePooling2D()(x)
    y = keras.layers.Dense(classes, "softmax", dtype="float32", name="predictions")(x)
    model = Network(image, y)
    model.remat = remat
    return model


class First(keras.callbacks.Callback):
    """Records the loss of each step."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()  # the logs have the mean of an epoch so far

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))


def losses_of(recipe, steps, weights=None):
    """The losses of the first steps; the initial weights go to a file."""
    with opened(recipe, Execution()) as (source, strategy):
        keras.utils.set_random_seed(recipe.seed)
        prepared = preparation.preprocessing_of(recipe, source)
        training = preparation.training_data(recipe, source, prepared, Unreadable("error"), strategy, first_step=0)
        model = preparation.compiled_model(recipe, source, training.steps)
        if weights:
            np.savez(weights, **{str(number): np.array(variable) for number, variable in enumerate(model.weights)})
        recorded = First()
        model.fit(training.dataset, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[recorded])
    return recorded.losses


def first(folder):
    further = Recipe(
        **TINY,
        start=Start(str(folder / "trained"), frozen_normalizations=True),
        optimizer=OptimizerSettings("adamw"),
        schedule=ScheduleSettings("constant", 1e-4, warmup_share=0.0),
    )
    return {
        "losses": losses_of(Recipe(**TINY), 2, folder / f"{keras.backend.backend()}.npz"),
        "further": losses_of(further, 10),
    }


def settings(folder):
    """A run with all that a step can have: four steps an epoch, of which the last one is smaller, and three epochs."""
    preparation.PolyNet = one_unit
    recipe = Recipe(
        data=str(folder / "data"),
        epochs=3,
        batch_size=5,
        validation_share=0.2,
        remat="all",
        precision="mixed_bfloat16",
        optimizer=OptimizerSettings(gradient_accumulation_steps=2, ema_momentum=0.9, global_clipnorm=1.0),
        regularization=Regularization(0.01, stochastic_depth="on", max_drop_rate=0.5),
    )
    return recipe, Execution(save_every_steps=1)


class At(keras.callbacks.TensorBoard):
    """Sends this process a signal before a step of training or of validation."""

    train_step = test_step = number = None

    def on_train_batch_begin(self, batch, logs=None):
        if self.under_way == 1 and batch == At.train_step:
            os.kill(os.getpid(), At.number)

    def on_test_batch_begin(self, batch, logs=None):
        if self.under_way == 1 and batch == At.test_step:
            os.kill(os.getpid(), At.number)

    def on_epoch_begin(self, epoch, logs=None):
        self.under_way = epoch
        super().on_epoch_begin(epoch, logs)


def run(folder):
    recipe, execution = settings(folder)
    card = train(recipe, folder / "whole", execution).card
    (folder / "whole.json").write_text(json.dumps([card.held_out_correct, card.epoch]))
    At.train_step, At.number = 2, signal.SIGKILL
    keras.callbacks.TensorBoard = At
    train(recipe, folder / "run", execution)


def stop(folder):
    At.test_step, At.number = 0, signal.SIGTERM
    keras.callbacks.TensorBoard = At
    train(settings(folder)[0], folder / "run", settings(folder)[1])


def end(folder):
    recipe, execution = settings(folder)
    card = train(recipe, folder / "run", execution).card
    models = [keras.saving.load_model(folder / name / "model.keras") for name in ("run", "whole")]
    ours, theirs = ([*model.weights, *model.optimizer.variables] for model in models)

    def error_of(call):
        try:
            call()
        except ValueError as error:
            return str(error)

    tried = dry_run(recipe)
    return {
        "card": [card.held_out_correct, card.epoch],
        "same": [np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)],
        "again": error_of(lambda: train(recipe, folder / "run", execution)),
        "begun on TensorFlow": error_of(lambda: train(recipe, folder / "tensorflow", execution)),
        "dry run": [tried.epochs, tried.steps],
        "range": len(find_learning_rate(recipe).rates),
    }


if __name__ == "__main__":
    # As in the process of the tests: an iterator that is tuned may wait a minute for its end.
    tf.data.Dataset._apply_debug_options = untuned
    found = {"first": first, "run": run, "stop": stop, "end": end}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps({"backend": keras.backend.backend(), **(found or {})}))
