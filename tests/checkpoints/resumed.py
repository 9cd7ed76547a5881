"""Trainings that are stopped and go on under a distribution strategy; run by `test_restoring.py`.

    python resumed.py mirrored FOLDER        a `DistributedModel` on two logical processors
    python resumed.py multi_worker FOLDER    a `DistributedModel` on the workers of TF_CONFIG, which share the folder
    python resumed.py none FOLDER            one process, until it is told to stop

The last line it prints is JSON: what was found, by name.
"""

import json
import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from polynet_keras.basics.tuning import untuned
from polynet_keras.checkpoints import restoring
from polynet_keras.checkpoints.callback import Checkpoints
from polynet_keras.checkpoints.interruption import Preempted
from polynet_keras.cluster.workers import worker_index
from polynet_keras.engine.distributed_model import DistributedModel
from tests.checkpoints.endings import At, KilledError, kill


def dataset():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)).astype("float32"), rng.integers(0, 3, 40)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def net(model_class, units=8):
    keras.utils.set_random_seed(1)
    x = keras.Input((6,))
    h = keras.layers.Dense(units, activation="relu")(x)
    h = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization()(h))
    model = model_class(x, keras.layers.Dense(3, activation="softmax")(h))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(strategy, folder, *callbacks, model_class=DistributedModel, **options):
    """(history, weights) of ten steps in two epochs, saved every three steps."""
    with strategy.scope():
        model = net(model_class)
    checkpoints = Checkpoints(folder, every_steps=3, **options)
    validation = dataset() if model_class is DistributedModel else None
    history = model.fit(dataset(), epochs=2, validation_data=validation, callbacks=[*callbacks, checkpoints], verbose=0)
    variables = [*model.variables, *model.optimizer.variables]
    return history.history, [variable.numpy().tolist() for variable in variables]


def error_of(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    return None


def mirrored(folder):
    processor = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def run(name, *callbacks):
        return train(strategy, os.path.join(folder, name), *callbacks, model_class=DistributedModel)

    undisturbed = run("undisturbed")
    error_of(KilledError, lambda: run("killed", At(8, kill)))
    return {"replicas": strategy.num_replicas_in_sync, "same": run("killed") == undisturbed}


def multi_worker(folder):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = worker_index(strategy)

    def run(name, *callbacks, **options):
        return train(strategy, os.path.join(folder, name), *callbacks, **options)

    def position():
        checkpoints = Checkpoints(os.path.join(folder, "stopped"), every_steps=1, strategy=strategy)
        return checkpoints.position.global_step

    def terminate():
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    undisturbed = run("undisturbed")
    found = {"index": index}
    found["stopped"] = error_of(Preempted, lambda: run("stopped", At(7, terminate)))
    found["position"] = position()
    found["same"] = run("stopped") == undisturbed
    found["other recipe"] = error_of(ValueError, lambda: run("stopped", fingerprint="other"))
    restoring.WAIT_SECONDS = 0.1
    found["not shared"] = error_of(ValueError, lambda: run("stopped" if index == 0 else "elsewhere"))
    found["folders"] = sorted(os.listdir(folder))
    return found


def none(folder):
    """Checkpoints of 30 MB at every step, with a line for each."""
    model = net(DistributedModel, units=200_000)

    class Lines(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print("step", flush=True)

    model.fit(dataset(), epochs=100, callbacks=[Checkpoints(folder, every_steps=1), Lines()], verbose=0)
    return {}


if __name__ == "__main__":
    # As in the process of the tests: an iterator that is tuned may wait a minute for its end.
    tf.data.Dataset._apply_debug_options = untuned
    tf.config.experimental.enable_op_determinism()
    print(json.dumps({"mirrored": mirrored, "multi_worker": multi_worker, "none": none}[sys.argv[1]](sys.argv[2])))
