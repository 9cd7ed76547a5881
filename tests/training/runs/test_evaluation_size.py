"""A run that trains with one size and evaluates with another: everything after the training takes the second one."""

import csv

import numpy as np
import pytest

from polynet_keras import load_model
from polynet_keras.data.examples import Source
from polynet_keras.data.pipeline import evaluation_batches
from polynet_keras.data.unreadable import Unreadable
from polynet_keras.deployment import export, load_exported
from polynet_keras.evaluation import evaluate
from polynet_keras.pretrained import ModelCard
from polynet_keras.training.recipes.recipe import Recipe
from polynet_keras.training.runs.preparation import held_out_data, preprocessing_of, training_data
from polynet_keras.training.runs.train import train
from tests.data.arrays import examples_of, png, random_images
from tests.reference import few_layers

SIZES = {"image_size": 75, "evaluation_size": 99}
TINY = {"structure": "1 x [ir] | 1 x [ir] | 1 x [ir]", "width": 0.05, "batch_size": 6, "epochs": 2}


def part(seed):
    return examples_of([png(image) for image in random_images(12, 110, seed=seed)], np.arange(12) % 3)


@pytest.fixture
def source(monkeypatch):
    found = Source(training=part(0), held_out=part(1), validation=part(2))
    monkeypatch.setattr("polynet_keras.training.runs.opening.open_source", lambda *arguments: found)
    return found


@pytest.mark.slow
def test_training_and_evaluation_have_their_own_protocols(source):
    recipe = Recipe(batch_size=6, **SIZES)
    preprocessing = preprocessing_of(recipe, source)
    assert (preprocessing.image_size, preprocessing.resize_size) == (99, 113)
    plain = Recipe(batch_size=6, image_size=75)
    images = []
    for one in (recipe, plain):
        data = training_data(one, source, preprocessing_of(one, source), Unreadable(), None, 0)
        images.append(next(data.dataset.as_numpy_iterator())[0])
    assert images[0].shape == (6, 75, 75, 3)
    np.testing.assert_array_equal(*images)
    held_out = held_out_data(recipe, source.held_out, preprocessing, Unreadable(), None)
    expected = next(evaluation_batches(source.held_out, preprocessing, 6).dataset.as_numpy_iterator())[0]
    assert expected.shape == (6, 99, 99, 3)
    np.testing.assert_array_equal(next(held_out.as_numpy_iterator())[0], expected)


def check(folder, source):
    """What is saved is of the second size, and counts what the run counted."""
    card, model = ModelCard.load(folder), load_model(folder)
    assert card.preprocessing.image_size == model.preprocessing.image_size == 99
    found = evaluate(model, source.held_out).result
    assert (found.images, found.top1_hits) == (card.held_out, card.held_out_correct)
    chosen = evaluate(model, source.validation).result
    assert (chosen.images, chosen.top1_hits) == (card.validation, card.validation_correct)
    return card, model


@pytest.mark.slow
def test_a_run_is_evaluated_with_the_second_size(source, tmp_path, monkeypatch):
    """The images that choose the epoch, too."""
    monkeypatch.setattr("polynet_keras.training.runs.preparation.PolyNet", few_layers)
    train(Recipe(**TINY, **SIZES), tmp_path / "run")
    check(tmp_path / "run", source)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"remat": "all"}, {"synchronized": True}], ids=["remat", "synchronized"])
def test_a_polynet_takes_both_sizes_and_is_exported_with_the_second(source, tmp_path, settings):
    train(Recipe(**TINY, **SIZES, **settings), tmp_path / "run")
    with open(tmp_path / "run" / "history.csv") as file:
        assert all(np.isfinite(float(row["val_loss"])) for row in csv.DictReader(file))
    _, model = check(tmp_path / "run", source)
    card = export(tmp_path / "run", tmp_path / "exported", "saved_model")
    assert card.preprocessing.image_size == 99
    exported = load_exported(tmp_path / "exported")
    images = next(evaluation_batches(source.held_out, model.preprocessing, 6).dataset.as_numpy_iterator())[0]
    np.testing.assert_allclose(exported.run(images), model.network.predict_on_batch(images), atol=1e-4)
