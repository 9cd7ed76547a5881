"""Classes of unequal size: weights in the loss, against NumPy and Keras's own, and classes drawn equally often."""

import dataclasses

import keras
import numpy as np
import pytest

from polynet_keras.data.augmentation import Augmentation
from polynet_keras.data.examples import Source
from polynet_keras.data.pipeline import evaluation_batches, training_batches
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.recipes.regularization import Regularization
from polynet_keras.training.runs.opening import tell_of_data
from polynet_keras.training.runs.preparation import compiled_model, preprocessing_of, training_data
from polynet_keras.training.runs.train import train
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers

COUNTS = (9, 2, 1)
BALANCED = 12 / (3 * np.array(COUNTS))
WEIGHTS = {"class 0": 0.25, "class 2": 7.0}


@pytest.fixture(scope="module")
def source():
    labels = np.repeat(np.arange(3), COUNTS)
    training = examples_of([png(image) for image in random_images(12, 20)], labels)
    held_out = examples_of([png(image) for image in random_images(4, 20, seed=1)], [0, 0, 1, 2])
    return Source(training, held_out)


@pytest.fixture
def opened(monkeypatch, source):
    """Runs take these images, and a few layers."""
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: source)
    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)


def batches_of(recipe, source, count):
    data = training_data(recipe, source, preprocessing_of(recipe, source), Unreadable(), None, 0)
    return list(data.dataset.take(count).as_numpy_iterator())


def numpy_loss(model, images, shares, weights):
    """Mean over the batch of weighted cross-entropies, in float64."""
    predicted = np.float64(model.predict_on_batch(images))
    return np.mean(weights * -np.sum(np.float64(shares) * np.log(predicted), axis=1))


