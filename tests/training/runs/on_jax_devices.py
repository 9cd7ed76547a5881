"""Runs on several devices of JAX, and in several processes; `test_on_jax_devices.py` starts these programs.

python on_jax_devices.py devices FOLDER    with four devices: runs on one, two and four, and one that kills itself
python on_jax_devices.py end FOLDER        that run goes on to its end; what else works on four devices
python on_jax_devices.py worker FOLDER     a worker of `polynet launch`, one of which gets two signals
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import jax
import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics.tuning import untuned
from polynet_keras.cluster.cluster import Cluster
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.runs import fitting, preparation
from polynet_keras.training.runs.divergence import StopOnDivergence
from polynet_keras.training.runs.execution import Execution
from polynet_keras.training.runs.opening import opened
from polynet_keras.training.runs.train import train
from tests.training.runs.on_jax import one_unit

DEVICES = ("devices", "local_devices", "device_count", "local_device_count")


def first_devices(count):
    """JAX seems to have only so many devices."""
    found = jax.devices()[:count]
    answers = {name: (lambda *_: len(found)) if name.endswith("count") else (lambda *_: found) for name in DEVICES}
    return mock.patch.multiple(jax, **answers)


def settings(folder, **changed):
    """A run whose numbers stay near one another, with two epochs whose last batch is smaller."""
    preparation.PolyNet = one_unit
    recipe = Recipe(
        data=str(folder / "data"),
        epochs=2,
        batch_size=8,
        validation_share=0.2,
        optimizer=OptimizerSettings("sgd", ema_momentum=0.5),
        schedule=ScheduleSettings("constant", 0.001, warmup_share=0.0),
        regularization=Regularization(stochastic_depth="on", max_drop_rate=0.5),
    )
    return dataclasses.replace(recipe, **changed)


class Kills(StopOnDivergence):
    """Sends this process a signal before a step of the second epoch."""

    step, signal = 1, signal.SIGKILL

    def on_train_batch_begin(self, batch, logs=None):
        if (self._epoch, batch) == (1, self.step):
            os.kill(os.getpid(), self.signal)


class Stops(Kills):
    step, signal = 2, signal.SIGTERM


def note(folder, name, result):
    card = result.card
    counts = [card.held_out, card.held_out_correct, card.validation, card.validation_correct, card.epoch]
    counts.append(sum(card.training_counts))
    (folder / f"{name}.json").write_text(json.dumps(counts))


def devices(folder):
    for count in (1, 2, 4):
        with first_devices(count):
            note(folder, count, train(settings(folder), folder / str(count), Execution()))
    fitting.StopOnDivergence = Kills
    train(settings(folder), folder / "killed", Execution(save_every_steps=1))


def end(folder):
    note(folder, "killed", train(settings(folder), folder / "killed", Execution(save_every_steps=1)))

    def error_of(call):
        try:
            call()
        except ValueError as error:
            return str(error)

    with opened(settings(folder), Execution()) as (_, strategy):
        model = keras.saving.load_model(folder / "4" / "model.keras")
        images = np.random.default_rng(0).normal(size=(7, 75, 75, 3)).astype("float32")
        predicted, at_once = model.predict(images, batch_size=4, verbose=0), model.predict_on_batch(images)
        used = [strategy.num_replicas_in_sync, len(model.weights[0].value.devices())]
        nothing = tf.data.Dataset.from_tensor_slices((images, np.zeros(7))).batch(4).filter(lambda *_: False)
        empty = error_of(lambda: model.evaluate(nothing, verbose=0))
        used.append(len(model.weights[0].value.devices()))
    alone = keras.saving.load_model(folder / "4" / "model.keras").predict_on_batch(images)
    with opened(settings(folder), Execution("none")) as (_, strategy):
        used.append(strategy)
    taught = Regularization(teacher=str(folder / "1"), teacher_weight=0.5)
    for count in (1, 4):
        with first_devices(count):
            train(settings(folder, epochs=1, regularization=taught), folder / f"taught-{count}", Execution())
    return {
        "apart": float(max(np.abs(predicted - alone).max(), np.abs(at_once - alone).max())),
        "used": used,
        "empty": empty,
        "uneven": error_of(lambda: train(settings(folder, batch_size=6), folder / "uneven", Execution())),
    }


def worker(folder):
    execution = Execution(save_every_steps=1, attempt=int(os.environ["POLYNET_ATTEMPT"]))
    cluster = Cluster.from_environment()
    if not cluster.is_chief:
        fitting.StopOnDivergence = (Kills, Stops, StopOnDivergence)[execution.attempt]
    result = train(settings(folder), folder / "workers", execution)
    if cluster.is_chief:
        note(folder, "workers", result)


if __name__ == "__main__":
    tf.data.Dataset._apply_debug_options = untuned  # as in `on_jax.py`
    found = {"devices": devices, "end": end, "worker": worker}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(found))
