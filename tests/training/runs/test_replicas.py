"""What recipes of today ask for, on two replicas and on one: the same batches, losses and weights."""

import pytest

from tests.children import run

TWO_REPLICAS = """
import contextlib
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.examples import Source
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.layers.batch_normalization import synchronize_batch_normalization
from polynet_keras.training.recipes.optimizer import OptimizerSettings
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.runs import preparation
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers

preparation.PolyNet = few_layers
parts = [
    examples_of([png(image) for image in random_images(14, 110, seed=seed)], np.arange(14) % 3) for seed in (0, 1)
]
source = Source(*parts)
# Of 14 images the last batch has two: a pair, of which one replica has nothing.
recipe = Recipe(
    batch_size=12, image_size=75, evaluation_size=99, loss="binary", target_threshold=0.2,
    class_weights={"class 0": 0.5}, schedule=ScheduleSettings("constant", 1e-3, warmup_share=0.0),
    augmentation=Augmentation(policy="trivial_augment_wide", mixup=0.4, cutmix=1.0, repeats=3),
    optimizer=OptimizerSettings("lamb", decay_in_ratio=True),
)
protocol, found = preparation.preprocessing_of(recipe, source), []
for strategy in (None, tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    keras.utils.set_random_seed(0)
    training = preparation.training_data(recipe, source, protocol, Unreadable(), strategy, 0)
    held_out = preparation.held_out_data(recipe, source.held_out, protocol, Unreadable(), strategy)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = preparation.compiled_model(recipe, source, training.steps)
        synchronize_batch_normalization(model)
        model.gradient_dtype = "float32"
    history = model.fit(
        training.dataset, validation_data=held_out, epochs=2, steps_per_epoch=training.steps, shuffle=False, verbose=0
    ).history
    # The bias in front of a normalization has no gradient but rounding, which LAMB makes as large as any.
    weights = [np.array(v) for v in model.weights if "stem_conv1/bias" not in v.path and "moving" not in v.path]
    found.append((history, weights))
for (name, one), two in zip(found[0][0].items(), found[1][0].values(), strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-3, err_msg=name)
assert len(found[0][1]) == 5
for one, two in zip(found[0][1], found[1][1], strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=2e-4)
assert np.isfinite(found[0][0]["loss"]).all()
print("as one")
"""


@pytest.mark.slow
def test_two_replicas_train_and_evaluate_as_one():
    done = run(TWO_REPLICAS, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("as one\n")
