"""Binary cross-entropy of each class, against NumPy in float64, in training, in files and where no logits are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.examples import Source
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.evaluation.outputs import logits_model
from polynet_keras.training.losses import ClasswiseBinaryCrossentropy
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.recipes.schedule import ScheduleSettings
from polynet_keras.training.runs.preparation import compiled_model, held_out_data, preprocessing_of, training_data
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers

WEIGHTS = {"class 0": 0.25, "class 2": 7.0}


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)
    labels = np.repeat(np.arange(3), (9, 2, 1))
    training = examples_of([png(image) for image in random_images(12, 20)], labels)
    return Source(training, examples_of([png(image) for image in random_images(4, 20, seed=1)], [0, 0, 1, 2]))


def numpy_loss(logits, targets, weights=1.0):
    """Mean over batch and classes of log(1 + exp(z)) - y z."""
    logits, targets = np.float64(logits), np.float64(targets)
    return np.mean(weights * np.mean(np.logaddexp(0, logits) - targets * logits, axis=1))


@pytest.mark.parametrize("threshold", [None, 0.2])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_the_mean_over_classes_of_the_logits(seed, threshold):
    """Saturated ones too, of which probabilities would say nothing."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 60, (8, 5)).astype("float32")
    shares = rng.dirichlet(np.full(5, 0.3), 8).astype("float32")
    weights = rng.uniform(0, 3, 8).astype("float32")
    loss = ClasswiseBinaryCrossentropy(threshold)
    variable = tf.Variable(logits)
    with tf.GradientTape() as tape:
        found = loss(shares, keras.activations.softmax(variable), sample_weight=weights)
    targets = shares > threshold if threshold else shares
    assert float(found) == pytest.approx(numpy_loss(logits, targets, weights), rel=1e-5)
    sigmoid = 1 / (1 + np.exp(-np.float64(logits)))
    expected = weights[:, None] * (sigmoid - targets) / 40
    np.testing.assert_allclose(tape.gradient(found, variable), expected, rtol=1e-4, atol=1e-7)


def test_without_logits_no_other_loss_is_taken():
    probabilities = tf.constant([[0.25, 0.75]])
    assert np.isnan(ClasswiseBinaryCrossentropy()(tf.constant([[0.0, 1.0]]), probabilities))


def test_the_softmax_tells_of_one_class_alone():
    """Of independent sigmoids, the probabilities of the classes where exactly one of them is there."""
    logits = np.random.default_rng(3).normal(0, 2, 4)
    there = 1 / (1 + np.exp(-logits))
    alone = np.array([there[k] * np.prod(np.delete(1 - there, k)) for k in range(4)])
    np.testing.assert_allclose(keras.activations.softmax(tf.constant(logits)), alone / alone.sum(), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"regularization": Regularization(label_smoothing=0.2)},
        {"augmentation": Augmentation(mixup=1.0, cutmix=1.0), "target_threshold": 0.2},
        {"augmentation": Augmentation(mixup=1.0), "class_weights": WEIGHTS},
    ],
    ids=["plain", "smoothed", "threshold", "weights"],
)
def test_a_run_trains_with_it(source, settings):
    """A training batch: its loss is NumPy's, and an image counts as right where its larger share is found."""
    recipe = Recipe(batch_size=12, loss="binary", **settings)
    data = training_data(recipe, source, preprocessing_of(recipe, source), Unreadable(), None, 0)
    (batch,) = data.dataset.take(1).as_numpy_iterator()
    model = compiled_model(recipe, source, 1)
    logits, targets = logits_model(model).predict_on_batch(batch[0]), batch[1]
    if recipe.target_threshold:
        assert ((batch[1] > 0.2) & (batch[1] < 0.8)).any()
        targets = targets > 0.2
    loss, accuracy = model.test_on_batch(*batch)
    assert loss == pytest.approx(numpy_loss(logits, targets, *batch[2:]), rel=1e-5)
    assert accuracy == pytest.approx(np.mean(logits.argmax(1) == batch[1].argmax(1)))


@pytest.mark.slow
def test_held_out_images_and_files_have_it_too(source, tmp_path):
    """The model still ends in a softmax; loaded, it has the same loss."""
    keras.utils.set_random_seed(0)
    schedule = ScheduleSettings("constant", 0.01, warmup_share=0.0)
    mixing = Augmentation(mixup=0.2)
    recipe = Recipe(batch_size=4, loss="binary", target_threshold=0.2, augmentation=mixing, schedule=schedule)
    held_out = held_out_data(recipe, source.held_out, preprocessing_of(recipe, source), Unreadable(), None)
    keras.utils.set_random_seed(0)
    model = compiled_model(recipe, source, 1)
    training = training_data(recipe, source, preprocessing_of(recipe, source), Unreadable(), None, 0)
    first = model.fit(training.dataset, steps_per_epoch=3, epochs=20, shuffle=False, verbose=0).history["loss"]
    assert first[-1] < 0.95 * first[0]
    images, labels = next(held_out.as_numpy_iterator())
    np.testing.assert_array_equal(labels, np.eye(3)[[0, 0, 1, 2]])
    found = model.evaluate(held_out, verbose=0)
    assert found[0] == pytest.approx(numpy_loss(logits_model(model).predict_on_batch(images), labels), rel=1e-5)
    probabilities = model.predict_on_batch(images)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.target_threshold == 0.2
    np.testing.assert_allclose(loaded.evaluate(held_out, verbose=0), found, rtol=1e-6)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), probabilities)
