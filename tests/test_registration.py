"""What we can save loads in a new process that has imported `polynet_keras` and nothing else of ours."""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys

import keras
import pytest

import polynet_keras
from polynet_keras.engine.distributed_model import DistributedModel, DistributedTraining
from polynet_keras.engine.network import Network
from polynet_keras.layers import BatchNormalization, ChannelSplit, StochasticResidualScaling
from polynet_keras.training.lamb import Lamb
from polynet_keras.training.learning_rate_factors import SGD, AdamW, LearningRateFactors
from polynet_keras.training.losses import ClasswiseBinaryCrossentropy
from polynet_keras.training.making import Warmup
from polynet_keras.training.optimizers import RMSprop
from tests.reference import few_layers

SAVED = (
    keras.Layer,
    keras.Loss,
    keras.Metric,
    keras.constraints.Constraint,
    keras.initializers.Initializer,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.regularizers.Regularizer,
)
"""What Keras writes into a model's file."""

OBJECTS = [
    BatchNormalization(epsilon=0.5),
    ChannelSplit(sizes=(3, 5)),
    StochasticResidualScaling(scale=0.5),
    RMSprop(1e-3, centered=True),
    SGD(1e-3, momentum=0.9, learning_rate_factors={"stem": 0.5}),
    AdamW(1e-3, weight_decay=0.05),
    Lamb(1e-3, beta_1=0.8),
    Warmup(0.1, 10),
    ClasswiseBinaryCrossentropy(0.2),
    Lamb(1e-3, ratio_decay=0.02),
]

LOAD = """
import json, os, sys
if os.environ["KERAS_BACKEND"] != "tensorflow":
    sys.modules["tensorflow"] = None  # as if it were not installed
import polynet_keras
import keras
folder, *models = sys.argv[1:]
for text in open(folder + "/objects.jsonl"):
    found = keras.saving.serialize_keras_object(keras.saving.deserialize_keras_object(json.loads(text)))
    assert found == json.loads(text), (found, text)
for model in models:
    loaded = keras.saving.load_model(model)
    print(type(loaded).__name__, type(loaded.optimizer).__name__ if loaded.optimizer else None)
"""


def classes_of_the_package():
    for module in pkgutil.walk_packages(polynet_keras.__path__, "polynet_keras."):
        found = vars(importlib.import_module(module.name)).values()
        yield from (c for c in found if inspect.isclass(c) and c.__module__ == module.name)


def test_whatever_a_file_may_name_is_registered():
    saved = {c for c in classes_of_the_package() if issubclass(c, SAVED) and not c.__name__.startswith("_")}
    saved -= {DistributedTraining, LearningRateFactors}  # mixins
    names = {c: keras.saving.get_registered_name(c) for c in saved}
    assert names == {c: f"polynet_keras>{c.__name__}" for c in saved}
    assert saved == {type(one) for one in OBJECTS} | {Network, DistributedModel}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    (folder / "objects.jsonl").write_text(
        "".join(json.dumps(keras.saving.serialize_keras_object(one)) + "\n" for one in OBJECTS)
    )
    net = few_layers()
    inputs = keras.Input((4,))
    small = DistributedModel(inputs, keras.layers.Dense(2)(inputs))
    for name, model, loss in (("net", net, "categorical_crossentropy"), ("small", small, "mse")):
        model.compile(RMSprop(Warmup(0.1, 10)), loss, metrics=["accuracy"])
        model.save(folder / f"{name}.keras")
    return folder


def loaded_by_a_new_process(backend, folder, *models):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, folder, *models],
        env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_new_process_loads_it(folder):
    models = folder / "net.keras", folder / "small.keras"
    assert loaded_by_a_new_process("tensorflow", folder, *models) == ["Network RMSprop", "DistributedModel RMSprop"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_new_process_loads_a_run(backend, folder, digits_run):
    models = folder / "net.keras", folder / "small.keras", digits_run.folder / "model.keras"
    found = loaded_by_a_new_process(backend, folder, *models)
    assert found == ["Network RMSprop", "DistributedModel RMSprop", "Network RMSprop"]