@pytest.mark.parametrize("smoothing", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
@pytest.mark.parametrize(
    ("class_weights", "table"),
    [pytest.param("balanced", BALANCED, marks=pytest.mark.slow), (WEIGHTS, [0.25, 1.0, 7.0])],
)
def test_the_loss_is_weighted_by_class(opened, source, smoothing, class_weights, table):
    """Smoothed labels have the weight of the class that they were made of."""
    recipe = Recipe(batch_size=12, class_weights=class_weights, regularization=Regularization(0.0, smoothing))
    ((images, labels, weights),) = batches_of(recipe, source, 1)
    classes = labels.argmax(1) if smoothing else labels
    assert np.bincount(classes).tolist() == list(COUNTS)
    np.testing.assert_allclose(weights, np.array(table)[classes], rtol=1e-6)
    model = compiled_model(recipe, source, 1)
    shares = np.eye(3)[classes] * (1 - smoothing) + smoothing / 3
    loss = numpy_loss(model, images, shares, np.array(table)[classes])
    tested = model.test_on_batch(images, labels, weights)
    assert tested[0] == pytest.approx(loss, rel=1e-5)
    right = np.mean(model.predict_on_batch(images).argmax(1) == classes)
    assert tested[1] == pytest.approx(right)  # accuracy counts images


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_mixed_image_has_the_mean_weight_of_its_classes(opened, source, smoothing):
    recipe = Recipe(
        batch_size=12,
        class_weights=WEIGHTS,
        augmentation=Augmentation(mixup=1.0),
        regularization=Regularization(0.0, smoothing),
    )
    ((images, labels, weights),) = batches_of(recipe, source, 1)
    shares = (labels - smoothing / 3) / (1 - smoothing)
    assert ((shares > 0.01) & (shares < 0.99)).any()
    expected = shares @ [0.25, 1.0, 7.0]
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    model = compiled_model(recipe, source, 1)
    loss = numpy_loss(model, images, labels, expected)
    assert model.test_on_batch(images, labels, weights)[0] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_training_is_that_of_kerass_class_weight(opened, source, smoothing):
    recipe = Recipe(batch_size=5, class_weights="balanced", regularization=Regularization(0.0, smoothing))
    data = training_data(recipe, source, preprocessing_of(recipe, source), Unreadable(), None, 0)
    plain = data.dataset.map(lambda images, labels, weights: (images, labels))
    ours, kerass = (compiled_model(recipe, source, data.steps) for _ in range(2))
    kerass.set_weights(ours.get_weights())
    arguments = {"steps_per_epoch": data.steps, "epochs": 2, "shuffle": False, "verbose": 0}
    found = ours.fit(data.dataset, **arguments)
    expected = kerass.fit(plain, class_weight=dict(enumerate(BALANCED)), **arguments)
    np.testing.assert_allclose(found.history["loss"], expected.history["loss"], rtol=1e-5)
    for one, other in zip(ours.weights, kerass.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_an_image_that_an_epoch_has_twice_is_augmented_anew(source):
    """Four draws of each class in an epoch of twelve: the only image of the last one is drawn four times."""
    recipe = Recipe()
    batches = training_batches(source.training, preprocessing_of(recipe, source), 12, 3, sampling="balanced")
    images, labels = next(batches.dataset.as_numpy_iterator())
    assert np.bincount(labels).tolist() == [4, 4, 4]
    of_last = images[labels == 2]
    assert len(np.unique(of_last.reshape(4, -1), axis=0)) == 4
    unlabelled = dataclasses.replace(source.training, labels=None)  # as records are
    again = training_batches(unlabelled, preprocessing_of(recipe, source), 12, 3, sampling="balanced")
    np.testing.assert_array_equal(next(again.dataset.as_numpy_iterator())[0], images)
    with pytest.raises(ValueError, match="sampling='twice' must be one of uniform, balanced"):
        training_batches(source.training, preprocessing_of(recipe, source), 12, 3, sampling="twice")


@pytest.mark.slow
def test_a_balanced_run_begins_at_any_step(source):
    recipe = Recipe(batch_size=4, sampling="balanced")
    preprocessing = preprocessing_of(recipe, source)

    def batches(first, count):
        data = training_data(recipe, source, preprocessing, Unreadable(), None, first).dataset
        return list(data.take(count).as_numpy_iterator())

    whole = batches(0, 7)
    for first in (1, 4):  # in an epoch of three steps, and in the second one
        for one, other in zip(batches(first, 7 - first), whole[first:], strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.slow
def test_a_run_tells_of_it(tmp_path, opened, source, caplog):
    recipe = Recipe(epochs=1, batch_size=4, sampling="balanced", class_weights=WEIGHTS)
    with caplog.at_level("INFO", "absl"):
        train(recipe, tmp_path / "run")
        tell_of_data(Recipe(class_weights="balanced"), source, None, False)
    assert "weights of the classes in the loss: class 0 0.25, class 1 1, class 2 7" in caplog.text
    assert "weights of the classes in the loss: class 0 0.4444, class 1 2, class 2 4" in caplog.text
    assert caplog.text.count("class_weights do not name") == 1
    assert "class_weights do not name class 1: they weigh 1" in caplog.text
    assert ModelCard.load(tmp_path / "run").training_counts == COUNTS
    assert Recipe.load(tmp_path / "run" / "recipe.json") == recipe
    # Validation counts every image alike.
    model = keras.saving.load_model(tmp_path / "run" / "model.keras")
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    row = dict(zip(rows[0].split(","), rows[1].split(","), strict=True))
    held_out = evaluation_batches(source.held_out, preprocessing_of(recipe, source), 4).dataset
    images, labels, *_ = next(held_out.as_numpy_iterator())
    assert float(row["val_loss"]) == pytest.approx(numpy_loss(model, images, np.eye(3)[labels], np.ones(4)), rel=1e-4)


def test_weights_of_other_classes_are_refused(tmp_path, opened):
    with pytest.raises(ValueError, match="name the class 'class 9', which is none of the 3 classes of the data"):
        train(Recipe(class_weights={"class 9": 2}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": "balanced", "sampling": "balanced"}, "would make up for unequal classes twice"),
        ({"class_weights": "some"}, "class_weights='some' must be 'balanced', or a weight by the name"),
        ({"class_weights": {"a": -1}}, r"class_weights=\{'a': -1\} must give a class a finite weight"),
        ({"sampling": "equal"}, "sampling='equal' must be one of uniform, balanced"),
        (
            {"sampling": "balanced", "regularization": Regularization(stochastic_depth="adaptive")},
            "stochastic_depth='adaptive' with sampling='balanced'",
        ),
        (
            {
                "class_weights": {"a": 1},
                "regularization": Regularization(stochastic_depth="adaptive", gap_metric="loss"),
            },
            "gap_metric='loss' with class_weights",
        ),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)
